"""Counters over all processes of the app: a file that each of them maps.

The file is a table of unsigned 64-bit numbers, a row a process. A process adds to its own row only,
without a lock; a sum is over all rows. Row 0 holds what ended processes counted: a process that takes
over the row of a dead one adds it to row 0 first, so no count is lost, however a process ended.

A process holds a lock on byte i of the file as long as row i is its own, and on byte 0 while rows
change hands. These are locks of the open file (``F_OFD_SETLK`` in fcntl(2)): the kernel releases them
when the process ends, so who is alive can be told in containers and under ``ProtectProc=`` too.

The file never shrinks, and its space is reserved when it is made: a process that touches a mapped page
which is not there dies of SIGBUS. It may be removed at any time. The processes then count on in what
they have mapped, and `Counters.join` takes them to the file that replaces it.
"""

import fcntl
import logging
import mmap
import os
import struct
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

logger = logging.getLogger(__name__)

MAX_PROCESSES = 256
RETRY_S = 10.0
"""How often a process that counts for itself alone tries to join the others."""

_OWNER = 0
"""The column with the process id of the last owner, 0 in a row that nobody has had."""
_OPEN = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_FLOCK = "hhqqi0q"  # struct flock: type, whence, start, length, process id


class Counters:
    """The counters of one process, and the sums over all that share the file at `path`.

    `row` has `n_columns` of this process's own, to be added to; column 0 is not for counting. Take it
    anew for each count, since `join` may replace it.

    Without a path the process counts for itself alone. So it does where the file cannot be had or
    `MAX_PROCESSES` living processes share it already; the log then says why.
    """

    def __init__(self, n_columns: int, path: Path | None = None) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._rows = _Rows(n_columns)
        self._n_columns = n_columns
        self.row = self._rows.take_row()
        self._problem: str | None = None
        self._retry_at = 0.0
        self.join()

    def join(self) -> None:
        """Share the file that has the path now; what this process has counted so far comes along.

        Never raises. Where it is shared already that takes two system calls, so call it often.
        """
        path = self._path
        if path is None or self._rows.is_at(path) or time.monotonic() < self._retry_at:
            return
        try:
            with self._mutex:
                while not self._move(path):
                    pass
        except Exception as error:  # counting goes on whatever it is
            self._retry_at = time.monotonic() + RETRY_S
            if str(error) != self._problem:
                logger.warning(
                    "cannot share metrics in %s: %s; /metrics misses other processes until that "
                    "succeeds, tried every %g s",
                    *(path, error, RETRY_S),
                )
            self._problem = str(error)
            return
        if self._problem is not None:
            logger.info("metrics are shared in %s", path)
        self._problem = None

    def sums(self) -> tuple[list[int], int]:
        """Each column's sum over all rows, and how many processes are alive."""
        with self._mutex, self._rows.locked():
            return self._rows.sums()

    def _move(self, path: Path) -> bool:
        """Go over to the file at `path`, made if need be; False if it was removed meanwhile."""
        rows = _SharedRows(self._n_columns, os.open(path, _OPEN | os.O_CREAT, 0o600))
        # Two files at once are always locked in this order, the newer one first.
        with rows.locked():
            if not rows.is_at(path):
                return False
            row = rows.take_row()
            # Count on there before the old row is read, so that nothing falls between the two.
            old, self._rows, self.row = self._rows, rows, row
            with old.locked():
                rows.add_to_left(old.take_left())
        return True


def remove_stale(folder: Path, prefix: str, kept: Path) -> None:
    """Remove the files of counters in `folder`, named `prefix` and more, that no process has.

    The one at `kept` stays.
    """
    for path in folder.glob(f"{prefix}*"):
        if path == kept:
            continue
        with suppress(OSError):
            descriptor = os.open(path, _OPEN)
            try:
                # Who opens it now waits for byte 0, and then sees that it is gone.
                alone = _lock(descriptor, 0) and not _is_locked(descriptor, 1, MAX_PROCESSES)
                if alone and _is_at(descriptor, path):
                    path.unlink()
            finally:
                os.close(descriptor)


class _Rows:
    """The rows of a process that counts for itself alone, in memory of its own."""

    def __init__(self, n_columns: int) -> None:
        self._n_columns = n_columns
        self._own = 0
        self._numbers = self._map(file_bytes(n_columns))

    def is_at(self, path: Path) -> bool:
        """Whether they are in the file that has this path."""
        return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep rows from changing hands, which would count one twice or not at all."""
        yield

    def take_row(self) -> "memoryview[int]":
        """A row that no living process has, all 0; OSError if there is none."""
        for i in range(1, MAX_PROCESSES + 1):
            if self._claim(i):
                self.add_to_left(self._take(i))
                self._own = i
                self._row(i)[_OWNER] = os.getpid()
                return self._row(i)
        raise OSError(f"{MAX_PROCESSES} processes share it already")

    def add_to_left(self, counts: list[int]) -> None:
        """Add to what ended processes left."""
        left = self._row(0)
        for column, count in enumerate(counts):
            left[column] += count

    def take_left(self) -> list[int]:
        """What this process and ended ones have counted; it is then 0 here."""
        others = [i for i in self._used() if self._is_anothers(i)]
        return _sums([self._take(i) for i in (0, *self._used()) if i not in others])

    def sums(self) -> tuple[list[int], int]:
        """As `Counters.sums`."""
        used = self._used()
        alive = sum(i == self._own or self._is_anothers(i) for i in used)
        return _sums([self._counts(i) for i in (0, *used)]), alive

    def _map(self, n_bytes: int) -> "memoryview[int]":
        return memoryview(mmap.mmap(-1, n_bytes)).cast("Q")

    def _claim(self, i: int) -> bool:
        """Make row i our own, unless another living process has it."""
        return True

    def _is_anothers(self, i: int) -> bool:
        """Whether another living process has row i."""
        return False

    def _used(self) -> list[int]:
        return [i for i in range(1, MAX_PROCESSES + 1) if self._row(i)[_OWNER]]

    def _counts(self, i: int) -> list[int]:
        return [0, *self._row(i)[_OWNER + 1 :].tolist()]

    def _take(self, i: int) -> list[int]:
        row, counts = self._row(i), self._counts(i)
        for column in range(_OWNER + 1, self._n_columns):
            row[column] = 0
        return counts

    def _row(self, i: int) -> "memoryview[int]":
        return self._numbers[i * self._n_columns : (i + 1) * self._n_columns]


class _SharedRows(_Rows):
    """The rows in the file of an open `descriptor`, which is closed with them.

    OSError or ValueError if it is not ours, or not all of it can be had.
    """

    def __init__(self, n_columns: int, descriptor: int) -> None:
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)
        super().__init__(n_columns)

    def is_at(self, path: Path) -> bool:
        return _is_at(self._descriptor, path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        _lock(self._descriptor, 0, wait=True)
        try:
            yield
        finally:
            _lock(self._descriptor, 0, kind=fcntl.F_UNLCK)

    def _map(self, n_bytes: int) -> "memoryview[int]":
        status = os.fstat(self._descriptor)
        if status.st_uid != os.getuid():
            raise OSError("it belongs to another user")
        if status.st_size < n_bytes:  # nobody has mapped it yet
            os.posix_fallocate(self._descriptor, 0, n_bytes)
        return memoryview(mmap.mmap(self._descriptor, n_bytes)).cast("Q")

    def _claim(self, i: int) -> bool:
        return _lock(self._descriptor, i)

    def _is_anothers(self, i: int) -> bool:
        return i != self._own and _is_locked(self._descriptor, i)


def file_bytes(n_columns: int) -> int:
    """The size of the file."""
    return 8 * n_columns * (MAX_PROCESSES + 1)


def _sums(rows: list[list[int]]) -> list[int]:
    return [sum(column) for column in zip(*rows, strict=True)]


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the path names the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False


def _lock(descriptor: int, byte: int, wait: bool = False, kind: int = fcntl.F_WRLCK) -> bool:
    """Lock a byte of an open file, or unlock it; False if another has it and we are not to wait."""
    command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
    try:
        fcntl.fcntl(descriptor, command, struct.pack(_FLOCK, kind, os.SEEK_SET, byte, 1, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def _is_locked(descriptor: int, byte: int, n: int = 1) -> bool:
    """Whether another open file has a lock on one of `n` bytes."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, byte, n, 0)
    found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked)
    return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)
