"""What NGINX Unit and the embedded server load: `application`, with settings from the environment.

Import never raises: that could take down every listener of Unit (github.com/nginx/unit issue 367).
If the application cannot be made, every request is answered with 503, and the log has the reason.
"""

import logging
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

# Requests are spread over processes; threads within one would only compete for the cores. NumPy reads
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
    """Answer 503, without anything that may be missing, such as NumPy or Annoy."""
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
            "cannot serve, every request is answered with 503; fix this, then restart"
        )
        return unavailable


application = _make_application()
