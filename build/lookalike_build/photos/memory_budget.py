"""The memory budget: what photos may take together while they are decoded.

A picture's cost is not the size of its file: one of 40 bytes can decode to 1.6 GB. So whoever decodes
says before how much it will take, and waits until there is as much left.
"""

import os
import resource
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Condition

# The rest is for the network, the features of a batch, and the page cache.
DECODING_SHARE = 0.5

_CGROUPS = Path("/sys/fs/cgroup")


class MemoryBudget:
    """`n_bytes` that threads take from and give back, first come, first served.

    So one that needs nearly all of it comes to its turn, however many small ones follow.
    """

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self._left = n_bytes
        self._waiting: deque[object] = deque()
        self._changed = Condition()

    def divide(self, n_processes: int) -> None:
        """Leave their parts to other processes, `n_processes` in all. Before anything is taken."""
        self.n_bytes = self._left = self.n_bytes // n_processes

    @contextmanager
    def take(self, n_bytes: int) -> Iterator[None]:
        """Have `n_bytes` of it, at most all, within the ``with`` block; wait until they are left.

        A thread that has some must not take more: it could wait for itself.
        """
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is turn and self._left >= n_bytes)
                self._left -= n_bytes
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._left += n_bytes
                self._changed.notify_all()


def memory_limit() -> int:
    """The bytes of memory that this process may have: the machine's, or less by a limit.

    Limits are those of its control group (version 2, as of systemd and containers) and of
    ``ulimit -v``.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_cgroup_limits()]
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space)
    return min(limits)


def _cgroup_limits() -> Iterator[int]:
    """Of the process's own group and those it is in; in a container the own one is the root."""
    own = _CGROUPS / _own_group()
    for group in (own, *own.parents):
        yield from _limit(group / "memory.max")


def _own_group() -> str:
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::/"):
                return line.removeprefix("0::/")
    return ""


def _limit(path: Path) -> Iterator[int]:
    with suppress(OSError, ValueError):  # ValueError: "max", no limit
        yield int(path.read_text())


DECODING = MemoryBudget(int(memory_limit() * DECODING_SHARE))
"""The budget of all that this process decodes."""
