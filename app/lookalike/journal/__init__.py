"""The journal: acknowledged changes of products, and what became of each. SQLite in WAL mode.

A change is on disk before its sender gets its number. The app adds changes. `lookalike-build follow`
takes them in the order of their numbers and settles each: it is live, with the name of a release, or
rejected, with a reason. Any number of processes may have the journal open.

A change's photo is kept until the change is settled, settled puts and deletes for a week, sets for a
day. For builds from older catalogues, the newest live put or delete of each product and the newest
live value of each of its attributes are kept for 90 days. The file shrinks again after many photos
were pending. It must be on a disk of this machine: SQLite's processes share memory, which network
file systems do not offer.

Changes are ordered by number. The time of each is what the clock showed, which may have been wrong: see
`Journal.live_since`.

App and follower may be two users: whoever may write to the journal's folder may write to its files.
"""

from lookalike.journal.changes import DELETE, PUT, SET, Change, Op, Outcome, State, Status
from lookalike.journal.errors import ForgottenError, JournalError, JournalFull
from lookalike.journal.reader import read_outcome, read_rejected, read_status
from lookalike.journal.writer import REMEMBERED_S, Journal

__all__ = [
    "DELETE",
    "PUT",
    "REMEMBERED_S",
    "SET",
    "Change",
    "ForgottenError",
    "Journal",
    "JournalError",
    "JournalFull",
    "Op",
    "Outcome",
    "State",
    "Status",
    "read_outcome",
    "read_rejected",
    "read_status",
]
