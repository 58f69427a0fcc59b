"""The journal, open for writing: the app adds changes, the follower settles them."""

import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from lookalike.journal.changes import Change, Outcome, Status
from lookalike.journal.clock import Received, look_at_clock
from lookalike.journal.errors import ForgottenError, JournalError, JournalFull, journal_errors
from lookalike.journal.reader import outcome_of, status_of, waiting_bytes
from lookalike.journal.schema import FORMATS, check_format
from lookalike.release.ids import Id
from lookalike.release.root import sync

_BUSY_S = 10.0
_KEPT_S = 7 * 24 * 3600.0
REMEMBERED_S: Final = 90 * 24 * 3600.0
"""How long the newest live change of a product is kept: a build may use a catalogue of this age."""
_WAL_BYTES = 64 * 2**20
_FREE_PAGES = 2**14
"""How many pages of 4 KiB stay free for new photos; also the most that are given back in one step."""


class Journal:
    """The journal in the file at `path`, made if it is not there; for any number of threads.

    `id` tells its numbers from those of another journal. `busy_s` is how long to wait while another
    process writes. Every method raises JournalError, also once the file is no longer at its path: what
    was written then would be lost.
    """

    def __init__(self, path: Path, busy_s: float = _BUSY_S) -> None:
        self._path = path
        self._mutex = threading.Lock()
        with journal_errors(path):
            path.parent.mkdir(exist_ok=True)
            sync(path.parent.parent)
            _create(path)
            self._file = _identity(path)
            self._database = sqlite3.connect(
                path, busy_s, isolation_level=None, check_same_thread=False
            )
        try:
            with journal_errors(path):
                self._set_up()
            with self._transaction():
                self._begin()
        except BaseException:
            self._database.close()
            raise
        self.id: str = self._all("SELECT id FROM journal")[0][0]

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def add(
        self,
        changes: Iterable[Change],
        feed: tuple[str, int] | None = None,
        tail: str | None = None,
        most_bytes: int | None = None,
    ) -> list[int]:
        """Add changes, all or none, and return their numbers, ascending; they are on disk then.

        `feed`, a feed's name and how far it has been read, is noted in the same transaction, with
        `tail`, the digest of what is before that position. JournalFull if the photos of pending changes
        would take more than `most_bytes`.
        """
        numbers = []
        with self._transaction() as database:
            now = look_at_clock(database)
            n_bytes = 0 if most_bytes is None else waiting_bytes(database)
            for change in changes:
                n_bytes += len(change.photo or b"")
                if most_bytes is not None and change.photo and n_bytes > most_bytes:
                    raise JournalFull(self._path, n_bytes, most_bytes)
                number = database.execute(
                    "INSERT INTO changes (op, category_id, product_id, image, received_at)"
                    " VALUES (?, ?, ?, ?, ?)",
                    [*change[:4], now],
                ).lastrowid
                numbers.append(number or 0)
                if change.photo is not None:
                    database.execute("INSERT INTO photos VALUES (?, ?)", [number, change.photo])
            if feed:
                _note_position(database, feed, tail)
        return numbers

    def position(self, feed: str) -> int:
        """How far a feed has been read; 0 for a new one."""
        rows = self._all("SELECT position FROM feeds WHERE feed = ?", feed)
        return int(rows[0][0]) if rows else 0

    def tail(self, feed: str) -> str | None:
        """The digest of what was before a feed's position; None if it is unknown."""
        rows = self._all(
            "SELECT sha256 FROM feed_tails JOIN feeds USING (feed, position) WHERE feed = ?", feed
        )
        return str(rows[0][0]) if rows else None

    def pending(self, most: int) -> list[tuple[int, Change]]:
        """The `most` oldest pending changes and their numbers, without photos."""
        rows = self._all(
            "SELECT number, op, category_id, product_id, image FROM changes"
            " WHERE settled_at IS NULL ORDER BY number LIMIT ?",
            most,
        )
        return [(number, Change(*change)) for number, *change in rows]

    def n_pending(self, most: int) -> int:
        """How many changes are pending, counted up to `most`."""
        ((n,),) = self._all(
            "SELECT count(*) FROM (SELECT 1 FROM changes WHERE settled_at IS NULL LIMIT ?)", most
        )
        return int(n)

    def photo(self, number: int) -> bytes | None:
        """The photo that came with a pending change."""
        rows = self._all("SELECT photo FROM photos WHERE number = ?", number)
        return bytes(rows[0][0]) if rows else None

    def reject(self, reasons: Mapping[int, str]) -> None:
        """Settle pending changes as rejected; `reasons` are by number."""
        n = 0
        with self._transaction() as database:
            for number, reason in reasons.items():
                n += database.execute(
                    "UPDATE changes SET settled_at = ?, reason = ?"
                    " WHERE number = ? AND settled_at IS NULL",
                    [time.time(), reason, number],
                ).rowcount
                database.execute("DELETE FROM photos WHERE number = ?", [number])
            database.execute("UPDATE journal SET rejected = rejected + ?", [n])

    def settle(self, up_to: int, release: str) -> int:
        """Settle all pending changes up to a number as live in `release`; returns how many."""
        with self._transaction() as database:
            now = look_at_clock(database)
            n = database.execute(
                "UPDATE changes SET settled_at = ?, release = ?"
                " WHERE number <= ? AND settled_at IS NULL",
                [now, release, up_to],
            ).rowcount
            database.execute("DELETE FROM photos WHERE number <= ?", [up_to])
            database.execute("UPDATE journal SET live = live + ?", [n])
            database.execute(
                "DELETE FROM changes WHERE received_at < ?1 AND settled_at < ?1", [now - _KEPT_S]
            )
            _forget_live(database, now - REMEMBERED_S)
        with suppress(JournalError):  # the next time will do
            self._give_back()
        return n

    def batch_done(self, n_changes: int, seconds: float) -> None:
        """Count a batch of `n_changes` that took `seconds`, for `status`."""
        with self._transaction() as database:
            database.execute(
                "UPDATE journal SET batches = batches + 1, batch_s = batch_s + ?,"
                " last_batch_changes = ?, last_batch_s = ?, last_batch_at = ?",
                [seconds, n_changes, seconds, time.time()],
            )

    def outcome(self, number: int) -> Outcome | None:
        """What became of a change; None if the journal has no such number, or no longer has it."""
        with self._open() as database:
            return outcome_of(database, number)

    def live_since(self, moment: float) -> list[Change]:
        """The newest live change of each product received at `moment` or later, ordered by number.

        If the clock may have been wrong, a change is included in doubt, see `Received`. ForgottenError
        if some are forgotten.
        """
        with self._transaction() as database:
            received = Received(database, look_at_clock(database))
            for (until,) in database.execute("SELECT received_at FROM forgotten"):
                if received.at_the_latest(until, 0) >= moment:
                    raise ForgottenError(self._path, received.at_the_latest(until, 0))
            rows = database.execute(
                "SELECT number, received_at, op, category_id, product_id FROM live"
                " WHERE received_at >= ? ORDER BY number",
                [moment],
            )
            return [
                Change(*change)
                for number, received_at, *change in rows
                if received.at_the_latest(received_at, number) >= moment
            ]

    def pending_products(self) -> set[tuple[Id, Id]]:
        """The category and product ids of pending changes."""
        rows = self._all(
            "SELECT DISTINCT category_id, product_id FROM changes WHERE settled_at IS NULL"
        )
        return {(category_id, product_id) for category_id, product_id in rows}

    def status(self) -> Status:
        """The journal's status."""
        with self._open() as database:
            return status_of(database)

    def _set_up(self) -> None:
        # This takes effect only in an empty file.
        self._database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        ((mode,),) = self._database.execute("PRAGMA journal_mode = WAL").fetchall()
        if mode != "wal":
            raise JournalError(
                f"{self._path}: its file system has no memory shared between processes, as network "
                "file systems have none; put the release root on a disk of this machine"
            )
        # In WAL mode only FULL syncs each commit, so that acknowledged changes are on disk.
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")

    def _begin(self) -> None:
        version = check_format(self._database, self._path)
        values = {"id": secrets.token_hex(8), "now": time.time(), "kept_s": _KEPT_S}
        for statements in FORMATS[version:]:
            for statement in statements:
                self._database.execute(statement, values)
        if version < len(FORMATS):
            self._database.execute(f"PRAGMA user_version = {len(FORMATS)}")

    def _give_back(self) -> None:
        with self._open() as database:
            ((free,),) = database.execute("PRAGMA freelist_count").fetchall()
            if free > _FREE_PAGES:
                n = min(free - _FREE_PAGES, _FREE_PAGES)
                # `execute` would stop after the first page.
                database.executescript(f"PRAGMA incremental_vacuum({n})")

    def _all(self, query: str, *values: object) -> list[Any]:
        with self._open() as database:
            return database.execute(query, values).fetchall()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._mutex, journal_errors(self._path):
            if _identity(self._path) != self._file:
                raise JournalError(f"{self._path}: was removed or replaced while it was open")
            yield self._database

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._open():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise


def _note_position(database: sqlite3.Connection, feed: tuple[str, int], tail: str | None) -> None:
    database.execute("INSERT OR REPLACE INTO feeds VALUES (?, ?)", feed)
    database.execute("DELETE FROM feed_tails WHERE feed = ?", feed[:1])
    if tail is not None:
        database.execute("INSERT INTO feed_tails VALUES (?, ?, ?)", [*feed, tail])


def _forget_live(database: sqlite3.Connection, before: float) -> None:
    """Forget the live changes of products that were received before a time."""
    ((until,),) = database.execute(
        "SELECT max(received_at) FROM live WHERE received_at < ?", [before]
    ).fetchall()
    if until is not None:
        database.execute("DELETE FROM live WHERE received_at < ?", [before])
        ((known,),) = database.execute("SELECT max(received_at) FROM forgotten").fetchall()
        database.execute("DELETE FROM forgotten")
        database.execute("INSERT INTO forgotten VALUES (?)", [max(until, known or until)])


def _create(path: Path) -> None:
    """Make an empty file with its folder's write permissions, which SQLite gives its other files."""
    # Never open an existing file here: closing it would release SQLite's locks of this process.
    with suppress(FileExistsError):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, path.parent.stat().st_mode & 0o666)
        os.close(descriptor)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
