"""A category's features by row, those its index is of and those that came later, and comparing them.

A row never changes and never gets another feature as long as the index stands; a product that left
leaves its row behind.
"""

from typing import NamedTuple

import numpy as np

from lookalike.release.arrays import Features, Float32, Float64, Positions
from lookalike.release.vectors import gather_features
from lookalike_build.indexing.unit_vectors import UNIT_ROUNDOFF, UnitVectors, scaled

_CHUNK = 8192
_DOUBLE_ERROR = 1e-11


class FeatureStatistics(NamedTuple):
    """What is known of the features an index is of, without reading them through.

    `centre` (n_dims,) is close to the mean of their unit vectors; `lengths` and `products` (n_base,)
    are their lengths and the scalar products of their unit vectors with the centre.
    """

    centre: Float64
    lengths: Float64
    products: Float64

    @classmethod
    def of(cls, lengths: Float64, projection: Float32, projected: Float32) -> "FeatureStatistics":
        """From the lengths (n_base,), the projection P (n_dims, n_index_dims) and what it makes of the
        unit vectors, (n_index_dims, n_base).

        The centre is P w, with w the mean of the projected vectors, so its product with a unit vector
        y is that of w with the projected P'y. As this was rounded to float32, it is off by at most
        u |w| |P'y|, which is some u.
        """
        weights = projected.mean(axis=1, dtype=np.float64)
        products = np.empty(lengths.size)
        for first in range(0, lengths.size, _CHUNK):
            rows = slice(first, first + _CHUNK)
            products[rows] = weights @ projected[:, rows].astype(np.float64)
        return cls(projection.astype(np.float64) @ weights, lengths, products)


class FeatureRows(NamedTuple):
    """Features float32 (n_rows, n_dims), those of the index, then those that came after it."""

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
    """Compares rows with all others in float32, and exactly if need be; `statistics` is the base's."""

    def __init__(self, features: FeatureRows, statistics: FeatureStatistics) -> None:
        self._features = features
        self._centre = statistics.centre
        vectors, lengths = scaled(features.added)
        self._lengths = np.concatenate([statistics.lengths, lengths])
        products = np.concatenate([statistics.products, vectors @ statistics.centre])
        self._factors, self._offsets = -2 / self._lengths, 2 - 2 * products
        self.unit_vectors = UnitVectors(tuple(features), self._lengths)

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return self._features.shape[0]

    def squared_distances(self, rows: Positions) -> tuple[Float64, Float64]:
        """Squared angular distances (n, n_rows) of all from each of `rows`, and how far each of these
        (n,) may be off.

        Of unit vectors x and y and the centre c, x·y = (x - c)·y + c·y. The first term is a float32
        product, of which |fl(x·y) - x·y| <= n_dims u |x||y| (Higham 2002, section 3.1): the more alike
        all vectors are, the shorter x - c and the less there is to round. The second is off by some u,
        see `FeatureStatistics`. Example: with 2048 numbers and x 0.1 from the centre, the squared
        distance 2 - 2x·y is off by at most 2 * 2^-24 * (2056 * 0.1 + 2) = 0.000025.
        """
        away = self.unit_vectors.of(rows) - self._centre
        short = away.astype(np.float32)
        base, added = self._features
        n_rows, n_dims = self._features.shape
        squared = np.empty((rows.size, n_rows))
        n_base = len(base)
        np.multiply(short @ base.T, self._factors[:n_base], out=squared[:, :n_base])
        np.multiply(short @ added.T, self._factors[n_base:], out=squared[:, n_base:])
        squared += self._offsets
        error = 2 * UNIT_ROUNDOFF * ((n_dims + 8) * np.linalg.norm(away, axis=1) + 2)
        return squared, error + _DOUBLE_ERROR
