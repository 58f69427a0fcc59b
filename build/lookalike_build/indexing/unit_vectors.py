"""Features scaled to length 1, in float64, and their exact angular distances."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from lookalike.release.vectors import Distances

Matrix32 = npt.NDArray[np.float32]
Vector64 = npt.NDArray[np.float64]
Matrix64 = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

_CHUNK = 1024


class UnitVectors:
    """Features scaled to length 1, in float64, on demand: all at once would take twice the memory.

    The same feature gives the same bits wherever it stands, so copies are at distance 0 exactly.
    """

    def __init__(self, features: Callable[[Places], Matrix32], lengths: Vector64) -> None:
        """Of the features (n, n_dims) that `features` gives for their rows, and all their lengths."""
        self._features = features
        self._lengths = lengths

    @classmethod
    def all_of(cls, features: Matrix32) -> "UnitVectors":
        """Of features (n, n_dims), read through for their lengths."""
        lengths = np.empty(len(features))
        for first in range(0, len(features), _CHUNK):
            wide = features[first : first + _CHUNK].astype(np.float64)
            lengths[first : first + _CHUNK] = np.sqrt(np.einsum("ij,ij->i", wide, wide))
        return cls(features.__getitem__, lengths)

    def of(self, rows: Places) -> Matrix64:
        """The directions of `rows`, (n, n_dims)."""
        directions = self._features(rows).astype(np.float64)
        directions /= self._lengths[rows, None]
        return directions

    def distances(self, row: int, others: Places) -> Distances:
        """The angular distances (n,) of `others` from one row, rounded to float32 once.

        From either end the same bits.
        """
        away = self.of(others)
        away -= self.of(np.array([row]))
        distances: Distances = np.sqrt(np.einsum("ij,ij->i", away, away)).astype(np.float32)
        return distances
