"""The WSGI application: answers requests from the open release."""

import logging
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.resources import files
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from lookalike.choice import Choice
from lookalike.experiment import Experiment
from lookalike.release import conditions
from lookalike.release.arrays import Distances
from lookalike.release.attributes import TYPES, AttributeType
from lookalike.release.category import Category
from lookalike.release.ids import Id, shown
from lookalike.release.neighbours import NotKnown, Searching, nearest, search
from lookalike.release.opened import Release
from lookalike.release.selection import EVERYTHING
from lookalike.serving.answer import (
    JSON,
    NO_STORE,
    NOT_MODIFIED,
    OK,
    TEXT,
    Answer,
    Handler,
    Headers,
    reading,
)
from lookalike.serving.body import MAX_BYTES, Body, parse_body, read_body
from lookalike.serving.browse.handler import Browse
from lookalike.serving.changes import ChangeHandler
from lookalike.serving.errors import (
    BadRequest,
    HttpError,
    MethodNotAllowed,
    NotFound,
    SlimCopy,
    Unavailable,
)
from lookalike.serving.fast_path import fast_body
from lookalike.serving.metrics import RELATED_PATH, route_of
from lookalike.serving.query import DEFAULT_LIMIT, Query, parse_query
from lookalike.serving.related import DEFAULT_RELATED_LIMIT, Related
from lookalike.serving.searches import Searches
from lookalike.serving.selections import Selections, etag_of
from lookalike.serving.settings import MAX_AGE_S, MAX_LIMIT, MAX_PRODUCT_IDS
from lookalike.serving.source import ReleaseSource

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

logger = logging.getLogger(__name__)

_DESCRIBED = ("category_id", "n_items", "n_hidden", "n_rules", "k", "n_trees", "search_k", "recall")
"""What ``/release`` says of a category, as its manifest does."""

HEALTHY: Answer = (OK, [NO_STORE, JSON], b'{"status":"ok"}')


@dataclass(frozen=True)
class AnswerLimits:
    """The largest `limit`, how long a proxy may keep an answer, and the most product ids in the body of
    ``POST /nns``."""

    max_limit: int = MAX_LIMIT.default
    max_age_s: int = MAX_AGE_S.default
    max_product_ids: int = MAX_PRODUCT_IDS.default


class Application:
    """Answers from `source`'s release.

    `changes` accepts changes of products, `browse` serves the page for people, `experiment` assigns the
    patterns of ``/related``, `choice` has the methods for visitors without one, and `searches` bounds
    the time that searches take. `choice_problem` is why there is no choice, though one was wanted.
    `selections` has what requests get that do not say otherwise.
    """

    def __init__(
        self,
        source: ReleaseSource,
        limits: AnswerLimits = AnswerLimits(),
        changes: ChangeHandler | None = None,
        browse: Browse | None = None,
        experiment: Experiment | None = None,
        searches: Searches | None = None,
        choice: Choice | None = None,
        choice_problem: str | None = None,
        selections: Selections | None = None,
    ) -> None:
        self._source = source
        self._choice_problem = choice_problem
        self._changes = changes
        self._metrics = source.metrics
        self._max_limit = limits.max_limit
        self._max_product_ids = limits.max_product_ids
        self._searches = searches or Searches()
        self._selections = selections or Selections()
        self._related = Related(
            experiment or Experiment(), self._searches, limits.max_limit, source.metrics, choice
        )
        # After max-age a proxy asks again, by ETag. While it asks, or while we are down, it may use the
        # answer that it has (RFC 5861).
        caching = (
            f"public, max-age={limits.max_age_s}, stale-while-revalidate=60, stale-if-error=86400"
        )
        self._cache_control = ("Cache-Control", caching)
        self._described = lru_cache(2)(partial(_openapi, limits.max_limit, limits.max_product_ids))
        self._routes: dict[str, dict[str, Handler]] = {
            "/nns": {"GET": self._nns, "HEAD": self._nns, "POST": self._post_nns},
            RELATED_PATH: reading(self._answer_related),
            "/healthz": reading(lambda _: HEALTHY),
            "/readyz": reading(self._readyz),
            "/release": reading(self._release),
            "/metrics": reading(self._metrics_text),
            "/openapi.json": reading(self._openapi),
            **(browse.routes() if browse else {}),
        }

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Answer one request (PEP 3333) with Content-Length and at most one body chunk."""
        started = perf_counter_ns()
        fast = self._fast_nns(environ)
        if fast is not None:
            start_response(OK, fast[0])
            self._metrics.answered_nns(perf_counter_ns() - started)
            return [fast[1]]
        fast = self._fast_related(environ)
        if fast is not None:
            start_response(OK, fast[0])
            self._metrics.answered(RELATED_PATH, OK, perf_counter_ns() - started)
            return [fast[1]]
        status, headers, body = self._answer(environ)
        method = environ["REQUEST_METHOD"]
        route = route_of(method, environ.get("PATH_INFO", ""))
        self._metrics.answered(route, status, perf_counter_ns() - started)
        # A 304 has no body, so neither type nor length.
        if status is NOT_MODIFIED:
            start_response(status, headers)
            return []
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [] if method == "HEAD" else [body]

    def _fast_nns(self, environ: "WSGIEnvironment") -> tuple[Headers, bytes] | None:
        """The answer by the fast path, see `fast_path`; None for requests that it leaves."""
        if (
            environ.get("PATH_INFO") != "/nns"
            or environ["REQUEST_METHOD"] != "GET"
            or "HTTP_IF_NONE_MATCH" in environ
        ):
            return None
        try:
            release = self._source.release
            if release is None:
                return None
            text = environ.get("QUERY_STRING", "")
            found = fast_body(release, text, self._max_limit, self._selections)
            if found is None:
                return None
            etag, body = found
            headers = [
                ("ETag", etag),
                self._cache_control,
                JSON,
                ("Content-Length", str(len(body))),
            ]
            return headers, body
        except Exception:  # the full path meets the same defect, logs and answers it
            return None

    def _fast_related(self, environ: "WSGIEnvironment") -> tuple[Headers, bytes] | None:
        if environ.get("PATH_INFO") != RELATED_PATH or environ["REQUEST_METHOD"] != "GET":
            return None
        release = self._source.release
        if release is None:
            return None
        try:
            if self._selections.defaults(release.manifest) is not EVERYTHING:
                return None
            return self._related.fast_answer(release, environ.get("QUERY_STRING", ""))
        except Exception:  # as above
            return None

    def _answer(self, environ: "WSGIEnvironment") -> Answer:
        try:
            methods = self._routes.get(environ.get("PATH_INFO", ""))
            if methods is None and self._changes:
                methods = self._changes.methods(environ)
            if methods is None:
                raise NotFound
            handler = methods.get(environ["REQUEST_METHOD"])
            if handler is None:
                raise MethodNotAllowed(list(methods))
            return handler(environ)
        except HttpError as error:
            return _error(error, [NO_STORE])
        except NotKnown as error:
            return _error(BadRequest(str(error)), [NO_STORE])
        except Exception:  # a defect must not put a traceback into a shop's page
            route = route_of(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""))
            # No query of another path: a token may have been sent in it.
            query = environ.get("QUERY_STRING") if route == "/nns" else ""
            logger.exception("defect while answering %s %r", route, query)
            return _error(Unavailable("the log has the reason"), [NO_STORE])

    def _nns(self, environ: "WSGIEnvironment") -> Answer:
        release = self._source.served()  # once, so that the whole answer is from one release
        manifest = release.manifest
        try:
            query = parse_query(
                environ.get("QUERY_STRING", ""),
                self._max_limit,
                manifest,
                self._selections.defaults(manifest),
            )
            category = release.categories.get(query.category_id)
            item = category.item_of(query.product_id) if category else None
            if category is None or item is None:
                raise NotFound
        except NotFound as error:
            return (error.status, [self._cache_control, JSON], error.body())
        etag = etag_of(category, query.selection)
        condition = environ.get("HTTP_IF_NONE_MATCH")
        if condition and (etag in condition or condition.strip() == "*"):
            return (NOT_MODIFIED, [("ETag", etag), self._cache_control], b"")
        searching = partial(self._searches.allowed, environ)
        body = _neighbours(category, item, query.product_id, query, searching)
        return (OK, [("ETag", etag), self._cache_control, JSON], body)

    def _answer_related(self, environ: "WSGIEnvironment") -> Answer:
        release = self._source.served()
        return self._related.answer(release, environ, self._selections.defaults(release.manifest))

    def _post_nns(self, environ: "WSGIEnvironment") -> Answer:
        release = self._source.served()
        if environ.get("QUERY_STRING"):
            raise BadRequest("POST takes its parameters in the body, none after the question mark")
        text = read_body(environ, MAX_BYTES)
        manifest = release.manifest
        defaults = self._selections.defaults(manifest)
        body = parse_body(text, self._max_limit, self._max_product_ids, manifest, defaults)
        category = release.categories.get(body.category_id)
        if category is None:
            raise NotFound
        answer = _answer_to(body, category, self._searching_for(environ, body, category))
        return (OK, [("ETag", etag_of(category, body.selection)), NO_STORE, JSON], answer)

    def _searching_for(
        self, environ: "WSGIEnvironment", body: Body, category: Category
    ) -> Searching:
        """Allows the searches for a body; BadRequest if its products take too many."""
        n, most = len(body.product_ids or ()), self._searches.max_per_request
        n_searches = 0

        def searching() -> AbstractContextManager[object]:
            nonlocal n_searches
            n_searches += 1
            if n_searches > most:
                raise BadRequest(
                    f"the conditions take a search for more than {most} of the {n} product_ids: ask "
                    f"for at most {most} product_ids, or for fewer products of each"
                )
            return self._searches.allowed(environ)

        if category.is_beyond(_n_neighbours(body)) and n > most:
            raise BadRequest(
                f"a limit of {body.limit} is beyond the table of category {shown(body.category_id)} "
                f"and {n} product_ids are too many for that: ask for at most {most} product_ids, or "
                f"for a limit of at most {category.entry.k + (not body.exclude_self)}"
            )
        return searching

    def _readyz(self, environ: "WSGIEnvironment") -> Answer:
        state = {
            "status": "ready",
            "release": self._source.served(self._source.problem).manifest.release,
        }
        if self._choice_problem:
            state["choice_problem"] = self._choice_problem
        return (OK, [NO_STORE, JSON], msgspec.json.encode(state))

    def _release(self, environ: "WSGIEnvironment") -> Answer:
        problem = self._source.problem
        release = self._source.served(problem)
        problems = {
            "problem": problem,
            "choice_problem": self._choice_problem,
            "defaults_problem": self._selections.problem(release.manifest),
        }
        body = msgspec.json.encode(_description(release) | problems)
        return (OK, [NO_STORE, JSON], body)

    def _openapi(self, environ: "WSGIEnvironment") -> Answer:
        release = self._source.release
        attributes = release.manifest.known_attributes if release else TYPES
        return self._described(tuple(attributes.items()))

    def _metrics_text(self, environ: "WSGIEnvironment") -> Answer:
        journal = self._changes.status() if self._changes else None
        text = self._metrics.text(self._source.release, journal)
        return (OK, [NO_STORE, TEXT], text.encode())


def _openapi(
    max_limit: int, max_product_ids: int, attributes: tuple[tuple[str, AttributeType], ...]
) -> Answer:
    """The OpenAPI description, with the bounds that this process's settings give and conditions on the
    release's attributes."""
    text = files("lookalike.serving").joinpath("openapi.json").read_bytes()
    described = msgspec.json.decode(text)
    _describe_conditions(described["paths"], conditions.described(dict(attributes)))
    schemas = described["components"]["schemas"]
    for name, default in (("Limit", DEFAULT_LIMIT), ("RelatedLimit", DEFAULT_RELATED_LIMIT)):
        schemas[name] |= {"maximum": max_limit, "default": min(default, max_limit)}
    schemas["Wanted"]["maxItems"] = max_product_ids
    names = "|".join(name for name, _ in attributes)
    schemas["Distinct"]["pattern"] = f"^(photo|({names})(:[1-9][0-9]{{0,2}})?)$"
    return (OK, [("Cache-Control", "no-cache"), JSON], msgspec.json.encode(described))


def _describe_conditions(paths: Any, schemas: Mapping[str, dict[str, Any]]) -> None:
    for path in ("/nns", RELATED_PATH):
        paths[path]["get"]["parameters"] += [
            {"name": name, "in": "query", "required": False, "explode": False, "schema": schema}
            for name, schema in schemas.items()
        ]
    content = paths["/nns"]["post"]["requestBody"]["content"]["application/json"]
    for body in content["schema"]["oneOf"]:
        body["properties"] |= {
            name: schema
            for name, schema in schemas.items()
            if "vector" not in body["properties"] or not name.endswith("__same")
        }


def _error(error: HttpError, headers: Headers) -> Answer:
    return (error.status, [*headers, *error.headers, JSON], error.body())


def _n_neighbours(query: Query | Body) -> int:
    """How many neighbours are asked for: `limit` counts the product itself unless it is excluded."""
    return query.limit - (not query.exclude_self)


def _neighbours(
    category: Category, item: int, product_id: Id, query: Query | Body, searching: Searching
) -> bytes:
    """The body of a 200: the product itself unless excluded, then its neighbours, nearest first."""
    items, distances = nearest(
        category, item, _n_neighbours(query), query.selection, searching, query.distances
    )
    product_ids = category.ids(items)
    if not query.exclude_self:
        product_ids.insert(0, product_id)
        distances = np.concatenate([np.zeros(1, np.float32), distances])
    return _products(product_ids, distances if query.distances else None)


def _answer_to(body: Body, category: Category, searching: Searching) -> bytes:
    """The body of a 200: the vector's neighbours, or each product's, null for an unknown one."""
    if body.vector is not None:
        if category.vectors is None:
            raise SlimCopy(
                "this host holds a slim copy of the release, without the index that a vector "
                "needs; ask a host with a full copy"
            )
        with searching():
            items, distances = search(category, body.vector, body.limit, body.selection)
        return _products(category.ids(items), distances if body.distances else None)
    answers = []
    for product_id in body.product_ids or ():
        item = category.item_of(product_id)
        found = b"null"
        if item is not None:
            found = _neighbours(category, item, product_id, body, searching)
        answers.append(found)
    return b"[%b]" % b",".join(answers)


def _products(product_ids: list[Id], distances: Distances | None) -> bytes:
    if distances is None:
        return msgspec.json.encode(product_ids)
    return msgspec.json.encode({"product_ids": product_ids, "distances": distances.tolist()})


def _description(release: Release) -> dict[str, object]:
    manifest = release.manifest
    return {
        "release": manifest.release,
        "model": manifest.model,
        "n_dims": manifest.n_dims,
        "n_items": manifest.n_items,
        "slim": release.slim,
        "attributes": manifest.known_attributes,
        "categories": [
            {name: getattr(entry, name) for name in _DESCRIBED} for entry in manifest.categories
        ],
    }
