"""Every request of tests/data/bad_requests is refused over HTTP as it is by the app."""

from collections.abc import Iterator
from http.client import HTTPException

import pytest

from bad_requests import Address, BadRequest, all_bad_requests, send
from lookalike.release.root import ReleaseRoot
from servers import Serve

BAD_REQUESTS = all_bad_requests()
HEALTHZ = BadRequest(
    "healthz", "GET", "/healthz", (), b"", 200, b'{"status":"ok"}', "integer", None
)


@pytest.fixture(scope="module")
def servers(
    serve: Serve, integer_root: ReleaseRoot, string_root: ReleaseRoot
) -> Iterator[dict[str, Address]]:
    with serve(integer_root) as integer, serve(string_root) as string:
        yield {"integer": integer.address, "string": string.address}


@pytest.mark.parametrize(
    "bad", [pytest.param(bad, id=bad.name) for bad in BAD_REQUESTS if not bad.wsgi_only]
)
def test_bad_request_is_refused_as_written(servers: dict[str, Address], bad: BadRequest) -> None:
    status, headers, body = send(servers[bad.catalogue], bad)
    assert (status, body.decode()) == (bad.status, bad.expected_body.decode())
    assert headers["content-type"] == "application/json"
    if bad.method != "HEAD":
        assert headers["content-length"] == str(len(body))
    assert headers.get("allow") == bad.allow


@pytest.mark.parametrize(
    "bad", [pytest.param(bad, id=bad.name) for bad in BAD_REQUESTS if bad.wsgi_only]
)
def test_what_the_server_may_refuse_itself_is_no_5xx_and_does_it_no_harm(
    servers: dict[str, Address], bad: BadRequest
) -> None:
    address = servers[bad.catalogue]
    try:
        status, _, _ = send(address, bad)
    except (HTTPException, ConnectionError):
        pass  # closed without an answer
    else:
        assert 400 <= status < 500
    status, _, body = send(address, HEALTHZ)
    assert (status, body) == (200, HEALTHZ.expected_body)
