"""Simulated visitors of a running shop: they look at products, see related ones, click and buy.

The products are those of a release. As a shop's web tier does, the simulation asks a server for related
products, and the server assigns the pattern. A visitor goes through the products shown in order. The
probability of a click falls with the rank and with the angular distance from the product looked at; a
click leads to the next page. So visitors judge a pattern only by the products that it shows.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from itertools import groupby
from operator import attrgetter
from statistics import fmean
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode, urlsplit

import msgspec
import numpy as np

from lookalike.errors import LookalikeError
from lookalike.experiment import CHOSEN, METHODS, PATTERNS, Method, Pattern
from lookalike.release.arrays import Float64
from lookalike.release.ids import Id
from lookalike.release.opened import Release
from lookalike_build.simulation.visitors import Impressions

RELATED_PATH: Final = "/related"
_TIMEOUT_S = 10.0
_FAVOURITE = 0.7
"""The share of pages reached without a click that are in the visitor's favourite category."""
_UNRELATED = 2**0.5
"""The angular distance of orthogonal features, also used for products unknown to the release."""


class ShopError(LookalikeError):
    """The shop cannot be browsed; the text says why."""


@dataclass(frozen=True)
class Taste:
    """What makes visitors click and buy.

    A visitor who reaches the product of rank i (from 0), at distance d, clicks on it with probability
    appeal · patience^i · exp(-(d / reach)²) and then looks no further. The share `bought` of the
    clicked products is bought.
    """

    appeal: float = 0.05
    patience: float = 0.8
    reach: float = 0.7
    bought: float = 0.35

    def clicks(self, distances: Float64) -> Float64:
        """The probability (n,) of a click on each product shown, from their distances (n,)."""
        wanted = self.appeal * np.exp(-((distances / self.reach) ** 2))
        wanted *= self.patience ** np.arange(distances.size)
        reached = np.cumprod(1 - np.concatenate([[0.0], wanted[:-1]]))
        return np.asarray(wanted * reached)


class Answer(msgspec.Struct):
    """The related products that a server returns, with the pattern and the method."""

    product_ids: list[Id]
    pattern: Pattern
    method: Method


Ask = Callable[[Id, Id, str], Answer]
"""Asks for the products related to one, by its category id and its own, for a visitor."""


@contextmanager
def server(url: str) -> Iterator[Ask]:
    """Ask the server at `url`: http://HOST:PORT, with the path before `/related` if there is one.

    What it gives raises ShopError if there is no answer.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ShopError(f"{url}: must be http://HOST:PORT")
    url = url.rstrip("/")

    def ask(category_id: Id, product_id: Id, visitor: str) -> Answer:
        query = {"product_id": product_id, "category_id": category_id, "visitor": visitor}
        target = f"{parts.path.rstrip('/')}{RELATED_PATH}?{urlencode(query)}"
        try:
            connection.request("GET", target)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, HTTPException) as error:
            raise ShopError(f"{url}: {error or type(error).__name__}") from None
        if answer.status == 200:
            with suppress(ValueError, RecursionError):
                return msgspec.json.decode(body, type=Answer)
        text = body[:100].decode(errors="replace")
        raise ShopError(f"{url}: {target} is answered {answer.status} {text!r}")

    with closing(
        HTTPConnection(parts.hostname, parts.port or 80, timeout=_TIMEOUT_S)
    ) as connection:
        yield ask


class Shelf:
    """The products of an open release, by index in `category_ids`; ShopError if it is slim."""

    def __init__(self, release: Release) -> None:
        if release.slim:
            raise ShopError(
                "the release is a slim copy, without the features that distances are computed from"
            )
        self.category_ids = list(release.categories)
        self._categories = list(release.categories.values())
        self._items = [each.items() for each in self._categories]
        self._id_type = int if release.manifest.product_id_type == "integer" else str
        sizes = np.array([items.size for items in self._items], np.float64)
        self._shares = sizes / sizes.sum()

    def any_category(self, rng: np.random.Generator) -> int:
        """The index of a random category, a larger one more often."""
        return int(rng.choice(self._shares.size, p=self._shares))

    def any_product(self, rng: np.random.Generator, category: int) -> Id:
        """A random product of a category."""
        items = self._items[category]
        return self._categories[category].ids(items[[rng.integers(items.size)]])[0]

    def category_of(self, product_id: Id, preferred: int) -> int | None:
        """The index of a category that has the product: `preferred` if it has, else the first."""
        if not isinstance(product_id, self._id_type):
            return None
        places = preferred, *range(len(self._categories))
        have = (each for each in places if self._categories[each].item_of(product_id) is not None)
        return next(have, None)

    def distances(self, category: int, product_id: Id, others: list[Id]) -> Float64:
        """The angular distances (n,) of a product of a category to n others of any category."""
        looked_at = self._unit_vector(category, product_id)
        distances = np.full(len(others), _UNRELATED)
        for rank, other in enumerate(others):
            found = self.category_of(other, category)
            if found is not None:
                distances[rank] = np.linalg.norm(looked_at - self._unit_vector(found, other))
        return distances

    def _unit_vector(self, category: int, product_id: Id) -> Float64:
        found = self._categories[category]
        item, vectors = found.item_of(product_id), found.vectors
        if item is None or vectors is None:
            raise LookupError(product_id)  # callers ask only for products that are there
        return vectors.unit_vector(item)


class Seen(NamedTuple):
    """One product page: what a visitor saw and did, and the probability of a click."""

    visitor: int
    pattern: Pattern
    method: Method
    category: int
    clicked: bool
    bought: bool
    probability: float


def browse(
    shelf: Shelf, ask: Ask, taste: Taste, rng: np.random.Generator, visitor: int, n_pages: int
) -> Iterator[Seen]:
    """The `n_pages` product pages that a visitor looks at."""
    favourite = shelf.any_category(rng)
    clicked_on: tuple[int, Id] | None = None
    for _ in range(n_pages):
        if clicked_on is None:
            at_home = rng.random() < _FAVOURITE
            category = favourite if at_home else shelf.any_category(rng)
            clicked_on = category, shelf.any_product(rng, category)
        category, product_id = clicked_on
        answer = ask(shelf.category_ids[category], product_id, str(visitor))
        shown = shelf.distances(category, product_id, answer.product_ids)
        bounds = np.cumsum(taste.clicks(shown))
        probability = float(bounds[-1]) if bounds.size else 0.0
        rank = int(np.searchsorted(bounds, rng.random(), side="right"))
        clicked = rank < bounds.size
        bought = clicked and rng.random() < taste.bought
        yield Seen(visitor, answer.pattern, answer.method, category, clicked, bought, probability)
        clicked_on = None
        if clicked:
            chosen = answer.product_ids[rank]
            its_category = shelf.category_of(chosen, category)
            clicked_on = None if its_category is None else (its_category, chosen)


def arrays_of(pages: list[Seen]) -> Impressions:
    """The pages as arrays."""
    visitor, pattern, method, *others, _ = zip(*pages, strict=True)
    patterns = [(*PATTERNS, CHOSEN).index(each) for each in pattern]
    methods = [*map(METHODS.index, method)]
    return Impressions(*map(np.array, (visitor, patterns, methods, *others)))


def truth_of(pages: list[Seen], category_ids: list[Id], taste: Taste) -> dict[str, Any]:
    """The rates that a report estimates, as a JSON document.

    They are the mean probability of a click, and that of a purchase after a click. They follow from the
    visitors' tastes, given the products that they looked at.
    """

    def rates(some: list[Seen]) -> dict[str, Any]:
        clicks = {p: [each.probability for each in some if each.pattern == p] for p in PATTERNS}
        return {p: {"ctr": fmean(its), "cvr": taste.bought} for p, its in clicks.items() if its}

    by_category = attrgetter("category")
    measured = (each for each in pages if each.method != "none" and each.pattern != CHOSEN)
    answered = sorted(measured, key=by_category)
    return {
        "patterns": rates(answered),
        "categories": {
            str(category_ids[category]): rates(list(some))
            for category, some in groupby(answered, by_category)
        },
    }
