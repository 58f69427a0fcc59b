"""What the app answers when it cannot answer: one small class an outcome, rendered in one place."""

from collections.abc import Sequence

import msgspec


class HttpError(Exception):
    """An answer other than 200 or 304: the status line, the short `error`, perhaps a `detail`.

    `headers` are those that such an answer has besides the usual ones.
    """

    status: str
    error: str
    headers: Sequence[tuple[str, str]] = ()

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail or self.error)
        # A path in it may hold bytes that are not UTF-8, which no answer can.
        self.detail = detail and detail.encode(errors="backslashreplace").decode()

    def body(self) -> bytes:
        """The JSON object that says what was wrong."""
        answer = {"error": self.error}
        if self.detail is not None:
            answer["detail"] = self.detail
        return msgspec.json.encode(answer)


class BadRequest(HttpError):  # noqa: N818
    """The request is malformed; `detail` names the parameter, the value and what it may be."""

    status = "400 Bad Request"
    error = "bad_request"


class Unauthorized(HttpError):  # noqa: N818
    """The token is missing or another one."""

    status = "401 Unauthorized"
    error = "unauthorized"
    headers = (("WWW-Authenticate", "Bearer"),)


class NotFound(HttpError):  # noqa: N818
    """No such path, category, product or change."""

    status = "404 Not Found"
    error = "not_found"


class MethodNotAllowed(HttpError):  # noqa: N818
    """The path exists, the method does not; the header Allow lists those that do."""

    status = "405 Method Not Allowed"
    error = "method_not_allowed"

    def __init__(self, allow: Sequence[str]) -> None:
        super().__init__(f"use {', '.join(allow[:-1])} or {allow[-1]}")
        self.headers = [("Allow", ", ".join(allow))]


class RequestTimeout(HttpError):  # noqa: N818
    """The body does not come, or too slowly. The embedded server alone waits for it in the app."""

    status = "408 Request Timeout"
    error = "request_timeout"


class TooLarge(HttpError):  # noqa: N818
    """The body is larger than any that could be meant."""

    status = "413 Content Too Large"
    error = "too_large"


class TooManyRequests(HttpError):  # noqa: N818
    """There are more searches than are let take a process's time; look-ups go on.

    No 503, after which a proxy asks again at once and takes the host for lost.
    """

    status = "429 Too Many Requests"
    error = "too_many_requests"
    headers = (("Retry-After", "1"),)


class SlimCopy(HttpError):  # noqa: N818
    """A vector is asked for where the copy of the release has no vectors."""

    status = "501 Not Implemented"
    error = "slim_copy"


class NotReady(HttpError):  # noqa: N818
    """No release is open; a new one is taken up at once, a refused one is tried again every 10 s."""

    status = "503 Service Unavailable"
    error = "not_ready"
    headers = (("Retry-After", "10"),)


class Unavailable(HttpError):  # noqa: N818
    """A defect of the app or of a file under it; the log has it.

    The answer asks the client to wait `retry_after_s`: by default a minute, since the same request
    would meet the same defect.
    """

    status = "503 Service Unavailable"
    error = "unavailable"

    def __init__(self, detail: str | None = None, retry_after_s: int = 60) -> None:
        super().__init__(detail)
        self.headers = (("Retry-After", str(retry_after_s)),)
