"""Features scaled to length 1, in float64, and their exact angular distances."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lookalike.release.arrays import Distances, Features, Float64, Positions

_CHUNK = 1024


@dataclass(frozen=True)
class UnitVectors:
    """Features scaled to length 1, in float64, on demand: all at once would take twice the memory.

    `features` gives the features (n, n_dims) of rows (n,), `lengths` are those of all features. The
    same feature gives the same bits wherever it stands, so copies are at distance 0 exactly.
    """

    features: Callable[[Positions], Features]
    lengths: Float64

    @classmethod
    def all_of(cls, features: Features) -> "UnitVectors":
        """Of features (n, n_dims), read through for their lengths."""
        lengths = np.empty(len(features))
        for first in range(0, len(features), _CHUNK):
            lengths[first : first + _CHUNK] = lengths_of(
                features[first : first + _CHUNK].astype(np.float64)
            )
        return cls(features.__getitem__, lengths)

    def of(self, rows: Positions) -> Float64:
        """The unit vectors of `rows`, (n, n_dims)."""
        vectors = self.features(rows).astype(np.float64)
        vectors /= self.lengths[rows, None]
        return vectors

    def distances(self, row: int, others: Positions) -> Distances:
        """The angular distances (n,) of `others` from one row: the same bits from either end."""
        away = self.of(others)
        away -= self.of(np.array([row]))
        return lengths_of(away).astype(np.float32)


def scaled(features: Features) -> tuple[Float64, Float64]:
    """Features (n, n_dims) scaled to length 1, in float64, and the lengths (n,) that they had."""
    vectors = features.astype(np.float64)
    lengths = lengths_of(vectors)
    vectors /= lengths[:, None]
    return vectors, lengths


def lengths_of(vectors: Float64) -> Float64:
    """The lengths (n,) of vectors (n, n_dims), each the same bits whatever the others are."""
    lengths: Float64 = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    return lengths
