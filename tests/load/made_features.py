"""Features made to be like a network's, where there are no photos to extract them from.

None is below zero; products come in groups of uneven size; and the variance falls off with the rank of
its direction as 1 / rank, which is about what has been found for well-trained networks (Agrawal et al.
2022, arXiv 2202.05808). Fewer directions than that matter in most real ones, so these are the harder.
"""

import numpy as np
import numpy.typing as npt

N_GROUPS = 400
_WITHIN = 0.4
"""The share of the variance that is within groups."""


class MadeFeatures:
    """A world of products of `n_dims` numbers: all drawn from it has the same groups and directions."""

    def __init__(self, n_dims: int, seed: int) -> None:
        self.n_dims = n_dims
        rng = np.random.default_rng(seed)
        variance = 1 / np.arange(1, n_dims + 1)
        variance *= n_dims / variance.sum()
        turned = np.linalg.qr(rng.standard_normal((n_dims, n_dims)))[0]
        self._mixing = (np.sqrt(variance)[:, None] * turned).astype(np.float32)
        self._centres = rng.standard_normal((N_GROUPS, n_dims), np.float32)
        self._bias = rng.normal(-0.5, 0.5, n_dims).astype(np.float32)
        share = np.arange(1, N_GROUPS + 1) ** -0.8
        self._share = share / share.sum()

    def draw(self, n: int, seed: int) -> npt.NDArray[np.float32]:
        """Features of n products, float32 (n, n_dims)."""
        rng = np.random.default_rng(seed)
        groups = rng.choice(N_GROUPS, n, p=self._share)
        latent = np.sqrt(_WITHIN, dtype=np.float32) * rng.standard_normal(
            (n, len(self._bias)), np.float32
        )
        latent += np.sqrt(1 - _WITHIN, dtype=np.float32) * self._centres[groups]
        # Softplus, sharper than usual: near zero where a unit is off, but nowhere all zero.
        features = np.logaddexp(0, 3 * (latent @ self._mixing + self._bias)) / 3
        return np.asarray(features, np.float32)
