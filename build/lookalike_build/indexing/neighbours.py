"""The exact neighbour table of one category, by brute force.

The metric is Annoy's angular distance, ``sqrt(2 (1 - cos))``, which is the Euclidean distance of the
two features scaled to length 1. Neighbours stand by (distance in float32, item): distances that
float32 cannot tell apart are ties, and the lower item goes first, so a table has one right value. A
distance is what `UnitVectors.distances` gives, right to some 0.0000005, and the same from either end
and in any company.

Two passes make it both fast and exact. A float32 matrix product finds candidates: everything that
may be among the k nearest in spite of the worst rounding errors. Only for these few are distances
computed. The product is of unit vectors less the category's mean, which changes no distance but
makes the rounding error a fraction of the distances, however alike the features of a category are.

The score of y for x is ``x·y - |y|²/2``, which is ``(|x|² - |x - y|²)/2``: the higher, the nearer.

The product of two blocks serves the rows of both, so a large category takes half of the full product:
each item keeps the m > k best scores it has met. Where rounding may have kept the wrong ones (near
copies by the hundred), the item is compared with all others once more.

Hidden items are in no list but have lists of their own. They are compared with all visible items, which
meet only one another.
"""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

import numpy as np

from lookalike.release.arrays import (
    Distances,
    Features,
    Flags,
    Float32,
    Float64,
    Items,
    Positions,
)
from lookalike_build.files.array import scratch_array
from lookalike_build.indexing.under_way import in_turn
from lookalike_build.indexing.unit_vectors import OFF, RELATIVELY_OFF, UNIT_ROUNDOFF, UnitVectors

_BLOCK_BYTES = 64 * 2**20
_EXTRA_SCORES = 28
"""How many scores beyond k are kept: seldom are that many within rounding of the k-th."""
_BLOCK, _STRIP = 4096, 64
"""Rows whose product is made at once, and those that are looked at while in the CPU's cache."""
_FIRST_MET = 2048
"""How many of the first scores that an item meets say what is worth keeping."""

Ranked = tuple[Positions, list[tuple[Items, Distances]]]
"""Items and, of each, its nearest others and their distances."""


def exact_neighbours(
    features: Features,
    k: int,
    done: Callable[[int], object] = lambda _: None,
    scratch: Path | None = None,
    spare: int = 0,
    hidden: Flags | None = None,
) -> tuple[Items, Distances]:
    """The k nearest other visible items of every item, nearest first, and their angular distances.

    `features` is (n_items, n_dims), finite and nowhere all zero, and `hidden` (n_items,) says which
    items are in no list; k + spare is less than the number of the others, and k is 0 only where spare
    is. The answers are uint32 and float32, (n_items, k + spare). Beyond k a row goes on with the next
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
    unit_vectors = UnitVectors.all_of(features)
    hidden = np.zeros(n, np.bool_) if hidden is None else hidden
    needed, copied = _without_surplus_copies(unit_vectors, np.flatnonzero(~hidden), width)
    for item, twins in copied:
        items[item], distances[item] = twins, 0.0
    done(len(copied))
    shape = (needed.size, features.shape[1])
    centred = scratch_array(scratch, shape) if scratch else np.empty(shape, np.float32)
    mean = _centre(unit_vectors, needed, centred)
    search = _Search(unit_vectors, needed, centred, mean, k, spare, done)
    for rows, found in search.blocks(np.flatnonzero(hidden)):
        for row, (nearest, distance) in zip(rows, found, strict=True):
            items[row, : nearest.size], distances[row, : nearest.size] = nearest, distance
    return items, distances


def _without_surplus_copies(
    unit_vectors: UnitVectors, items: Positions, width: int
) -> tuple[Positions, list[tuple[int, Items]]]:
    """Those of `items` to compare, and the others with their lists, which hold copies of them only.

    Of equal vectors, such as thousands of products with one placeholder photo, only the width + 1 with
    the lowest items can be in any list; to compare them all would take forever.
    """
    copies: dict[bytes, list[int]] = {}
    for rows in _chunks(items):
        for item, vector in zip(rows.tolist(), unit_vectors.rounded(rows), strict=True):
            key = hashlib.blake2b(vector.tobytes(), digest_size=16).digest()
            copies.setdefault(key, []).append(item)
    surplus = [
        (item, np.array(twins[:width], np.uint32))
        for twins in copies.values()
        for item in twins[width + 1 :]
    ]
    return np.setdiff1d(items, [item for item, _ in surplus]), surplus


def _centre(unit_vectors: UnitVectors, rows: Positions, into: Features) -> Float64:
    """Write the unit vectors of `rows` less their mean (n_dims,), which is returned, rounded once,
    into an array (n, n_dims)."""
    n, n_dims = into.shape
    mean = np.zeros(n_dims)
    for positions in _chunks(np.arange(n)):
        mean += unit_vectors.of(rows[positions]).sum(axis=0) / n
    for positions in _chunks(np.arange(n)):
        into[positions] = unit_vectors.of(rows[positions]) - mean
    return mean


class _Kept:
    """The m best scores that each of n items has met so far, and whose they are; in no order."""

    def __init__(self, n: int, m: int) -> None:
        self.scores = np.full((n, m), -np.inf, np.float32)
        self.positions = np.zeros((n, m), np.int32)

    def bounds(self, items: slice, first: Callable[[], Float32]) -> Float32:
        """What a score must be above to be kept by each of `items`.

        Where they have met nobody yet, the `first` scores tell, (items, others) of some that they meet.
        """
        worst: Float32 = self.scores[items].min(axis=1)
        m = self.scores.shape[1]
        if np.isneginf(worst).all() and m < (scores := first()).shape[1]:
            best: Float32 = np.partition(scores, -m, axis=1)[:, -m]
            return np.asarray(np.nextafter(best, np.float32(-np.inf)))
        return worst

    def meet(self, items: slice, own: Positions, others: Positions, scores: Float32) -> None:
        """Let `items` meet others: the item at `own` (n,) of the slice, ascending, that at position
        `others` (n,), at `scores` (n,).

        Example: of three items, the first meets two and the last one. These become rows of a table two
        wide, [a b], [. .] and [c .], beside what was kept; the dots are infinitely bad.
        """
        kept, m = self.scores[items], self.scores.shape[1]
        n_met = np.bincount(own, minlength=len(kept))
        column = np.arange(own.size) - np.repeat(np.cumsum(n_met) - n_met, n_met)
        shape = n_met.size, int(n_met.max(initial=0))
        met_scores, met = np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int32)
        met_scores[own, column], met[own, column] = scores, others
        all_scores = np.concatenate([kept, met_scores], axis=1)
        positions = np.concatenate([self.positions[items], met], axis=1)
        best = np.argpartition(all_scores, -m, axis=1)[:, -m:]
        self.scores[items] = np.take_along_axis(all_scores, best, axis=1)
        self.positions[items] = np.take_along_axis(positions, best, axis=1)


def _above(product: Float32, less: Float32, bound: Float32) -> tuple[Positions, Positions, Float32]:
    """The rows and columns where product - less is above the bound, and what it is there, row by row.

    `less` and `bound` are broadcast to the product's shape.
    """
    n_columns = product.shape[1]
    less, bound = (np.broadcast_to(one, product.shape) for one in (less, bound))
    room, is_above = (np.empty((_STRIP, n_columns), dtype) for dtype in (np.float32, np.bool_))
    found, values = [], []
    for first in range(0, len(product), _STRIP):
        strip = slice(first, first + _STRIP)
        n = len(product[strip])
        scores = np.subtract(product[strip], less[strip], out=room[:n])
        places = np.flatnonzero(np.greater(scores, bound[strip], out=is_above[:n]))
        found.append(first * n_columns + places)
        values.append(scores.reshape(-1)[places])
    rows, columns = np.divmod(np.concatenate(found), n_columns)
    return rows, columns, np.concatenate(values)


class _Search:
    """Finds the k nearest among the items `needed`, for each of them; a position is an index there.

    `centred` (n, n_dims) are their unit vectors less the `mean`.
    """

    def __init__(
        self,
        unit_vectors: UnitVectors,
        needed: Positions,
        centred: Features,
        mean: Float64,
        k: int,
        spare: int,
        done: Callable[[int], object],
    ) -> None:
        self._unit_vectors = unit_vectors
        self._needed = needed
        self._centred = centred
        self._mean = mean
        self._k = k
        self._width = k + spare
        self._n_kept = max(k + _EXTRA_SCORES, self._width)
        self._done = done
        half = _half_squares(centred)
        self._half = half.astype(np.float32)
        lengths = np.sqrt(2 * half)
        self._longest = lengths.max()
        self._error = self._errors(lengths)

    def _errors(self, lengths: Float64) -> Float64:
        """By how much the scores may be off for centred vectors of such lengths (n,).

        For any order of summation |fl(x·y) - x·y| <= n_dims u |x||y| (Higham 2002, section 3.1). The
        second term is for the rounding of the centred vectors and of the halves, the others for that
        of distances: no two items are further apart than 2 * longest.
        """
        longest = np.maximum(lengths, self._longest)
        error = longest * UNIT_ROUNDOFF * (self._centred.shape[1] * lengths + 16 * longest)
        return np.asarray(error + 2 * longest * (OFF + 2 * longest * RELATIVELY_OFF))

    def blocks(self, others: Positions) -> Iterator[Ranked]:
        """All items needed and the `others` (n,), a block at a time, and their nearest."""
        n = len(self._needed)
        with ThreadPoolExecutor(2) as pool:
            if n <= 8 * self._n_kept:
                yield from in_turn(self._looked_up(pool, np.arange(n), self._done))
                yield from in_turn(self._others_looked_up(pool, others))
            else:
                yield from in_turn(self._by_halves(pool, others))

    def _by_halves(self, pool: ThreadPoolExecutor, others: Positions) -> Iterator[Future[Ranked]]:
        """Rank the scores that each item kept; look up among all where these may be the wrong ones.

        What was not kept measures at most the worst kept score, so its true score is at most that plus
        the error; that of the k-th best is at least what it measures less the error. If the worst plus
        both errors, `beyond`, is still below the k-th best, the k nearest have all been kept. So has
        everything nearer than `within`, the squared distance at which the score is `beyond`.

        Example: k is 1, two scores are kept, the error is 0.01, and half of the item's squared length
        is 0.50. Of kept scores 0.40 and 0.30, `beyond` is 0.32: the best is certain. The other one is
        not within 2 * (0.50 - 0.32) = 0.36, for its squared distance is 0.40; another item whose score
        measures 0.295 may be nearer. Of kept scores 0.40 and 0.39, `beyond` is 0.41: any of three
        may be nearest, so the item is looked up.
        """
        kept = self._meet_all()
        nth = self._n_kept - self._k
        kth_best = np.partition(kept.scores, nth, axis=1)[:, nth]
        beyond = kept.scores.min(axis=1) + 2 * self._error
        certain = beyond < kth_best
        within = 2 * (self._half - beyond)
        # These first: what they are compared with is overwritten by `_scaled`.
        yield from self._looked_up(pool, np.flatnonzero(~certain), lambda _: None)
        yield from self._others_looked_up(pool, others)
        unit_vectors = self._scaled()
        for positions in _chunks(np.flatnonzero(certain), 256):
            yield pool.submit(self._rank_kept, positions, kept, within, unit_vectors)

    def _scaled(self) -> UnitVectors:
        """The unit vectors by position, in place of the centred ones, which all have met."""
        for positions in _chunks(np.arange(len(self._needed))):
            self._centred[positions] = self._unit_vectors.rounded(self._needed[positions])
        return UnitVectors((self._centred,), None)

    def _looked_up(
        self, pool: ThreadPoolExecutor, positions: Positions, done: Callable[[int], object]
    ) -> Iterator[Future[Ranked]]:
        """Compare items with all, a block at a time: one's product runs beside another's ranking."""
        for block in _chunks(positions, self._at_once):
            scores = self._scores(self._centred[block])
            # The score of an item with itself is not a candidate.
            scores[np.arange(len(block)), block] = -np.inf
            yield pool.submit(self._rank_all, self._needed[block], scores, self._error[block])
            done(len(block))

    def _others_looked_up(
        self, pool: ThreadPoolExecutor, items: Positions
    ) -> Iterator[Future[Ranked]]:
        """The same for items that are not `needed`."""
        for block in _chunks(items, self._at_once):
            centred = (self._unit_vectors.of(block) - self._mean).astype(np.float32)
            errors = self._errors(np.sqrt(2 * _half_squares(centred)))
            yield pool.submit(self._rank_all, block, self._scores(centred), errors)
            self._done(len(block))

    @property
    def _at_once(self) -> int:
        """How many items are compared with all at once."""
        return max(1, _BLOCK_BYTES // (4 * len(self._needed)))

    def _scores(self, centred: Features) -> Features:
        """The scores (n, n_needed) of all for centred vectors (n, n_dims)."""
        scores: Features = centred @ self._centred.T
        scores -= self._half
        return scores

    def _meet_all(self) -> _Kept:
        """Let all items meet, each two blocks by one product; merging runs beside the next."""
        kept = _Kept(len(self._needed), self._n_kept)
        with ThreadPoolExecutor(1) as merger:
            for _ in in_turn(self._merges(merger, kept)):
                pass
        return kept

    def _merges(self, pool: ThreadPoolExecutor, kept: _Kept) -> Iterator[Future[None]]:
        n, reported = len(self._needed), 0
        # Two merges are under way as the next product is made.
        rooms = cycle(np.empty((3, min(n, _BLOCK) ** 2), np.float32))
        for one in range(0, n, _BLOCK):
            for other in range(one, n, _BLOCK):
                rows, columns = slice(one, one + _BLOCK), slice(other, other + _BLOCK)
                ours, theirs = self._centred[rows], self._centred[columns]
                room = next(rooms)[: len(ours) * len(theirs)].reshape(len(ours), len(theirs))
                product = np.matmul(ours, theirs.T, out=room)
                yield pool.submit(self._merge, kept, product, rows, columns)
            # The first blocks meet the most others: report the share of the work, in items.
            left = max(0, n - one - _BLOCK) / n
            finished = round(n * (1 - left * left))
            self._done(finished - reported)
            reported = finished

    def _merge(self, kept: _Kept, product: Features, rows: slice, columns: slice) -> None:
        """Let the items `rows` and `columns` meet, whose scalar products are (rows, columns).

        Most scores are worse than all that an item has kept already, so few are looked at again.
        """
        ours, theirs = self._half[rows, None], self._half[columns]
        if rows == columns:
            np.fill_diagonal(product, -np.inf)  # an item is not its own neighbour
        else:
            bounds = kept.bounds(columns, lambda: (product[:_FIRST_MET] - ours[:_FIRST_MET]).T)
            one, other, scores = _above(product, ours, bounds)
            order = np.argsort(other.astype(np.uint16), kind="stable")  # NumPy sorts these fastest
            kept.meet(columns, other[order], one[order] + rows.start, scores[order])
        bounds = kept.bounds(rows, lambda: product[:, :_FIRST_MET] - theirs[:_FIRST_MET])
        one, other, scores = _above(product, theirs, bounds[:, None])
        kept.meet(rows, one, other + columns.start, scores)

    def _rank_all(self, items: Positions, scores: Features, errors: Float64) -> Ranked:
        last = np.partition(scores, -self._width, axis=1)[:, -self._width]
        least = last - 2 * errors
        return items, [
            self._rank(item, np.flatnonzero(row >= bound))
            for item, row, bound in zip(items, scores, least, strict=True)
        ]

    def _rank_kept(
        self, positions: Positions, kept: _Kept, within: Float64, unit_vectors: UnitVectors
    ) -> Ranked:
        ranked = []
        for position in positions:
            candidates = np.sort(kept.positions[position])
            items, distances = self._nearest(
                self._needed[candidates], unit_vectors.distances(position, candidates)
            )
            known = int(np.searchsorted(np.square(distances, dtype=np.float64), within[position]))
            known = max(known, self._k)
            ranked.append((items[:known], distances[:known]))
        return self._needed[positions], ranked

    def _rank(self, item: int, candidates: Positions) -> tuple[Items, Distances]:
        others = self._needed[candidates]
        return self._nearest(others, self._unit_vectors.distances(item, others))

    def _nearest(self, items: Positions, distances: Distances) -> tuple[Items, Distances]:
        nearest = np.argsort(distances, kind="stable")[: self._width]
        return items[nearest].astype(np.uint32), distances[nearest]


def _half_squares(vectors: Features) -> Float64:
    """Half of the squared lengths (n,) of vectors (n, n_dims)."""
    return np.asarray(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64) / 2)


def _chunks(rows: Positions, step: int = 1024) -> Iterator[Positions]:
    for start in range(0, len(rows), step):
        yield rows[start : start + step]
