"""What the kernel lets this process have: open files and locked memory, up to its hard limits."""

import resource
from contextlib import suppress


def raise_open_files() -> None:
    """Allow ourselves all the open files we may have: Annoy holds one for a category."""
    with suppress(OSError):  # a sandbox may refuse it
        _raise(resource.RLIMIT_NOFILE)


def raise_locked_memory() -> int | None:
    """Allow ourselves all the locked memory we may have; the limit in bytes, None for any."""
    limit = _raise(resource.RLIMIT_MEMLOCK)
    return None if limit == resource.RLIM_INFINITY else limit


def _raise(kind: int) -> int:
    _, hard = resource.getrlimit(kind)
    with suppress(OSError, ValueError):
        resource.setrlimit(kind, (hard, hard))
    return resource.getrlimit(kind)[0]
