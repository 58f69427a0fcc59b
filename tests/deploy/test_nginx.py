"""deploy/nginx under a real nginx, before a real server of the app."""

import time
from contextlib import closing
from http.client import HTTPConnection

import pytest

from lookalike.root import ReleaseRoot
from servers import nginx_before, unit

TARGET = "/nns?category_id=1&product_id=100"
BODY = b'{"category_id":1,"product_ids":[100]}'

pytestmark = [pytest.mark.nginx, pytest.mark.unit]


def test_a_process_that_dies_under_a_request_is_not_seen(integer_root: ReleaseRoot) -> None:
    with (
        unit(integer_root) as server,
        nginx_before("{}:{}".format(*server.address)) as front,
        closing(HTTPConnection(front, timeout=10)) as connection,
    ):

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


def test_the_largest_body_taken_reaches_the_app(integer_root: ReleaseRoot) -> None:
    with (
        unit(integer_root) as server,
        nginx_before("{}:{}".format(*server.address)) as front,
        closing(HTTPConnection(front, timeout=10)) as connection,
    ):
        for size, status, said in ((2**21, 400, b"not JSON"), (2**21 + 1, 413, b"too_large")):
            connection.request("POST", "/nns", b" " * size)
            answer = connection.getresponse()
            assert (answer.status, said in answer.read()) == (status, True)
