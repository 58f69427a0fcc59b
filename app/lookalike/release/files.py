"""The files of a release: their names, and what the manifest records of each."""

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta

from lookalike.errors import LookalikeError

MANIFEST: Final = "manifest.json"
PRODUCT_IDS: Final = "product_ids.npy"
NEIGHBOURS: Final = "neighbours.npy"
SPARES: Final = "spares.npy"
DISTANCES: Final = "distances.npy"
SAME_PHOTO: Final = "same_photo.npy"
ROWS: Final = "rows.npy"
FEATURES: Final = "features.npy"
ADDED: Final = "added.npy"
LENGTHS: Final = "lengths.npy"
PROJECTION: Final = "projection.npy"
PROJECTED: Final = "projected.npy"
INDEX: Final = "index.ann"
BASE_FILES: Final = (FEATURES, LENGTHS, PROJECTION, PROJECTED, INDEX)
"""The files that stay the same until the index is rebuilt."""
TABLE_FILES: Final = (PRODUCT_IDS, NEIGHBOURS, SPARES, DISTANCES, SAME_PHOTO, ROWS, ADDED)
"""The files that stay the same until the table is rewritten."""
FILES: Final = (*TABLE_FILES, *BASE_FILES)
FILES_BEFORE_7: Final = tuple(file for file in FILES if file != SAME_PHOTO)
"""Those of a category of a format before 7."""
FILES_BEFORE_6: Final = tuple(file for file in FILES_BEFORE_7 if file not in (LENGTHS, PROJECTED))
"""Those of a category of a format before 6."""
SLIM_FILES: Final = (PRODUCT_IDS, NEIGHBOURS, DISTANCES, SAME_PHOTO)
LATER_IDS: Final = "later_ids.npy"
LEFT: Final = "left.npy"
UPDATE_FILES: Final = (LATER_IDS, LEFT)
"""The files that each update writes anew, besides those of its own; both are small."""
ID_FILES: Final = (PRODUCT_IDS, *UPDATE_FILES)
"""The files that say which products there are, as far as a category has them."""
HOT_FILES: Final = (PRODUCT_IDS, NEIGHBOURS, SAME_PHOTO)
"""The files that every look-up of neighbours may read, so they belong in memory."""
RULES: Final = "rules.json"
BEHAVIOUR: Final = "behaviour.d"
"""The folder of behaviour. A category's folder has no dot in its name."""
STARTS: Final = "starts.npy"
RELATED: Final = "related.npy"
LISTED: Final = "listed.npy"
GONE: Final = "gone.npy"
BEHAVIOUR_HOT_FILES: Final = (PRODUCT_IDS, STARTS, RELATED)
"""The files that every look-up of behaviour reads."""
BEHAVIOUR_TABLE: Final = (*BEHAVIOUR_HOT_FILES, LISTED)
"""The files that stay the same until behaviour is rebuilt."""
BEHAVIOUR_FILES: Final = (*BEHAVIOUR_TABLE, GONE)
ENDS_BYTES: Final = 4096
"""How many bytes at each end of a file its ``ends_sha256`` covers."""


def lists_file(update: int) -> str:
    """The file of the lists that the update of that number has changed."""
    return f"lists-{update}.npy"


def later_file(update: int) -> str:
    """The file of the features that came with the update of that number."""
    return f"later-{update}.npy"


def columns_file(part: int) -> str:
    """The file of the columns of a part of the items."""
    return f"columns-{part}.npy"


def texts_file(part: int) -> str:
    """The file of the texts of a part's columns."""
    return f"texts-{part}.npy"


class ReleaseError(LookalikeError):
    """A release that must not be served: `file` (relative to its folder) and `reason`."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(file, reason)  # sets `args`, so that it can be pickled
        self.file = file
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


@dataclass(frozen=True)
class FileEntry:
    """What the manifest records of a file: its size, and the SHA-256 of the whole and of its ends."""

    n_bytes: Annotated[int, Meta(ge=1)]
    sha256: str
    ends_sha256: str

    @classmethod
    def of(cls, path: Path) -> "FileEntry":
        """The entry of the file at `path`, which is read whole."""
        return cls(path.stat().st_size, sha256_of(path), ends_sha256_of(path))

    def check_ends(self, path: Path, file: str) -> None:
        """Compare the size and the ends of `path`; ReleaseError for `file` if one differs."""
        try:
            size = regular_size(path, file)
            if size != self.n_bytes:
                raise ReleaseError(file, f"has {size} bytes, the manifest says {self.n_bytes}")
            if ends_sha256_of(path) != self.ends_sha256:
                raise ReleaseError(file, "is not the file the manifest describes (its ends differ)")
        except OSError as error:
            raise ReleaseError(file, reason_of(error)) from error

    def check_all(self, path: Path, file: str) -> None:
        """Compare every byte of `path`; ReleaseError for `file` if one differs."""
        self.check_ends(path, file)
        if sha256_of(path) != self.sha256:
            raise ReleaseError(file, "its SHA-256 is not the manifest's")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def ends_sha256_of(path: Path) -> str:
    """SHA-256 of a file's first and last `ENDS_BYTES` bytes: tells files apart, and is soon read."""
    with path.open("rb") as file:
        head = file.read(ENDS_BYTES)
        file.seek(max(0, os.fstat(file.fileno()).st_size - ENDS_BYTES))
        return hashlib.sha256(head + file.read(ENDS_BYTES)).hexdigest()


def regular_size(path: Path, file: str) -> int:
    """The size of a regular file, found without opening it: opening a pipe would block forever."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ReleaseError(file, "is not a regular file")
    return status.st_size


def reason_of(error: Exception) -> str:
    """What went wrong with a file, in one line without its path."""
    if isinstance(error, OSError):
        if error.errno == errno.ENOENT:
            return "is missing"
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return "too many open files; raise the limit (LimitNOFILE in systemd, ulimit -n)"
        if error.errno == errno.ENOMEM:
            return "cannot be mapped; free memory, or allow more mappings (sysctl vm.max_map_count)"
        return error.strerror or str(error)
    return f"cannot be read: {error}".splitlines()[0]
