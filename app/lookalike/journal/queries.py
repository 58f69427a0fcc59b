"""Queries of the journal's tables, for its writers and its readers."""

import sqlite3
import time

from lookalike.journal.changes import Outcome, Status


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


def rejected_of(database: sqlite3.Connection, most: int) -> list[tuple[int, Outcome]]:
    """The `most` newest rejected changes and their numbers, newest first."""
    rows = database.execute(
        "SELECT number, op, category_id, product_id, received_at, settled_at, release, reason"
        " FROM changes WHERE reason IS NOT NULL ORDER BY number DESC LIMIT ?",
        [most],
    ).fetchall()
    return [(number, Outcome(*outcome)) for number, *outcome in rows]
