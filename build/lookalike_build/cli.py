"""The command ``lookalike-build``: photos to features, features to a release."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import get_args

from lookalike import __version__
from lookalike.arguments import whole_number
from lookalike.manifest import ReleaseError
from lookalike.root import ReleaseRoot, RootError
from lookalike_build.catalogue import COLUMNS, CatalogueError, ColumnNames, read_catalogue
from lookalike_build.extract import Engine, Outcome, Product, extract
from lookalike_build.extractor import (
    GRAPHDEF,
    IMAGENET,
    INCEPTION_V3,
    UNTRAINED,
    Extractor,
    ExtractorSettings,
    Precision,
    WeightsError,
)
from lookalike_build.features import PHOTOS, REJECTED, FeatureError, FeatureSource, FeatureStore
from lookalike_build.index import IndexSettings, index
from lookalike_build.local_engine import LocalEngine
from lookalike_build.photo_cache import PhotoCache
from lookalike_build.photo_reader import PhotoReader, has_urls
from lookalike_build.progress import progress
from lookalike_build.ray_cluster import ClusterError, ray_cluster
from lookalike_build.staging import Published

LOCAL, RAY = "local", "ray"
DONE, FAILED = 0, 1  # argparse exits with 2 where the call is wrong
_MAX_SHOWN = 10


class TooManyRejected(Exception):  # noqa: N818
    """More of the photos were rejected than `--max-rejected` allows."""


_FAILURES = (
    CatalogueError,
    ClusterError,
    FeatureError,
    ReleaseError,
    RootError,
    TooManyRejected,
    WeightsError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status: 0, 1 (the work failed) or 2 (the call was wrong)."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except _FAILURES as error:
        print(f"lookalike-build: {error}", file=sys.stderr)
        return FAILED
    except OSError as error:
        # NumPy and Annoy do not name the file that a full disk cut short.
        where = error.filename or getattr(options, "root", options.features)
        print(f"lookalike-build: {where}: {error.strerror or error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("lookalike-build: interrupted", file=sys.stderr)
        return FAILED
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lookalike-build",
        description="Turn product photos into a release of related products.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_extract(commands)
    _add_index(commands)
    return parser


def _add_extract(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "Take the features of every photo of a catalogue into a feature store."
    added = commands.add_parser(
        "extract",
        help=text,
        description=text,
        epilog="example: lookalike-build extract catalogue.csv --features features/",
    )
    added.add_argument(
        "catalogue",
        type=_file,
        metavar="CATALOGUE",
        help="CSV, Parquet or JSON Lines file, or a .sql file whose last statement gives the rows: "
        "product_id, category_id and image (a URL, or a path relative to it)",
    )
    for name in COLUMNS:
        added.add_argument(
            f"--{name.replace('_', '-')}-column",
            default=name,
            metavar="COLUMN",
            help=f"what the catalogue calls {name}",
        )
    added.add_argument(
        "--features", type=Path, required=True, metavar="DIR", help="the feature store to write"
    )
    network = added.add_mutually_exclusive_group()
    network.add_argument(
        "--model",
        type=_model,
        default=INCEPTION_V3,
        help=f"{GRAPHDEF}FILE takes the features from the tensor pool_3:0 of a frozen TensorFlow graph "
        "that is fed JPEG bytes at DecodeJpeg/contents:0: classify_image_graph_def.pb of "
        "inception-2015-12-05, or one like it; default: %(default)s of Keras",
    )
    network.add_argument(
        "--weights",
        type=_weights,
        default=IMAGENET,
        help=f"{IMAGENET} (downloaded once), {UNTRAINED} (fixed seed: for tests and demos), or a "
        "Keras weights file of InceptionV3; default: %(default)s",
    )
    added.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="auto",
        help="float32, or mixed: bfloat16 on a CPU, float16 on a GPU; auto is mixed where the "
        "hardware has it (%(default)s)",
    )
    added.add_argument(
        "--timeout",
        type=_number(3600, least=0.1),
        default=30.0,
        metavar="SECONDS",
        help="what one attempt to read a photo from a URL may take (%(default)s)",
    )
    added.add_argument(
        "--retries",
        type=whole_number(0, 100),
        default=2,
        metavar="N",
        help="further attempts where a server is busy or cannot be reached (%(default)s)",
    )
    added.add_argument(
        "--connections",
        type=whole_number(1, 1024),
        default=32,
        metavar="N",
        help="photos from URLs that are read at a time (%(default)s)",
    )
    _add_engine(added, "extract")
    added.add_argument(
        "--workers",
        type=whole_number(1),
        metavar="N",
        help="networks at work on the Ray cluster (one for each of its GPUs or, without any, CPUs)",
    )
    cache = added.add_mutually_exclusive_group()
    cache.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="where photos from URLs are kept, so that only what has changed is downloaded again; one "
        f"folder a catalogue ({PHOTOS}/ in the feature store)",
    )
    cache.add_argument("--no-cache", action="store_true", help="keep no photos from URLs")
    added.add_argument(
        "--max-rejected",
        type=_number(100),
        default=5.0,
        metavar="PERCENT",
        help="exit with status 1 where more of the photos are rejected (%(default)s)",
    )
    added.set_defaults(run=_extract)


def _add_index(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "Make a release of a feature store, check it and make it the current one."
    defaults = IndexSettings()
    added = commands.add_parser(
        "index",
        help=text,
        description=text,
        epilog="example: lookalike-build index --features features/ --root /var/lib/lookalike",
    )
    added.add_argument(
        "--features", type=Path, required=True, metavar="DIR", help="the feature store to read"
    )
    added.add_argument("--root", type=Path, required=True, help="the release root to publish in")
    added.add_argument(
        "--trees",
        type=whole_number(1),
        default=defaults.n_trees,
        help="trees of Annoy (%(default)s)",
    )
    added.add_argument(
        "--neighbours",
        type=whole_number(1),
        default=defaults.neighbours,
        metavar="K",
        help="exact neighbours kept of each product (%(default)s)",
    )
    added.add_argument(
        "--seed",
        type=whole_number(1),
        default=defaults.seed,
        help="seed of Annoy's trees (%(default)s)",
    )
    added.add_argument(
        "--recall",
        type=_number(1),
        default=defaults.recall,
        help="recall that vectors are to be answered with, 0 to 1 (%(default)s)",
    )
    added.add_argument(
        "--keep",
        type=whole_number(1),
        default=5,
        metavar="N",
        help="releases to keep; older ones are removed, the current one never (%(default)s)",
    )
    _add_engine(added, "index")
    added.set_defaults(run=_index)


def _add_engine(added: argparse.ArgumentParser, what: str) -> None:
    added.add_argument(
        "--engine",
        choices=(LOCAL, RAY),
        default=LOCAL,
        help=f"where to {what}: on this machine, or on the machines of a Ray cluster (%(default)s)",
    )
    added.add_argument(
        "--ray-address",
        metavar="HOST:PORT",
        help="the Ray cluster (that of RAY_ADDRESS, else a Ray of this machine alone)",
    )
    added.set_defaults(parser=added)


def _check_engine(options: argparse.Namespace) -> None:
    for name in ("ray_address", "workers"):
        if options.engine != RAY and getattr(options, name, None) is not None:
            options.parser.error(f"argument --{name.replace('_', '-')}: only with --engine {RAY}")


def _extract(options: argparse.Namespace) -> None:
    started = time.monotonic()
    _check_engine(options)
    names = ColumnNames(*(getattr(options, f"{name}_column") for name in COLUMNS))
    catalogue = read_catalogue(options.catalogue, names)
    settings = ExtractorSettings(options.model, options.weights, options.precision)
    extractor = settings.make() if options.engine == LOCAL else settings.make_off_gpu()
    shown = 0

    def reject(product: Product, reason: str) -> None:
        nonlocal shown
        shown += 1
        if shown <= _MAX_SHOWN:
            print(f"rejected product {product.product_id}: {reason}", file=sys.stderr)

    images = catalogue.rows["image"]
    urls = has_urls(images)
    cache = _cache(options) if urls and not options.no_cache else None
    reader = PhotoReader(catalogue.folder.absolute(), options.timeout, options.retries, cache)
    n_readers = options.connections if urls else 0
    with progress("extract", len(images)) as done:
        outcome = extract(
            catalogue,
            _extraction_engine(options, settings, extractor, n_readers),
            reader,
            extractor.model,
            extractor.n_dims,
            options.features,
            done,
            reject,
        )
    if cache:
        cache.prune(images.to_pylist())
    seconds = time.monotonic() - started
    print(
        f"{outcome.n_products} products = {outcome.n_extracted} extracted + {outcome.n_known} known"
        f" + {outcome.n_rejected} rejected, in {seconds:.1f} s, model {extractor.model.name}"
    )
    _judge(outcome, options)


def _extraction_engine(
    options: argparse.Namespace, settings: ExtractorSettings, extractor: Extractor, n_readers: int
) -> Engine:
    if options.engine == LOCAL:
        return LocalEngine(extractor, n_readers)
    from lookalike_build.ray_engine import RayEngine

    address, n_workers = options.ray_address, options.workers
    return RayEngine(settings.make, extractor.model, address, n_workers, n_readers)


def _cache(options: argparse.Namespace) -> PhotoCache:
    cache = PhotoCache((options.cache or options.features / PHOTOS).absolute())
    cache.folder.mkdir(parents=True, exist_ok=True)
    return cache


def _judge(outcome: Outcome, options: argparse.Namespace) -> None:
    report = options.features / REJECTED
    if 100 * outcome.rejected_share > options.max_rejected:
        raise TooManyRejected(
            f"{100 * outcome.rejected_share:.1f} % of the photos were rejected, more than "
            f"--max-rejected {options.max_rejected:g}; {report} names them"
        )
    if outcome.n_rejected:
        print(f"the rejected are named in {report}")


def _index(options: argparse.Namespace) -> None:
    started = time.monotonic()
    _check_engine(options)
    store = FeatureStore.open(options.features.absolute())
    root = ReleaseRoot(options.root.absolute())
    settings = IndexSettings(options.trees, options.neighbours, options.seed, options.recall)
    with progress("index", sum(store.categories.values())) as done:
        published = _indexed(options, store, root, settings, done)
    categories = root.manifest(published.release).categories
    for entry in categories:
        recall = "" if entry.recall is None else f", recall by vector {entry.recall:.3f}"
        print(f"category {entry.category_id}: {entry.n_items} products, k {entry.k}{recall}")
    with root.lock():
        removed = root.prune(options.keep)
    if removed:
        print(f"old releases removed: {', '.join(removed)}")
    unchanged = published.n_unchanged
    print(f"categories: {len(categories) - unchanged} indexed, {unchanged} unchanged")
    what = "published and made current" if published.new else "unchanged: it holds this already"
    print(f"release {published.release} {what}, in {time.monotonic() - started:.1f} s")


def _indexed(
    options: argparse.Namespace,
    store: FeatureSource,
    root: ReleaseRoot,
    settings: IndexSettings,
    done: Callable[[int], object],
) -> Published:
    if options.engine == LOCAL:
        return index(store, root, settings, done)
    with ray_cluster(options.ray_address):
        from lookalike_build.ray_index import index_on_ray

        return index(store, root, settings, done, index_on_ray)


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"no such file: {text}")
    return path


def _weights(text: str) -> str:
    # Absolute: a worker on another machine has another working folder.
    return text if text in (IMAGENET, UNTRAINED) else str(Path(text).absolute())


def _model(text: str) -> str:
    file = text.removeprefix(GRAPHDEF)
    if file not in ("", text):
        return f"{GRAPHDEF}{Path(file).absolute()}"
    if text == INCEPTION_V3:
        return text
    raise argparse.ArgumentTypeError(f'must be {INCEPTION_V3} or {GRAPHDEF}FILE, not "{text}"')


def _number(most: float, least: float = 0) -> Callable[[str], float]:
    """An argparse type: a number from `least` to `most`."""

    def parse(text: str) -> float:
        with suppress(ValueError):
            if least <= float(text) <= most:
                return float(text)
        raise argparse.ArgumentTypeError(
            f'must be a number from {least:g} to {most:g}, not "{text}"'
        )

    return parse
