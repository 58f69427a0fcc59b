"""Arrays in files, for what may be larger than memory: the kernel writes out what it needs room for."""

import math
import mmap
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lookalike.release.arrays import Float32
from lookalike.release.root import named


def create_array(path: Path, shape: tuple[int, int]) -> Float32:
    """A new ``.npy`` file of float32, to be filled; OSError if the disk has no room for it."""
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with named(path), path.open("w+b") as file:
        np.lib.format.write_array_header_1_0(file, header)
        return _map(file, shape)


def scratch_array(folder: Path, shape: tuple[int, int]) -> Float32:
    """An array in a file of `folder` that has no name and is gone with the array; else the same."""
    with named(folder), tempfile.TemporaryFile(dir=folder) as file:
        return _map(file, shape)


def _map(file: BinaryIO, shape: tuple[int, int]) -> Float32:
    offset = file.tell()
    file.flush()
    # Without its blocks on the disk, a full one would be a SIGBUS at the first write to a page.
    os.posix_fallocate(file.fileno(), 0, offset + 4 * math.prod(shape))
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE)
    return np.ndarray(shape, "<f4", buffer=mapped, offset=offset)
