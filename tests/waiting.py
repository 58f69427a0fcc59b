"""Waiting for what another process or thread brings about, on a machine of any speed."""

import math
import subprocess
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Any

HUNG_S = 900.0
"""What takes longer than this hangs, even on a slow machine under load.

The only time that tests wait by: for a condition, the end of a process, an answer.
"""

Worker = subprocess.Popen[Any] | BaseProcess | Thread


def wait_until(
    held: Callable[[], object], worker: Worker | None = None, log: Path | None = None
) -> None:
    """Return once `held` holds.

    AssertionError, with the text in `log`, as soon as the `worker` that is to bring it about has
    ended without it, or after `HUNG_S`.
    """
    until = time.monotonic() + HUNG_S
    while not held():
        # It may have ended just after it brought it about.
        if worker and _ended(worker) and not held():
            raise AssertionError(f"{worker} has ended{_logged(log)}")
        assert time.monotonic() < until, f"not within {HUNG_S:g} s{_logged(log)}"
        time.sleep(0.02)


def _ended(worker: Worker) -> bool:
    if isinstance(worker, subprocess.Popen):
        return worker.poll() is not None
    return not worker.is_alive()


def _logged(log: Path | None) -> str:
    return f"; {log} has\n{log.read_text()}" if log and log.exists() else ""


def quickest_s(work: Callable[[], object], enough_s: float) -> float:
    """How long `work` takes at its quickest of 30 times, seconds: other load can only add to that.

    No longer tried once it has taken less than `enough_s`.
    """
    quickest = math.inf
    for _ in range(30):
        started = time.monotonic()
        work()
        quickest = min(quickest, time.monotonic() - started)
        if quickest < enough_s:
            break
    return quickest
