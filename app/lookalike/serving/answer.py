"""An answer before it is sent, and the parts that many of them share."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

Headers = list[tuple[str, str]]
# Status line, headers but Content-Length, body.
Answer = tuple[str, Headers, bytes]
Handler = Callable[["WSGIEnvironment"], Answer]

OK: Final = "200 OK"
ACCEPTED: Final = "202 Accepted"
NOT_MODIFIED: Final = "304 Not Modified"

NO_STORE: Final = ("Cache-Control", "no-store")
# Without X-Content-Type-Options: browsers take this type for what it says, and each header costs.
JSON: Final = ("Content-Type", "application/json")
TEXT: Final = ("Content-Type", "text/plain; version=0.0.4; charset=utf-8")


def reading(handler: Handler) -> dict[str, Handler]:
    """The methods of a path that is only read."""
    return {"GET": handler, "HEAD": handler}
