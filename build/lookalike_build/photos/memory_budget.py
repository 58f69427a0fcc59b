"""The memory budget: what all photos together may take while they are decoded.

The size of a file does not show its cost: 40 bytes can decode to 1.6 GB. So each decoder states first
how much memory it will take, and waits until that much is free.
"""

import os
import resource
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Condition

# The rest is for the network, the features of a batch and the page cache.
DECODING_SHARE = 0.5

_CGROUPS = Path("/sys/fs/cgroup")


class MemoryBudget:
    """`n_bytes` that threads take and give back, first come, first served.

    So a thread that needs nearly all of it gets its turn, however many small requests follow.
    """

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self._free = n_bytes
        self._waiting: deque[object] = deque()
        self._changed = Condition()

    def divide(self, n_processes: int) -> None:
        """Share with other processes, `n_processes` in all. Call it before anything is taken."""
        self.n_bytes = self._free = self.n_bytes // n_processes

    @contextmanager
    def take(self, n_bytes: int) -> Iterator[None]:
        """Wait until `n_bytes`, at most all, are free, and hold them within the block.

        A thread that holds some must not take more: it could wait for itself.
        """
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is turn and self._free >= n_bytes)
                self._free -= n_bytes
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += n_bytes
                self._changed.notify_all()


def memory_limit() -> int:
    """The memory in bytes that this process may use: the machine's, or less if limited.

    A limit is set by its control group (version 2, as systemd and containers do) or by ``ulimit -v``.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_cgroup_limits()]
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space)
    return min(limits)


def _cgroup_limits() -> Iterator[int]:
    """The limits of the process's own group and its parents; in a container, its own is the root."""
    own = _CGROUPS / _own_group()
    for group in (own, *own.parents):
        with suppress(OSError, ValueError):  # ValueError: "max", no limit
            yield int((group / "memory.max").read_text())


def _own_group() -> str:
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::/"):
                return line.removeprefix("0::/")
    return ""


DECODING = MemoryBudget(int(memory_limit() * DECODING_SHARE))
"""The budget for everything that this process decodes."""
