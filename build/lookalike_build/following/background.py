"""Background work: one job at a time, at low priority."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

_NICENESS = 10
_one_at_a_time = threading.Lock()

Background = Callable[[Callable[[], Any]], Future[Any]]
"""Has a job run later; the future has what it returns or raises."""


def in_background(job: Callable[[], Any]) -> Future[Any]:
    """Run `job` in a thread that does not keep the process alive."""
    future: Future[Any] = Future()

    def work() -> None:
        with suppress(OSError):  # on Linux each thread has its own priority
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        try:
            with _one_at_a_time:
                future.set_result(job())
        except BaseException as error:  # the caller handles it
            future.set_exception(error)

    try:
        threading.Thread(target=work, name="background", daemon=True).start()
    except RuntimeError as error:  # no room for another thread
        future.set_exception(error)
    return future
