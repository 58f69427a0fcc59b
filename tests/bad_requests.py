"""The bad requests kept in tests/data/bad_requests: reading them and sending them over HTTP.

tests/data/bad_requests/README.md describes the files.
"""

import re
import socket
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Final, Literal

FOLDER: Final = Path(__file__).parent / "data" / "bad_requests"
SUFFIX: Final = ".http"
TIMEOUT_S: Final = 10.0

Address = tuple[str, int]
CatalogueName = Literal["integer", "string"]

_STRING_CATALOGUE = "# string catalogue"
_WSGI_ONLY = "# wsgi only: "
_ESCAPE = re.compile(rb"\\x([0-9A-F]{2})")
_SEPARATOR = "\n---\n"


@dataclass(frozen=True)
class BadRequest:
    """One file. Method, target and headers are bytes as latin-1 text, as WSGI has them.

    `wsgi_only` is the reason why an HTTP server may refuse or change the request before the app
    sees it, or None. Over HTTP such a request is sure of a 4xx or a closed connection, no more.
    """

    name: str
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    status: int
    expected_body: bytes
    catalogue: CatalogueName
    wsgi_only: str | None

    @property
    def path(self) -> str:
        """The target up to its question mark, still escaped."""
        return self.target.partition("?")[0]

    @property
    def allow(self) -> str | None:
        """The header Allow of the answer: the methods there are, in a 405."""
        if self.status != 405:
            return None
        return "GET, HEAD, POST" if self.path == "/nns" else "GET, HEAD"


def all_bad_requests() -> list[BadRequest]:
    """Every file of the folder, by name; ValueError names the first that is not as README says."""
    return [_read(path) for path in sorted(FOLDER.glob("*" + SUFFIX))]


def send(address: Address, request: BadRequest) -> tuple[int, dict[str, str], bytes]:
    """Send the request byte for byte, with Host, Connection and Content-Length added.

    Returns status, headers with lower-case names, and body. Raises HTTPException or OSError if the
    server closes the connection without an answer.
    """
    headers = [("Host", "{}:{}".format(*address)), ("Connection", "close"), *request.headers]
    if request.body:
        headers.append(("Content-Length", str(len(request.body))))
    lines = [f"{request.method} {request.target} HTTP/1.1", *map(": ".join, headers), "", ""]
    with socket.create_connection(address, TIMEOUT_S) as connection:
        connection.sendall("\r\n".join(lines).encode("latin-1") + request.body)
        response = HTTPResponse(connection, method=request.method)
        response.begin()
        given = {name.lower(): value for name, value in response.getheaders()}
        return response.status, given, response.read()


def _read(path: Path) -> BadRequest:
    text = path.read_bytes().decode()
    try:
        return _parse(path.stem, text)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def _parse(name: str, text: str) -> BadRequest:
    if "\r" in text or not text.endswith("\n"):
        raise ValueError("lines end in LF, the last one too")
    request, separator, answer = text.partition(_SEPARATOR)
    if not separator:
        raise ValueError("no line --- between request and answer")
    comments = []
    while request.startswith("#"):
        comment, _, request = request.partition("\n")
        comments.append(comment)
    if not request.isascii():
        raise ValueError(r"a byte of the request that is not ASCII is written \xNN")
    head, _, body = request.partition("\n\n")
    line, *fields = (_unescape(line).decode("latin-1") for line in head.split("\n"))
    method, _, target = line.partition(" ")
    status, _, expected = answer.removesuffix("\n").partition("\n")
    return BadRequest(
        name=name,
        method=method,
        target=target,
        headers=tuple(_field(field) for field in fields),
        body=_unescape(body),
        status=int(status),
        expected_body=_unescape(expected),
        catalogue="string" if _STRING_CATALOGUE in comments else "integer",
        wsgi_only=next(
            (c.removeprefix(_WSGI_ONLY) for c in comments if c.startswith(_WSGI_ONLY)), None
        ),
    )


def _field(line: str) -> tuple[str, str]:
    name, separator, value = line.partition(": ")
    if not separator:
        raise ValueError(f"not a header: {line}")
    return name, value


def _unescape(text: str) -> bytes:
    return _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()), text.encode())
