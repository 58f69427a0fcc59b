"""Errors of the journal, with what to do about each."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lookalike.errors import LookalikeError

_FULL = "make room, nothing that was acknowledged is lost"
_DAMAGED = "move its folder away; what was pending in it must be sent again"
_NOT_ALLOWED = "its folder and what is in it must be writable for this user"
_HINTS = {
    sqlite3.SQLITE_BUSY: "another process keeps it locked; end it if it hangs",
    sqlite3.SQLITE_CANTOPEN: _NOT_ALLOWED,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_READONLY: _NOT_ALLOWED,
}
_MORE_FILES = "raise the limit on open files (LimitNOFILE in systemd, ulimit -n)"
_SYSTEM_HINTS = {
    errno.EACCES: _NOT_ALLOWED,
    errno.EMFILE: _MORE_FILES,
    errno.ENFILE: _MORE_FILES,
    errno.ENOSPC: _FULL,
    errno.EPERM: _NOT_ALLOWED,
    errno.EROFS: _NOT_ALLOWED,
}


class JournalError(LookalikeError):
    """The journal cannot be read or written; the text names it and says why."""


class ForgottenError(JournalError):
    """Some of the live changes asked for are forgotten: those received up to `until` (Unix time)."""

    def __init__(self, path: Path, until: float) -> None:
        super().__init__(f"{path}: has forgotten live changes of that time")
        self.until = until


class JournalFull(JournalError):  # noqa: N818
    """Pending photos have used up their space; some must be settled before more are accepted."""

    def __init__(self, path: Path, n_bytes: int, most_bytes: int) -> None:
        super().__init__(
            f"{path}: the photos of pending changes would take {n_bytes} bytes, more than {most_bytes}"
        )


@contextmanager
def journal_errors(path: Path) -> Iterator[None]:
    """Raise errors of SQLite and the system as a JournalError about the journal at `path`."""
    try:
        yield
    except OSError as error:
        raise _error(path, error.strerror, _SYSTEM_HINTS.get(error.errno or 0)) from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the bits above are details
        if code == sqlite3.SQLITE_CANTOPEN and (limit := _no_more_files()):
            raise _error(path, limit.strerror, _MORE_FILES) from error
        raise _error(path, str(error), _HINTS.get(code)) from error


def _no_more_files() -> OSError | None:
    """The error if this process cannot open any file, which SQLite does not report."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error
    return None


def _error(path: Path, *reasons: str | None) -> JournalError:
    return JournalError(f"{path}: {'; '.join(filter(None, reasons))}")
