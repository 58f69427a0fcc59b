"""At work: a note of the changes whose photos the follower is working on, for the next follower.

    {"journal": "0123456789abcdef", "at_work": [17, 18], "deaths": {"17": 1}}

A photo can kill the process that reads, decodes or extracts it: a decoder has a fault, or memory runs
out. A restarted follower would meet the same photo again. So the file lists the changes at work, by
number, and counts for each how many followers died while it was at work. Those changes are tried alone.

The file is not synced: what a power cut leaves of it names settled changes or none.
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
"""A change is rejected after this many deaths; at all but the first it was tried alone.

Two are not enough: a person may have killed the follower twice.
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
    """The note at `path`, written by one follower. `log` gets one line if it cannot be written."""

    def __init__(self, path: Path, log: Callable[[str], object] = lambda _: None) -> None:
        self._path = path
        self._log = log
        self._failure_logged = False
        self._journal_id: str | None = None
        self._deaths: dict[int, int] = {}
        self._stopping = False

    @property
    def suspects(self) -> Set[int]:
        """The changes to try alone."""
        return self._deaths.keys()

    def begin(self, journal: Journal) -> dict[int, str]:
        """Read the previous follower's note; return the changes to reject, each with the reason.

        They stay noted until `done` is called for them.
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
        """Work on the photos of these changes within the block.

        If it raises an error that this machine caused, no death is counted, but each is tried alone.
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
        """Forget changes whose photos are done or that are settled."""
        for number in numbers:
            self._deaths.pop(number, None)
        self._write()

    def forgive(self) -> None:
        """From now on, blame no photo if this process ends. May be called from a signal handler."""
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
                self._path.unlink()  # an old note would blame changes that are no longer at work
            if not self._failure_logged and not self._stopping:
                self._log(f"cannot note which changes are being worked on: {error}")
            self._failure_logged = True
        if self._stopping and note.at_work:
            self._write()  # `forgive` was called while this wrote


def _read(path: Path) -> _Note:
    """The note at `path`; an empty one if there is no complete note."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Note)
    except (OSError, ValueError, RecursionError):
        return _Note("", [], {})


def is_of_host(error: Exception) -> bool:
    """Whether this machine, not a photo, caused an error of extraction."""
    return (
        isinstance(error, HostError | JournalError | OSError)
        or type(error).__name__ == "ResourceExhaustedError"  # TensorFlow's; of a GPU
        or host_error(error) is not None
    )
