"""A category's features by row, those its index is of and those that came later, and comparing them.

A row never changes and never gets another feature as long as the index stands; a product that left
leaves its row behind.
"""

from typing import NamedTuple

import numpy as np

from lookalike.release.arrays import Features, Float64, Positions
from lookalike.release.vectors import gather_features
from lookalike_build.indexing.unit_vectors import UnitVectors

_UNIT_ROUNDOFF = 2.0**-24
_SAMPLE = 1024
_CHUNK = 1024
_DOUBLE_ERROR = 1e-11


class FeatureStatistics(NamedTuple):
    """What is known of the features an index is of, so that they need not be read through again.

    `centre` (n_dims,) is close to their directions' mean; `lengths` and `products` (n_base,) are
    their lengths and the scalar products of their directions with the centre.
    """

    centre: Float64
    lengths: Float64
    products: Float64

    @classmethod
    def of(cls, features: Features) -> "FeatureStatistics":
        """Read features (n_base, n_dims) through."""
        n = len(features)
        sample = np.unique(np.linspace(0, n - 1, _SAMPLE, dtype=np.intp))
        centre = _measure(features[sample], np.zeros(features.shape[1]))[2].mean(axis=0)
        lengths, products = np.empty(n), np.empty(n)
        for first in range(0, n, _CHUNK):
            rows = slice(first, first + _CHUNK)
            lengths[rows], products[rows], _ = _measure(features[rows], centre)
        return cls(centre, lengths, products)


def _measure(features: Features, centre: Float64) -> tuple[Float64, Float64, Float64]:
    """Lengths, products with the centre, directions."""
    wide = features.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    wide /= lengths[:, None]
    return lengths, wide @ centre, wide


class FeatureRows(NamedTuple):
    """Features float32 (n_rows, n_dims): `base` (n_base, n_dims), then `added` (n_added, n_dims)."""

    base: Features
    added: Features

    @property
    def shape(self) -> tuple[int, int]:
        """n_rows and n_dims."""
        return len(self.base) + len(self.added), self.base.shape[1]

    def of(self, rows: Positions) -> Features:
        """The features (n, n_dims) in `rows`."""
        return gather_features(rows, self.base, self.added)


class Comparison:
    """Compares rows with all others, by float32 products and, where that is not enough, exactly.

    `measured` is of the base.
    """

    def __init__(self, features: FeatureRows, measured: FeatureStatistics) -> None:
        self._features = features
        self._centre = measured.centre
        lengths, products, _ = _measure(features.added, measured.centre)
        self._lengths = np.concatenate([measured.lengths, lengths])
        self._products = np.concatenate([measured.products, products])
        self.directions = UnitVectors(features.of, self._lengths)

    def squared_distances(self, rows: Positions) -> tuple[Float64, Float64]:
        """Squared angular distances (n, n_rows) of all from each of `rows`, and how far each of these
        (n,) may be off.

        A float32 product with all, of directions less the centre: the more alike all directions are,
        the less there is to round (|fl(x·y) - x·y| <= n_dims u |x||y|, Higham 2002, section 3.1).
        What is left of the scalar product is there in float64.
        """
        away = self.directions.of(rows) - self._centre
        short = away.astype(np.float32)
        base, added = self._features
        n_rows, n_dims = self._features.shape
        squared = np.empty((rows.size, n_rows))
        squared[:, : len(base)] = short @ base.T
        squared[:, len(base) :] = short @ added.T
        squared /= self._lengths
        squared += self._products
        squared *= -2
        squared += 2
        error = 2 * _UNIT_ROUNDOFF * (n_dims + 8) * np.linalg.norm(away, axis=1)
        return squared, error + _DOUBLE_ERROR
