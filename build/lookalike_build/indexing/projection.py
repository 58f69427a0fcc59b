"""The projection of a category's features on their principal axes, along which they differ most."""

import numpy as np

from lookalike.release.arrays import Features, Float32
from lookalike_build.indexing.unit_vectors import scaled
from lookalike_build.publishing.category import Projected

N_INDEX_DIMS = 128
"""With 64, up to three times as many candidates are needed on features whose variance is spread out."""
_SAMPLE = 4096
_CHUNK = 4096


def project(features: Features) -> Projected:
    """Fit the projection to features (n_items, n_dims) and project them; the same every time.

    The axes are the leading eigenvectors of the second moment of at most 4096 unit vectors, spread
    evenly over the items; there are at most 128, and as many as these span.
    """
    rows = np.unique(np.linspace(0, len(features) - 1, _SAMPLE, dtype=np.intp))
    projection = _principal_axes(scaled(features[rows])[0].astype(np.float32))
    items = np.empty((len(features), projection.shape[1]), np.float32)
    lengths = np.empty(len(features))
    wide = projection.astype(np.float64)
    for first in range(0, len(features), _CHUNK):
        block = slice(first, first + _CHUNK)
        vectors, lengths[block] = scaled(features[block])
        items[block] = vectors @ wide  # rounded once only, which `FeatureStatistics` relies on
    return Projected(projection, items, lengths)


def _principal_axes(sample: Float32) -> Float32:
    few = len(sample) < sample.shape[1]
    # Either product has the same eigenvalues; the smaller one is solved. In float64, since features
    # may be so alike that the mean is all but a millionth of their squared length.
    wide = sample.astype(np.float64)
    values, vectors = np.linalg.eigh(wide @ wide.T if few else wide.T @ wide)
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    leading = np.flatnonzero(kept)[::-1][:N_INDEX_DIMS]
    axes = vectors[:, leading]
    if few:
        axes = wide.T @ axes / np.sqrt(values[leading])
    return np.ascontiguousarray(axes, np.float32)
