"""deploy/nginx under a real nginx, before a real server of the app."""

import time
from http.client import HTTPConnection

import pytest

from lookalike.root import ReleaseRoot
from servers import Serve, embedded, nginx_before, unit

TARGET = "/nns?category_id=1&product_id=100"
BODY = b'{"category_id":1,"product_ids":[100]}'

pytestmark = pytest.mark.nginx


@pytest.mark.parametrize("serve", [embedded, pytest.param(unit, marks=pytest.mark.unit)])
def test_a_process_that_dies_under_a_request_is_not_seen(
    serve: Serve, integer_root: ReleaseRoot
) -> None:
    with serve(integer_root) as server, nginx_before("{}:{}".format(*server.address)) as front:
        connection = HTTPConnection(front, timeout=10)

        def ask(method: str, target: str, body: bytes | None = None) -> bytes:
            connection.request(method, target, body)
            answer = connection.getresponse()
            assert answer.status == 200
            return answer.read()

        right = ask("GET", TARGET)
        assert right == server.get(TARGET)[2]
        for _ in range(3):
            server.kill(min(server.workers()))
            until = time.monotonic() + 10
            asked = 0
            while asked < 100 or len(server.workers()) < 2:
                assert ask("GET", TARGET) == right
                assert ask("POST", "/nns", BODY) == b"[" + right + b"]"
                asked += 1
                assert time.monotonic() < until
        connection.close()
