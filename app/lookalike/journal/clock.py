"""When changes were received, by a clock that may be wrong and is corrected only later."""

import sqlite3
import time

_CLOCK_STEP_S = 1.0
"""A clock that goes back by less is being adjusted, or was read on another core: time stands still."""


def look_at_clock(database: sqlite3.Connection) -> float:
    """The time. Notes if the clock has gone back since the newest change, or has caught up again.

    It was ahead then or it is behind now; which of the two only shows later.
    """
    now = time.time()
    ((caught_up,),) = database.execute(
        "SELECT min(first) FROM clock_steps WHERE showed <= ?", [now]
    ).fetchall()
    if caught_up is not None:
        for update in (
            "UPDATE live SET received_at = ?1 WHERE number >= ?2 AND received_at < ?1",
            "UPDATE live_values SET received_at = ?1 WHERE number >= ?2 AND received_at < ?1",
            "UPDATE changes SET received_at = ?1 WHERE number >= ?2 AND received_at < ?1"
            " AND settled_at IS NULL",
        ):
            database.execute(update, [now, caught_up])
        database.execute("DELETE FROM clock_steps WHERE showed <= ?", [now])
    ((first, showed),) = database.execute(
        "SELECT n + 1, coalesce((SELECT received_at FROM changes WHERE number = n),"
        " (SELECT max(newest) FROM (SELECT max(received_at) AS newest FROM live"
        " UNION ALL SELECT max(received_at) FROM live_values)), (SELECT made_at FROM made))"
        " FROM (SELECT coalesce(max(seq), 0) AS n FROM sqlite_sequence)"
    ).fetchall()
    if 0 < showed - now <= _CLOCK_STEP_S:
        return float(showed)
    if showed > now:
        database.execute("INSERT OR IGNORE INTO clock_steps VALUES (?, ?, ?)", [first, showed, now])
        # The clock may go back once more before the next change.
        database.execute(
            "INSERT OR IGNORE INTO clock_steps SELECT first, shows, ?2 FROM clock_steps"
            " WHERE first = ?1 AND shows > ?2",
            [first, now],
        )
    return now


class Received:
    """The latest time at which changes can have been received, as the clock may have been wrong.

    If the clock was ahead, the change was received no later than the time at the next look. If it was
    behind, the change counts as received when the clock caught up; `look_at_clock` notes that then.
    """

    def __init__(self, database: sqlite3.Connection, now: float) -> None:
        self._now = now
        self._steps = database.execute("SELECT first, shows FROM clock_steps").fetchall()

    def at_the_latest(self, received_at: float, number: int) -> float:
        """The latest time for the change `number`, 0 for one before all others."""
        if received_at <= self._now:
            return received_at
        return min((shows for first, shows in self._steps if first > number), default=self._now)
