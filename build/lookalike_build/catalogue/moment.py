"""The moment of a catalogue: changes of products received since are not in it.

A moment is a Unix time in seconds, or None where nothing says it.
"""

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

EXPORT_S: Final = 3600.0
"""A file's time is when its export ended; the export may have read the shop this much earlier."""
_AHEAD_S: Final = 10.0
"""How far a file server's clock may be ahead of this host's."""


def moment_of(paths: Iterable[Path]) -> float | None:
    """The moment of files, by the oldest of their times; None where one is ahead of the clock."""
    times = [path.stat().st_mtime for path in paths]
    return None if any(map(is_ahead, times)) else min(times) - EXPORT_S


def moment_of_table(path: Path) -> float | None:
    """The moment of a table that is read now: that of a query is when it begins."""
    return time.time() if path.suffix.lower() == ".sql" else moment_of([path])


def is_ahead(moment: float) -> bool:
    """Whether it is in the future, by this host's clock."""
    return moment > time.time() + _AHEAD_S


def as_text(moment: float) -> str:
    """In ISO 8601, as `--as-of` takes it."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"
