"""The journal: changes of products that were acknowledged, and what became of each. SQLite in WAL mode.

A change is on disk before whoever sent it hears its number. The app writes changes, `lookalike-build
follow` takes them in the order of their numbers and settles each: it is live, with the release that it
came with, or rejected, with the reason. Any number of processes may have the journal open.

A photo that came with a change is kept until that is settled; settled changes are kept for a week. Of
each product the newest live change is kept for 90 days, for builds from older catalogues. The file
shrinks again after many photos were pending. SQLite's memory shared between processes needs a disk of
this machine, no network file system.

Changes are ordered by number. When each was received is what the clock showed then, which may have been
wrong: see `Journal.live_since`.

App and follower may be two users: who may write to the journal's folder may write to its files.
"""

import errno
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar
from urllib.parse import quote

from lookalike.errors import LookalikeError
from lookalike.release.ids import Id
from lookalike.release.root import sync

PUT: Final = "put"
DELETE: Final = "delete"
Op = Literal["put", "delete"]
State = Literal["pending", "live", "rejected"]
_T = TypeVar("_T")

_BUSY_S = 10.0
_KEPT_S = 7 * 24 * 3600.0
REMEMBERED_S: Final = 90 * 24 * 3600.0
"""How long the newest live change of a product is kept, so how old a catalogue may always be."""
_CLOCK_STEP_S = 1.0
"""A clock that goes back by less is slewed or read on another core; time stands still meanwhile."""
_WAL_BYTES = 64 * 2**20
_FREE_PAGES = 2**14
"""How many pages, of 4 KiB, stay free for photos to come, and are given back in one step at most."""

_READ_BUSY_S = 0.1
"""How long a reader waits where somebody keeps the file locked: a writer in WAL mode does not."""
_READINGS = 5
"""How often it is read again what was written meanwhile."""

_FULL = "make room, nothing that was acknowledged is lost"
_DAMAGED = "move its folder away; what was pending in it must be sent again"
_NOT_ALLOWED = "its folder and what is in it must be writable for this user"
_HINTS = {
    sqlite3.SQLITE_BUSY: "another process keeps it locked; end it if it hangs",
    sqlite3.SQLITE_CANTOPEN: _NOT_ALLOWED,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_READONLY: _NOT_ALLOWED,
}
_MORE_FILES = "raise the limit on open files (LimitNOFILE in systemd, ulimit -n)"
_SYSTEM_HINTS = {
    errno.EACCES: _NOT_ALLOWED,
    errno.EMFILE: _MORE_FILES,
    errno.ENFILE: _MORE_FILES,
    errno.ENOSPC: _FULL,
    errno.EPERM: _NOT_ALLOWED,
    errno.EROFS: _NOT_ALLOWED,
}

_FORMATS: Final = (
    (
        "CREATE TABLE journal ("
        " id TEXT NOT NULL, live INTEGER NOT NULL, rejected INTEGER NOT NULL,"
        " batches INTEGER NOT NULL, batch_s REAL NOT NULL, last_batch_changes INTEGER NOT NULL,"
        " last_batch_s REAL NOT NULL, last_batch_at REAL NOT NULL)",
        "CREATE TABLE changes ("
        " number INTEGER PRIMARY KEY AUTOINCREMENT, op TEXT NOT NULL, category_id NOT NULL,"
        " product_id NOT NULL, image TEXT, received_at REAL NOT NULL, settled_at REAL,"
        " release TEXT, reason TEXT)",
        "CREATE TABLE photos (number INTEGER PRIMARY KEY, photo BLOB NOT NULL)",
        "CREATE TABLE feeds (feed TEXT PRIMARY KEY, position INTEGER NOT NULL)",
        "CREATE INDEX pending ON changes (number) WHERE settled_at IS NULL",
        "CREATE INDEX received ON changes (received_at)",
        "INSERT INTO journal VALUES (:id, 0, 0, 0, 0, 0, 0, 0)",
    ),
    (
        "CREATE TABLE live ("
        " category_id NOT NULL, product_id NOT NULL, number INTEGER NOT NULL, op TEXT NOT NULL,"
        " received_at REAL NOT NULL, PRIMARY KEY (category_id, product_id)) WITHOUT ROWID",
        "CREATE INDEX live_received ON live (received_at)",
        "INSERT INTO live SELECT category_id, product_id, max(number), op, received_at FROM changes"
        " WHERE settled_at IS NOT NULL AND reason IS NULL GROUP BY category_id, product_id",
        # A trigger, so that a follower of the version before fills it in as well until it ends.
        "CREATE TRIGGER became_live AFTER UPDATE OF release ON changes WHEN new.release IS NOT NULL"
        " BEGIN INSERT INTO live VALUES"
        " (new.category_id, new.product_id, new.number, new.op, new.received_at)"
        " ON CONFLICT (category_id, product_id) DO UPDATE"
        " SET number = excluded.number, op = excluded.op,"
        " received_at = excluded.received_at WHERE excluded.number > number; END",
        "CREATE TABLE forgotten (received_at REAL)",
        # Numbers are given without gaps, so those that are missing were forgotten after a week.
        "INSERT INTO forgotten SELECT min(:now, coalesce(max(:now - :kept_s, oldest),"
        " (SELECT nullif(last_batch_at, 0) FROM journal), :now))"
        " FROM (SELECT count(*) AS n, min(received_at) AS oldest FROM changes)"
        " WHERE n < (SELECT coalesce(max(seq), 0) FROM sqlite_sequence)",
        "CREATE TABLE clock_steps ("
        " first INTEGER NOT NULL, showed REAL NOT NULL, shows REAL NOT NULL,"
        " PRIMARY KEY (first, showed)) WITHOUT ROWID",
        "CREATE TABLE made (made_at REAL NOT NULL)",
        "INSERT INTO made VALUES (:now)",
        "CREATE TABLE feed_tails ("
        " feed TEXT PRIMARY KEY, position INTEGER NOT NULL, sha256 TEXT NOT NULL)",
        "CREATE TABLE waiting (photo_bytes INTEGER NOT NULL)",
        "INSERT INTO waiting SELECT coalesce(sum(length(photo)), 0) FROM photos",
        "CREATE TRIGGER photo_came AFTER INSERT ON photos"
        " BEGIN UPDATE waiting SET photo_bytes = photo_bytes + length(new.photo); END",
        "CREATE TRIGGER photo_went AFTER DELETE ON photos"
        " BEGIN UPDATE waiting SET photo_bytes = photo_bytes - length(old.photo); END",
    ),
)
"""What makes each format of the one before, the first of an empty file; old journals are taken over.

`image` is None where the photo itself came, `reason` unless rejected. Times: Unix, seconds. `live` has
the newest live change of each product, `forgotten` when the newest of those forgotten was received.
A row of `clock_steps` stands as long as the clock, which had shown `showed` by the change before
`first`, shows less, `shows` when that was first seen; before the first change stands when the journal
was `made`. `feed_tails` has the digest of what stands before
a feed's position, as long as that is the position; `waiting` what the photos of pending changes take.
Processes of the version before may have the file open: they write to columns by name, and read all of
`journal`, which so gets no more columns.
"""


class JournalError(LookalikeError):
    """The journal cannot be read or written; the text names it and says why."""


class ForgottenError(JournalError):
    """Live changes were asked for of which some are forgotten, received up to `until` (Unix time)."""

    def __init__(self, path: Path, until: float) -> None:
        super().__init__(f"{path}: has forgotten live changes of that time")
        self.until = until


class JournalFull(JournalError):  # noqa: N818
    """So much waits in the journal that it takes no more photos until some of it is settled."""

    def __init__(self, path: Path, n_bytes: int, most_bytes: int) -> None:
        super().__init__(
            f"{path}: the photos of pending changes would take {n_bytes} bytes, more than {most_bytes}"
        )


class Change(NamedTuple):
    """A product registered or changed (`put`) or removed (`delete`).

    A `put` has `photo`, the bytes, or `image`, where the photo is: a URL or an absolute path.
    """

    op: Op
    category_id: Id
    product_id: Id
    image: str | None = None
    photo: bytes | None = None


class Outcome(NamedTuple):
    """What became of a change: `release` is set where it is live, `reason` where it is rejected.

    `settled_at` (Unix time, seconds) is None while it is pending.
    """

    op: Op
    category_id: Id
    product_id: Id
    received_at: float
    settled_at: float | None
    release: str | None
    reason: str | None

    @property
    def state(self) -> State:
        """In one word."""
        if self.settled_at is None:
            return "pending"
        return "live" if self.reason is None else "rejected"


class Status(NamedTuple):
    """Where a journal stands; times in seconds.

    `n_pending` changes wait, the oldest for `oldest_pending_s`; so many ever became live or were
    rejected, in `n_batches` that took `batches_s` together. The last batch, at `last_batch_at` (Unix
    time, 0 for never), had so many changes and took so long. The photos of pending changes take
    `pending_bytes`.
    """

    n_pending: int = 0
    oldest_pending_s: float = 0.0
    n_live: int = 0
    n_rejected: int = 0
    n_batches: int = 0
    batches_s: float = 0.0
    last_batch_changes: int = 0
    last_batch_s: float = 0.0
    last_batch_at: float = 0.0
    pending_bytes: int = 0


class Journal:
    """The journal in the file at `path`, made if it is not there; for any number of threads.

    `id` is this journal's own, so that numbers of another one are never taken for its own. Where
    another process writes, `busy_s` is how long to wait for it. Raises JournalError, here and in
    every method; also once the file is no longer at its path, since what is written then is lost.
    """

    def __init__(self, path: Path, busy_s: float = _BUSY_S) -> None:
        self._path = path
        self._mutex = threading.Lock()
        with _errors(path):
            path.parent.mkdir(exist_ok=True)
            sync(path.parent.parent)
            _create(path)
            self._file = _identity(path)
            self._database = sqlite3.connect(
                path, busy_s, isolation_level=None, check_same_thread=False
            )
        try:
            with _errors(path):
                self._set_up()
            with self._transaction():
                self._begin()
        except BaseException:
            self._database.close()
            raise
        self.id: str = self._all("SELECT id FROM journal")[0][0]

    def close(self) -> None:
        """Close the file; what is in it stays."""
        self._database.close()

    def add(
        self,
        changes: Iterable[Change],
        feed: tuple[str, int] | None = None,
        tail: str | None = None,
        most_bytes: int | None = None,
    ) -> list[int]:
        """Add changes, all or none, on disk when this returns; their numbers, ascending.

        With `feed`, the name of where they come from and how far it has been read, that is noted in
        the same step, with `tail`, the digest of what stands before. JournalFull where the photos
        of pending changes would take more than `most_bytes`.
        """
        numbers = []
        with self._transaction() as database:
            now = _look_at_clock(database)
            n_bytes = 0 if most_bytes is None else _waiting_bytes(database)
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
                database.execute("INSERT OR REPLACE INTO feeds VALUES (?, ?)", feed)
                database.execute("DELETE FROM feed_tails WHERE feed = ?", feed[:1])
                if tail is not None:
                    database.execute("INSERT INTO feed_tails VALUES (?, ?, ?)", [*feed, tail])
        return numbers

    def position(self, feed: str) -> int:
        """How far a feed has been read; 0 for one never seen."""
        rows = self._all("SELECT position FROM feeds WHERE feed = ?", feed)
        return int(rows[0][0]) if rows else 0

    def tail(self, feed: str) -> str | None:
        """The digest of what stood before that position; None where it is not known."""
        rows = self._all(
            "SELECT sha256 FROM feed_tails JOIN feeds USING (feed, position) WHERE feed = ?", feed
        )
        return str(rows[0][0]) if rows else None

    def pending(self, most: int) -> list[tuple[int, Change]]:
        """The oldest pending changes, at most so many, and their numbers; without their photos."""
        rows = self._all(
            "SELECT number, op, category_id, product_id, image FROM changes"
            " WHERE settled_at IS NULL ORDER BY number LIMIT ?",
            most,
        )
        return [(number, Change(*change)) for number, *change in rows]

    def n_pending(self, most: int) -> int:
        """How many changes are pending, counted up to so many."""
        ((n,),) = self._all(
            "SELECT count(*) FROM (SELECT 1 FROM changes WHERE settled_at IS NULL LIMIT ?)", most
        )
        return int(n)

    def photo(self, number: int) -> bytes | None:
        """The photo that came with a pending change."""
        rows = self._all("SELECT photo FROM photos WHERE number = ?", number)
        return bytes(rows[0][0]) if rows else None

    def reject(self, reasons: Mapping[int, str]) -> None:
        """Settle pending changes, by number, as rejected for the reasons given."""
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
        """All changes up to that number that are still pending are live in `release`; how many."""
        with self._transaction() as database:
            now = _look_at_clock(database)
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
        with suppress(JournalError):  # what it did not give back it does with the next
            self._give_back()
        return n

    def batch_done(self, n_changes: int, seconds: float) -> None:
        """Note what a batch had and took, for `status`."""
        with self._transaction() as database:
            database.execute(
                "UPDATE journal SET batches = batches + 1, batch_s = batch_s + ?,"
                " last_batch_changes = ?, last_batch_s = ?, last_batch_at = ?",
                [seconds, n_changes, seconds, time.time()],
            )

    def outcome(self, number: int) -> Outcome | None:
        """What became of a change; None for a number that none has, or none any more."""
        with self._open() as database:
            return _outcome(database, number)

    def rejected(self, most: int) -> list[tuple[int, Outcome]]:
        """The last changes that were rejected, at most so many, newest first, and their numbers."""
        with self._open() as database:
            return _rejected(database, most)

    def live_since(self, moment: float) -> list[Change]:
        """The newest live change of each product that was received then or later, by number.

        The clock that told when may have been wrong: a change received while it was ahead was received
        by the time that the next look at it showed, one received while it was behind is taken to have
        come when it had caught up, as late as can be. ForgottenError where some are not known any more.
        """
        with self._transaction() as database:
            now = _look_at_clock(database)
            steps = database.execute("SELECT first, shows FROM clock_steps").fetchall()

            def at_the_latest(received_at: float, number: int) -> float:
                if received_at <= now:
                    return float(received_at)
                return min((shows for first, shows in steps if first > number), default=now)

            for (until,) in database.execute("SELECT received_at FROM forgotten"):
                if at_the_latest(until, 0) >= moment:
                    raise ForgottenError(self._path, at_the_latest(until, 0))
            rows = database.execute(
                "SELECT number, received_at, op, category_id, product_id FROM live"
                " WHERE received_at >= ? ORDER BY number",
                [moment],
            )
            return [
                Change(*change)
                for number, received_at, *change in rows
                if at_the_latest(received_at, number) >= moment
            ]

    def pending_products(self) -> set[tuple[Id, Id]]:
        """Category and product id of pending changes."""
        rows = self._all(
            "SELECT DISTINCT category_id, product_id FROM changes WHERE settled_at IS NULL"
        )
        return {(category_id, product_id) for category_id, product_id in rows}

    def status(self) -> Status:
        """Where the journal stands."""
        with self._open() as database:
            return _status(database)

    def _set_up(self) -> None:
        # Takes effect in an empty file only.
        self._database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        ((mode,),) = self._database.execute("PRAGMA journal_mode = WAL").fetchall()
        if mode != "wal":
            raise JournalError(
                f"{self._path}: its file system has no memory shared between processes, as network "
                "file systems have none; put the release root on a disk of this machine"
            )
        # Acknowledged is on disk: in WAL mode only FULL syncs each commit.
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")

    def _begin(self) -> None:
        version = _check_format(self._database, self._path)
        values = {"id": secrets.token_hex(8), "now": time.time(), "kept_s": _KEPT_S}
        for statements in _FORMATS[version:]:
            for statement in statements:
                self._database.execute(statement, values)
        if version < len(_FORMATS):
            self._database.execute(f"PRAGMA user_version = {len(_FORMATS)}")

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
        with self._mutex, _errors(self._path):
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


def read_status(path: Path) -> Status | None:
    """Where the journal at `path` stands, None where there is none.

    This, and the other functions that read, need no right to write there and no room on the disk.
    They raise JournalError.
    """
    return _read(path, _status)


def read_outcome(path: Path, number: int) -> Outcome | None:
    """What became of a change; None for a number that none has, or none any more."""
    return _read(path, lambda database: _outcome(database, number))


def read_rejected(path: Path, most: int) -> list[tuple[int, Outcome]]:
    """The last changes that were rejected, at most so many, newest first, and their numbers."""
    return _read(path, lambda database: _rejected(database, most)) or []


def _read(path: Path, use: Callable[[sqlite3.Connection], _T]) -> _T | None:
    """What `use` finds in the journal at `path`; None where there is none, or nothing in it yet.

    SQLite reads a file in WAL mode with the help of two others. Once the last writer has closed it
    these are gone, and a reader who may not write, or has no room, cannot make them. Then the file
    alone holds everything, and is read as one that nobody changes; if somebody did, it is read again.
    """
    with _errors(path):
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
        _check_format(database, path)
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


def _check_format(database: sqlite3.Connection, path: Path) -> int:
    """The journal's format, 0 in an empty file; JournalError if it is of a later version."""
    ((version,),) = database.execute("PRAGMA user_version").fetchall()
    if version > len(_FORMATS):
        raise JournalError(
            f"{path}: format {version}, this version reads {len(_FORMATS)}; let the version"
            " that wrote it settle what is pending, then remove it"
        )
    return int(version)


def _status(database: sqlite3.Connection) -> Status:
    ((n_pending, oldest),) = database.execute(
        "SELECT count(*), (SELECT received_at FROM changes WHERE settled_at IS NULL ORDER BY number"
        " LIMIT 1) FROM changes WHERE settled_at IS NULL"
    ).fetchall()
    ((_, *totals),) = database.execute("SELECT * FROM journal").fetchall()
    waiting = 0.0 if oldest is None else max(0.0, time.time() - oldest)
    n_bytes = _waiting_bytes(database)
    return Status(n_pending, waiting, *totals)._replace(pending_bytes=n_bytes)


def _waiting_bytes(database: sqlite3.Connection) -> int:
    """How much the photos of pending changes take."""
    ((version,),) = database.execute("PRAGMA user_version").fetchall()
    counted = "SELECT photo_bytes FROM waiting"
    query = counted if version > 1 else "SELECT coalesce(sum(length(photo)), 0) FROM photos"
    return int(database.execute(query).fetchall()[0][0])


def _outcome(database: sqlite3.Connection, number: int) -> Outcome | None:
    rows = database.execute(
        "SELECT op, category_id, product_id, received_at, settled_at, release, reason"
        " FROM changes WHERE number = ?",
        [number],
    ).fetchall()
    return Outcome(*rows[0]) if rows else None


def _rejected(database: sqlite3.Connection, most: int) -> list[tuple[int, Outcome]]:
    rows = database.execute(
        "SELECT number, op, category_id, product_id, received_at, settled_at, release, reason"
        " FROM changes WHERE reason IS NOT NULL ORDER BY number DESC LIMIT ?",
        [most],
    ).fetchall()
    return [(number, Outcome(*outcome)) for number, *outcome in rows]


def _look_at_clock(database: sqlite3.Connection) -> float:
    """The time; note where the clock has gone back since the newest change, or caught up again.

    Either it was ahead then or it is behind now, and only the time to come tells which.
    """
    now = time.time()
    ((caught_up,),) = database.execute(
        "SELECT min(first) FROM clock_steps WHERE showed <= ?", [now]
    ).fetchall()
    if caught_up is not None:
        for update in (
            "UPDATE live SET received_at = ?1 WHERE number >= ?2 AND received_at < ?1",
            "UPDATE changes SET received_at = ?1 WHERE number >= ?2 AND received_at < ?1"
            " AND settled_at IS NULL",
        ):
            database.execute(update, [now, caught_up])
        database.execute("DELETE FROM clock_steps WHERE showed <= ?", [now])
    ((first, showed),) = database.execute(
        "SELECT n + 1, coalesce((SELECT received_at FROM changes WHERE number = n),"
        " (SELECT max(received_at) FROM live), (SELECT made_at FROM made))"
        " FROM (SELECT coalesce(max(seq), 0) AS n FROM sqlite_sequence)"
    ).fetchall()
    if 0 < showed - now <= _CLOCK_STEP_S:
        return float(showed)
    if showed > now:
        database.execute("INSERT OR IGNORE INTO clock_steps VALUES (?, ?, ?)", [first, showed, now])
        # It may go back once more before the next change comes.
        database.execute(
            "INSERT OR IGNORE INTO clock_steps SELECT first, shows, ?2 FROM clock_steps"
            " WHERE first = ?1 AND shows > ?2",
            [first, now],
        )
    return now


def _forget_live(database: sqlite3.Connection, before: float) -> None:
    """Forget the newest live changes of products that were received before then."""
    ((until,),) = database.execute(
        "SELECT max(received_at) FROM live WHERE received_at < ?", [before]
    ).fetchall()
    if until is not None:
        database.execute("DELETE FROM live WHERE received_at < ?", [before])
        ((known,),) = database.execute("SELECT max(received_at) FROM forgotten").fetchall()
        database.execute("DELETE FROM forgotten")
        database.execute("INSERT INTO forgotten VALUES (?)", [max(until, known or until)])


def _create(path: Path) -> None:
    """Make an empty file that those may write who may write to its folder, whatever the umask.

    SQLite gives its other files the same rights.
    """
    # Only where there is none: closing one that SQLite has open in this process ends its locks.
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


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Raise a JournalError for what SQLite or the system say of the journal at `path`."""
    try:
        yield
    except OSError as error:
        raise _error(path, error.strerror, _SYSTEM_HINTS.get(error.errno or 0)) from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the bits above are details
        if code == sqlite3.SQLITE_CANTOPEN and (limit := _no_more_files()):
            raise _error(path, limit.strerror, _MORE_FILES) from error
        raise _error(path, str(error), _HINTS.get(code)) from error


def _no_more_files() -> OSError | None:
    """What keeps this process from opening any file; SQLite does not say that."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error
    return None


def _error(path: Path, reason: str | None, hint: str | None) -> JournalError:
    return JournalError(f"{path}: {reason}{f'; {hint}' if hint else ''}")
