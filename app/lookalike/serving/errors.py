"""Answers that are errors: one small class for each, rendered in one place."""

from collections.abc import Sequence

import msgspec


class HttpError(Exception):
    """An answer other than 200 or 304: status line, short `error`, own headers, perhaps `detail`."""

    status: str
    error: str
    headers: Sequence[tuple[str, str]] = ()

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail or self.error)
        # A path in it may have bytes that are not UTF-8, which JSON cannot hold.
        self.detail = detail and detail.encode(errors="backslashreplace").decode()

    def body(self) -> bytes:
        """The JSON object that says what was wrong."""
        answer = {"error": self.error}
        if self.detail is not None:
            answer["detail"] = self.detail
        return msgspec.json.encode(answer)


class BadRequest(HttpError):  # noqa: N818
    """The request is invalid; `detail` names the parameter, the value and what it may be."""

    status = "400 Bad Request"
    error = "bad_request"


class Unauthorized(HttpError):  # noqa: N818
    """The token is missing or wrong."""

    status = "401 Unauthorized"
    error = "unauthorized"
    headers = (("WWW-Authenticate", "Bearer"),)


class NotFound(HttpError):  # noqa: N818
    """No such path, category, product or change."""

    status = "404 Not Found"
    error = "not_found"


class MethodNotAllowed(HttpError):  # noqa: N818
    """The path does not take this method; the header Allow lists the methods that it takes."""

    status = "405 Method Not Allowed"
    error = "method_not_allowed"

    def __init__(self, allow: Sequence[str]) -> None:
        super().__init__(f"use {', '.join(allow[:-1])} or {allow[-1]}")
        self.headers = [("Allow", ", ".join(allow))]


class RequestTimeout(HttpError):  # noqa: N818
    """The body does not arrive in time. Only the embedded server leaves it to the app to wait."""

    status = "408 Request Timeout"
    error = "request_timeout"


class TooLarge(HttpError):  # noqa: N818
    """The body is larger than the app accepts."""

    status = "413 Content Too Large"
    error = "too_large"


class TooManyRequests(HttpError):  # noqa: N818
    """Searches have used up their part of the process's time; look-ups go on.

    Not a 503: a proxy would ask again at once, and take the host for down.
    """

    status = "429 Too Many Requests"
    error = "too_many_requests"
    headers = (("Retry-After", "1"),)


class SlimCopy(HttpError):  # noqa: N818
    """The request has a vector, and the copy of the release has no index for vectors."""

    status = "501 Not Implemented"
    error = "slim_copy"


class NotReady(HttpError):  # noqa: N818
    """No release is open. A new one is taken up at once; a refused one is tried again every 10 s."""

    status = "503 Service Unavailable"
    error = "not_ready"
    headers = (("Retry-After", "10"),)


class Unavailable(HttpError):  # noqa: N818
    """A defect of the app or of a file that it reads; the log has the reason.

    The client is asked to wait `retry_after_s`, by default a minute: the same request would meet the
    same defect.
    """

    status = "503 Service Unavailable"
    error = "unavailable"

    def __init__(self, detail: str | None = None, retry_after_s: int = 60) -> None:
        super().__init__(detail)
        self.headers = (("Retry-After", str(retry_after_s)),)
