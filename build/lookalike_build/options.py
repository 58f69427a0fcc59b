"""The options of the command ``lookalike-build``."""

import argparse
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import get_args

from lookalike import __version__
from lookalike.arguments import whole_number
from lookalike.manifest import MAX_DIMS
from lookalike_build.catalogue import COLUMNS
from lookalike_build.category_index import IndexSettings
from lookalike_build.extractor import GRAPHDEF, IMAGENET, INCEPTION_V3, UNTRAINED, Precision
from lookalike_build.features import PHOTOS
from lookalike_build.network import N_DIMS

LOCAL, RAY = "local", "ray"


def parser() -> argparse.ArgumentParser:
    """The command's; what it parses has `command`, the name of one, and that one's own options."""
    parser = argparse.ArgumentParser(
        prog="lookalike-build",
        description="Turn product photos into a release of related products.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(
        title="commands", required=True, metavar="COMMAND", dest="command"
    )
    _add_extract(commands)
    _add_index(commands)
    _add_adopt(commands)
    _add_export(commands)
    _add_follow(commands)
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
    _add_network(added)
    _add_reading(added)
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
        help="exit with status 1, and leave the store as it was, where more of the photos are rejected "
        "(%(default)s)",
    )


def _add_index(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "Make a release of a feature store, check it and make it the current one."
    added = commands.add_parser(
        "index",
        help=text,
        description=text,
        epilog="example: lookalike-build index --features features/ --root /var/lib/lookalike",
    )
    added.add_argument(
        "--features", type=Path, required=True, metavar="DIR", help="the feature store to read"
    )
    _add_release_options(added)


def _add_adopt(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "Make a release of what another installation left: Annoy's indexes or features as CSV."
    added = commands.add_parser(
        "adopt",
        help=text,
        description=text,
        epilog="example: lookalike-build adopt /srv/annoy --root /var/lib/lookalike",
    )
    added.add_argument(
        "folder",
        type=_folder,
        metavar="FOLDER",
        help="where the files are: category_<id>.ann (float32 or float64, angular metric; an item's "
        "number is its product id unless a product_ids_<id>.csv lists one for each item, one a line), "
        "or features_<id>.csv (product id, then the features)",
    )
    added.add_argument(
        "--dims",
        type=whole_number(1, MAX_DIMS),
        default=N_DIMS,
        help="how many numbers a product has (%(default)s)",
    )
    added.add_argument(
        "--model-name",
        type=_name,
        default="adopted",
        metavar="NAME",
        help="what to call the network that made the features (%(default)s)",
    )
    _add_release_options(added)


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "Write a feature store as CSV: features_<id>.csv for each category."
    added = commands.add_parser(
        "export",
        help=text,
        description=text,
        epilog="example: lookalike-build export csv/ --features features/",
    )
    added.add_argument("folder", type=Path, metavar="FOLDER", help="where to write the files")
    added.add_argument(
        "--features", type=Path, required=True, metavar="DIR", help="the feature store to read"
    )


def _add_follow(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "Take changes of products as they come, and make them live within seconds."
    added = commands.add_parser(
        "follow",
        help=text,
        description=f"{text} They come from the journal, which the app writes for `PUT` and "
        "`DELETE`, and from a feed. SIGTERM ends it when what it is at is done.",
        epilog="example: lookalike-build follow --root /var/lib/lookalike --changes changes.jsonl",
    )
    added.add_argument("--root", type=_folder, required=True, help="the release root to publish in")
    added.add_argument(
        "--changes",
        metavar="FEED",
        help="take changes from FEED as well: a file of JSON lines, followed as it grows and is "
        "rotated, a named pipe, or - for standard input, whose end ends this",
    )
    added.add_argument(
        "--once", action="store_true", help="stop when all changes that are there are live"
    )
    added.add_argument(
        "--status",
        action="store_true",
        help="say where following stands (changes pending, live and rejected, batches, the current "
        "release) and stop",
    )
    _add_network(added)
    _add_reading(added)
    _add_keep(added, "releases to keep of those made here, and as many of the others")


def _add_network(added: argparse.ArgumentParser) -> None:
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


def _add_reading(added: argparse.ArgumentParser) -> None:
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


def _add_release_options(added: argparse.ArgumentParser) -> None:
    defaults = IndexSettings()
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
    _add_keep(added, "releases to keep, and as many of those that `follow` made")
    _add_engine(added, "index")


def _add_keep(added: argparse.ArgumentParser, what: str) -> None:
    added.add_argument(
        "--keep",
        type=whole_number(1),
        default=5,
        metavar="N",
        help=f"{what}; older ones are removed, the current one never (%(default)s)",
    )


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


def check_engine(options: argparse.Namespace) -> None:
    """End the process with 2 where an option is for the other engine."""
    for name in ("ray_address", "workers"):
        if options.engine != RAY and getattr(options, name, None) is not None:
            options.parser.error(f"argument --{name.replace('_', '-')}: only with --engine {RAY}")


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"no such file: {text}")
    return path


def _weights(text: str) -> str:
    # Absolute: a worker on another machine has another working folder.
    return text if text in (IMAGENET, UNTRAINED) else str(Path(text).absolute())


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {text}")
    return path


def _name(text: str) -> str:
    if not text or not text.isprintable():
        raise argparse.ArgumentTypeError(f"must be printable text, not {text!r:.40}")
    return text


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
