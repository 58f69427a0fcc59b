"""Raises this process's limits, such as those on open files and locked memory."""

import resource
from contextlib import suppress


def raise_limit(kind: int) -> int | None:
    """Raise a limit, one of `resource`, to the hard limit; returns it, None for no limit."""
    _, hard = resource.getrlimit(kind)
    with suppress(OSError, ValueError):
        resource.setrlimit(kind, (hard, hard))
    limit = resource.getrlimit(kind)[0]
    return None if limit == resource.RLIM_INFINITY else limit
