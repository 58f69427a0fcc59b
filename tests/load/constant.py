"""The ceiling: a WSGI app that sends the headers of an answer and a constant body."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

BODY = b"[10001,20002,30003,10004,20005,30006,10007,20008,30009,10010,20011,30012]"


def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    """Answer like ``GET /nns?…&limit=12`` without looking anything up."""
    start_response(
        "200 OK",
        [
            ("ETag", '"0123456789abcdef01234567"'),
            (
                "Cache-Control",
                "public, max-age=10, stale-while-revalidate=60, stale-if-error=86400",
            ),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(BODY))),
        ],
    )
    return [BODY]
