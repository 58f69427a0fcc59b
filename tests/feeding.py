"""What a test of change feeds runs in a process of its own."""

import time
from pathlib import Path

from lookalike.journal import Journal
from lookalike_build.following.feed import open_feed


def follow_in_process(folder: Path) -> None:
    """Take `feed.jsonl` of a folder, with whole numbers as ids, into its journal until killed."""
    journal = Journal(folder / "journal" / "journal.sqlite")
    feed = open_feed(str(folder / "feed.jsonl"), journal, ("integer", "integer"), lambda _: None)
    while True:
        if not feed.poll():
            time.sleep(0.001)
