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

from lookalike.journal.changes import DELETE, PUT, Change, Op, Outcome, State, Status
from lookalike.journal.errors import ForgottenError, JournalError, JournalFull
from lookalike.journal.reader import read_outcome, read_rejected, read_status
from lookalike.journal.writer import REMEMBERED_S, Journal

__all__ = [
    "DELETE",
    "PUT",
    "REMEMBERED_S",
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
