"""Which items are nearest to a vector: candidates from an index of few dimensions, then exact ranking.

Comparing 2048 numbers item by item is what makes a query slow, and trees over 2048 dimensions hardly
cut that down. So items are projected on the `n_index_dims` directions in which the category differs
most, `candidates` of them are found there, and only these are ranked by their features. Annoy finds
the candidates where its trees lead there faster than comparing all projections would; where they do
not, which the builder measures, `search_k` is `n_items` and all are compared.

The directions are those of the features' second moment, the mean not taken off: then the scalar product
of two projections is the best stand-in for that of the features, with no term to correct.
"""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from annoy import AnnoyIndex

from lookalike.manifest import MAX_ANNOY

Items = npt.NDArray[np.uint32]
Distances = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float32]

_ROWS = 64
"""How many features are ranked at a time: half a megabyte, which stays in the CPU's cache."""
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


def map_projections(path: Path, n_items: int, n_dims: int) -> Matrix:
    """The items' vectors in an Annoy file, float32 (n_items, n_dims), mapped."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    nodes = np.frombuffer(mapped, node_dtype(n_dims), count=n_items)
    vectors: Matrix = nodes["vector"]
    return vectors


class VectorIndex:
    """Finds the items of one category that are nearest to a vector.

    `features` is float32 (n_items, n_dims); `projection` float32 (n_dims, n_index_dims); `index` is
    Annoy over the items' projections, or these themselves, (n_items, n_index_dims), to compare all.
    `candidates` and `search_k` are for up to `k` items.
    """

    def __init__(
        self,
        features: Matrix,
        projection: Matrix,
        index: AnnoyIndex | Matrix,
        candidates: int,
        search_k: int,
        k: int,
    ) -> None:
        self.features = features
        self._projection = projection
        self._index = index
        self._candidates = candidates
        self._search_k = search_k
        self._k = k

    def search(self, vector: npt.NDArray[np.float64], n: int) -> tuple[Items, Distances]:
        """About the `n` items nearest to a vector of length 1, nearest first, and their distances.

        Their distances and order are right; what may be missing is an item. The angular distance is
        the Euclidean one of vectors of length 1.
        """
        short = vector.astype(np.float32)
        found = self._find(short, min(n, len(self.features)))
        squares = self._squared_distances(found, short)
        order = np.lexsort((found, squares))[:n]
        return found[order].astype(np.uint32), np.sqrt(squares[order])

    def _squared_distances(self, items: npt.NDArray[np.intp], vector: Matrix) -> Matrix:
        squares = np.empty(items.size, np.float32)
        for first in range(0, items.size, _ROWS):
            rows = self.features[items[first : first + _ROWS]]
            lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
            some = 2 - 2 * (rows @ vector) / lengths
            near = np.flatnonzero(some < _NEAR)
            if near.size:
                apart = rows[near] / lengths[near, None] - vector
                some[near] = np.einsum("ij,ij->i", apart, apart)
            squares[first : first + _ROWS] = some
        return squares

    def direction(self, item: int) -> npt.NDArray[np.float64]:
        """An item's feature scaled to length 1."""
        wide = self.features[item].astype(np.float64)
        return np.asarray(wide / np.linalg.norm(wide))

    def _find(self, vector: Matrix, n: int) -> npt.NDArray[np.intp]:
        """The candidates for `n` items."""
        projected = vector @ self._projection
        beyond = max(0, n - self._k)
        candidates = min(max(self._candidates, n) + 2 * beyond, len(self.features))
        if not isinstance(self._index, AnnoyIndex):
            return _largest(self._index @ projected, candidates)
        search_k = self._search_k + self._search_k * beyond // max(1, self._k)
        found = self._index.get_nns_by_vector(
            projected.tolist(), candidates, search_k=min(search_k, MAX_ANNOY)
        )
        return np.array(found, np.intp)


def _largest(scores: Matrix, n: int) -> npt.NDArray[np.intp]:
    """Where the `n` largest of `scores` are, in no order; all places if there are no more."""
    if n >= scores.size:
        return np.arange(scores.size)
    return np.argpartition(scores, scores.size - n)[scores.size - n :]
