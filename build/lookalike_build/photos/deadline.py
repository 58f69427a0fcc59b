"""Calls that return in time even if they cannot be stopped, as those to a slow synchronous store."""

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import BoundedSemaphore, Thread
from time import monotonic
from typing import Any, TypeVar

Result = TypeVar("Result")
_Jobs = SimpleQueue[tuple[Callable[[], Any], Future[Any]]]


class DeadlineThreads:
    """At most `n` threads that run calls; they do not keep the process alive.

    A call that is not done in time goes on in its thread, and its result is dropped. Threads are
    reused, because fsspec keeps its connections by thread.
    """

    def __init__(self, n: int) -> None:
        self._free = BoundedSemaphore(n)
        self._idle: list[_Jobs] = []

    def call(self, function: Callable[[], Result], timeout_s: float) -> Result:
        """Return or raise what `function` does within `timeout_s` seconds; otherwise TimeoutError."""
        end = monotonic() + timeout_s
        if not self._free.acquire(timeout=timeout_s):
            raise TimeoutError
        future: Future[Result] = Future()
        try:
            self._jobs_of_a_thread().put((function, future))
        except BaseException:
            self._free.release()
            raise
        return future.result(max(0, end - monotonic()))

    def _jobs_of_a_thread(self) -> _Jobs:
        try:
            return self._idle.pop()
        except IndexError:
            jobs: _Jobs = SimpleQueue()
            Thread(target=self._work, args=(jobs,), name="deadline", daemon=True).start()
            return jobs

    def _work(self, jobs: _Jobs) -> None:
        while True:
            function, future = jobs.get()
            try:
                future.set_result(function())
            except BaseException as error:  # the caller handles it
                future.set_exception(error)
            del function, future
            self._idle.append(jobs)
            self._free.release()
