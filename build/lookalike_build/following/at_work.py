"""At work: which changes' photos the follower works on, noted for the follower after it.

    {"journal": "0123456789abcdef", "at_work": [17, 18], "deaths": {"17": 1}}

A photo can end the process that reads, decodes or extracts it, by a fault in a decoder or for the
memory it takes, and a follower that is started again would meet it again. So the file holds the changes
that are at work, by number, and those that were when a follower died, with how often; they are tried
alone.

The file is not synced: what a power cut leaves of it names changes that are settled, or none.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from lookalike.journal import Journal, JournalError
from lookalike_build.photos.decoding import HostError, host_error

MOST_DEATHS: Final = 3
"""A change is rejected after so many deaths in which it was at work, all but the first alone.

Not after two: someone may have killed the follower, and killed it again.
"""
_REASON = (
    f"the follower died {MOST_DEATHS} times as it read or decoded this photo, in the end alone; "
    "send another"
)


class _Note(msgspec.Struct):
    """What the file holds."""

    journal: str
    at_work: list[int]
    deaths: dict[int, int]


class AtWork:
    """The note at `path`, kept by the one follower; `tell` hears, once, where it cannot be written."""

    def __init__(self, path: Path, tell: Callable[[str], object] = lambda _: None) -> None:
        self._path = path
        self._tell = tell
        self._told = False
        self._journal_id: str | None = None
        self._deaths: dict[int, int] = {}
        self._stopping = False

    @property
    def suspects(self) -> Set[int]:
        """The changes to be tried alone."""
        return self._deaths.keys()

    def begin(self, journal: Journal) -> dict[int, str]:
        """Read what the follower before noted; the changes to be rejected by now, and why.

        They stay noted until `done` is told of them.
        """
        self._journal_id = journal.id
        note = _read(self._path)
        deaths = Counter(note.deaths)
        deaths.update(note.at_work)
        for number, times in deaths.items() if note.journal == journal.id else ():
            outcome = journal.outcome(number)
            if outcome and outcome.state == "pending":
                self._deaths[number] = times
        self._write()
        return {one: _REASON for one, times in self._deaths.items() if times >= MOST_DEATHS}

    @contextmanager
    def on(self, numbers: Iterable[int]) -> Iterator[None]:
        """Work on the photos of these changes.

        An error that this machine is to blame for is nobody's death, but has them tried alone.
        """
        numbers = list(numbers)
        self._write(numbers)
        try:
            yield
        except Exception as error:
            if is_of_host(error):
                self._deaths = dict.fromkeys(numbers, 0) | self._deaths
                self._write()
            raise
        except BaseException:
            self._write()
            raise
        self.done(numbers)

    def done(self, numbers: Iterable[int]) -> None:
        """These changes have been worked on, or are settled."""
        for number in numbers:
            self._deaths.pop(number, None)
        self._write()

    def forgive(self) -> None:
        """From now on the end of this process is no photo's doing. For a signal handler, too."""
        self._stopping = True
        self._write()

    def _write(self, at_work: Iterable[int] = ()) -> None:
        if self._journal_id is None:
            return
        note = _Note(self._journal_id, [] if self._stopping else [*at_work], self._deaths)
        part = self._path.with_suffix(".part")
        try:
            part.write_bytes(msgspec.json.encode(note))
            part.replace(self._path)
        except OSError as error:
            with suppress(OSError):
                self._path.unlink()  # or it would accuse what is no longer at work
            if not self._told and not self._stopping:
                self._tell(f"what is at work cannot be noted: {error}")
            self._told = True
        if self._stopping and note.at_work:
            self._write()  # a signal came meanwhile


def _read(path: Path) -> _Note:
    """The note at `path`; an empty one where there is no whole note."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Note)
    except (OSError, ValueError, RecursionError):
        return _Note("", [], {})


def is_of_host(error: Exception) -> bool:
    """Whether this machine is to blame for an error of extraction, not a photo."""
    return (
        isinstance(error, HostError | JournalError | OSError)
        or type(error).__name__ == "ResourceExhaustedError"  # TensorFlow's; of a GPU
        or host_error(error) is not None
    )
