"""The projection of a category's features on the few directions in which they differ most."""

import numpy as np

from lookalike.release.arrays import Features
from lookalike_build.publishing.category import Projected

N_INDEX_DIMS = 128
"""With 64, up to three times as many candidates are needed on features whose variance is spread out."""
_SAMPLE = 4096
_CHUNK = 4096


def project(features: Features) -> Projected:
    """Fit the projection to features (n_items, n_dims) and project them; no chance in it.

    The directions are the leading eigenvectors of the second moment of at most 4096 features, scaled
    to length 1, spread evenly over the items; there are at most 128, and as many as these span.
    """
    rows = np.unique(np.linspace(0, len(features) - 1, _SAMPLE, dtype=np.intp))
    projection = _directions(_unit(features[rows]))
    items = np.empty((len(features), projection.shape[1]), np.float32)
    for first in range(0, len(features), _CHUNK):
        items[first : first + _CHUNK] = _unit(features[first : first + _CHUNK]) @ projection
    return Projected(projection, items)


def _directions(sample: Features) -> Features:
    few = len(sample) < sample.shape[1]
    # Either product has the same eigenvalues; the smaller one is solved. In float64, since features
    # may be so alike that the mean is all but a millionth of their squared length.
    wide = sample.astype(np.float64)
    values, vectors = np.linalg.eigh(wide @ wide.T if few else wide.T @ wide)
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    leading = np.flatnonzero(kept)[::-1][:N_INDEX_DIMS]
    directions = vectors[:, leading]
    if few:
        directions = wide.T @ directions / np.sqrt(values[leading])
    return np.ascontiguousarray(directions, np.float32)


def _unit(features: Features) -> Features:
    wide = features.astype(np.float64)
    wide /= np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
    return wide.astype(np.float32)
