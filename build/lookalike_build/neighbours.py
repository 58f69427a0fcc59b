"""The exact neighbour table of one category, by brute force.

The metric is Annoy's angular distance, ``sqrt(2 (1 - cos))``, which is the Euclidean distance of the
two features scaled to length 1. Neighbours stand by (distance in float32, item): distances that
float32 cannot tell apart are ties, and the lower item goes first, so a table has one right value.

Two passes make it both fast and exact. One float32 matrix product finds candidates: everything that
the product's worst rounding error leaves possible among the k nearest. Float64 then ranks the few
that are left. The product is of features with the category's mean taken off, which changes no
distance but makes its rounding error a fraction of the distances themselves, however alike all
features of a category are.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from lookalike.release import Distances, Items

_BLOCK_BYTES = 64 * 2**20
_UNIT_ROUNDOFF = 2.0**-24

Matrix32 = npt.NDArray[np.float32]
Matrix64 = npt.NDArray[np.float64]


def exact_neighbours(
    features: Matrix32, k: int, done: Callable[[int], object] = lambda _: None
) -> tuple[Items, Distances]:
    """The k nearest other items of every item, nearest first, and their angular distances.

    `features` is (n_items, n_dims), finite and nowhere all zero; k is from 0 to n_items - 1. The
    answers are uint32 and float32, (n_items, k). `done` hears how many more items are finished.
    """
    n = len(features)
    items = np.empty((n, k), np.uint32)
    distances = np.empty((n, k), np.float32)
    if k == 0:
        done(n)
        return items, distances
    directions = _Directions(features)
    needed, copied = _without_surplus_copies(directions, k)
    search = _Search(directions, needed, k)
    for rows, found in search.blocks():
        for row, (nearest, distance) in zip(rows, found, strict=True):
            items[row], distances[row] = nearest, distance
        done(len(rows))
    for item, twins in copied:
        items[item], distances[item] = twins, 0.0
        done(1)
    return items, distances


def recall_at_k(exact: npt.ArrayLike, found: npt.ArrayLike) -> float:
    """The share of the items in `exact` that are in `found` too; both one query's items."""
    exact = np.asarray(exact)
    return float(np.isin(exact, found).mean())


class _Directions:
    """Features scaled to length 1, in float64, on demand: all at once would take twice the memory.

    The same feature gives the same bits wherever it stands, so copies are at distance 0 exactly.
    """

    def __init__(self, features: Matrix32) -> None:
        self.shape = features.shape
        self._features = features
        self._lengths = np.empty(len(features))
        for rows in _chunks(np.arange(len(features))):
            wide = features[rows].astype(np.float64)
            self._lengths[rows] = np.sqrt(np.einsum("ij,ij->i", wide, wide))

    def of(self, items: npt.NDArray[np.intp]) -> Matrix64:
        """The directions of `items`, (n, n_dims)."""
        return self._features[items] / self._lengths[items, None]


def _without_surplus_copies(
    directions: _Directions, k: int
) -> tuple[npt.NDArray[np.intp], list[tuple[int, Items]]]:
    """The items to compare, and those whose k nearest are copies of themselves, with these.

    Of equal directions, such as thousands of products with one placeholder photo, only the k + 1
    with the lowest items can be in any list; to compare them all would take forever.
    """
    copies: dict[bytes, list[int]] = {}
    everything = np.arange(directions.shape[0])
    for rows in _chunks(everything):
        for item, direction in zip(rows.tolist(), directions.of(rows), strict=True):
            key = hashlib.blake2b(direction.tobytes(), digest_size=16).digest()
            copies.setdefault(key, []).append(item)
    surplus = [
        (item, np.array(twins[:k], np.uint32))
        for twins in copies.values()
        for item in twins[k + 1 :]
    ]
    return np.delete(everything, [item for item, _ in surplus]), surplus


class _Search:
    """Finds the k nearest among the items `needed`, for each of them."""

    def __init__(self, directions: _Directions, needed: npt.NDArray[np.intp], k: int) -> None:
        self._directions = directions
        self._needed = needed
        self._k = k
        self._centred = self._centre()
        self._half = np.einsum("ij,ij->i", self._centred, self._centred, dtype=np.float64) / 2
        lengths = np.sqrt(2 * self._half)
        # |fl(x·y) - x·y| <= n_dims u |x||y| for any order of summation (Higham 2002, section 3.1);
        # the second term is for the rounding of the centred features and of the halves.
        n_dims = directions.shape[1]
        longest = lengths.max()
        self._error = _UNIT_ROUNDOFF * longest * (n_dims * lengths + 16 * longest)

    def blocks(self) -> Iterator[tuple[npt.NDArray[np.intp], list[tuple[Items, Distances]]]]:
        """Items a block and their nearest; one block's product runs beside another's ranking."""
        n = len(self._needed)
        step = max(1, _BLOCK_BYTES // (4 * n))
        half = self._half.astype(np.float32)
        waiting: deque[tuple[npt.NDArray[np.intp], Future[list[tuple[Items, Distances]]]]] = deque()
        with ThreadPoolExecutor(2) as pool:
            for start in range(0, n, step):
                places = np.arange(start, min(start + step, n))
                scores = self._centred[places] @ self._centred.T
                scores -= half
                waiting.append((self._needed[places], pool.submit(self._rank_all, places, scores)))
                if len(waiting) > 2:
                    rows, ranked = waiting.popleft()
                    yield rows, ranked.result()
            for rows, ranked in waiting:
                yield rows, ranked.result()

    def _centre(self) -> Matrix32:
        """The needed directions less their mean: float32, rounded once."""
        n, n_dims = len(self._needed), self._directions.shape[1]
        mean = np.zeros(n_dims)
        for places in _chunks(np.arange(n)):
            mean += self._directions.of(self._needed[places]).sum(axis=0) / n
        centred = np.empty((n, n_dims), np.float32)
        for places in _chunks(np.arange(n)):
            centred[places] = self._directions.of(self._needed[places]) - mean
        return centred

    def _rank_all(
        self, places: npt.NDArray[np.intp], scores: Matrix32
    ) -> list[tuple[Items, Distances]]:
        # The score of an item with itself is not a candidate.
        scores[np.arange(len(places)), places] = -np.inf
        last = np.partition(scores, -self._k, axis=1)[:, -self._k]
        least = last - 2 * self._error[places]
        return [
            self._rank(place, np.flatnonzero(row >= bound))
            for place, row, bound in zip(places, scores, least, strict=True)
        ]

    def _rank(self, place: int, candidates: npt.NDArray[np.intp]) -> tuple[Items, Distances]:
        items = self._needed[candidates]
        away = self._directions.of(items)
        away -= self._directions.of(self._needed[place : place + 1])
        distances = np.sqrt(np.einsum("ij,ij->i", away, away)).astype(np.float32)
        nearest = np.argsort(distances, kind="stable")[: self._k]
        return items[nearest].astype(np.uint32), distances[nearest]


def _chunks(rows: npt.NDArray[np.intp]) -> Iterator[npt.NDArray[np.intp]]:
    for start in range(0, len(rows), 1024):
        yield rows[start : start + 1024]
