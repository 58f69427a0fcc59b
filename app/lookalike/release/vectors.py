"""Which items are nearest to a vector: candidates from an index of few dimensions, then exact ranking.

Comparing 2048 numbers item by item is what makes a query slow, and trees over 2048 dimensions hardly
cut that down. So items are projected on the category's `n_index_dims` principal axes, `candidates` of
them are found there, and only these are ranked by their features. Annoy finds the candidates where its
trees lead there faster than comparing all projections would; where they do not, which the builder
measures, `search_k` is `n_items` and all are compared.

The projections are in a file by axis: so all are compared two to four times as fast as item by item.

The axes are those of the unit vectors' second moment, the mean not taken off: then the scalar product
of two projections is the best stand-in for that of the unit vectors, with no term to correct.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from annoy import AnnoyIndex

from lookalike.release.arrays import Distances, Features, Flags, Float32, Float64, Items, Positions
from lookalike.release.manifest import MAX_ANNOY
from lookalike.release.memory import map_bytes

NO_ITEM = 2**32 - 1

_ROWS = 64
"""How many features are ranked at a time: half a megabyte, which stays in the CPU's cache."""
_FEW = 1024
"""So many are all ranked by their features: it takes no longer than to compare all projections."""
_NEAR = 0.01
"""Below this squared distance, float32 has no digits left for a difference of scalar products."""


def node_dtype(n_dims: int) -> np.dtype[Any]:
    """Annoy's node for the angular metric; the first n_items nodes of a file are the items.

    Fields: n_descendants (1 for an item), norm (squared length of an item's vector), vector
    (float32, n_dims). From AngularNode in annoylib.h, 1.17.3.
    """
    return np.dtype(
        {
            "names": ["n_descendants", "norm", "vector"],
            "formats": ["<i4", "<f4", ("<f4", (n_dims,))],
            "offsets": [0, 4, 12],
            "itemsize": 12 + 4 * n_dims,
        }
    )


def map_projections(path: Path, n_items: int, n_dims: int) -> Float32:
    """The items' vectors in an Annoy file by axis, float32 (n_dims, n_items), mapped."""
    with path.open("rb") as file:
        mapped = map_bytes(file.fileno())
    nodes = np.frombuffer(mapped, node_dtype(n_dims), count=n_items)
    vectors: Float32 = nodes["vector"]
    return vectors.T


def unit_vector(vector: Float64) -> Float64:
    """A vector of finite numbers (n_dims,) scaled to length 1; ValueError if it is all zeros."""
    largest = np.abs(vector).max()
    if largest == 0:
        raise ValueError("is all zeros: it has no direction to be near to")
    # By the largest first: the squares of numbers such as 1e200 would be infinite.
    scaled = vector / largest
    return np.asarray(scaled / np.linalg.norm(scaled))


def gather_features(rows: Positions, *parts: Features, out: Features | None = None) -> Features:
    """The features (n, n_dims) in the `rows` (n,) of arrays (…, n_dims) one after the other.

    They are in `out`, float32 (n, n_dims), if it is given.
    """
    first, *others = parts
    features: Features = first.take(rows, axis=0, out=out, mode="clip")
    n_before = len(first)
    for part in others:
        here = np.flatnonzero((rows >= n_before) & (rows < n_before + len(part)))
        features[here] = part[rows[here] - n_before]
        n_before += len(part)
    return features


class Changed(NamedTuple):
    """What came into a category and what left it since its index was made.

    `rows` is uint32 (n,), the row of an item's feature: from n_base on in `added`, arrays float32
    (…, n_dims) one after the other. `items` is uint32 (n_base + n_added,), the item of a row, `NO_ITEM`
    where it has left. `gone` are the rows of the index that have, `new` the rows in `added` that have
    not.
    """

    rows: Items
    added: tuple[Features, ...]
    items: Items
    gone: Positions
    new: Positions

    @classmethod
    def of(cls, rows: Items, left: Items, n_base: int, *added: Features) -> "Changed":
        """All of it from `rows`, each of which is below n_base + n_added, the items that have `left`,
        and the features `added`."""
        items = np.full(n_base + sum(map(len, added)), NO_ITEM, np.uint32)
        items[rows] = np.arange(rows.size, dtype=np.uint32)
        items[rows[left]] = NO_ITEM
        gone = np.flatnonzero(items[:n_base] == NO_ITEM)
        new = n_base + np.flatnonzero(items[n_base:] != NO_ITEM)
        return cls(rows, added, items, gone, new)


@dataclass(frozen=True)
class VectorIndex:
    """Finds the items of one category that are nearest to a vector.

    `features` is float32 (n_base, n_dims), `lengths` float64 (n_base,) their lengths, None if they are
    not known; `projection` float32 (n_dims, n_index_dims); `index` is Annoy over their projections, or
    these themselves by axis, float32 (n_index_dims, n_base), to compare all; `projected` are these.
    `candidates` and `search_k` are for up to `k` items. The features are the items', but for what is
    `changed`: those that are gone are not found, those that are new are all ranked.
    """

    features: Features
    lengths: Float64 | None
    projection: Float32
    index: AnnoyIndex | Float32
    candidates: int
    search_k: int
    k: int
    changed: Changed | None
    projected: Float32

    def search(self, vector: Float64, n: int) -> tuple[Items, Distances]:
        """About the `n` items nearest to a vector of length 1, nearest first, and their distances.

        Their distances and order are right; what may be missing is an item. The angular distance is
        the Euclidean one of vectors of length 1.
        """
        short = vector.astype(np.float32)
        rows = self._find(short, min(n, len(self.features)))
        items = rows.astype(np.uint32)
        if self.changed:
            rows = np.concatenate([rows, self.changed.new])
            items = self.changed.items[rows]
        squares = self._squared_distances(rows, short)
        order = np.lexsort((items, squares))[:n]
        return items[order], np.sqrt(squares[order])

    def best_of(self, vector: Float64, has: Flags, n: int) -> tuple[Items, Distances]:
        """Candidates for the `n` items nearest to a vector of length 1 of those that there are, `has`
        (n_all,), nearest first, and their distances: all of them where they are few."""
        short = vector.astype(np.float32)
        items = np.flatnonzero(has)
        rows = self.changed.rows[items].astype(np.intp) if self.changed else items
        most = max(_FEW, self.candidates + 3 * max(0, n - self.k))
        if items.size > most:
            # Those that were added are all ranked.
            scores = np.full(items.size, np.inf, np.float32)
            base = np.flatnonzero(rows < len(self.features))
            scores[base] = (short @ self.projection @ self.projected)[rows[base]]
            best = np.argpartition(scores, items.size - most)[items.size - most :]
            items, rows = items[best], rows[best]
        squares = self._squared_distances(rows, short)
        order = np.lexsort((items, squares))
        return items[order].astype(np.uint32), np.sqrt(np.maximum(squares[order], 0))

    def distances(self, item: int, others: Items) -> Distances:
        """The distances (n,) of other items from one."""
        rows = (self.changed.rows[others] if self.changed else others).astype(np.intp)
        squares = self._squared_distances(rows, self.unit_vector(item).astype(np.float32))
        return np.asarray(np.sqrt(np.maximum(squares, 0)))

    def unit_vector(self, item: int) -> Float64:
        """An item's feature scaled to length 1."""
        row = int(self.changed.rows[item]) if self.changed else item
        wide = self._features_of(np.array([row]))[0].astype(np.float64)
        return np.asarray(wide / np.linalg.norm(wide))

    def _features_of(self, rows: Positions, out: Features | None = None) -> Features:
        added = self.changed.added if self.changed else ()
        return gather_features(rows, self.features, *added, out=out)

    def _squared_distances(self, found: Positions, vector: Float32) -> Float32:
        squares = np.empty(found.size, np.float32)
        # New memory for each would cost as much as filling it.
        room = np.empty((min(_ROWS, found.size), vector.size), np.float32)
        for first in range(0, found.size, _ROWS):
            positions = found[first : first + _ROWS]
            rows = self._features_of(positions, room[: positions.size])
            lengths = self._lengths_of(positions, rows)
            some = 2 - 2 * (rows @ vector) / lengths
            near = np.flatnonzero(some < _NEAR)
            if near.size:
                apart = rows[near] / lengths[near, None] - vector
                some[near] = np.einsum("ij,ij->i", apart, apart)
            squares[first : first + _ROWS] = some
        return squares

    def _lengths_of(self, rows: Positions, features: Features) -> Float32:
        """The lengths of the `features` in `rows`; those of features that were added are computed."""
        if self.lengths is None or rows.max() >= len(self.lengths):
            return np.asarray(np.sqrt(np.einsum("ij,ij->i", features, features)))
        return self.lengths[rows].astype(np.float32)

    def _find(self, vector: Float32, n: int) -> Positions:
        """The candidates for `n` items: rows of the index, none that is gone.

        `candidates` and `search_k` are measured for up to k items. For n beyond k, two more candidates
        are taken for each item beyond, and search_k grows as n does. Example: with k 100, candidates
        300 and search_k 5,000, the 150 nearest are looked for among 400 candidates with search_k 7,500.
        """
        projected = vector @ self.projection
        beyond = max(0, n - self.k)
        n_left = len(self.features) - (self.changed.gone.size if self.changed else 0)
        candidates = min(max(self.candidates, n) + 2 * beyond, n_left)
        if not isinstance(self.index, AnnoyIndex):
            return self._best_of_all(self.index, projected, candidates)
        search_k = self.search_k + self.search_k * beyond // max(1, self.k)
        return self._best_of_trees(self.index, projected, candidates, search_k)

    def _best_of_all(self, projections: Float32, projected: Float32, n: int) -> Positions:
        """The `n` rows with the largest scalar products, in no order; all rows if there are no more."""
        scores = projected @ projections
        if self.changed:
            scores[self.changed.gone] = -np.inf
        others = scores.size - n
        if others <= 0:
            return np.arange(scores.size)
        return np.argpartition(scores, others - 1)[others:]

    def _best_of_trees(
        self, index: AnnoyIndex, projected: Float32, n: int, search_k: int
    ) -> Positions:
        """About `n` rows that are not gone, of those that Annoy finds.

        As it does not know what is gone, it is asked for twice as many until `n` of them are not, at
        worst for all. Example: of 1,000 rows, 500 all over are gone. For 100, it is asked for 100, of
        which some 50 are not gone, then for 200 and, if these still have fewer than 100, for 400.
        """
        n_base, changed = len(self.features), self.changed
        asked = n
        while True:
            found = index.get_nns_by_vector(
                projected.tolist(), asked, search_k=min(search_k, MAX_ANNOY)
            )
            rows: Positions = np.array(found, np.intp)
            if changed is None:
                return rows
            rows = rows[changed.items[rows] != NO_ITEM]
            if rows.size >= n or asked == n_base:
                return rows
            asked, search_k = min(2 * asked, n_base), 2 * search_k
