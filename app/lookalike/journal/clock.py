"""The clock that tells when a change was received: whether it was right is seen only later."""

import sqlite3
import time

_CLOCK_STEP_S = 1.0
"""A clock that goes back by less is slewed or read on another core; time stands still meanwhile."""


def look_at_clock(database: sqlite3.Connection) -> float:
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


class Received:
    """When changes were received at the latest, where the clock that told may have been wrong.

    A change received while the clock was ahead was received by the time that the next look at it
    showed. One received while it was behind is taken to have come when it had caught up, as late as
    can be; `look_at_clock` notes that then.
    """

    def __init__(self, database: sqlite3.Connection, now: float) -> None:
        self._now = now
        self._steps = database.execute("SELECT first, shows FROM clock_steps").fetchall()

    def at_the_latest(self, received_at: float, number: int) -> float:
        """Of the change `number`, or 0 for one before all others, at `received_at` by the clock."""
        if received_at <= self._now:
            return received_at
        return min((shows for first, shows in self._steps if first > number), default=self._now)
