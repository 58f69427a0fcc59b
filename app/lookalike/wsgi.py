"""What NGINX Unit and the embedded server load: `application`, set up from the environment.

Import never raises: an app that does can take every listener of a Unit down with it
(github.com/nginx/unit issue 367). If the application cannot be made, `application` answers every
request with 503, and the log has the reason.
"""

import logging
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

# Processes share the work; threads inside one answer would only stand in each other's way. NumPy reads
# this when it is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_BODY = b'{"error":"unavailable","detail":"the log has the reason"}'
_HEADERS = [
    ("Cache-Control", "no-store"),
    ("Content-Type", "application/json"),
    ("Retry-After", "60"),
    ("Content-Length", str(len(_BODY))),
]


def unavailable(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    """Answer 503; it needs nothing that may be missing, such as NumPy or Annoy."""
    start_response("503 Service Unavailable", list(_HEADERS))
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [_BODY]


def _make_application() -> "WSGIApplication":
    try:
        from lookalike.serving.log import log_to_stderr

        log_to_stderr()
        from lookalike.serving.assembly import application_from

        return application_from(os.environ)
    except Exception:
        logging.getLogger("lookalike").exception(
            "cannot serve, every request is answered with 503; restart once this is mended"
        )
        return unavailable


application = _make_application()
