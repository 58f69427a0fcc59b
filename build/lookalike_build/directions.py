"""Features scaled to length 1, in float64, and their exact angular distances."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from lookalike.vector_index import Distances

Matrix64 = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

_CHUNK = 1024


class Features(Protocol):
    """Float32 (n, n_dims), of which rows are taken by their numbers; an ndarray is one."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102
    def __getitem__(self, rows: Places, /) -> npt.NDArray[np.float32]: ...


class Directions:
    """Features scaled to length 1, in float64, on demand: all at once would take twice the memory.

    The same feature gives the same bits wherever it stands, so copies are at distance 0 exactly.
    """

    def __init__(self, features: Features, lengths: npt.NDArray[np.float64] | None = None) -> None:
        """With the lengths (n,) of the features, if they are known."""
        self.shape = features.shape
        self._features = features
        self.lengths = self._measured() if lengths is None else lengths

    def _measured(self) -> npt.NDArray[np.float64]:
        lengths = np.empty(self.shape[0])
        for first in range(0, self.shape[0], _CHUNK):
            rows = np.arange(first, min(first + _CHUNK, self.shape[0]))
            wide = self._features[rows].astype(np.float64)
            lengths[rows] = np.sqrt(np.einsum("ij,ij->i", wide, wide))
        return lengths

    def of(self, rows: Places) -> Matrix64:
        """The directions of `rows`, (n, n_dims)."""
        directions = self._features[rows].astype(np.float64)
        directions /= self.lengths[rows, None]
        return directions

    def distances(self, row: int, others: Places) -> Distances:
        """The angular distances (n,) of `others` from one row, rounded to float32 once.

        From either end the same bits.
        """
        away = self.of(others)
        away -= self.of(np.array([row]))
        distances: Distances = np.sqrt(np.einsum("ij,ij->i", away, away)).astype(np.float32)
        return distances
