"""The journal's tables: what makes each format of the one before, and what is read from them."""

import sqlite3
from pathlib import Path
from typing import Final

from lookalike.journal.errors import JournalError

FORMATS: Final = (
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


def check_format(database: sqlite3.Connection, path: Path) -> int:
    """The journal's format, 0 in an empty file; JournalError if it is of a later version."""
    ((version,),) = database.execute("PRAGMA user_version").fetchall()
    if version > len(FORMATS):
        raise JournalError(
            f"{path}: format {version}, this version reads {len(FORMATS)}; let the version"
            " that wrote it settle what is pending, then remove it"
        )
    return int(version)
