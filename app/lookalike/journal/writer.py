"""The journal, open for writing: the app adds changes, the follower settles them."""

import os
import secrets
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from lookalike.journal.changes import DELETE, PUT, SET, Change, Op, Outcome, Status
from lookalike.journal.clock import Received, look_at_clock
from lookalike.journal.errors import ForgottenError, JournalError, JournalFull, journal_errors
from lookalike.journal.reader import outcome_of, status_of, waiting_bytes
from lookalike.journal.schema import FORMATS, check_format
from lookalike.release.attributes import Value, Values
from lookalike.release.ids import Id
from lookalike.release.root import sync

_BUSY_S = 10.0
_BUSY_STEP_MS = 1
"""How long to wait between looks at a lock. SQLite's own steps grow to 100 ms, longer than a hundred
changes take: under load a process would wait through them all and give up."""
_DAY_S = 24 * 3600.0
_KEPT_S: Final[Mapping[Op, float]] = {PUT: 7 * _DAY_S, DELETE: 7 * _DAY_S, SET: _DAY_S}
"""How long a settled change is kept. Sets may be a thousand a second."""
_AT_ONCE = 1000
"""The most changes settled in one transaction: it takes 20 ms, in which no sender can write."""
REMEMBERED_S: Final = 90 * _DAY_S
"""How long the newest live change of a product is kept: a build may use a catalogue of this age."""
MOST_PENDING: Final = 16_384
"""How many changes, most of them sets, a follower takes at once: a set costs it little."""
_LIVE: Final = {"live": "forgotten", "live_values": "forgotten_values"}
"""The tables of what is live, and those that say when the newest row dropped was received."""
_FORGET = (
    "INSERT INTO {forgotten} SELECT received_at FROM {live} WHERE received_at < :before"
    " ORDER BY received_at DESC LIMIT 1",
    "DELETE FROM {forgotten} WHERE received_at < (SELECT max(received_at) FROM {forgotten})",
    "DELETE FROM {live} WHERE received_at < :before",
)
_VALUES = msgspec.json.Decoder(dict[str, msgspec.Raw])
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
        self._busy_s = busy_s
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
                current = check_format(self._database, path) == len(FORMATS)
            if not current:
                with self._transaction():
                    self._upgrade()
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
                    "INSERT INTO changes (op, category_id, product_id, image, received_at, attributes)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    [*change[:4], now, _json(change.values)],
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
        """The oldest pending changes and their numbers, ascending, without photos.

        They end with the `most`-th put or delete, and are no more than `MOST_PENDING`, or `most` if
        that is more.
        """
        pending: list[tuple[int, Change]] = []
        with self._open() as database:
            rows = database.execute(
                "SELECT number, op, category_id, product_id, image, attributes FROM changes"
                " WHERE settled_at IS NULL ORDER BY number LIMIT ?",
                [max(most, MOST_PENDING)],
            )
            for number, *change, attributes in rows:
                values = attributes and msgspec.json.decode(attributes)
                pending.append((number, Change(*change)._replace(values=values)))
                most -= change[0] != SET
                if most <= 0:
                    break
        if pending:  # else a power cut could undo a change that a release has by then
            self._sync()
        return pending

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
        n = taken = self._settle(up_to, release)
        while taken == _AT_ONCE:
            time.sleep(2 * _BUSY_STEP_MS / 1000)  # let others write
            n += (taken := self._settle(up_to, release))
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
        """The newest live put or delete of each product received at `moment` or later, by number.

        If the clock may have been wrong, a change is included in doubt, see `Received`. ForgottenError
        if some are forgotten.
        """
        with self._transaction() as database:
            received = self._received(database, "forgotten", moment)
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

    def values_since(self, moment: float) -> dict[tuple[Id, Id], Values]:
        """The newest live value of each attribute received at `moment` or later.

        By category id and product id. Products that were removed later have none. The clock and
        ForgottenError are as in `live_since`.
        """
        values: dict[tuple[Id, Id], dict[str, Value | None]] = defaultdict(dict)
        with self._transaction() as database:
            received = self._received(database, "forgotten_values", moment)
            rows = database.execute(
                "SELECT number, received_at, category_id, product_id, attribute, value"
                " FROM live_values WHERE received_at >= ?",
                [moment],
            )
            for number, received_at, category_id, product_id, attribute, value in rows:
                if received.at_the_latest(received_at, number) >= moment:
                    values[category_id, product_id][attribute] = msgspec.json.decode(value)
        return dict(values)

    def pending_products(self) -> set[tuple[Id, Id]]:
        """The category and product ids of pending puts and deletes."""
        rows = self._all(
            "SELECT DISTINCT category_id, product_id FROM changes"
            " WHERE settled_at IS NULL AND op <> 'set'"
        )
        return {(category_id, product_id) for category_id, product_id in rows}

    def status(self) -> Status:
        """The journal's status."""
        with self._open() as database:
            return status_of(database)

    def _settle(self, up_to: int, release: str) -> int:
        """Settle the oldest `_AT_ONCE` of them, and delete as many of each op that are old enough."""
        with self._transaction() as database:
            now = look_at_clock(database)
            ((n, last),) = database.execute(
                "SELECT count(*), max(number) FROM (SELECT number FROM changes"
                " WHERE settled_at IS NULL AND number <= ? ORDER BY number LIMIT ?)",
                [up_to, _AT_ONCE],
            ).fetchall()
            _note_values(database, last)
            database.execute(
                "UPDATE changes SET settled_at = ?, release = ?"
                " WHERE number <= ? AND settled_at IS NULL",
                [now, release, last],
            )
            database.execute("DELETE FROM photos WHERE number <= ?", [last])
            database.execute("UPDATE journal SET live = live + ?", [n])
            for op, kept_s in _KEPT_S.items():
                database.execute(
                    "DELETE FROM changes WHERE number IN (SELECT number FROM changes"
                    " WHERE op = ?1 AND received_at < ?2 AND settled_at < ?2 LIMIT ?3)",
                    [op, now - kept_s, _AT_ONCE],
                )
            _forget(database, now - REMEMBERED_S)
        return int(n)

    def _set_up(self) -> None:
        # This takes effect only in an empty file, and waits for writers in any.
        if check_format(self._database, self._path) == 0:
            self._database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        ((mode,),) = self._database.execute("PRAGMA journal_mode = WAL").fetchall()
        if mode != "wal":
            raise JournalError(
                f"{self._path}: its file system has no memory shared between processes, as network "
                "file systems have none; put the release root on a disk of this machine"
            )
        # A checkpoint is synced, a commit is not: that would keep it locked. `_sync` follows each.
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        self._database.execute(f"PRAGMA busy_timeout = {_BUSY_STEP_MS}")

    def _upgrade(self) -> None:
        version = check_format(self._database, self._path)
        values = {"id": secrets.token_hex(8), "now": time.time(), "kept_s": _KEPT_S[PUT]}
        for statements in FORMATS[version:]:
            for statement in statements:
                self._database.execute(statement, values)
        if version < len(FORMATS):
            self._database.execute(f"PRAGMA user_version = {len(FORMATS)}")

    def _received(self, database: sqlite3.Connection, forgotten: str, moment: float) -> Received:
        """When changes were received; ForgottenError if some since `moment` are forgotten."""
        received = Received(database, look_at_clock(database))
        for (until,) in database.execute(f"SELECT received_at FROM {forgotten}"):  # noqa: S608
            if received.at_the_latest(until, 0) >= moment:
                raise ForgottenError(self._path, received.at_the_latest(until, 0))
        return received

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
            self._lock()
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
        self._sync()

    def _sync(self) -> None:
        """Wait until all that was committed is on disk. Others can write and sync at the same time."""
        with journal_errors(self._path):
            descriptor = os.open(f"{self._path}-wal", os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)

    def _lock(self) -> None:
        until = time.monotonic() + self._busy_s
        while True:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > until:
                    raise


def _note_position(database: sqlite3.Connection, feed: tuple[str, int], tail: str | None) -> None:
    database.execute("INSERT OR REPLACE INTO feeds VALUES (?, ?)", feed)
    database.execute("DELETE FROM feed_tails WHERE feed = ?", feed[:1])
    if tail is not None:
        database.execute("INSERT INTO feed_tails VALUES (?, ?, ?)", [*feed, tail])


def _json(values: Values | None) -> str | None:
    return None if values is None else msgspec.json.encode(values).decode()


def _note_values(database: sqlite3.Connection, up_to: int | None) -> None:
    """Note the values of the pending sets up to a number as the newest live ones."""
    sets = database.execute(
        "SELECT category_id, product_id, attributes, number, received_at FROM changes"
        " WHERE settled_at IS NULL AND number <= ? AND op = 'set' ORDER BY number",
        [up_to],
    )
    database.executemany(
        "INSERT OR REPLACE INTO live_values VALUES (?, ?, ?, ?, ?, ?)",
        (
            [category_id, product_id, attribute, bytes(value).decode(), number, received_at]
            for category_id, product_id, attributes, number, received_at in sets
            for attribute, value in _VALUES.decode(attributes).items()
        ),
    )


def _forget(database: sqlite3.Connection, before: float) -> None:
    """Forget what became live of changes received before a time, except when the newest was."""
    for live, forgotten in _LIVE.items():
        for statement in _FORGET:
            database.execute(statement.format(live=live, forgotten=forgotten), {"before": before})


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
