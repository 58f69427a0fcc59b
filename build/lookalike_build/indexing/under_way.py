"""Work under way in other threads, while what it has given so far is used."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def in_turn(jobs: Iterable[Future[Result]]) -> Iterator[Result]:
    """The jobs' results in their order, with two more under way."""
    waiting: deque[Future[Result]] = deque()
    for job in jobs:
        waiting.append(job)
        if len(waiting) > 2:
            yield waiting.popleft().result()
    for job in waiting:
        yield job.result()


def ahead(pool: ThreadPoolExecutor, results: Iterator[Result]) -> Iterator[Result]:
    """What an iterator gives, with the next one under way."""
    job = pool.submit(next, results, None)
    while (result := job.result()) is not None:
        job = pool.submit(next, results, None)
        yield result
