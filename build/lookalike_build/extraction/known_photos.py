"""Known photos: whose features are had already, found by the SHA-256 of the photo's bytes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Digests = npt.NDArray[np.bytes_]
Locations = npt.NDArray[np.int64]


class KnownPhotos:
    """For each known photo the location of its features: a number that its owner gives a meaning.

    Takes 40 bytes a photo, so that it can be sent to every worker; never changes.
    """

    def __init__(self) -> None:
        self._digests: Digests = np.empty(0, "S32")  # ascending, each once
        self._locations: Locations = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._digests)

    def __contains__(self, photo_sha256: str) -> bool:
        return bool(self.locations([photo_sha256])[0] >= 0)

    def locations(self, photo_sha256s: Sequence[str]) -> Locations:
        """The locations of the photos, in their order; -1 for one that is unknown."""
        return self._locations_of(_digests(photo_sha256s))

    def plus(
        self, photo_sha256s: Sequence[str], locations: Sequence[int] | Locations
    ) -> "KnownPhotos":
        """These and more, whose locations are 0 or above.

        Of a photo known before, the new location counts; of one given twice, the first."""
        more = KnownPhotos()
        more._digests, first = np.unique(_digests(photo_sha256s), return_index=True)
        more._locations = np.asarray(locations, np.int64)[first]
        return self.updated(more)

    def updated(self, newer: "KnownPhotos") -> "KnownPhotos":
        """These and `newer`, whose locations count for photos of both."""
        at = self._digests.searchsorted(newer._digests)
        known = self._locations_of(newer._digests) >= 0
        both = KnownPhotos()
        both._locations = self._locations.copy()
        both._locations[at[known]] = newer._locations[known]
        # The others go between: to sort all again would take seconds for millions.
        both._locations = np.insert(both._locations, at[~known], newer._locations[~known])
        both._digests = np.insert(self._digests, at[~known], newer._digests[~known])
        return both

    def _locations_of(self, digests: Digests) -> Locations:
        if not len(self):
            return np.full(len(digests), -1)
        found = np.minimum(self._digests.searchsorted(digests), len(self) - 1)
        return np.where(self._digests[found] == digests, self._locations[found], -1)


class GrowingPhotos:
    """Known photos that are added to, a few or many at a time, in 40 bytes each.

    Additions stand beside one another until they are as many as those before, and are then merged: each
    photo is copied a few times, however many additions there are.
    """

    def __init__(self, known: KnownPhotos | None = None) -> None:
        self._parts = [known or KnownPhotos()]  # oldest and largest first

    def locations(self, photo_sha256s: Sequence[str]) -> Locations:
        """As `KnownPhotos.locations`; of a photo added more than once the newest."""
        digests = _digests(photo_sha256s)
        locations = np.full(len(digests), -1)
        for part in self._parts:
            newer = part._locations_of(digests)
            locations = np.where(newer >= 0, newer, locations)
        return locations

    def add(self, photo_sha256s: Sequence[str], locations: Sequence[int] | Locations) -> None:
        """Add photos and their locations, as `KnownPhotos.plus`."""
        part = KnownPhotos().plus(photo_sha256s, locations)
        while self._parts and len(self._parts[-1]) <= len(part):
            part = self._parts.pop().updated(part)
        self._parts.append(part)


def _digests(photo_sha256s: Sequence[str]) -> Digests:
    # Of one width, NumPy compares all their bytes, also where they end in zeros.
    return np.frombuffer(bytes.fromhex("".join(photo_sha256s)), "S32")
