"""Files of the release being written: made there, or taken over from the current one."""

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lookalike.release.files import FileEntry, ReleaseError
from lookalike.release.root import named, sync


def write_array(path: Path, array: npt.NDArray[np.generic]) -> None:
    """A new ``.npy`` file, on disk."""
    array = np.asarray(array, order="C")
    with named(path), path.open("xb") as file:  # never into what may be a link to a published file
        header = np.lib.format.header_data_from_array_1_0(array)
        np.lib.format.write_array_header_1_0(file, header)
        file.write(array.data)  # numpy's `tofile` does not report a full disk
    sync(path)


def link(published: Path, path: Path) -> None:
    """Have the published file at `path`: as a hard link, or as a copy where links are impossible."""
    path.unlink(missing_ok=True)
    try:
        os.link(published, path)
    except OSError:  # another device, or a file system without hard links
        shutil.copyfile(published, path)
        sync(path)


def link_if_same(
    published: tuple[Path, Mapping[str, FileEntry]], written: tuple[Path, Mapping[str, FileEntry]]
) -> None:
    """Replace each written file that equals the published one, in another folder, by a link to it."""
    folder, old = published
    for file, entry in written[1].items():
        # Where the current release is not what its manifest says, ours is the good file.
        with suppress(ReleaseError):
            if old.get(file) == entry:
                entry.check_all(folder / file, file)
                link(folder / file, written[0] / file)
