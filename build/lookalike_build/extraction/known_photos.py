"""Known photos: photos whose features exist already, looked up by the SHA-256 of their bytes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Digests = npt.NDArray[np.bytes_]
Locations = npt.NDArray[np.int64]


class KnownPhotos:
    """Maps each known photo to the location of its features, a number whose meaning the caller defines.

    Immutable, and small enough to send to every worker: 40 bytes a photo.
    """

    def __init__(
        self, photo_sha256s: Sequence[str] = (), locations: Sequence[int] | Locations = ()
    ) -> None:
        """Photos and their locations, 0 or above; of a photo given twice, the first counts."""
        self._digests, first = np.unique(_digests(photo_sha256s), return_index=True)  # ascending
        self._locations = np.asarray(locations, np.int64)[first]

    def __len__(self) -> int:
        return len(self._digests)

    def __contains__(self, photo_sha256: str) -> bool:
        return bool(self.locations([photo_sha256])[0] >= 0)

    def locations(self, photo_sha256s: Sequence[str]) -> Locations:
        """The locations of the photos, in their order; -1 for an unknown photo."""
        return self._locations_of(_digests(photo_sha256s))

    def updated(self, newer: "KnownPhotos") -> "KnownPhotos":
        """These and `newer`; for a photo in both, the location in `newer` counts."""
        at = self._digests.searchsorted(newer._digests)
        known = self._locations_of(newer._digests) >= 0
        both = KnownPhotos()
        both._locations = self._locations.copy()
        both._locations[at[known]] = newer._locations[known]
        # Insert the rest: sorting millions again would take seconds.
        both._locations = np.insert(both._locations, at[~known], newer._locations[~known])
        both._digests = np.insert(self._digests, at[~known], newer._digests[~known])
        return both

    def _locations_of(self, digests: Digests) -> Locations:
        if not len(self):
            return np.full(len(digests), -1)
        found = np.minimum(self._digests.searchsorted(digests), len(self) - 1)
        return np.where(self._digests[found] == digests, self._locations[found], -1)


class GrowingPhotos:
    """Known photos that can be added to, at 40 bytes each.

    An addition is merged with those before it once it has as many photos. So each photo is copied only
    a few times, however many additions there are.
    """

    def __init__(self, known: KnownPhotos | None = None) -> None:
        self._parts = [known or KnownPhotos()]  # oldest and largest first

    def locations(self, photo_sha256s: Sequence[str]) -> Locations:
        """As `KnownPhotos.locations`; for a photo added more than once, the newest."""
        digests = _digests(photo_sha256s)
        locations = np.full(len(digests), -1)
        for part in self._parts:
            newer = part._locations_of(digests)
            locations = np.where(newer >= 0, newer, locations)
        return locations

    def add(self, photo_sha256s: Sequence[str], locations: Sequence[int] | Locations) -> None:
        """Add photos and their locations, as `KnownPhotos` takes them."""
        part = KnownPhotos(photo_sha256s, locations)
        while self._parts and len(self._parts[-1]) <= len(part):
            part = self._parts.pop().updated(part)
        self._parts.append(part)


def _digests(photo_sha256s: Sequence[str]) -> Digests:
    # NumPy ignores trailing zero bytes of an "S32", but as all are 32 bytes wide, that is harmless.
    return np.frombuffer(bytes.fromhex("".join(photo_sha256s)), "S32")
