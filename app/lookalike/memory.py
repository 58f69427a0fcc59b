"""The pages of mapped files: reading them in, locking them, and what share of them is in memory.

Response times break when a look-up has to wait for the disk (Miyake et al., 2017), so the files that
every look-up touches are kept in memory: read in before a release is served, locked there if wanted,
and watched by a metric.
"""

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy.typing as npt

_PROBES = 1024
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


def read_in(path: Path) -> None:
    """Have the kernel read a file into the page cache, in large pieces, while we go on."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(descriptor)


def lock(array: npt.NDArray[Any]) -> None:
    """Keep a mapped array in memory until it is unmapped; OSError if that is not allowed.

    Reads in what is missing, without holding the GIL.
    """
    if array.nbytes and _libc.mlock(array.ctypes.data, array.nbytes):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def locked_bytes(process: int | str = "self") -> int:
    """How much memory this process, or the one with that id, has locked; 0 where it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("VmLck:"):
            return 1024 * int(line.split()[1])
    return 0


def resident_share(paths: Iterable[Path]) -> float | None:
    """What share of the files' pages is in the page cache, 0 to 1, from about a thousand of them.

    None where that cannot be told: a file is gone, or its file system does not say. Asked by reads
    that must not wait, since the kernel gives mincore(2) the truth for one's own files only.
    """
    try:
        sizes = {path: path.stat().st_size for path in paths}
        pages = sum(sizes.values()) // mmap.PAGESIZE
        step = max(1, pages // _PROBES) * mmap.PAGESIZE
        asked = resident = 0
        place = 0  # goes through all files as if they were one
        for path, size in sizes.items():
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                # Else a page that is missing would have its neighbours read in.
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
                while place < size:
                    asked += 1
                    resident += _is_resident(descriptor, place)
                    place += step
            finally:
                os.close(descriptor)
            place -= size
        return resident / asked if asked else None
    except OSError:
        return None


def _is_resident(descriptor: int, offset: int) -> bool:
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
