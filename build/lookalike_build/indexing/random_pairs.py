"""How far apart two products are by chance: what a distance means in a category."""

import numpy as np

from lookalike.release.arrays import Features
from lookalike.release.manifest import RANDOM_PERCENTS
from lookalike_build.indexing.unit_vectors import scaled

_SAMPLE = 1024
_DIGITS = 9


def random_distances(features: Features, seed: int) -> tuple[float, ...]:
    """The distances within which `RANDOM_PERCENTS` of random pairs are; none of a single product.

    `features` are (n_items, n_dims). The pairs are all those of 1,024 products at random: half a
    million, of which 52 are the nearest 0.01 percent.
    """
    n_items = len(features)
    if n_items < 2:
        return ()
    n = min(_SAMPLE, n_items)
    rows = np.sort(np.random.default_rng(seed).choice(n_items, n, replace=False))
    vectors, _ = scaled(features[rows])
    cosines = (vectors @ vectors.T)[np.triu_indices(n, 1)]
    distances = np.sqrt(np.maximum(0, 2 - 2 * cosines))
    found = np.quantile(distances, np.array(RANDOM_PERCENTS) / 100).clip(0, 2)
    return tuple(map(rounded, found.tolist()))


def median_of(distances: tuple[float, ...]) -> float:
    """The median of the distances of random pairs, 0 where there are none."""
    return distances[RANDOM_PERCENTS.index(50)] if distances else 0.0


def rounded(distance: float) -> float:
    """A distance with the decimals that the manifest has, so few that each digit counts."""
    return round(distance, _DIGITS)
