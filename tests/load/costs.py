"""What each part of the plain request costs in the app, in microseconds; medians in one process."""

import random
import statistics
import time
from collections.abc import Callable
from typing import Any

from load.made_release import product_id
from lookalike.release.root import ReleaseRoot
from lookalike.serving import fast_path
from lookalike.serving.application import Application
from lookalike.serving.selections import Selections
from lookalike.serving.source import ReleaseSource

N, ROUNDS = 20_000, 7


def print_costs(root: ReleaseRoot, n_items: int, limit: int) -> None:
    """Time the whole and its parts over the same requests."""
    source = ReleaseSource(root)
    source.look()
    release = source.release
    assert release is not None
    application = Application(source)
    rng = random.Random(0)
    ids = [product_id(rng.randrange(n_items)) for _ in range(N)]
    queries = [f"category_id=1&product_id={each}&limit={limit}" for each in ids]
    environs: list[dict[str, Any]] = [
        {"PATH_INFO": "/nns", "REQUEST_METHOD": "GET", "QUERY_STRING": query} for query in queries
    ]
    table = release.categories[1].integers
    assert table is not None
    answers = [(each, *(table.neighbours_of(each, limit - 1) or ())) for each in ids]
    template = fast_path._ARRAYS[limit - 1]
    start: Any = lambda status, headers: None  # noqa: E731
    selections = Selections()
    metrics, clock = application._metrics, time.perf_counter_ns
    parts: dict[str, Callable[[int], object]] = {
        "all of it": lambda i: application(environs[i], start),
        "  the body": lambda i: fast_path.fast_body(release, queries[i], 1000, selections),
        "    taking the query apart": lambda i: fast_path._match(queries[i]),
        "    looking up": lambda i: table.neighbours_of(ids[i], limit - 1),
        "    writing the array": lambda i: template % answers[i],
        "  clock and counters": lambda i: metrics.answered_nns(clock() - clock()),
    }
    nothing = _microseconds(lambda i: None)
    print("what a request costs in the app, us:")
    for name, part in parts.items():
        print(f"{name:30}{_microseconds(part) - nothing:6.2f}")


def _microseconds(part: Callable[[int], object]) -> float:
    seen = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for i in range(N):
            part(i)
        seen.append(1e6 * (time.perf_counter() - started) / N)
    return statistics.median(seen)
