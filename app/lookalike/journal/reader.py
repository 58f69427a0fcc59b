"""Reads a journal, also without the right to write there and without room on the disk."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from lookalike.journal.changes import Outcome, Status
from lookalike.journal.errors import journal_errors
from lookalike.journal.schema import check_format

_T = TypeVar("_T")
_READ_BUSY_S = 0.1
"""How long a reader waits for a locked file; in WAL mode writers do not lock it."""
_READINGS = 5
"""How often a file is read that changes while it is read."""


def read_status(path: Path) -> Status | None:
    """The status of the journal at `path`; None if there is none. JournalError if it is invalid."""
    return _read(path, status_of)


def read_outcome(path: Path, number: int) -> Outcome | None:
    """What became of a change; None if the journal has no such number, or no longer has it."""
    return _read(path, lambda database: outcome_of(database, number))


def read_rejected(path: Path, most: int) -> list[tuple[int, Outcome]]:
    """The `most` newest rejected changes and their numbers, newest first."""

    def rejected(database: sqlite3.Connection) -> list[tuple[int, Outcome]]:
        rows = database.execute(
            "SELECT number, op, category_id, product_id, received_at, settled_at, release, reason"
            " FROM changes WHERE reason IS NOT NULL ORDER BY number DESC LIMIT ?",
            [most],
        )
        return [(number, Outcome(*outcome)) for number, *outcome in rows]

    return _read(path, rejected) or []


def status_of(database: sqlite3.Connection) -> Status:
    """The journal's status."""
    ((n_pending, oldest),) = database.execute(
        "SELECT count(*), (SELECT received_at FROM changes WHERE settled_at IS NULL ORDER BY number"
        " LIMIT 1) FROM changes WHERE settled_at IS NULL"
    ).fetchall()
    ((_, *totals),) = database.execute("SELECT * FROM journal").fetchall()
    waiting = 0.0 if oldest is None else max(0.0, time.time() - oldest)
    n_bytes = waiting_bytes(database)
    return Status(n_pending, waiting, *totals)._replace(pending_bytes=n_bytes)


def waiting_bytes(database: sqlite3.Connection) -> int:
    """How many bytes the photos of pending changes take."""
    ((version,),) = database.execute("PRAGMA user_version").fetchall()
    counted = "SELECT photo_bytes FROM waiting"
    query = counted if version > 1 else "SELECT coalesce(sum(length(photo)), 0) FROM photos"
    return int(database.execute(query).fetchall()[0][0])


def outcome_of(database: sqlite3.Connection, number: int) -> Outcome | None:
    """What became of a change; None if the journal has no such number, or no longer has it."""
    rows = database.execute(
        "SELECT op, category_id, product_id, received_at, settled_at, release, reason"
        " FROM changes WHERE number = ?",
        [number],
    ).fetchall()
    return Outcome(*rows[0]) if rows else None


def _read(path: Path, use: Callable[[sqlite3.Connection], _T]) -> _T | None:
    """What `use` returns for the journal at `path`; None if there is none or it is still empty.

    In WAL mode SQLite needs two more files to read one. The last writer to close it removes them, and a
    reader that may not write, or has no room, cannot make them. Then the file holds everything: it is
    read as one that nobody changes, and read again if somebody did.
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
        database.execute("BEGIN")  # so that all reads see the same state
        check_format(database, path)
        return use(database)


def _closed(path: Path) -> tuple[int, int, int] | None:
    """The file's size, inode and time of change; None if its write-ahead log is not empty."""
    with suppress(FileNotFoundError):
        if path.with_name(f"{path.name}-wal").stat().st_size:
            return None
    with suppress(FileNotFoundError):
        status = path.stat()
        return status.st_size, status.st_ino, status.st_mtime_ns
    return None
