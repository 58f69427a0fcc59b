"""Reading a journal without the right to write there, and without room on the disk."""

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from lookalike.journal.changes import Outcome, Status
from lookalike.journal.errors import journal_errors
from lookalike.journal.queries import outcome_of, rejected_of, status_of
from lookalike.journal.schema import check_format

_T = TypeVar("_T")
_READ_BUSY_S = 0.1
"""How long a reader waits where somebody keeps the file locked: a writer in WAL mode does not."""
_READINGS = 5
"""How often it is read again what was written meanwhile."""


def read_status(path: Path) -> Status | None:
    """Where the journal at `path` stands, None where there is none.

    This, and the other functions that read, need no right to write there and no room on the disk.
    They raise JournalError.
    """
    return _read(path, status_of)


def read_outcome(path: Path, number: int) -> Outcome | None:
    """What became of a change; None for a number that none has, or none any more."""
    return _read(path, lambda database: outcome_of(database, number))


def read_rejected(path: Path, most: int) -> list[tuple[int, Outcome]]:
    """The last changes that were rejected, at most so many, newest first, and their numbers."""
    return _read(path, lambda database: rejected_of(database, most)) or []


def _read(path: Path, use: Callable[[sqlite3.Connection], _T]) -> _T | None:
    """What `use` finds in the journal at `path`; None where there is none, or nothing in it yet.

    SQLite reads a file in WAL mode with the help of two others. Once the last writer has closed it
    these are gone, and a reader who may not write, or has no room, cannot make them. Then the file
    alone holds everything, and is read as one that nobody changes; if somebody did, it is read again.
    """
    with journal_errors(path):
        for _ in range(_READINGS):
            before = _closed(path)
            if before and before[0] == 0:
                return None
            try:
                found = _read_once(path, use, "immutable=1" if before else "mode=ro")
            except sqlite3.Error:
                if before == _closed(path):
                    raise
                continue
            if before in (None, _closed(path)):
                return found
        return _read_once(path, use, "mode=ro")


def _read_once(path: Path, use: Callable[[sqlite3.Connection], _T], how: str) -> _T | None:
    if not path.exists():
        return None
    address = f"file:{quote(str(path.absolute()))}?{how}"
    with closing(
        sqlite3.connect(address, _READ_BUSY_S, isolation_level=None, uri=True)
    ) as database:
        database.execute("BEGIN")  # all of it at one moment
        check_format(database, path)
        return use(database)


def _closed(path: Path) -> tuple[int, int, int] | None:
    """The file's size, inode and time of change, where nothing is in the write-ahead log; else None."""
    with suppress(FileNotFoundError):
        if path.with_name(f"{path.name}-wal").stat().st_size:
            return None
    with suppress(FileNotFoundError):
        status = path.stat()
        return status.st_size, status.st_ino, status.st_mtime_ns
    return None
