"""What a check of this host found: a level, one line of text and, unless all is well, what to do."""

from dataclasses import dataclass
from enum import StrEnum

_WIDTH = 13
"""Of the longest name of a check."""


class Level(StrEnum):
    """How a finding is to be taken; only a problem makes the exit status 1."""

    OK = "ok"
    ABSENT = "-"
    WARNING = "warning"
    PROBLEM = "PROBLEM"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's screen; `remedy` is the line below it, empty where there is none."""

    level: Level
    text: str
    remedy: str = ""
    check: str = ""

    def lines(self) -> list[str]:
        """The finding as printed: level and check stand in columns, and need no colour."""
        found = [f"{self.level:<8} {self.check:<{_WIDTH}} {self.text}"]
        if self.remedy:
            found.append(f"{'':<8} {'':<{_WIDTH}} do: {self.remedy}")
        return found


def ok(text: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, text)


def absent(text: str) -> Finding:
    """There is nothing to look at on this host, which may be right; the text says what and why."""
    return Finding(Level.ABSENT, text)


def warning(text: str, remedy: str) -> Finding:
    """It works now and may not always, or the doctor cannot tell."""
    return Finding(Level.WARNING, text, remedy)


def problem(text: str, remedy: str) -> Finding:
    """It does not work, or is about to break."""
    return Finding(Level.PROBLEM, text, remedy)
