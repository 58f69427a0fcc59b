"""The pages of mapped files: reads them in, locks them, and measures how many are in memory.

A look-up that waits for the disk breaks response times (Miyake et al., 2017). So the files that every
look-up reads are read in before a release is served, locked if the settings say so, and watched by a
metric.
"""

import ctypes
import math
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.release.files import ReleaseError, reason_of

_SAMPLES = 1024
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mlock.argtypes = _libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
_libc.mmap.restype = ctypes.c_void_p
_MAP_FAILED = ctypes.c_void_p(-1).value


class _Mapping:
    """A whole open file, mapped read-only until the last array on it is gone."""

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
    """Map a whole open file, read-only. The file may be closed afterwards.

    `mmap.mmap` would hold a descriptor open for each mapping. A release of thousands of categories has
    tens of thousands.
    """
    return np.asarray(_Mapping(descriptor))


def map_array(
    path: Path, shape: tuple[int, ...], dtype: "str | np.dtype[Any] | None" = None
) -> npt.NDArray[Any]:
    """Map a ``.npy`` file as a plain ndarray (numpy.memmap costs microseconds at every look-up)."""
    name = f"{path.parent.name}/{path.name}"
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ReleaseError(name, "is not a .npy file of version 1.0")
            found_shape, fortran, found = np.lib.format.read_array_header_1_0(file)
            offset = file.tell()
            mapped = map_bytes(file.fileno())
    except ReleaseError:
        raise
    except Exception as error:  # NumPy raises tokenize's errors, too, for an invalid header
        raise ReleaseError(name, reason_of(error)) from error
    wrong_type = found.hasobject if dtype is None else found != np.dtype(dtype)
    if found_shape != shape or fortran or wrong_type:
        reason = f"holds {found.str} {found_shape}, the manifest says {dtype or 'ids'} {shape}"
        raise ReleaseError(name, reason)
    if len(mapped) != offset + found.itemsize * math.prod(shape):
        raise ReleaseError(name, f"has {len(mapped)} bytes, which is not what its header says")
    return np.ndarray(shape, found, buffer=mapped, offset=offset)


def read_in(path: Path) -> None:
    """Have the kernel read a file into the page cache, in large pieces and in the background."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(descriptor)


def lock(array: npt.NDArray[Any]) -> None:
    """Keep a mapped array in memory until it is unmapped; OSError if that is not allowed.

    Reads in the missing pages, without holding the GIL.
    """
    if array.nbytes and _libc.mlock(array.ctypes.data, array.nbytes):
        raise _error()


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def locked_bytes(process: int | str = "self") -> int:
    """How many bytes of memory a process has locked; 0 if it has ended."""
    try:
        return 1024 * int(fields_of(f"{process}/status")["VmLck"][0])
    except (OSError, KeyError):
        return 0


def fields_of(file: str) -> dict[str, list[str]]:
    """The words of each field in a file of /proc such as ``self/status``, by the field's name."""
    lines = (line.partition(":") for line in Path("/proc", file).read_text().splitlines())
    return {name: value.split() for name, _, value in lines}


def resident_share(sizes: Mapping[Path, int]) -> float | None:
    """The share of the files' pages that is in the page cache, 0 to 1, from about 1,000 samples.

    `sizes` are in bytes. Small files between two samples are skipped. None if a file is gone, or its
    file system cannot tell.

    A page is sampled by a read that must not wait: mincore(2) is truthful about one's own files only.
    The kernel then reads a missing page in: each measurement samples others, and a page that the disk
    delivers at once counts as resident.
    """
    try:
        pages = sum(sizes.values()) // mmap.PAGESIZE
        step = max(1, pages // _SAMPLES)
        # In the current file; beyond its end, in the next.
        offset = int(np.random.default_rng().integers(step)) * mmap.PAGESIZE
        sampled = resident = 0
        for path, size in sizes.items():
            if offset >= size:
                offset -= size
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                # Otherwise the sample of a missing page would read in those around it.
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
                while offset < size:
                    sampled += 1
                    resident += _is_resident(descriptor, offset)
                    offset += step * mmap.PAGESIZE
            finally:
                os.close(descriptor)
            offset -= size
        return resident / sampled if sampled else None
    except OSError:
        return None


def _is_resident(descriptor: int, offset: int) -> bool:
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
