"""Changes of products over HTTP: adds them to the journal and reports what became of each.

    PUT    /products/<category id>/<product id>   the photo as the body
    PATCH  /products/<category id>/<product id>   a JSON object of values by attribute
    DELETE /products/<category id>/<product id>
    GET    /changes/<number>

The client must know the token; if none is set, these paths do not exist. The answer to a change is its
number, sent once the change is on disk. `lookalike-build follow` makes it live.
"""

import hmac
import logging
import re
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from lookalike.journal import (
    DELETE,
    PUT,
    SET,
    Change,
    Journal,
    JournalError,
    JournalFull,
    Outcome,
    State,
    Status,
    read_outcome,
    read_status,
)
from lookalike.release.attributes import AttributeTypes, Value, Values, value_problem
from lookalike.release.ids import Id, shown
from lookalike.release.manifest import Manifest
from lookalike.release.root import ReleaseRoot, RootError
from lookalike.serving.answer import ACCEPTED, JSON, NO_STORE, OK, Answer, Handler, reading
from lookalike.serving.body import read_body
from lookalike.serving.errors import BadRequest, NotFound, Unauthorized, Unavailable
from lookalike.serving.query import decoded, typed_id, unquote
from lookalike.serving.source import ReleaseSource

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

logger = logging.getLogger(__name__)

SEEN_S: Final = 1.0
"""A published release is served by every process within this time; see `source.POLL_S`."""

_PRODUCTS: Final = "/products/"
_CHANGES: Final = "/changes/"
_BUSY_S = 0.25  # look-ups in the same process wait for as long
_RETRY_AFTER_S = 10
"""After an error the next request opens the journal again: it may have been busy or its disk full."""
_NUMBER = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
_NO_PHOTO = re.compile(r"multipart/|application/json", re.IGNORECASE)
_NO_VALUES = re.compile(r"multipart/|image/", re.IGNORECASE)
_MAX_VALUES_BYTES = 2**15


class ChangeHandler:
    """Accepts changes for the release root `root`, with ids of the type that `source`'s release has.

    Without a `token` nobody may change anything. `max_photo_bytes` bounds one photo,
    `max_pending_bytes` the photos of all pending changes together.
    """

    def __init__(
        self,
        root: ReleaseRoot,
        source: ReleaseSource,
        token: str | None,
        max_photo_bytes: int,
        max_pending_bytes: int,
    ) -> None:
        self._root = root
        self._source = source
        self._token = token.encode() if token else None
        self._max_photo_bytes = max_photo_bytes
        self._max_pending_bytes = max_pending_bytes
        self._mutex = threading.Lock()
        self._journal: Journal | None = None
        self._problems: dict[str, str] = {}
        self._products: dict[str, Handler] = {
            "PUT": self._put,
            "PATCH": self._set,
            "DELETE": self._delete,
        }
        self._changes = reading(self._outcome)

    def methods(self, environ: "WSGIEnvironment") -> dict[str, Handler] | None:
        """The handlers of a path by method, None for another path; Unauthorized without the token."""
        path = environ.get("PATH_INFO", "")
        if self._token is None or not path.startswith((_PRODUCTS, _CHANGES)):
            return None
        scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode(errors="replace"), self._token)
        if scheme.lower() != "bearer" or not right:
            raise Unauthorized("send the header `Authorization: Bearer TOKEN` with the right token")
        return self._products if path.startswith(_PRODUCTS) else self._changes

    def status(self) -> Status | None:
        """The journal's status, for metrics; None if there is no journal or it cannot be read."""
        try:
            status = read_status(self._root.journal)
        except JournalError as error:
            self._log("the journal's metrics are missing", error)
            return None
        return status or (None if self._token is None else Status())

    def _put(self, environ: "WSGIEnvironment") -> Answer:
        category_id, product_id = self._ids(environ)
        if _NO_PHOTO.match(environ.get("CONTENT_TYPE") or ""):
            raise BadRequest("the body must be the bytes of the photo file, no form and no JSON")
        photo = read_body(environ, self._max_photo_bytes)
        if not photo:
            raise BadRequest("the body is empty; send the photo with Content-Length")
        return self._add(environ, Change(PUT, category_id, product_id, photo=photo))

    def _set(self, environ: "WSGIEnvironment") -> Answer:
        category_id, product_id = self._ids(environ)
        if _NO_VALUES.match(environ.get("CONTENT_TYPE") or ""):
            raise BadRequest("the body must be a JSON object of attributes, no form and no photo")
        body = read_body(environ, _MAX_VALUES_BYTES)
        values = _values(body, self._manifest().known_attributes)
        return self._add(environ, Change(SET, category_id, product_id, values=values))

    def _delete(self, environ: "WSGIEnvironment") -> Answer:
        category_id, product_id = self._ids(environ)
        if (environ.get("CONTENT_LENGTH") or "0") != "0":
            raise BadRequest("DELETE takes no body: it removes the one product that its path names")
        return self._add(environ, Change(DELETE, category_id, product_id))

    def _add(self, environ: "WSGIEnvironment", change: Change) -> Answer:
        try:
            with self._mutex:
                if self._journal is None:
                    self._journal = Journal(self._root.journal, _BUSY_S)
                journal = self._journal
            (number,) = journal.add([change], most_bytes=self._max_pending_bytes)
        except JournalFull as error:
            self._log("changes of products are not taken until others are settled", error)
            raise Unavailable(
                f"the photos that wait may take {self._max_pending_bytes} bytes together, and this one "
                "would be more; send it again when some of them are live",
                _RETRY_AFTER_S,
            ) from error
        except JournalError as error:
            with self._mutex:  # the next request opens it again
                if self._journal is not None:
                    self._journal.close()
                self._journal = None
            raise self._unavailable("changes of products are not taken", error) from error
        self._problems.clear()
        location = f"{environ.get('SCRIPT_NAME') or ''}{_CHANGES}{number}"
        body = msgspec.json.encode({"change": number, "state": "pending"})
        return (ACCEPTED, [NO_STORE, ("Location", location), JSON], body)

    def _outcome(self, environ: "WSGIEnvironment") -> Answer:
        _refuse_query(environ)
        number = environ["PATH_INFO"].removeprefix(_CHANGES)
        if not _NUMBER.fullmatch(number):
            raise NotFound
        try:  # to read it needs neither the right to write nor room on the disk
            outcome = read_outcome(self._root.journal, int(number))
        except JournalError as error:
            raise self._unavailable("what became of changes cannot be read", error) from error
        if outcome is None:
            raise NotFound
        state = self._state(outcome)
        answer: dict[str, object] = {
            "change": int(number),
            "op": outcome.op,
            "category_id": outcome.category_id,
            "product_id": outcome.product_id,
            "state": state,
            "received_at": datetime.fromtimestamp(outcome.received_at, UTC),
        }
        if state == "live":
            answer["release"] = outcome.release
        elif state == "rejected":
            answer["reason"] = outcome.reason
        return (OK, [NO_STORE, JSON], msgspec.json.encode(answer))

    def _state(self, outcome: Outcome) -> State:
        """The state of a change to report: live only once every process serves it."""
        if outcome.state != "live" or outcome.settled_at is None:
            return outcome.state
        # If the clock was set back, the change was settled in the future: do not wait for that.
        if 0 <= time.time() - outcome.settled_at < SEEN_S:
            return "pending"
        return "live" if self._has_seen(outcome.release or "") else "pending"

    def _has_seen(self, name: str) -> bool:
        """Whether this process has taken up the release `name`, or is not going to.

        After `lookalike rollback` an older release is current. The change did become live, so there is
        nothing to wait for; `/release` says what is served now.
        """
        release = self._source.release
        if release is None:
            return False
        served = release.manifest.release
        try:
            return served >= name or served == self._root.current()
        except RootError:
            return False

    def _ids(self, environ: "WSGIEnvironment") -> tuple[Id, Id]:
        _refuse_query(environ)
        manifest = self._manifest()
        ids = _split(environ)
        if len(ids) != 2:
            raise BadRequest(
                'the path must be /products/CATEGORY_ID/PRODUCT_ID; in an id write %2F for "/"'
            )
        return (
            typed_id(ids[0], "category_id", manifest.category_id_type),
            typed_id(ids[1], "product_id", manifest.product_id_type),
        )

    def _manifest(self) -> Manifest:
        reason = "no release is open, which says what ids and attributes there are"
        return self._source.served(reason).manifest

    def _unavailable(self, problem: str, error: JournalError) -> Unavailable:
        self._log(problem, error)
        return Unavailable("the journal of changes; the log has the reason", _RETRY_AFTER_S)

    def _log(self, problem: str, error: JournalError) -> None:
        """Log a problem once, not at every request."""
        cause = type(error).__name__ if isinstance(error, JournalFull) else str(error)
        if self._problems.get(problem) != cause:
            logger.error("%s: %s", problem, error)
        self._problems[problem] = cause


def _refuse_query(environ: "WSGIEnvironment") -> None:
    if environ.get("QUERY_STRING"):
        raise BadRequest("this path takes no parameters, none after the question mark")


def _values(text: bytes, types: AttributeTypes) -> Values:
    """The values in a body, numbers as floats; BadRequest names the first that is invalid."""
    if not text:
        raise BadRequest("the body is empty; send a JSON object with Content-Length")
    try:
        given = msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON in UTF-8: {error}") from None
    if not isinstance(given, dict) or not given:
        raise BadRequest(
            f"the body must be a JSON object of at least one attribute, not {shown(given)}"
        )
    values: dict[str, Value | None] = {}
    for name, value in given.items():
        if name not in types:
            raise BadRequest(f"unknown attribute {shown(name)}; known are {', '.join(types)}")
        if value is not None and (problem := value_problem(value, types[name])):
            raise BadRequest(f"{name} {problem}; null is a missing value")
        values[name] = float(value) if types[name] == "number" and value is not None else value
    return values


def _split(environ: "WSGIEnvironment") -> list[str]:
    """The parts of the path between the slashes after ``/products/``, decoded.

    Taken from the path as it was sent, if the server gives it: in PATH_INFO a ``%2F`` has become a
    slash.
    """
    prefix = (environ.get("SCRIPT_NAME") or "") + _PRODUCTS
    sent = re.split("[?#]", environ.get("REQUEST_URI") or "")[0]
    if sent.startswith(prefix):
        return [unquote(part, "the path") for part in sent.removeprefix(prefix).split("/")]
    path = environ["PATH_INFO"].removeprefix(_PRODUCTS)
    return [decoded(part, "the path") for part in path.split("/")]
