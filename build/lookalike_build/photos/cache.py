"""The photo cache: photos from URLs, kept so that they are not downloaded again.

A folder with one file a photo, ``ab/cd/abcd….photo``, named by the SHA-256 of its URL, so that no
user name, password or signature of a URL is on the disk:

    the SHA-256 of all behind this line, hexadecimal
    the validator, a JSON object
    the photo's bytes

Any number of threads and processes may use one folder. Nothing is fsynced: what a power cut leaves
half-written is not what its first line says, and counts as absent.
"""

import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import numpy as np

_PHOTO = re.compile(r"[0-9a-f]{64}\.photo")
_PART = re.compile(r"[0-9a-f]{32}\.part")


class CachedPhoto(NamedTuple):
    """A photo's bytes and its validator: what tells whether its origin still has just these."""

    data: bytes
    validator: dict[str, str]


@dataclass(frozen=True)
class PhotoCache:
    """The photos kept in `folder`, which is for them alone and is made when it is first needed."""

    folder: Path

    def get(self, url: str) -> CachedPhoto | None:
        """The photo kept of `url`; None where there is none or it is damaged."""
        try:
            digest, _, rest = self._path(url).read_bytes().partition(b"\n")
        except OSError:
            return None
        if hashlib.sha256(rest).hexdigest().encode() != digest:
            return None
        validator, _, data = rest.partition(b"\n")
        return CachedPhoto(data, json.loads(validator))

    def put(self, url: str, photo: CachedPhoto) -> None:
        """Keep a photo of `url` in place of any before it, or nothing where the disk refuses."""
        rest = json.dumps(photo.validator).encode() + b"\n" + photo.data
        path = self._path(url)
        part = path.with_name(f"{uuid.uuid4().hex}.part")
        with suppress(OSError):  # the photo is at hand all the same
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                part.write_bytes(hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)

    def prune(self, used: Iterable[str]) -> int:
        """Remove the photos of all URLs but those in `used`; how many there were.

        `used` may name other images too, such as a catalogue's local files. What another run is
        just writing into the folder may be lost to the cache.
        """
        # 8 bytes of each name: a catalogue has millions, and one wrongly kept does no harm.
        kept = np.unique(np.fromiter((_short(_name(url)) for url in used), np.uint64))
        n_removed = 0
        for folder, _, names in os.walk(self.folder):
            # Whatever else is in the folder is none of ours.
            photos = [name for name in names if _PHOTO.fullmatch(name)]
            shorts = np.array([_short(name) for name in photos], np.uint64)
            absent = np.searchsorted(kept, shorts) == np.searchsorted(kept, shorts, "right")
            unused = list(compress(photos, absent))
            for name in [*unused, *filter(_PART.fullmatch, names)]:
                Path(folder, name).unlink(missing_ok=True)
            n_removed += len(unused)
        return n_removed

    def _path(self, url: str) -> Path:
        name = _name(url)
        return self.folder / name[:2] / name[2:4] / name


def _name(url: str) -> str:
    return hashlib.sha256(url.encode(errors="surrogatepass")).hexdigest() + ".photo"


def _short(name: str) -> int:
    return int(name[:16], 16)
