"""Work beside the caller's: one job at a time, given way to everything else."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

_NICENESS = 10
Result = TypeVar("Result")


class Background(Protocol):
    """Takes jobs and gives what they return, or raise, when it is there."""

    def submit(self, job: Callable[[], Result]) -> Future[Result]:
        """Have `job` done some time."""
        ...


class BackgroundThread:
    """A `Background` of one thread of low priority, which the end of the process does not wait for."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        threading.Thread(target=self._work, name="background", daemon=True).start()

    def submit(self, job: Callable[[], Result]) -> Future[Result]:
        """Have `job` done when those before are."""
        future: Future[Result] = Future()
        self._jobs.put((job, future))
        return future

    def _work(self) -> None:
        with suppress(OSError):  # Linux has a priority for each thread
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while True:
            job, future = self._jobs.get()
            try:
                future.set_result(job())
            except BaseException as error:  # the caller's to judge
                future.set_exception(error)
