"""Known photos: whose features are had already, found by the SHA-256 of the photo's bytes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Digests = npt.NDArray[np.bytes_]
Places = npt.NDArray[np.int64]


class KnownPhotos:
    """For each known photo the place of its features: a number that its owner gives a meaning.

    Takes 40 bytes a photo, so that it can be sent to every worker; never changes.
    """

    def __init__(self) -> None:
        self._digests: Digests = np.empty(0, "S32")  # ascending, each once
        self._places: Places = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._digests)

    def __contains__(self, photo_sha256: str) -> bool:
        return bool(self.places([photo_sha256])[0] >= 0)

    def places(self, photo_sha256s: Sequence[str]) -> Places:
        """The places of the photos, in their order; -1 for one that is unknown."""
        digests = _digests(photo_sha256s)
        if not len(self):
            return np.full(len(digests), -1)
        found = np.minimum(self._digests.searchsorted(digests), len(self) - 1)
        return np.where(self._digests[found] == digests, self._places[found], -1)

    def plus(self, photo_sha256s: Sequence[str], places: Sequence[int] | Places) -> "KnownPhotos":
        """These and more, 0 or above their places; of a photo known before the new place, of one that
        is given twice the first."""
        digests, first = np.unique(_digests(photo_sha256s), return_index=True)
        given = np.asarray(places, np.int64)[first]
        known = self.places(photo_sha256s)[first] >= 0
        at = self._digests.searchsorted(digests)
        more = KnownPhotos()
        more._places = self._places.copy()
        more._places[at[known]] = given[known]
        # The others go between: to sort all again would take seconds for millions.
        more._places = np.insert(more._places, at[~known], given[~known])
        more._digests = np.insert(self._digests, at[~known], digests[~known])
        return more


def _digests(photo_sha256s: Sequence[str]) -> Digests:
    # Of one width, NumPy compares all their bytes, also where they end in zeros.
    return np.frombuffer(bytes.fromhex("".join(photo_sha256s)), "S32")
