"""Raises this process's limits on open files and locked memory to its hard limits."""

import resource
from contextlib import suppress


def raise_open_files() -> None:
    """Raise the limit on open files: Annoy holds one open for each category."""
    with suppress(OSError):  # a sandbox may refuse it
        _raise(resource.RLIMIT_NOFILE)


def raise_locked_memory() -> int | None:
    """Raise the limit on locked memory; returns it in bytes, None for no limit."""
    limit = _raise(resource.RLIMIT_MEMLOCK)
    return None if limit == resource.RLIM_INFINITY else limit


def _raise(kind: int) -> int:
    _, hard = resource.getrlimit(kind)
    with suppress(OSError, ValueError):
        resource.setrlimit(kind, (hard, hard))
    return resource.getrlimit(kind)[0]
