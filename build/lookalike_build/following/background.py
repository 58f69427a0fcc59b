"""Background work: one job at a time, at low priority."""

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
    """Runs jobs; a job's future has what it returns or raises."""

    def submit(self, job: Callable[[], Result]) -> Future[Result]:
        """Run `job` later."""
        ...


class BackgroundThread:
    """A `Background` of one low-priority thread, which does not keep the process alive."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        threading.Thread(target=self._work, name="background", daemon=True).start()

    def submit(self, job: Callable[[], Result]) -> Future[Result]:
        """Run `job` after those submitted before it."""
        future: Future[Result] = Future()
        self._jobs.put((job, future))
        return future

    def _work(self) -> None:
        with suppress(OSError):  # on Linux each thread has its own priority
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while True:
            job, future = self._jobs.get()
            try:
                future.set_result(job())
            except BaseException as error:  # the caller handles it
                future.set_exception(error)
