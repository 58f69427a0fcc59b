"""The photo cache: keeps photos from URLs so that they are not downloaded again.

A folder with one file a photo, ``ab/cd/abcd….photo``, named by the SHA-256 of its URL, so that no
user name, password or signature of a URL is on the disk:

    the SHA-256 of everything after this line, hexadecimal
    the validator, a JSON object
    the photo's bytes

Any number of threads and processes may use one folder. Nothing is fsynced: a file that a power cut left
incomplete does not match its first line and counts as absent.
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
    """A photo's bytes and its validator, which shows whether its origin still has the same bytes."""

    data: bytes
    validator: dict[str, str]


@dataclass(frozen=True)
class PhotoCache:
    """The photos kept in `folder`, which holds nothing else and is made when first needed."""

    folder: Path

    def get(self, url: str) -> CachedPhoto | None:
        """The photo kept for `url`; None if there is none or it is damaged."""
        try:
            digest, _, rest = self._path(url).read_bytes().partition(b"\n")
        except OSError:
            return None
        if hashlib.sha256(rest).hexdigest().encode() != digest:
            return None
        validator, _, data = rest.partition(b"\n")
        return CachedPhoto(data, json.loads(validator))

    def put(self, url: str, photo: CachedPhoto) -> None:
        """Keep a photo for `url`, replacing any before it. If the disk refuses, nothing is kept."""
        rest = json.dumps(photo.validator).encode() + b"\n" + photo.data
        path = self._path(url)
        part = path.with_name(f"{uuid.uuid4().hex}.part")
        with suppress(OSError):  # the caller has the photo anyway
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                part.write_bytes(hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)

    def prune(self, used: Iterable[str]) -> int:
        """Remove the photos of all URLs except those in `used`; return how many were removed.

        `used` may name other images too, such as a catalogue's local files. Photos that another run is
        writing at the same time may be removed too.
        """
        # 8 bytes of each name suffice: a catalogue has millions, and a photo wrongly kept is harmless.
        kept = np.unique(np.fromiter((_short(_name(url)) for url in used), np.uint64))
        n_removed = 0
        for folder, _, names in os.walk(self.folder):
            # Other files in the folder are left alone.
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
