"""``GET /related``: related products by the pattern that the visitor is assigned.

    GET /related?product_id=234&category_id=1&visitor=5f0c    → {"product_ids":[1871,…],…}

Pattern A answers with what visitors rated who rated this product (method "behaviour"), pattern B with
similar images (method "image"). If one method finds nothing, the other answers. Body and headers name
both pattern and method, so that an experiment can count them apart. Where a method was chosen for each
category, only visitors held out are assigned a pattern; for the others the pattern is "chosen".
"""

import re
from functools import cache, partial
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import numpy as np

from lookalike.choice import Answering, Choice
from lookalike.experiment import CHOSEN, METHODS, PATTERNS, Experiment, Method, Pattern
from lookalike.release.behaviour import Behaviour
from lookalike.release.conditions import SELECTING
from lookalike.release.ids import Id
from lookalike.release.manifest import Manifest
from lookalike.release.neighbours import nearest, pinned
from lookalike.release.opened import Release
from lookalike.release.selection import EVERYTHING, Selection
from lookalike.serving.answer import JSON, NO_STORE, OK, Answer, Headers
from lookalike.serving.errors import BadRequest
from lookalike.serving.metrics import Metrics
from lookalike.serving.query import (
    required_id,
    split_query,
    typed_count,
    typed_id,
    typed_selection,
)
from lookalike.serving.searches import Searches

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

DEFAULT_RELATED_LIMIT: Final = 12
"""How many products are answered if `limit` is not given, as on the page in Miyake et al. (2017)."""
MAX_EXCLUDED: Final = 50
"""Many more long ids would not fit into the 8 KB that Unit accepts as a request line."""
MAX_VISITOR: Final = 256
PATTERN_HEADER: Final = "X-Lookalike-Pattern"
METHOD_HEADER: Final = "X-Lookalike-Method"

_match = re.compile(
    r"product_id=([0-9]{1,18})&category_id=([0-9]{1,18})"
    r"(?:&visitor=([A-Za-z0-9_-]{1,64}))?(?:&limit=([0-9]{1,9}))?"
).fullmatch


class _Query(NamedTuple):
    """What a request asks for, and what is banned from the answer."""

    product_id: Id
    category_id: Id
    visitor: str | None
    limit: int
    exclude: set[Id]
    selection: Selection
    banned: frozenset[Id] = frozenset()


_PARAMETERS: Final = ("product_id", "category_id", "visitor", "limit", "exclude", *SELECTING)


class Related:
    """Answers from a release by the pattern that `experiment` assigns, and counts the answers.

    Visitors who are assigned none get what `choice` says; without it, similar images. `max_limit`
    bounds `limit`; `searches` bounds the time that searches beyond the table take.
    """

    def __init__(
        self,
        experiment: Experiment,
        searches: Searches,
        max_limit: int,
        metrics: Metrics,
        choice: Choice | None = None,
    ) -> None:
        self._experiment = experiment
        self._chosen = choice.by_id() if choice else {}
        self._default: Answering = choice.default if choice else "image"
        self._searches = searches
        self._metrics = metrics
        self._max_limit = max_limit
        self._headers: dict[tuple[Pattern, Method], Headers] = {
            (pattern, method): [NO_STORE, (PATTERN_HEADER, pattern), (METHOD_HEADER, method), JSON]
            for pattern in (*PATTERNS, CHOSEN)
            for method in METHODS
        }

    def fast_answer(self, release: Release, text: str) -> tuple[Headers, bytes] | None:
        """The answer to most queries, as by `fast_path`; None to leave a query to `answer`."""
        match = _match(text)
        if match is None:
            return None
        product_text, category_text, visitor, limit_text = match.groups()
        limit = int(limit_text) if limit_text else DEFAULT_RELATED_LIMIT
        category_id = int(category_text)
        category = release.categories.get(category_id)
        if category is None or category.integers is None or not 1 <= limit <= self._max_limit:
            return None
        product_id = int(product_text)
        if category.rules is not None and category.rules.concern(product_id):
            return None
        found: list[int] | list[Id] | None = category.integers.neighbours_of(product_id, limit)
        if not found:
            return None
        # Only now that there is an answer: `answer` would draw a random pattern once more.
        pattern = self._experiment.pattern_of(visitor)
        method: Method = "image"
        if release.behaviour is not None and self._first(pattern, category_id) == "behaviour":
            rated = release.behaviour.related(product_id, limit)
            if rated:
                method, found = "behaviour", rated
        self._metrics.related(pattern, method)
        body = _template(pattern, method, len(found)) % tuple(found)
        return [*self._headers[pattern, method], ("Content-Length", str(len(body)))], body

    def answer(
        self, release: Release, environ: "WSGIEnvironment", defaults: Selection = EVERYTHING
    ) -> Answer:
        """The answer to any request; BadRequest names the first invalid parameter."""
        query = _parse(environ.get("QUERY_STRING", ""), self._max_limit, release.manifest, defaults)
        pattern = self._experiment.pattern_of(query.visitor)
        first = self._first(pattern, query.category_id)
        pins, query = _ruled(release, query)
        method: Method
        for method in METHODS[:2] if first == "behaviour" else METHODS[1::-1]:
            if method == "image":
                found = self._similar(environ, release, query)
            elif release.behaviour is not None:
                found = _rated(release, release.behaviour, query)
            else:
                found = []
            if found:
                break
        else:
            method = "none"
        self._metrics.related(pattern, method)
        found = [*pins, *found][: query.limit]
        body = msgspec.json.encode({"product_ids": found, "pattern": pattern, "method": method})
        return (OK, self._headers[pattern, method], body)

    def _first(self, pattern: Pattern, category_id: Id) -> Answering:
        """The method that is asked first."""
        if pattern == CHOSEN:
            return self._chosen.get(category_id, self._default)
        return "behaviour" if pattern == "A" else "image"

    def _similar(self, environ: "WSGIEnvironment", release: Release, query: _Query) -> list[Id]:
        category = release.categories.get(query.category_id)
        item = category.item_of(query.product_id) if category else None
        if category is None or item is None:
            return []
        n = query.limit + len(query.exclude)
        searching = partial(self._searches.allowed, environ)
        items, _ = nearest(category, item, n, query.selection, searching)
        return [found for found in category.ids(items) if found not in query.exclude][: query.limit]


def _ruled(release: Release, query: _Query) -> tuple[list[Id], _Query]:
    """The products that are pinned in the answer, and the query for the others."""
    category = release.categories.get(query.category_id)
    if category is None or category.rules is None:
        return [], query
    n = query.limit + len(query.exclude)
    pins = pinned(category, query.product_id, n, query.selection)
    pins = [one for one in pins if one not in query.exclude]
    banned = category.rules.for_product(query.product_id).bans
    return pins, query._replace(exclude={*query.exclude, *pins}, banned=banned)


def _rated(release: Release, behaviour: Behaviour, query: _Query) -> list[Id]:
    """What others rated, as far as it meets the conditions, wherever that product is."""
    conditions, left_out = query.selection.conditions, query.exclude | query.banned
    if not conditions:
        return behaviour.related(query.product_id, query.limit, left_out)
    listed = behaviour.related(query.product_id, behaviour.entry.n_related, left_out)
    asked = release.find(query.product_id, query.category_id)
    selection = query.selection.resolved(asked and (asked[0].columns, asked[1]))
    met = []
    for product_id in listed:
        place = release.find(product_id, query.category_id)
        if place and selection.of_items(place[0].columns, np.array([place[1]]))[0]:
            met.append(product_id)
            if len(met) == query.limit:
                break
    return met


@cache
def _template(pattern: Pattern, method: Method, n: int) -> bytes:
    numbers = b",".join([b"%d"] * n)
    names = f'"pattern":"{pattern}","method":"{method}"'.encode()
    return b'{"product_ids":[' + numbers + b"]," + names + b"}"


def _parse(text: str, max_limit: int, manifest: Manifest, defaults: Selection) -> _Query:
    excluded: list[str] = []
    attributes = manifest.known_attributes
    values = split_query(text, _PARAMETERS, {"exclude": excluded}, attributes)
    product_id = required_id(values, "product_id", manifest.product_id_type)
    category_id = required_id(values, "category_id", manifest.category_id_type)
    visitor = values.get("visitor")
    if visitor is not None and not 1 <= len(visitor) <= MAX_VISITOR:
        raise BadRequest(f"visitor must have from 1 to {MAX_VISITOR} characters")
    limit = typed_count(values.get("limit"), "limit", DEFAULT_RELATED_LIMIT, max_limit)
    if len(excluded) > MAX_EXCLUDED:
        raise BadRequest(f"exclude may be given {MAX_EXCLUDED} times, not {len(excluded)}")
    exclude = {typed_id(each, "exclude", manifest.product_id_type) for each in excluded}
    selection = typed_selection(values, attributes, defaults)
    return _Query(product_id, category_id, visitor, limit, exclude, selection)
