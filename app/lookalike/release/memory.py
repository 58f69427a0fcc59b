"""The pages of mapped files: reading them in, locking them, and what share of them is in memory.

Response times break when a look-up has to wait for the disk (Miyake et al., 2017), so the files that
every look-up touches are kept in memory: read in before a release is served, locked there if wanted,
and watched by a metric.
"""

import ctypes
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_PROBES = 1024
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mlock.argtypes = _libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
_libc.mmap.restype = ctypes.c_void_p
_MAP_FAILED = ctypes.c_void_p(-1).value


class _Mapping:
    """All of an open file, mapped read-only until the last array on it is gone."""

    def __init__(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        if address == _MAP_FAILED:
            raise _error()
        self._pages = address, size
        self.__array_interface__ = {
            "version": 3,
            "data": (address, True),  # read-only
            "shape": (size,),
            "typestr": "|u1",
        }

    def __del__(self) -> None:
        if hasattr(self, "_pages"):
            _libc.munmap(*self._pages)


def map_bytes(descriptor: int) -> npt.NDArray[np.uint8]:
    """Map all of an open file, read-only; it may be closed then.

    `mmap.mmap` holds a descriptor of its own open for every mapping, of which a release with thousands
    of categories has tens of thousands.
    """
    return np.asarray(_Mapping(descriptor))


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
        raise _error()


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


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


def resident_share(sizes: Mapping[Path, int]) -> float | None:
    """What share of the files' pages is in the page cache, 0 to 1, from about a thousand of them.

    `sizes` are in bytes; of many small files not all are looked at.

    None where that cannot be told: a file is gone, or its file system does not say. Asked by reads
    that must not wait, since the kernel gives mincore(2) the truth for one's own files only.
    """
    try:
        pages = sum(sizes.values()) // mmap.PAGESIZE
        step = max(1, pages // _PROBES) * mmap.PAGESIZE
        asked = resident = 0
        place = 0  # goes through all files as if they were one
        for path, size in sizes.items():
            if place >= size:
                place -= size
                continue
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
