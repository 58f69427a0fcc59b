"""The app's log: lines on standard error, which Unit puts into its own log."""

import logging
import sys

from lookalike.terminal.output import printable


class Lines(logging.Formatter):
    """A record is a line; further lines of it are indented, and characters that do not print escaped.

    So no text of a client's can look like another record or control a terminal.
    """

    def __init__(self) -> None:
        super().__init__("lookalike[%(process)d] %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The record and its traceback, with what is not printable escaped."""
        return "\n    ".join(map(printable, super().format(record).split("\n")))


def log_to_stderr() -> None:
    """Have the app's log, from INFO on, written to standard error."""
    logger = logging.getLogger("lookalike")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(Lines())
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
