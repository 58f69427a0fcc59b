"""The error of a table that cannot be used."""

from pathlib import Path

from lookalike.errors import LookalikeError
from lookalike.terminal.output import printable

_MAX_SHOWN = 20


class TableError(LookalikeError):
    """A table that no work must start from; `problems` has a line for each problem found."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        shown = problems[:_MAX_SHOWN]
        if len(problems) > len(shown):
            shown.append(f"and {len(problems) - len(shown)} more")
        super().__init__("\n".join(printable(f"{path}: {problem}") for problem in shown))
        self.problems = problems

    def lines(self) -> list[str]:
        """A line for each problem."""
        return str(self).split("\n")
