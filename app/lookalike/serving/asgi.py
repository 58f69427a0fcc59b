"""The WSGI application behind the ASGI server of `lookalike serve`: no slow body blocks a process.

Under WSGI the app reads the body, and its process waits: two clients that send nothing stop two
processes. Here the app is first called without the body. It begins to read the body only once
everything else is valid; then it is called again with the body, as soon as that is complete. A body
that is late is a 408.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

from lookalike.serving.answer import JSON, NO_STORE
from lookalike.serving.errors import HttpError, RequestTimeout, Unavailable

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication, WSGIEnvironment

_BODY_S: Final = 10.0
_BYTES_S: Final = 100_000
"""A body may take `_BODY_S` seconds, and one more for each `_BYTES_S` bytes."""
_MAX_HELD_BYTES: Final = 2**28
"""How many bytes of incomplete bodies a process holds."""
_CLOSE: Final = (b"connection", b"close")
"""For refusals before the body has come: what is left of it must not be taken for a request."""

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
_Answer = tuple[int, list[tuple[bytes, bytes]], bytes]


class _BodyWanted(BaseException):
    """The app begins to read a body. Not an Exception: the app would log it as a defect."""


class _Unread:
    def read(self, n: int = -1) -> bytes:
        raise _BodyWanted


class Asgi:
    """The WSGI application `wsgi` as an ASGI 3 application, for requests of type http."""

    def __init__(self, wsgi: "WSGIApplication") -> None:
        self._wsgi = wsgi
        self._held_bytes = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        environ = _environ(scope)
        try:
            status, headers, body = self._call(environ)
            has_body = (
                environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ
            )
            if has_body and status >= HTTPStatus.BAD_REQUEST:
                headers.append(_CLOSE)
        except _BodyWanted:
            try:
                environ["wsgi.input"] = BytesIO(await self._read(environ, receive))
                status, headers, body = self._call(environ)
            except HttpError as error:
                status, body = int(error.status[:3]), error.body()
                length = ("Content-Length", str(len(body)))
                headers = [*_encoded([NO_STORE, *error.headers, JSON, length]), _CLOSE]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _call(self, environ: "WSGIEnvironment") -> _Answer:
        answered: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], _: object = None) -> Any:
            answered.append((status, headers))

        pieces: Iterable[bytes] = self._wsgi(environ, start_response)
        ((status, headers),) = answered
        return int(status[:3]), _encoded(headers), b"".join(pieces)

    async def _read(self, environ: "WSGIEnvironment", receive: Receive) -> bytes:
        """The body, or as much of it as came before the client left."""
        pieces = bytearray()
        patience_s = _BODY_S + int(environ["CONTENT_LENGTH"]) / _BYTES_S
        try:
            async with asyncio.timeout(patience_s):
                more = True
                while more:
                    message = await receive()
                    piece = message.get("body", b"")
                    self._held_bytes += len(piece)
                    pieces += piece
                    if self._held_bytes > _MAX_HELD_BYTES:
                        raise Unavailable("too many bodies come at once", 10)
                    more = message["type"] == "http.request" and message.get("more_body", False)
        except TimeoutError:
            raise RequestTimeout(f"the body did not come within {patience_s:.0f} s") from None
        finally:
            self._held_bytes -= len(pieces)
        return bytes(pieces)


def _encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _environ(scope: Message) -> "WSGIEnvironment":
    """The WSGI environment (PEP 3333) of an ASGI scope."""
    raw: bytes = scope["raw_path"]
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(raw).decode("latin-1"),
        "REQUEST_URI": raw.decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "wsgi.input": _Unread(),
    }
    for name, value in scope["headers"]:
        if b"_" in name:  # in the environment, it could be taken for the header with "-"
            continue
        key = name.decode("latin-1").upper().replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    return environ
