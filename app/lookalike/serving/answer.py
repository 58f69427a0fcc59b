"""An answer before it is sent, and the parts that many answers share."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

Headers = list[tuple[str, str]]
# Status line, headers without Content-Length, body.
Answer = tuple[str, Headers, bytes]
Handler = Callable[["WSGIEnvironment"], Answer]

OK: Final = "200 OK"
ACCEPTED: Final = "202 Accepted"
NOT_MODIFIED: Final = "304 Not Modified"

NO_STORE: Final = ("Cache-Control", "no-store")
# No X-Content-Type-Options: browsers do not guess for this type, and each header costs time.
JSON: Final = ("Content-Type", "application/json")
TEXT: Final = ("Content-Type", "text/plain; version=0.0.4; charset=utf-8")


def reading(handler: Handler) -> dict[str, Handler]:
    """The methods of a read-only path."""
    return {"GET": handler, "HEAD": handler}
