"""What a check found: a level, one line of text and, unless all is well, what to do."""

from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

_WIDTH = 13
"""The width of the longest name of a check."""


class Level(StrEnum):
    """How serious a finding is; only a problem makes the exit status 1."""

    OK = "ok"
    ABSENT = "absent"
    """There is nothing to check on this host, which may be right; the text says why."""
    WARNING = "warning"
    """It works now but may fail later, or the doctor cannot tell."""
    PROBLEM = "problem"
    """It does not work, or will soon break."""


_PRINTED = {Level.ABSENT: "-", Level.PROBLEM: "PROBLEM"}


@dataclass(frozen=True)
class Finding:
    """One line of the output; `remedy` is the line below it, if it is not empty."""

    check: str = field(default="", kw_only=True)
    level: Level
    text: str
    remedy: str = ""

    def lines(self) -> list[str]:
        """The finding as printed, with level and check in columns."""
        found = [f"{_PRINTED.get(self.level, self.level):<8} {self.check:<{_WIDTH}} {self.text}"]
        if self.remedy:
            found.append(f"{'':<8} {'':<{_WIDTH}} do: {self.remedy}")
        return found


ok, absent = partial(Finding, Level.OK), partial(Finding, Level.ABSENT)
warning, problem = partial(Finding, Level.WARNING), partial(Finding, Level.PROBLEM)
