"""The exact neighbour table of one category, by brute force.

The metric is Annoy's angular distance, ``sqrt(2 (1 - cos))``, which is the Euclidean distance of the
two features scaled to length 1. Neighbours stand by (distance in float32, item): distances that
float32 cannot tell apart are ties, and the lower item goes first, so a table has one right value.

Two passes make it both fast and exact. A float32 matrix product finds candidates: everything that
the product's worst rounding error leaves possible among the k nearest. Float64 then ranks the few
that are left. The product is of features with the category's mean taken off, which changes no
distance but makes its rounding error a fraction of the distances themselves, however alike all
features of a category are.

The product of two blocks serves the rows of both, so a large category takes half of the full product:
each item keeps the m > k best scores it has met, and whoever's m-th is close enough to its k-th for
rounding to matter (near copies by the hundred) is looked up again among all.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lookalike.release.arrays import Distances, Features, Float64, Items, Positions
from lookalike_build.files.array import scratch_array
from lookalike_build.indexing.unit_vectors import UnitVectors

_BLOCK_BYTES = 64 * 2**20
_EXTRA_SCORES = 28
"""How many more scores than k are kept: seldom do that many lie within rounding of the k-th."""
_UNIT_ROUNDOFF = 2.0**-24
_BLOCK = 4096

Ranked = list[tuple[Items, Distances]]


def exact_neighbours(
    features: Features,
    k: int,
    done: Callable[[int], object] = lambda _: None,
    scratch: Path | None = None,
    spare: int = 0,
) -> tuple[Items, Distances]:
    """The k nearest other items of every item, nearest first, and their angular distances.

    `features` is (n_items, n_dims), finite and nowhere all zero; k + spare is at most n_items - 1,
    and k is 0 only where spare is.
    The answers are uint32 and float32, (n_items, k + spare). Beyond k a row goes on with the next
    nearest as far as they cost nothing, then with the item itself and an infinite distance. `done`
    hears how many more items are finished.

    Of memory it takes some 2 KB an item besides the features and a copy of them; with the folder
    `scratch` the copy is in a file there.
    """
    n, width = len(features), k + spare
    items = np.repeat(np.arange(n, dtype=np.uint32)[:, None], width, axis=1)
    distances = np.full((n, width), np.inf, np.float32)
    if width == 0:
        done(n)
        return items, distances
    directions = UnitVectors.all_of(features)
    needed, copied = _without_surplus_copies(directions, n, width)
    for item, twins in copied:
        items[item], distances[item] = twins, 0.0
    done(len(copied))
    search = _Search(directions, features.shape[1], needed, k, spare, done, scratch)
    for rows, found in search.blocks():
        for row, (nearest, distance) in zip(rows, found, strict=True):
            items[row, : nearest.size], distances[row, : nearest.size] = nearest, distance
    return items, distances


def recall_at_k(exact: npt.ArrayLike, found: npt.ArrayLike) -> float:
    """The share of the items in `exact` that are in `found` too; both one query's items."""
    exact = np.asarray(exact)
    return float(np.isin(exact, found).mean())


def _without_surplus_copies(
    directions: UnitVectors, n: int, width: int
) -> tuple[Positions, list[tuple[int, Items]]]:
    """The items to compare, and those whose lists are copies of themselves only, with these.

    Of equal directions, such as thousands of products with one placeholder photo, only the width + 1
    with the lowest items can be in any list; to compare them all would take forever.
    """
    copies: dict[bytes, list[int]] = {}
    everything = np.arange(n)
    for rows in _chunks(everything):
        for item, direction in zip(rows.tolist(), directions.of(rows), strict=True):
            key = hashlib.blake2b(direction.tobytes(), digest_size=16).digest()
            copies.setdefault(key, []).append(item)
    surplus = [
        (item, np.array(twins[:width], np.uint32))
        for twins in copies.values()
        for item in twins[width + 1 :]
    ]
    return np.delete(everything, [item for item, _ in surplus]), surplus


class _Kept:
    """The m best scores that each of n items has met so far, and whose they are; in no order."""

    def __init__(self, n: int, m: int) -> None:
        self.scores = np.full((n, m), -np.inf, np.float32)
        self.positions = np.zeros((n, m), np.int32)

    def meet(self, rows: slice, scores: Features, first: int) -> None:
        """Let the items `rows` meet those from position `first` on: scores is (rows, theirs)."""
        m = self.scores.shape[1]
        both = np.concatenate([self.scores[rows], scores], axis=1)
        best = np.argpartition(both, -m, axis=1)[:, -m:]
        old = np.take_along_axis(self.positions[rows], np.minimum(best, m - 1), axis=1)
        self.scores[rows] = np.take_along_axis(both, best, axis=1)
        self.positions[rows] = np.where(best < m, old, best - m + first)


class _Search:
    """Finds the k nearest among the items `needed`, for each of them; a position is an index there."""

    def __init__(
        self,
        directions: UnitVectors,
        n_dims: int,
        needed: Positions,
        k: int,
        spare: int,
        done: Callable[[int], object],
        scratch: Path | None,
    ) -> None:
        self._directions = directions
        self._n_dims = n_dims
        self._needed = needed
        self._k = k
        self._width = k + spare
        self._done = done
        self._centred = self._centre(scratch)
        half = np.einsum("ij,ij->i", self._centred, self._centred, dtype=np.float64) / 2
        self._half = half.astype(np.float32)
        lengths = np.sqrt(2 * half)
        # |fl(x·y) - x·y| <= n_dims u |x||y| for any order of summation (Higham 2002, section 3.1);
        # the second term is for the rounding of the centred features and of the halves.
        longest = lengths.max()
        self._error = _UNIT_ROUNDOFF * longest * (n_dims * lengths + 16 * longest)

    def blocks(self) -> Iterator[tuple[Positions, Ranked]]:
        """Items, a block at a time, and their nearest."""
        n, m = len(self._needed), max(self._k + _EXTRA_SCORES, self._width)
        with ThreadPoolExecutor(2) as pool:
            if n <= 8 * m:
                everything = _chunks(np.arange(n), self._step())
                yield from self._in_turn(self._looked_up(pool, everything, self._done))
                return
            kept = self._meet_all(m)
            last = np.partition(kept.scores, m - self._k, axis=1)[:, m - self._k]
            # Whoever's worst kept score may not be among the k best has all candidates kept.
            worst = kept.scores.min(axis=1) + 2 * self._error
            certain = worst < last
            # The squared distance below which all are kept: the score is half of what it falls
            # short of the item's own squared length by.
            within = 2 * (self._half - worst)
            yield from self._in_turn(
                (positions, pool.submit(self._rank_kept, positions, kept, within))
                for positions in _chunks(np.flatnonzero(certain), 256)
            )
            others = _chunks(np.flatnonzero(~certain), self._step())
            yield from self._in_turn(self._looked_up(pool, others, lambda _: None))

    def _step(self) -> int:
        return max(1, _BLOCK_BYTES // (4 * len(self._needed)))

    def _in_turn(
        self, jobs: Iterable[tuple[Positions, Future[Ranked]]]
    ) -> Iterator[tuple[Positions, Ranked]]:
        """The jobs' results in their order, with two more under way."""
        waiting: deque[tuple[Positions, Future[Ranked]]] = deque()
        for job in jobs:
            waiting.append(job)
            if len(waiting) > 2:
                positions, ranked = waiting.popleft()
                yield self._needed[positions], ranked.result()
        for positions, ranked in waiting:
            yield self._needed[positions], ranked.result()

    def _looked_up(
        self, pool: ThreadPoolExecutor, blocks: Iterable[Positions], done: Callable[[int], object]
    ) -> Iterator[tuple[Positions, Future[Ranked]]]:
        """Look the blocks up among all; one block's product runs beside another's ranking."""
        for positions in blocks:
            scores = self._centred[positions] @ self._centred.T
            scores -= self._half
            yield positions, pool.submit(self._rank_all, positions, scores)
            done(len(positions))

    def _meet_all(self, m: int) -> _Kept:
        """Let all items meet, each two blocks by one product; merging runs beside the next."""
        n = len(self._needed)
        kept = _Kept(n, m)
        told = 0
        merges: deque[Future[None]] = deque()
        with ThreadPoolExecutor(1) as merger:
            for one in range(0, n, _BLOCK):
                for other in range(one, n, _BLOCK):
                    rows, columns = slice(one, one + _BLOCK), slice(other, other + _BLOCK)
                    product = self._centred[rows] @ self._centred[columns].T
                    merges.append(merger.submit(self._merge, kept, product, rows, columns))
                    if len(merges) > 2:
                        merges.popleft().result()
                # The first blocks meet the most others: tell the share of the work, in items.
                left = max(0, n - one - _BLOCK) / n
                self._done(round(n * (1 - left * left)) - told)
                told = round(n * (1 - left * left))
            for merge in merges:
                merge.result()
        return kept

    def _merge(self, kept: _Kept, product: Features, rows: slice, columns: slice) -> None:
        if rows == columns:
            np.fill_diagonal(product, -np.inf)  # an item is not its own neighbour
        else:
            scores = np.subtract(product.T, self._half[rows], order="C")
            kept.meet(columns, scores, rows.start)
        kept.meet(rows, product - self._half[columns], columns.start)

    def _centre(self, scratch: Path | None) -> Features:
        """The needed directions less their mean: float32, rounded once."""
        n, n_dims = len(self._needed), self._n_dims
        mean = np.zeros(n_dims)
        for positions in _chunks(np.arange(n)):
            mean += self._directions.of(self._needed[positions]).sum(axis=0) / n
        shape = (n, n_dims)
        centred = scratch_array(scratch, shape) if scratch else np.empty(shape, np.float32)
        for positions in _chunks(np.arange(n)):
            centred[positions] = self._directions.of(self._needed[positions]) - mean
        return centred

    def _rank_all(self, positions: Positions, scores: Features) -> Ranked:
        # The score of an item with itself is not a candidate.
        scores[np.arange(len(positions)), positions] = -np.inf
        last = np.partition(scores, -self._width, axis=1)[:, -self._width]
        least = last - 2 * self._error[positions]
        return [
            self._rank(position, np.flatnonzero(row >= bound))
            for position, row, bound in zip(positions, scores, least, strict=True)
        ]

    def _rank_kept(self, positions: Positions, kept: _Kept, within: Float64) -> Ranked:
        ranked = []
        for position in positions:
            items, distances = self._rank(position, np.sort(kept.positions[position]))
            known = int(np.searchsorted(np.square(distances, dtype=np.float64), within[position]))
            known = max(known, self._k)
            ranked.append((items[:known], distances[:known]))
        return ranked

    def _rank(self, position: int, candidates: Positions) -> tuple[Items, Distances]:
        items = self._needed[candidates]
        distances = self._directions.distances(int(self._needed[position]), items)
        nearest = np.argsort(distances, kind="stable")[: self._width]
        return items[nearest].astype(np.uint32), distances[nearest]


def _chunks(rows: Positions, step: int = 1024) -> Iterator[Positions]:
    for start in range(0, len(rows), step):
        yield rows[start : start + step]
