"""Features scaled to length 1, and the angular distances between them."""

import threading
from dataclasses import dataclass, field

import numpy as np

from lookalike.release.arrays import Distances, Features, Float64, Positions
from lookalike.release.vectors import gather_features

UNIT_ROUNDOFF = 2.0**-24
"""Half the distance from 1 to the next float32: how far rounding moves a number, relatively."""
OFF, RELATIVELY_OFF = 5 * UNIT_ROUNDOFF, 4 * UNIT_ROUNDOFF
"""By how much a distance may be off, and by what share of it, see `UnitVectors.distances`."""
_CHUNK = 1024
_ROWS = 128


@dataclass(frozen=True)
class UnitVectors:
    """Features scaled to length 1, on demand: all at once would take their memory again, or twice.

    `features` are arrays (…, n_dims), whose rows count on from one to the next, and `lengths` those of
    all rows; None if they are scaled and `rounded` already. The same feature gives the same bits
    wherever it stands, so copies are at distance 0 exactly.
    """

    features: tuple[Features, ...]
    lengths: Float64 | None
    _own: threading.local = field(default_factory=threading.local)

    @classmethod
    def all_of(cls, features: Features) -> "UnitVectors":
        """Of features (n, n_dims), read through for their lengths."""
        lengths = np.empty(len(features))
        for first in range(0, len(features), _CHUNK):
            lengths[first : first + _CHUNK] = lengths_of(
                features[first : first + _CHUNK].astype(np.float64)
            )
        return cls((features,), lengths)

    def of(self, rows: Positions) -> Float64:
        """The unit vectors of `rows`, (n, n_dims), in float64."""
        vectors = gather_features(rows, *self.features).astype(np.float64)
        if self.lengths is not None:
            vectors /= self.lengths[rows, None]
        return vectors

    def rounded(self, rows: Positions, out: Features | None = None) -> Features:
        """The unit vectors of `rows`, (n, n_dims), in float32: distances are between these."""
        vectors = gather_features(rows, *self.features, out=out)
        if self.lengths is not None:
            vectors /= self.lengths[rows, None].astype(np.float32)
        return vectors

    def distances(self, row: int, others: Positions) -> Distances:
        """The angular distances (n,) of `others` from one row: the same bits from either end.

        Differences and their squares are rounded to float32, their sums to float64. A distance is off
        by at most `OFF`, as rounding its length and the quotient moves each vector by 2
        `UNIT_ROUNDOFF`, and by the share `RELATIVELY_OFF`: differences, squares (half of which comes
        through the root) and the distance itself are each rounded by that much of themselves.
        """
        own = self.rounded(np.array([row]))
        room = self._room(own.shape[1])
        squared = np.empty(others.size)
        for first in range(0, others.size, _ROWS):
            some = others[first : first + _ROWS]
            away = self.rounded(some, room[: some.size])
            away -= own
            np.square(away, out=away)
            away.sum(axis=1, dtype=np.float64, out=squared[first : first + _ROWS])
        distances: Distances = np.sqrt(squared).astype(np.float32)
        return distances

    def _room(self, n_dims: int) -> Features:
        """This thread's room for features: new memory each time would cost more than all else."""
        if not hasattr(self._own, "room"):
            self._own.room = np.empty((_ROWS, n_dims), np.float32)
        room: Features = self._own.room
        return room


def furthest(distances: Float64) -> Float64:
    """How far apart what `UnitVectors.distances` gives such distances for may be, and the reverse."""
    return np.asarray((distances + OFF) * (1 + RELATIVELY_OFF))


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
