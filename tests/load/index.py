"""``make bench-index``: a nightly build of which little has changed, against one made from nothing.

Once 31,667 products with 2048 numbers each, and once the paper's full size, 3.8 million products in 120
categories, with 16 numbers: what a build costs besides comparing features.
"""

import argparse
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from load.made_features import MadeFeatures
from load.scale import N_CATEGORIES, sizes
from load.serving import Verdict
from lookalike.release.manifest import Model
from lookalike.release.root import ReleaseRoot
from lookalike_build.features.store import FeatureStore, FeatureWriter
from lookalike_build.indexing.build import index
from lookalike_build.indexing.category import IndexSettings
from lookalike_build.publishing.staging import Published

CHANGED_SHARE = 0.01
N_BATCH = 65_536


class Measured(NamedTuple):
    """Seconds of one build, and what it says that it has done."""

    seconds: float
    published: Published


def main() -> None:
    """Make the stores, build, print what was seen and what holds."""
    parser = argparse.ArgumentParser(prog="make bench-index", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--products", type=int, default=sum(sizes()))
    options = parser.parse_args()
    folder: Path = options.folder / "index"
    one = [31_667]
    scaled = [max(2, size * options.products // sum(sizes())) for size in sizes()]
    with emptied(folder):
        for name, each, n_dims, rounds in (
            ("31,667 products, 2048 numbers", one, 2048, options.rounds),
            (f"{sum(scaled):,} products in {N_CATEGORIES} categories, 16 numbers", scaled, 16, 1),
        ):
            print(f"\n{name}", flush=True)
            for verdict in measured(folder, each, n_dims, rounds):
                print(verdict, flush=True)


def measured(folder: Path, each: list[int], n_dims: int, rounds: int) -> Iterator[Verdict]:
    """From nothing, with nothing changed, and with 1 % of the products of each category changed."""
    world = MadeFeatures(n_dims, seed=0)
    with emptied(folder):
        write_store(folder / "features", world, each, changed=0)
        store = FeatureStore.open(folder / "features")
        root = ReleaseRoot(folder / "root")
        nothing, unchanged, changed = [], [], []
        nothing.append(build("from nothing", store, root))
        for number in range(1, rounds + 1):
            unchanged.append(build("nothing changed", store, root))
            write_store(folder / "features", world, each, number)
            store = FeatureStore.open(folder / "features")
            changed.append(build("1 % changed", store, root))
        if rounds > 1:
            nothing.append(build("from nothing", store, ReleaseRoot(folder / "other")))
        from_nothing = sum(one.seconds for one in nothing) / len(nothing)
        ratios = [from_nothing / one.seconds for one in changed]
        yield Verdict("from nothing / 1 % changed", ratios, lambda ratio: ratio >= 20, "20 or more")
        seconds = [one.seconds for one in unchanged]
        yield Verdict("nothing changed, s", seconds, lambda s: s <= 60, "60 or less")


def build(name: str, store: FeatureStore, root: ReleaseRoot) -> Measured:
    """Build once, and say how long it took and what was done."""
    started = time.perf_counter()
    published = index(store, root, IndexSettings())
    seconds = time.perf_counter() - started
    with root.lock():
        root.prune(keep=1)
    categories = len(store.categories) - published.n_unchanged - published.n_rebuilt
    print(
        f"  {name:16} {seconds:8.1f} s   products {tuple(published.counts)} new, changed, gone, as "
        f"they were; categories {published.n_rebuilt} rebuilt, {categories} updated",
        flush=True,
    )
    return Measured(seconds, published)


def write_store(folder: Path, world: MadeFeatures, each: list[int], changed: int) -> None:
    """A feature store of categories of these sizes, in which `changed` times 1 % have another photo."""
    model = Model("made", "sha256:0")
    writer = FeatureWriter(folder, model, world.n_dims, (pa.int64(), pa.int64()), as_of=0)
    for number, n_items in enumerate(each, 1):
        version = np.zeros(n_items, np.int64)
        step = round(1 / CHANGED_SHARE)
        for night in range(1, changed + 1):
            version[night::step] = night
        digests = [f"{number}-{item}-{night}" for item, night in enumerate(version.tolist())]
        product_ids = list(range(10, 10 + 3 * n_items, 3))
        writer.add_category(number, product_ids, digests, drawn(world, number, version))
    writer.finish()


def drawn(
    world: MadeFeatures, number: int, version: npt.NDArray[np.int64]
) -> Iterator[npt.NDArray[np.float32]]:
    """The features of a category, little by little; of each product that of its version."""
    for first in range(0, version.size, N_BATCH):
        nights = version[first : first + N_BATCH]
        features = world.draw(nights.size, hash((number, first, 0)) % 2**32)
        for night in range(1, int(nights.max(initial=0)) + 1):
            rows = np.flatnonzero(nights == night)
            features[rows] = world.draw(rows.size, hash((number, first, night)) % 2**32)
        yield features


@contextmanager
def emptied(folder: Path) -> Iterator[None]:
    """An empty folder, removed afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
