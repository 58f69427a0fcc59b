"""Simulated visitors of a shop that runs: they look at products, are shown related ones, click and buy.

The products are those of a release. What is related to one is asked of a server, as a shop's web tier
asks it, and the server assigns the pattern. A visitor goes through what is shown from the first on,
and clicks with a probability that falls with the place and with the angular distance from the product
looked at; a click leads to the next. So a pattern is worth what it shows, and the visitors know
nothing else of it.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode, urlsplit

import msgspec
import numpy as np

from lookalike.errors import LookalikeError
from lookalike.experiment import METHODS, PATTERNS
from lookalike.release.arrays import Float64
from lookalike.release.ids import Id
from lookalike.release.opened import Release
from lookalike_build.simulation.visitors import Impressions

RELATED_PATH: Final = "/related"
_TIMEOUT_S = 10.0
_FAVOURITE = 0.7
"""How many of the products that a visitor comes to without a click are of its favourite category."""
_UNRELATED = math.sqrt(2)
"""The angular distance of two that have nothing in common, or of one that the release does not know."""


class ShopError(LookalikeError):
    """A shop that cannot be browsed; the text says why."""


@dataclass(frozen=True)
class Taste:
    """What makes visitors click and buy.

    Who comes to the product at place i (from 0), at distance d, clicks on it with the probability
    appeal · patience^i · exp(-(d / reach)²) and then looks no further; of what is clicked, a share
    `bought` is bought.
    """

    appeal: float = 0.05
    patience: float = 0.8
    reach: float = 0.7
    bought: float = 0.35

    def clicks(self, distances: Float64) -> Float64:
        """For products shown at these distances (n,): the probability that each is clicked on (n,)."""
        wanted = self.appeal * np.exp(-((distances / self.reach) ** 2))
        wanted *= self.patience ** np.arange(distances.size)
        come_to = np.cumprod(1 - np.concatenate([[0.0], wanted[:-1]]))
        return np.asarray(wanted * come_to)


class Answer(NamedTuple):
    """What a server says is related, by which pattern and method."""

    product_ids: list[Id]
    pattern: str
    method: str


Ask = Callable[[Id, Id, str], Answer]


class Server:
    """The server at `url` (http://host:port, with a path before `/related` if it has one)."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ShopError(f"{url}: must be http://HOST:PORT")
        self._url = url.rstrip("/")
        self._path = parts.path.rstrip("/") + RELATED_PATH
        self._connection = HTTPConnection(parts.hostname, parts.port or 80, timeout=_TIMEOUT_S)

    def ask(self, category_id: Id, product_id: Id, visitor: str) -> Answer:
        """What is related to a product, for a visitor; ShopError where that is not answered."""
        query = {"product_id": product_id, "category_id": category_id, "visitor": visitor}
        target = f"{self._path}?{urlencode(query)}"
        try:
            self._connection.request("GET", target)
            answer = self._connection.getresponse()
            body = answer.read()
        except (OSError, HTTPException) as error:
            raise ShopError(f"{self._url}: {error or type(error).__name__}") from None
        if answer.status == 200:
            with suppress(ValueError, RecursionError, KeyError, TypeError):
                document = msgspec.json.decode(body)
                found = Answer(document["product_ids"], document["pattern"], document["method"])
                if found.pattern in PATTERNS and found.method in METHODS:
                    return found
        said = body[:100].decode(errors="replace")
        raise ShopError(f"{self._url}: {target} is answered {answer.status} {said!r}")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Shelf:
    """The products of an open release, which must not be slim: `category_ids` and what is in them."""

    def __init__(self, release: Release) -> None:
        if release.slim:
            raise ShopError(
                "the release is a slim copy, which does not know how far products are apart"
            )
        self.category_ids = list(release.categories)
        self._categories = list(release.categories.values())
        self._id_type = int if release.manifest.product_id_type == "integer" else str
        sizes = np.array([each.entry.n_items for each in self._categories], np.float64)
        self._bounds = np.cumsum(sizes / sizes.sum())

    def any_category(self, rng: np.random.Generator) -> int:
        """The place of a category, a larger one more often."""
        place = np.searchsorted(self._bounds, rng.random(), side="right")
        return min(int(place), len(self._categories) - 1)

    def any_product(self, rng: np.random.Generator, category: int) -> Id:
        """A product of the category at a place."""
        found = self._categories[category]
        return found.ids(np.array([rng.integers(found.entry.n_items)], np.uint32))[0]

    def category_of(self, product_id: Id, near: int) -> int | None:
        """The place of a category that has a product, that at `near` before others."""
        if not isinstance(product_id, self._id_type):
            return None
        for place in (near, *range(len(self._categories))):
            if self._categories[place].item_of(product_id) is not None:
                return int(place)
        return None

    def distances(self, category: int, product_id: Id, others: list[Id]) -> Float64:
        """The angular distances (n,) of a product of a category to n others of any."""
        looked_at = self._direction(category, product_id)
        distances = np.full(len(others), _UNRELATED)
        for place, other in enumerate(others):
            found = self.category_of(other, category)
            if found is not None:
                distances[place] = np.linalg.norm(looked_at - self._direction(found, other))
        return distances

    def _direction(self, category: int, product_id: Id) -> Float64:
        found = self._categories[category]
        item, vectors = found.item_of(product_id), found.vectors
        if item is None or vectors is None:
            raise LookupError(product_id)  # nobody asks for what is not there
        return vectors.unit_vector(item)


class Seen(NamedTuple):
    """One product page: what a visitor saw and did, and how probable a click was."""

    visitor: int
    pattern: str
    method: str
    category: int
    clicked: bool
    bought: bool
    probability: float


def browse(
    shelf: Shelf,
    ask: Ask,
    taste: Taste,
    rng: np.random.Generator,
    visitor: int,
    n_pages: int,
) -> Iterator[Seen]:
    """A visitor's way through `n_pages` product pages."""
    favourite = shelf.any_category(rng)
    following: tuple[int, Id] | None = None
    for _ in range(n_pages):
        if following is None:
            at_home = rng.random() < _FAVOURITE
            category = favourite if at_home else shelf.any_category(rng)
            following = category, shelf.any_product(rng, category)
        category, product_id = following
        answer = ask(shelf.category_ids[category], product_id, str(visitor))
        shown = shelf.distances(category, product_id, answer.product_ids)
        bounds = np.cumsum(taste.clicks(shown))
        probability = float(bounds[-1]) if bounds.size else 0.0
        place = int(np.searchsorted(bounds, rng.random(), side="right"))
        clicked = place < bounds.size
        bought = clicked and rng.random() < taste.bought
        yield Seen(visitor, answer.pattern, answer.method, category, clicked, bought, probability)
        following = None
        if clicked:
            chosen = answer.product_ids[place]
            its_category = shelf.category_of(chosen, category)
            following = None if its_category is None else (its_category, chosen)


def impressions_of(pages: list[Seen]) -> Impressions:
    """The pages as arrays."""
    return Impressions(
        np.array([each.visitor for each in pages], np.int64),
        np.array([PATTERNS.index(each.pattern) for each in pages], np.int64),
        np.array([METHODS.index(each.method) for each in pages], np.int64),
        np.array([each.category for each in pages], np.int64),
        np.array([each.clicked for each in pages], np.bool_),
        np.array([each.bought for each in pages], np.bool_),
    )


def truth_of(pages: list[Seen], category_ids: list[Id], taste: Taste) -> dict[str, Any]:
    """What a report estimates, as a JSON document: the mean probability of a click and a purchase.

    It is known because the visitors' tastes are, given which products they came to.
    """

    def rates(some: list[Seen]) -> dict[str, float]:
        ctr = sum(each.probability for each in some) / len(some)
        return {"ctr": ctr, "cvr": ctr * taste.bought}

    def by_pattern(some: list[Seen]) -> dict[str, Any]:
        of = {p: [each for each in some if each.pattern == p] for p in PATTERNS}
        return {pattern: rates(its) for pattern, its in of.items() if its}

    answered = [each for each in pages if each.method != "none"]
    by_category: dict[int, list[Seen]] = {}
    for each in answered:
        by_category.setdefault(each.category, []).append(each)
    return {
        "patterns": by_pattern(answered),
        "categories": {
            str(category_ids[place]): by_pattern(some)
            for place, some in sorted(by_category.items())
        },
    }
