"""``make bench``: Lookalike beside the ceiling under one NGINX Unit, and the numbers that have to hold.

The ceiling is an app that sends the same headers and a constant body. Side by side means in turn, round
by round, on the same Unit. Needs ``unitd``, ``wrk`` and ``nginx``; sends to 127.0.0.1 only.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt

from load import made_release
from load.change import change_under_load, changing_releases, wait_until_ready
from load.costs import print_costs
from load.made_features import MadeFeatures
from load.made_release import product_id
from load.serving import CEILING, Run, Served, Verdict, in_turn, print_rows, serving, wrk
from load.vectors import vectors_beside_annoy
from lookalike.operate.unit.config import APPLICATION
from lookalike.release.root import ReleaseRoot
from lookalike.serving.settings import SEARCH_PERCENT
from lookalike_build.indexing.build import IndexSettings, index
from lookalike_build.indexing.neighbours import exact_neighbours
from lookalike_build.indexing.table import N_SPARE
from support import Rating, rate, write_store

N_ITEMS, N_DIMS, K = 31_667, 2048, 100
LIMIT = 12

Features = npt.NDArray[np.float32]


def main() -> None:
    """Make what is missing, measure, print the tables, end with what holds."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seconds", type=int, default=2)
    options = parser.parse_args()
    world = MadeFeatures(N_DIMS, seed=0)
    root = ReleaseRoot(options.folder / "root")
    if root.current() is None:
        make_release(root, options.folder / "features", world)
    verdicts = serve_steadily(root, world, options)
    verdicts += serve_related(ReleaseRoot(options.folder / "related"), options)
    verdicts += serve_changing(ReleaseRoot(options.folder / "change"), 5 * options.seconds)
    features = world.draw(N_ITEMS, seed=1)
    verdicts.append(table_beside_product(features))
    verdicts.append(vectors_beside_annoy(features, world.draw(200, seed=2), K))
    print()
    for verdict in verdicts:
        print(verdict)
    print("memory and opening at the paper's full scale: make bench-scale")


def make_release(root: ReleaseRoot, features: Path, world: MadeFeatures) -> None:
    """A release of the paper's mean category, indexed like any other."""
    print(f"making a release of {N_ITEMS} x {N_DIMS} in {root.path} ...", flush=True)
    ids = [product_id(item) for item in range(N_ITEMS)]
    store = write_store(features, {1: (ids, world.draw(N_ITEMS, seed=1))})
    index(store, root, IndexSettings())


def serve_steadily(
    root: ReleaseRoot, world: MadeFeatures, options: argparse.Namespace
) -> list[Verdict]:
    """The usual request beside the ceiling, then the others."""
    bodies = options.folder / "bodies"
    write_bodies(bodies, world)
    with serving(root, {SEARCH_PERCENT.name: "100"}) as served:
        wait_until_ready(served)
        usual = in_turn(
            {
                CEILING: partial(get, served.ceiling, options.seconds, f"&limit={LIMIT}"),
                APPLICATION: partial(get, served.app, options.seconds, f"&limit={LIMIT}"),
            },
            options.rounds,
        )
        memory = {name: served.memory_mb(name) for name in usual}
        print(f"\nGET /nns, {N_ITEMS} x {N_DIMS}, limit {LIMIT}, ids at random, ", end="")
        print(f"{options.rounds} rounds of {options.seconds} s\n")
        print_rows(usual, memory)
        others = in_turn(other_requests(served, options.seconds, bodies), 3)
        print_rows(others, {})
    print_costs(root, N_ITEMS, LIMIT)
    pairs = zip(usual[APPLICATION], usual[CEILING], strict=True)
    ratios = [app.requests_s / ceiling.requests_s for app, ceiling in pairs]
    what = "requests/s, lookalike / ceiling"
    return [Verdict(what, ratios, lambda ratio: ratio >= 0.95, "0.95 or more")]


def serve_related(root: ReleaseRoot, options: argparse.Namespace) -> list[Verdict]:
    """``/related`` beside ``/nns``, half of the visitors with either pattern."""
    if root.current() is None:
        made_release.make_release(root, [N_ITEMS], K, n_dims=16)
        rate(root, ratings_at_random())
    with serving(root) as served:
        wait_until_ready(served)
        seen = in_turn(
            {
                "GET /nns": partial(get, served.app, options.seconds, f"&limit={LIMIT}"),
                "GET /related": partial(
                    wrk, served.app, options.seconds, "related.lua", str(N_ITEMS)
                ),
            },
            options.rounds,
        )
        print(f"\n{N_ITEMS} products, all of them rated, limit {LIMIT}\n")
        print_rows(seen, {})
    pairs = zip(seen["GET /related"], seen["GET /nns"], strict=True)
    ratios = [related.requests_s / nns.requests_s for related, nns in pairs]
    what = "requests/s, /related / /nns"
    return [Verdict(what, ratios, lambda ratio: ratio >= 0.9, "0.9 or more")]


def ratings_at_random() -> Iterator[Rating]:
    """Ten ratings of each product in the mean, by users who each rated 30."""
    rng = np.random.default_rng(5)
    for user in range(N_ITEMS // 3):
        for item in rng.integers(0, N_ITEMS, 30).tolist():
            yield str(user), product_id(item), 1_700_000_000 + int(rng.integers(0, 10_000_000))


def get(address: str, seconds: int, rest: str) -> Run:
    """GET /nns of products at random."""
    return wrk(address, seconds, "random_ids.lua", rest, str(N_ITEMS))


def other_requests(served: Served, seconds: int, bodies: Path) -> dict[str, partial[Run]]:
    """What else can be asked, by what the row is called."""
    app = served.app
    posts = {
        f"POST /nns, {kind}": partial(
            wrk, app, seconds, "post_bodies.lua", str(bodies / f"{kind}.jsonl"), connections=8
        )
        for kind in ("10 products", "a vector")
    }
    return {
        "limit 100": partial(get, app, seconds, "&limit=100"),
        "distances": partial(get, app, seconds, f"&limit={LIMIT}&distances=true"),
        "limit 500, beyond the table": partial(get, app, seconds, "&limit=500"),
        **posts,
    }


def write_bodies(folder: Path, world: MadeFeatures) -> None:
    """Bodies for POST /nns, one a line."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(3)
    with (folder / "10 products.jsonl").open("w") as file:
        for _ in range(1000):
            ids = [product_id(int(item)) for item in rng.integers(0, N_ITEMS, 10)]
            print(json.dumps({"category_id": 1, "product_ids": ids, "limit": LIMIT}), file=file)
    with (folder / "a vector.jsonl").open("w") as file:
        for vector in world.draw(50, seed=4):
            numbers = [round(float(number), 5) for number in vector]
            print(json.dumps({"category_id": 1, "vector": numbers, "limit": LIMIT}), file=file)


def serve_changing(root: ReleaseRoot, seconds: int) -> list[Verdict]:
    """`make bench-change`, the short of it."""
    releases = changing_releases(root)
    print()
    with serving(root) as served, ProcessPoolExecutor(1, get_context("spawn")) as pool:
        wait_until_ready(served)
        return change_under_load(served, root, releases, seconds, pool)


def table_beside_product(features: Features, rounds: int = 2) -> Verdict:
    """Time of the exact table over that of one float32 matrix product of its size, in turn."""
    copy, ratios = features.copy(), []
    print()
    for _ in range(rounds):
        product_s = seconds_of(lambda: features @ copy.T)
        table_s = seconds_of(lambda: exact_neighbours(features, K, spare=N_SPARE))
        print(f"exact table, k {K}: {table_s:.1f} s, one product: {product_s:.1f} s", flush=True)
        ratios.append(table_s / product_s)
    return Verdict("exact table / one product", ratios, lambda ratio: ratio <= 1, "1 or less")


def seconds_of(work: Callable[[], object]) -> float:
    """How long something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
