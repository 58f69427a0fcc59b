"""``make bench``: Lookalike beside the ceiling under one NGINX Unit, the table beside a product.

Side by side means in turn, round by round, on the same Unit: ratios hold on a machine whose speed
drifts, absolute figures do not. Needs ``unitd`` and ``wrk`` on PATH; sends to 127.0.0.1 only.
"""

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lookalike.manifest import Model
from lookalike.root import ReleaseRoot
from lookalike.unit import PrivateUnit, configuration, find_unitd
from lookalike_build.index import IndexSettings, build_annoy
from lookalike_build.neighbours import exact_neighbours
from lookalike_build.staging import Staging
from servers import SHIPPED, free_port, in_session

N_ITEMS, N_DIMS, K, N_TREES = 31_667, 2048, 100, 10
LIMIT = 12
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Run:
    """What wrk saw in one round; latencies in milliseconds."""

    requests_s: float
    p50: float
    p99: float
    errors: int


def main() -> None:
    """Make the release if need be, measure, print the table."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()
    unitd = find_unitd()
    if unitd is None or shutil.which("wrk") is None:
        sys.exit("make bench needs NGINX Unit (unitd) and wrk (sudo apt install wrk)")
    root = ReleaseRoot(options.folder / "root")
    if root.current() is None:
        make_release(root)
    with serving(unitd, root) as (ceiling, app, unit):
        targets = {"ceiling": ceiling, "lookalike": app}
        for address in targets.values():
            measure(address, 2, options.connections)
        rounds = []
        for number in range(options.rounds):
            # Each goes first in turn: the machine may be getting slower or faster.
            order = sorted(targets, reverse=bool(number % 2))
            rounds.append(
                {
                    name: measure(targets[name], options.seconds, options.connections)
                    for name in order
                }
            )
        memory = {name: memory_mb(unit, name) for name in targets}
    served = print_table(rounds, memory)
    built = table_ratios(rounds=2)
    print()
    verdict("requests/s, lookalike / ceiling", served, lambda ratio: ratio >= 0.95, "0.95 or more")
    verdict("exact table / one product", built, lambda ratio: ratio <= 1, "1 or less")


def make_release(root: ReleaseRoot) -> None:
    """A release of the paper's mean category; neighbours at random, which serving cannot tell."""
    print(f"making a release of {N_ITEMS} x {N_DIMS} in {root.path} ...", flush=True)
    rng = np.random.default_rng(0)
    annoy = build_annoy(rng.random((N_ITEMS, N_DIMS), np.float32), IndexSettings(n_trees=N_TREES))
    neighbours = rng.integers(0, N_ITEMS, (N_ITEMS, K), np.uint32)
    distances = np.sort(rng.random((N_ITEMS, K), np.float32), axis=1)
    product_ids = np.arange(N_ITEMS, dtype=np.int64) * 3 + 10_000
    root.create()
    with root.lock():
        staging = Staging(root)
        index = (annoy, N_TREES, N_TREES * (K + 1))
        staging.add_category(1, product_ids, (neighbours, distances), index, (None, 0))
        staging.publish(Model("random", "sha256:0"), N_DIMS, ("integer", "integer"))


@contextmanager
def serving(unitd: str, root: ReleaseRoot) -> Iterator[tuple[str, str, PrivateUnit]]:
    """The shipped configuration with the ceiling's app beside it: their addresses, and Unit."""
    ceiling, app = (f"127.0.0.1:{free_port()}" for _ in range(2))
    config = configuration(SHIPPED, app, Path(sys.prefix), root.path.resolve())
    constant = {**config["applications"]["lookalike"], "module": "constant", "path": str(HERE)}
    config["applications"]["ceiling"] = constant
    config["listeners"][ceiling] = {"pass": "applications/ceiling"}
    with tempfile.TemporaryDirectory() as folder, PrivateUnit(unitd, Path(folder)) as unit:
        unit.check_python()
        unit.configure(config)
        yield ceiling, app, unit


def measure(address: str, seconds: int, connections: int) -> Run:
    """One run of wrk with product ids at random."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    command += ["-s", str(HERE / "random_ids.lua"), f"http://{address}"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    socket_errors = re.search(r"Socket errors: (.*)", text)
    errors = int(failed[1]) if failed else 0
    errors += sum(map(int, re.findall(r"\d+", socket_errors[1]))) if socket_errors else 0
    return Run(
        requests_s=float(_found(r"Requests/sec:\s+([\d.]+)", text)),
        p50=_milliseconds(_found(r"^\s+50%\s+(\S+)", text)),
        p99=_milliseconds(_found(r"^\s+99%\s+(\S+)", text)),
        errors=errors,
    )


def memory_mb(unit: PrivateUnit, application: str) -> float:
    """Proportional set size of an application's processes, in MB."""
    total = 0
    for pid in in_session(unit.process.pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            process = Path(f"/proc/{pid}")
            if f'unit: "{application}" application' in (process / "cmdline").read_text():
                total += int(_found(r"^Pss:\s+(\d+) kB", (process / "smaps_rollup").read_text()))
    return total / 1000


def print_table(rounds: list[dict[str, Run]], memory: dict[str, float]) -> list[float]:
    """Print medians over the rounds; the ratio of requests/s round by round."""
    print(f"\nGET /nns, {N_ITEMS} x {N_DIMS}, limit {LIMIT}, ids at random, {len(rounds)} rounds\n")
    print(f"{'':12}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'errors':>8}{'memory MB':>11}")
    for name in sorted(rounds[0]):
        runs = [each[name] for each in rounds]
        rate, p50, p99 = (
            statistics.median(getattr(run, what) for run in runs)
            for what in ("requests_s", "p50", "p99")
        )
        errors = sum(run.errors for run in runs)
        print(f"{name:12}{rate:12.0f}{p50:9.2f}{p99:9.2f}{errors:8}{memory[name]:11.1f}")
    print(flush=True)
    return [each["lookalike"].requests_s / each["ceiling"].requests_s for each in rounds]


def table_ratios(rounds: int) -> list[float]:
    """Time of the exact table over that of one float32 matrix product of its size, in turn."""
    rng = np.random.default_rng(0)
    # Products in groups, as in a shop, so that neighbours are nearer than the rest.
    groups = np.abs(rng.normal(size=(N_ITEMS // 16, N_DIMS))).astype(np.float32)
    features = np.abs(rng.normal(size=(N_ITEMS, N_DIMS))).astype(np.float32)
    features += 2 * groups[rng.integers(0, len(groups), N_ITEMS)]
    copy, ratios = features.copy(), []
    for _ in range(rounds):
        started = time.perf_counter()
        features @ copy.T
        product_s = time.perf_counter() - started
        started = time.perf_counter()
        exact_neighbours(features, K)
        table_s = time.perf_counter() - started
        print(f"exact table, k {K}: {table_s:.1f} s, one product: {product_s:.1f} s", flush=True)
        ratios.append(table_s / product_s)
    return ratios


def verdict(what: str, ratios: list[float], holds: Callable[[float], bool], bound: str) -> None:
    """One line a number to hold: the median, its range, and whether it holds."""
    middle = statistics.median(ratios)
    word = "holds" if holds(middle) else "does not hold"
    print(f"{word}: {what} {middle:.3f} ({min(ratios):.3f} to {max(ratios):.3f}), {bound}")


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise ValueError(f"no {pattern} in: {text}")
    return match[1]


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


if __name__ == "__main__":
    main()
