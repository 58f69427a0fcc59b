"""``make bench-extract``: photos a second through the network, each way in turn, on drawn photos.

With OpenVINO installed (pip install openvino) it is measured beside, in bfloat16.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from load.ray_extraction import extract_on_ray
from load.serving import Verdict
from lookalike_build.catalogue.reader import COLUMNS, Catalogue, read_catalogue
from lookalike_build.demo.drawing import draw_catalogue
from lookalike_build.extraction.local_engine import LocalEngine
from lookalike_build.extraction.pipeline import PhotoPipeline, extract
from lookalike_build.features.store import FeatureStore
from lookalike_build.indexing.neighbours import exact_neighbours
from lookalike_build.networks.extractor import UNTRAINED
from lookalike_build.networks.inception import Network
from lookalike_build.networks.runtime import optimizer_options
from lookalike_build.photos.decoding import decode_photo, read_photo
from lookalike_build.photos.reader import PhotoReader
from support import recall_at_k

K = 10
BATCH = 32
PREDICT, FLOAT32, OURS, OPENVINO, FILES = (
    "Keras's predict, float32",
    "ours, float32",
    "ours",
    "OpenVINO, bfloat16",
    "ours, from JPEG files",
)
RAY = {1: "Ray, 1 worker of a core", 2: "Ray, 2 workers of a core"}

Photos = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float32]
Way = Callable[[Photos], Features]


def main() -> None:
    """Draw, run each way in turn, print the table, judge."""
    parser = argparse.ArgumentParser(prog="make bench-extract", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    path = options.folder / "photos" / "catalogue.csv"
    if not path.exists():
        print("drawing photos ...", flush=True)
        path = draw_catalogue(path.parent)
    catalogue = read_catalogue(path)
    images = catalogue.rows["image"].to_pylist()
    photos = np.stack([decode_photo(read_photo(catalogue.folder / image)) for image in images])
    network = Network(UNTRAINED)
    ways = the_ways(network)
    found = {name: way(photos) for name, way in ways.items()}  # and compile
    rates: dict[str, list[float]] = {name: [] for name in (*ways, FILES, *RAY.values())}
    for _ in range(options.rounds):
        for name, way in ways.items():
            rates[name].append(rate_of(len(photos), lambda way=way: way(photos)))  # type: ignore[misc]
        work = lambda: found.update({FILES: from_files(catalogue, network)})  # noqa: E731
        rates[FILES].append(rate_of(len(photos), work))
        for n_workers, name in RAY.items():
            found[name], rate = extract_on_ray(n_workers, images, catalogue.folder, network.model)
            rates[name].append(rate)
    agreed = agreements(found)
    print_table(rates, agreed)
    judge(rates, agreed)


def from_files(catalogue: Catalogue, network: Network) -> Features:
    """Features of all the catalogue's photos by way of a store, in the order of its rows."""
    with TemporaryDirectory() as folder:
        extract(
            catalogue,
            PhotoPipeline(
                PhotoReader(catalogue.folder), LocalEngine(network), network.model, network.n_dims
            ),
            Path(folder),
        )
        return stored(catalogue, FeatureStore.open(Path(folder)))


def stored(catalogue: Catalogue, store: FeatureStore) -> Features:
    """The features in a store, in the order of the catalogue's rows."""
    of_product = {
        (category_id, product_id): feature
        for category_id in store.categories
        for category in [store.read(category_id)]
        for product_id, feature in zip(category.product_ids, category.features, strict=True)
    }
    keys = zip(*(catalogue.rows[name].to_pylist() for name in COLUMNS[1::-1]), strict=True)
    return np.stack([of_product[key] for key in keys])


def the_ways(network: Network) -> dict[str, Way]:
    """The ways to be measured, by name: each takes photos (n, 299, 299, 3) to features."""
    import tensorflow as tf

    keras_model = network._keras_model
    float32 = Network(UNTRAINED, precision="float32")

    def predict(photos: Photos) -> Features:
        tf.config.optimizer.set_experimental_options(optimizer_options("float32"))
        prepared = photos.astype(np.float32) / 127.5 - 1
        return np.asarray(keras_model.predict(prepared, batch_size=BATCH, verbose=0))

    def ours(network: Network) -> Way:
        return lambda photos: in_batches(
            lambda batch: network.features(network.stage(list(batch))), photos
        )

    ways: dict[str, Way] = {PREDICT: predict, FLOAT32: ours(float32), OURS: ours(network)}
    try:
        import openvino
    except ImportError:
        print("OpenVINO is not installed: pip install openvino")
        return ways
    compiled = openvino_model(openvino, keras_model)
    ways[OPENVINO] = lambda photos: in_batches(
        lambda batch: np.asarray(compiled(batch.astype(np.float32) / 127.5 - 1)[0]), photos
    )
    return ways


def openvino_model(openvino: Any, keras_model: Any) -> Any:
    """The model compiled by OpenVINO for bfloat16."""
    with TemporaryDirectory() as folder:
        keras_model.export(folder, verbose=False)
        model = openvino.convert_model(folder, input=[BATCH, 299, 299, 3])
    hints = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"}
    return openvino.Core().compile_model(model, "CPU", hints)


def in_batches(features: Way, photos: Photos) -> Features:
    """`features` of all photos, a batch at a time; only whole batches."""
    return np.concatenate([features(photos[i : i + BATCH]) for i in range(0, len(photos), BATCH)])


def rate_of(n: int, work: Callable[[], object]) -> float:
    """Photos a second."""
    started = time.perf_counter()
    work()
    return n / (time.perf_counter() - started)


class Agreement(NamedTuple):
    """How near features and their neighbours are to those of predict."""

    least_cosine: float
    same_neighbours: float


def agreements(found: dict[str, Features]) -> dict[str, Agreement]:
    """The agreement of all that was found with what predict found."""
    exact = found[PREDICT]
    nearest, _ = exact_neighbours(exact, K)
    agreed = {}
    for name, features in found.items():
        cosine = np.sum(exact * features, axis=1) / np.linalg.norm(exact, axis=1)
        cosine /= np.linalg.norm(features, axis=1)
        others, _ = exact_neighbours(features, K)
        same = [recall_at_k(*pair) for pair in zip(nearest, others, strict=True)]
        agreed[name] = Agreement(float(cosine.min()), float(np.mean(same)))
    return agreed


def print_table(rates: dict[str, list[float]], agreed: dict[str, Agreement]) -> None:
    """Rates and agreement of each way."""
    print(f"\n{'':28}{'photos/s':>10}{'cosine':>12}{f'same of {K}':>12}")
    for name, seen in rates.items():
        line = f"{name:28}{statistics.median(seen):10.1f}"
        print(f"{line}{agreed[name].least_cosine:12.7f}{agreed[name].same_neighbours:12.3f}")
    print(flush=True)


def judge(rates: dict[str, list[float]], agreed: dict[str, Agreement]) -> None:
    """Say what holds."""

    def ratio(one: str, other: str, least: float) -> None:
        ratios = [a / b for a, b in zip(rates[one], rates[other], strict=True)]
        print(Verdict(f"{one} / {other}", ratios, lambda r: r >= least, f"{least} or more"))

    ratio(OURS, PREDICT, 2.2)
    if OPENVINO in rates:
        ratio(OURS, OPENVINO, 0.9)
    ratio(FILES, OURS, 0.9)
    scaling = [two / one for one, two in zip(*(rates[RAY[n]] for n in (1, 2)), strict=True)]
    print(f"{RAY[2]} / {RAY[1]}: {statistics.median(scaling):.2f}")
    cosine, same = agreed[OURS]
    print(Verdict("least cosine", [cosine], lambda c: c >= 0.999, "0.999 or more"))
    print(Verdict("same neighbours", [same], lambda s: s >= 0.98, "0.98 or more"))


if __name__ == "__main__":
    main()
