"""Counters over all processes of the app, in a file that each of them maps.

The file holds rows of unsigned 64-bit numbers, one row a process. A process adds to its own row only,
without a lock; a sum is over all rows. Row 0 holds the counts of ended processes: a process that takes
over a dead one's row adds it to row 0 first. So no count is lost, however a process ended.

A process locks byte i of the file while row i is its own, and byte 0 while rows change owners. The
locks belong to the open file (``F_OFD_SETLK`` in fcntl(2)). The kernel releases them when the process
ends, so they show which processes are alive, in containers and under ``ProtectProc=`` too.

The file never shrinks, and its space is reserved when it is made: a process that touches a page without
space dies of SIGBUS. The file may be removed at any time. The processes then go on counting in the
mapped file, until `Counters.join` moves them to the new one.
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
STALE_S = 120.0
"""How long nobody has joined or summed a file before it is removed: longer than a restart takes."""

_OWNER = 0
"""The column with the process id of the last owner; 0 in a row that was never used."""
_OPEN = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_FLOCK = "hhqqi0q"  # struct flock: type, whence, start, length, process id


class Counters:
    """The counters of one process, and the sums over all that share the file at `path`.

    Add to `row`, which has `n_columns`; column 0 is not for counting. Read `row` again for each count:
    `join` may replace it.

    Without a path the process counts for itself alone. It also does if the file cannot be opened or
    `MAX_PROCESSES` living processes share it already; the log then says why.
    """

    def __init__(self, n_columns: int, path: Path | None = None) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._rows = _CounterRows(n_columns)
        self._n_columns = n_columns
        self.row = self._rows.take_row()
        self._problem: str | None = None
        self._retry_at = 0.0
        self.join()

    def join(self) -> None:
        """Share the file that is at the path now, and take this process's counts along.

        Never raises. If that file is shared already, it takes two system calls: call it often.
        """
        path = self._path
        if path is None or self._rows.is_at(path) or time.monotonic() < self._retry_at:
            return
        try:
            with self._mutex:
                while not self._move(path):
                    pass
        except Exception as error:  # whatever it is, counting goes on
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
        """Move to the file at `path`, made if need be; False if it was removed while this ran."""
        rows = _SharedCounterRows(self._n_columns, os.open(path, _OPEN | os.O_CREAT, 0o600))
        # Every process locks two files in this order, the newer one first.
        with rows.locked():
            if not rows.is_at(path):
                return False
            row = rows.take_row()
            # Count in the new row before the old one is read, so that no count is lost in between.
            old, self._rows, self.row = self._rows, rows, row
            with old.locked():
                rows.add_to_ended(old.take_counts())
        return True


def remove_stale(folder: Path, prefix: str, kept: Path) -> None:
    """Remove counters' files in `folder`, named `prefix` and more, that nobody uses any more.

    It leaves `kept`, those that a process has open, and those used within the last `STALE_S`: their
    server may be restarting.
    """
    for path in folder.glob(f"{prefix}*"):
        if path == kept:
            continue
        with suppress(OSError):
            if time.time() - path.lstat().st_mtime < STALE_S:
                continue
            descriptor = os.open(path, _OPEN)
            try:
                # A process that opens it now waits for byte 0, and then sees that it is gone.
                alone = _lock(descriptor, 0) and not _is_locked(descriptor, 1, MAX_PROCESSES)
                if alone and _is_at(descriptor, path):
                    path.unlink()
            finally:
                os.close(descriptor)


class _CounterRows:
    """The rows of a process that counts for itself alone, in its own memory."""

    def __init__(self, n_columns: int) -> None:
        self._n_columns = n_columns
        self._own = 0
        self._numbers = self._map(file_bytes(n_columns))

    def is_at(self, path: Path) -> bool:
        """Whether they are in the file at this path."""
        return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep rows from changing owners: a row could be counted twice or not at all."""
        yield

    def take_row(self) -> "memoryview[int]":
        """A row that no living process owns, all 0; OSError if there is none."""
        for i in range(1, MAX_PROCESSES + 1):
            if self._claim(i):
                self.add_to_ended(self._take(i))
                self._own = i
                self._row(i)[_OWNER] = os.getpid()
                return self._row(i)
        raise OSError(f"{MAX_PROCESSES} processes share it already")

    def add_to_ended(self, counts: list[int]) -> None:
        """Add to the counts of ended processes."""
        ended = self._row(0)
        for column, count in enumerate(counts):
            ended[column] += count

    def take_counts(self) -> list[int]:
        """The counts of this process and of ended ones, which are then 0 here."""
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
        """Own row i, unless another living process does."""
        return True

    def _is_anothers(self, i: int) -> bool:
        """Whether another living process owns row i."""
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


class _SharedCounterRows(_CounterRows):
    """The rows in the file of an open `descriptor`, which is closed with them.

    OSError or ValueError if the file is not ours, or cannot be mapped whole.
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
            os.utime(self._descriptor)  # counting in a mapped file does not change its time
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
    """Lock or unlock a byte of an open file; False if it is locked elsewhere and `wait` is not set."""
    command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
    try:
        fcntl.fcntl(descriptor, command, struct.pack(_FLOCK, kind, os.SEEK_SET, byte, 1, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def _is_locked(descriptor: int, byte: int, n: int = 1) -> bool:
    """Whether another open file has a lock on one of `n` bytes."""
    query = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, byte, n, 0)
    found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, query)
    return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)
