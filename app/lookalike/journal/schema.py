"""The journal's tables: the statements that make each format from the one before."""

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
        # By a trigger, so that a running follower of the version before fills it in too.
        "CREATE TRIGGER became_live AFTER UPDATE OF release ON changes WHEN new.release IS NOT NULL"
        " BEGIN INSERT INTO live VALUES"
        " (new.category_id, new.product_id, new.number, new.op, new.received_at)"
        " ON CONFLICT (category_id, product_id) DO UPDATE"
        " SET number = excluded.number, op = excluded.op,"
        " received_at = excluded.received_at WHERE excluded.number > number; END",
        "CREATE TABLE forgotten (received_at REAL)",
        # Numbers have no gaps, so missing ones were forgotten after a week.
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
    (
        "ALTER TABLE changes ADD COLUMN attributes TEXT",
        # What is settled is kept for a time that depends on the op.
        "DROP INDEX received",
        "CREATE INDEX received ON changes (op, received_at)",
        "DROP TRIGGER became_live",
        "CREATE TRIGGER became_live AFTER UPDATE OF release ON changes"
        " WHEN new.release IS NOT NULL AND new.op <> 'set'"
        " BEGIN INSERT INTO live VALUES"
        " (new.category_id, new.product_id, new.number, new.op, new.received_at)"
        " ON CONFLICT (category_id, product_id) DO UPDATE"
        " SET number = excluded.number, op = excluded.op,"
        " received_at = excluded.received_at WHERE excluded.number > number; END",
        "CREATE TABLE live_values ("
        " category_id NOT NULL, product_id NOT NULL, attribute TEXT NOT NULL, value TEXT NOT NULL,"
        " number INTEGER NOT NULL, received_at REAL NOT NULL,"
        " PRIMARY KEY (category_id, product_id, attribute)) WITHOUT ROWID",
        "CREATE INDEX live_values_received ON live_values (received_at)",
        "CREATE TABLE forgotten_values (received_at REAL)",
        # By a trigger, so that a running follower of the version before forgets them too.
        "CREATE TRIGGER removed AFTER UPDATE OF release ON changes"
        " WHEN new.release IS NOT NULL AND new.op = 'delete'"
        " BEGIN DELETE FROM live_values WHERE category_id = new.category_id"
        " AND product_id = new.product_id AND number < new.number; END",
    ),
)
"""The statements that make each format from the one before; the first starts from an empty file.

Times are Unix times in seconds. `image` is NULL if the photo itself was sent, `reason` unless rejected,
`attributes` unless the op is `set`: then it is a JSON object of values by name.

- `live`: the newest live put or delete of each product. `live_values`: the newest live value of each
  attribute of a product, as JSON, since the product was last removed. `forgotten`, `forgotten_values`:
  when the newest row that was dropped from each was received. `made`: when the journal was made.
- `clock_steps`: the clock had shown `showed` by the change before `first`, or when the journal was
  made, and then showed less, `shows`. The row is deleted once the clock has caught up.
- `feed_tails`: the digest of what is before a feed's position, valid for that position only.
- `waiting`: the bytes of the photos of pending changes.

Processes of the version before may have the file open. They name the columns that they write, but read
whole rows of `journal`: it must get no more columns.
"""


def check_format(database: sqlite3.Connection, path: Path) -> int:
    """The journal's format, 0 for an empty file; JournalError for one of a later version."""
    ((version,),) = database.execute("PRAGMA user_version").fetchall()
    if version > len(FORMATS):
        raise JournalError(
            f"{path}: format {version}, this version reads {len(FORMATS)}; let the version"
            " that wrote it settle what is pending, then remove it"
        )
    return int(version)
