"""The application behind an ASGI server: what WSGI has of a request, and bodies that do not come."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from lookalike.release.root import ReleaseRoot
from lookalike.serving import asgi
from lookalike.serving.application import Application
from lookalike.serving.changes import ChangeHandler
from lookalike.serving.source import ReleaseSource
from support import TOKEN

TRUSTED = [(b"authorization", f"Bearer {TOKEN}".encode())]
BODY = b'{"category_id":1,"product_ids":[100],"limit":2}'


@pytest.fixture
def app(root: ReleaseRoot) -> asgi.Asgi:
    """The app of a root that takes changes."""
    source = ReleaseSource(root)
    source.look()
    changes = ChangeHandler(root, source, TOKEN, 2**23, 2**30)
    return asgi.Asgi(Application(source, changes=changes))


def ask(
    app: asgi.Asgi,
    method: str,
    target: str,
    pieces: Sequence[bytes] = (),
    length: int | None = None,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> tuple[int, dict[str, str], bytes]:
    """The answer to a request whose body comes in `pieces`, and then no more if it is not complete."""
    path, _, query = target.partition("?")
    n_bytes = sum(map(len, pieces)) if length is None else length
    scope = {
        "type": "http",
        "method": method,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "http_version": "1.1",
        "headers": [(b"content-length", str(n_bytes).encode()), *headers],
    }
    coming, sent = list(pieces), []

    async def receive() -> dict[str, Any]:
        if coming:
            piece = coming.pop(0)
            complete = not coming and length is None
            return {"type": "http.request", "body": piece, "more_body": not complete}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    start, end = sent
    names = {name.decode(): value.decode() for name, value in start["headers"]}
    assert names["content-length"] == str(len(end["body"])) or method == "HEAD"
    return start["status"], names, end["body"]


def test_a_body_is_read_in_whatever_pieces_it_comes(app: asgi.Asgi) -> None:
    for pieces in ([BODY], [BODY[:5], BODY[5:]], [bytes([byte]) for byte in BODY]):
        status, headers, body = ask(app, "POST", "/nns", pieces)
        assert (status, headers["content-type"]) == (200, "application/json")
        assert body.startswith(b"[[100,")


@pytest.mark.parametrize(
    ("method", "path", "target"),
    [
        ("post", "/nns", "/nns"),
        ("put", "/products/{category_id}/{product_id}", "/products/1/100"),
    ],
)
def test_a_body_that_does_not_come_is_408_as_described(
    app: asgi.Asgi, monkeypatch: pytest.MonkeyPatch, method: str, path: str, target: str
) -> None:
    described = json.loads(ask(app, "GET", "/openapi.json")[2])
    response = described["paths"][path][method]["responses"]["408"]
    errors = described["components"]["schemas"]["Error"]["properties"]["error"]["enum"]
    monkeypatch.setattr(asgi, "_BODY_S", 0.01)
    for pieces in ((), (BODY[:5],)):
        status, headers, body = ask(app, method.upper(), target, pieces, len(BODY), headers=TRUSTED)
        assert (status, json.loads(body)["error"]) == (408, "request_timeout")
        assert (headers["connection"], headers["cache-control"]) == ("close", "no-store")
        assert "request_timeout" in errors
        of_the_server = {"connection", "content-length", "content-type"}
        assert set(headers) - of_the_server == {name.lower() for name in response["headers"]}


def test_bodies_that_come_at_once_are_bounded(
    app: asgi.Asgi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi, "_MAX_HELD_BYTES", 20)
    status, headers, _ = ask(app, "POST", "/nns", [BODY])
    assert (status, headers["retry-after"]) == (503, "10")
    assert app._held_bytes == 0


@pytest.mark.parametrize(
    ("method", "target", "length", "closes"),
    [
        ("PUT", "/products/1/2", 2**23 + 1, True),
        ("GET", "/nns?category_id=1&product_id=x", 5, True),
        ("GET", "/nns?category_id=1&product_id=x", 0, False),
        ("GET", "/nns?category_id=1&product_id=100", 5, False),
        ("POST", "/nns", None, False),
    ],
)
def test_who_is_refused_before_the_body_is_read_is_told_that_the_connection_ends(
    app: asgi.Asgi, method: str, target: str, length: int | None, closes: bool
) -> None:
    _, headers, _ = ask(app, method, target, [BODY], length, TRUSTED)
    assert (headers.get("connection") == "close") == closes


def test_what_is_refused_for_another_reason_waits_for_no_body(app: asgi.Asgi) -> None:
    product = "/products/1/100"
    assert ask(app, "PUT", product, length=100)[0] == 401
    assert ask(app, "PUT", f"{product}/x", length=100, headers=TRUSTED)[0] == 400
    assert ask(app, "PUT", product, length=2**40, headers=TRUSTED)[0] == 413
    assert ask(app, "POST", "/nns?x", length=100)[0] == 400
    assert ask(app, "GET", "/nns?category_id=1&product_id=100", length=100)[0] == 200
    assert ask(app, "PUT", product, [b"photo"], headers=TRUSTED)[0] == 202


def test_a_slash_in_an_id_is_told_from_one_between_ids(app: asgi.Asgi) -> None:
    answer = json.loads(ask(app, "DELETE", "/products/1/1%2F2", headers=TRUSTED)[2])
    assert 'not "1/2"' in answer["detail"]


def test_a_header_with_an_underscore_is_not_taken_for_another(app: asgi.Asgi) -> None:
    lie = [(b"content_length", b"1"), (b"authorization_", b"x")]
    assert ask(app, "POST", "/nns", [BODY], headers=lie)[0] == 200
