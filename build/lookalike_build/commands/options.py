"""The options of the command ``lookalike-build``."""

import argparse
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from lookalike import __version__
from lookalike.release.manifest import MAX_DIMS
from lookalike.terminal.arguments import Parser, whole_number
from lookalike_build.behaviour.files import RATING_COLUMNS
from lookalike_build.behaviour.ratings import MOST_PRODUCT_RATINGS, RatingSettings
from lookalike_build.catalogue.reader import COLUMNS
from lookalike_build.experiment.files import COLUMNS as COLUMNS_OF_EVENTS
from lookalike_build.experiment.files import PATHS, EventColumns, LogPaths
from lookalike_build.experiment.records import Memory
from lookalike_build.experiment.report import BestBy, Question
from lookalike_build.experiment.writer import SUFFIXES
from lookalike_build.features.store import PHOTOS
from lookalike_build.indexing.category import IndexSettings
from lookalike_build.networks.extractor import (
    GRAPHDEF,
    IMAGENET,
    INCEPTION_V3,
    UNTRAINED,
    Precision,
)
from lookalike_build.networks.inception import N_DIMS
from lookalike_build.photos.reader import SCHEMES, WEB_SCHEMES
from lookalike_build.simulation.shop import Taste
from lookalike_build.simulation.visitors import PAPER_CTR, PAPER_CVR

LOCAL, RAY = "local", "ray"
_OF_PATHS = {
    "related": "an impression, if its headers are logged",
    "shown": "an impression",
    "clicked": "a click",
    "purchased": "a purchase",
}


def parser() -> argparse.ArgumentParser:
    """The command's; what it parses has `command`, the name of one, and that one's own options."""
    parser: argparse.ArgumentParser = Parser(
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
    _add_report(commands)
    _add_simulate(commands)
    _add_behaviour(commands)
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
    _add_columns(added, COLUMNS, "the catalogue calls")
    added.add_argument(
        "--features", type=Path, required=True, metavar="DIR", help="the feature store to write"
    )
    _add_as_of(added, "an hour before its file was last written, or when its query began")
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
    _add_as_of(added, "as `extract` found it")
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
    _add_as_of(added, "an hour before the oldest file was last written")
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


def _add_report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = (
        "Say how pattern B, similar images, did against pattern A, from records of an experiment."
    )
    added = commands.add_parser(
        "report",
        help=text,
        description=f"{text} Click-through and conversion rates by pattern, the categories in which "
        "each did best, and how many each won, with intervals, tests and a check of the assignment.",
        epilog="example: lookalike-build report '/var/log/nginx/experiment.log*' --html report.html",
    )
    added.add_argument(
        "records",
        nargs="+",
        metavar="RECORDS",
        help="CSV, Parquet or JSON Lines files of events, or JSON access logs of Unit and nginx; "
        "wildcards in quotes; text may be compressed by gzip",
    )
    for name in EventColumns._fields:
        added.add_argument(
            f"--{name.replace('_', '-')}-column",
            default=getattr(COLUMNS_OF_EVENTS, name),
            metavar="COLUMN",
            help=f"what the records call {name} ({name}"
            + ("; it may be missing)" if getattr(COLUMNS_OF_EVENTS, name) is None else ")"),
        )
    for name in LogPaths._fields:
        added.add_argument(
            f"--{name}-path",
            default=getattr(PATHS, name),
            metavar="PATH",
            help=f"in access logs, the path of which a request is {_OF_PATHS[name]} (%(default)s)",
        )
    for name, what in (("from", "from then on"), ("until", "from before then")):
        added.add_argument(
            f"--{name}",
            type=_moment,
            dest={"from": "start"}.get(name, name),
            metavar="TIME",
            help=f"only records {what}: 2026-01-31, or 2026-01-31T12:00+09:00 (UTC unless it says)",
        )
    defaults = Question()
    added.add_argument(
        "--confidence",
        type=_number(0.9999, least=0.5),
        default=defaults.confidence,
        help="of the intervals; tests are at the level of what is left to 1 (%(default)s)",
    )
    added.add_argument(
        "--share",
        type=_number(0.99, least=0.01),
        default=defaults.share,
        help="the share of visitors that is to have pattern B (%(default)s)",
    )
    added.add_argument(
        "--min-impressions",
        type=whole_number(1),
        default=defaults.min_impressions,
        metavar="N",
        help="a category with fewer of either pattern is undecided (%(default)s)",
    )
    added.add_argument(
        "--best-by",
        choices=get_args(BestBy),
        default=defaults.best_by,
        help="a pattern did best where its rate is highest, or where it leads by most (%(default)s)",
    )
    added.add_argument("--json", type=Path, metavar="FILE", help="write all of it as JSON, too")
    added.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots, too")
    added.add_argument(
        "--memory-limit",
        type=_size,
        default=Memory().limit,
        metavar="SIZE",
        help="how much memory to take, such as 4GB; the rest is on disk (%(default)s)",
    )
    added.add_argument(
        "--temporary",
        type=_folder,
        metavar="DIR",
        help="where to put on disk what does not fit (the system's folder for temporary files)",
    )


def _add_simulate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "Make the records of an experiment whose truth is known."
    added = commands.add_parser(
        "simulate",
        help=text,
        description=f"{text} Visitors click and buy at stated rates, those of the paper unless given; "
        "with --url they browse a shop that runs, and click on what looks alike.",
        epilog="example: lookalike-build simulate --out events.parquet --visitors 100000",
    )
    added.add_argument(
        "--out",
        type=_events,
        required=True,
        metavar="FILE",
        help=f"the records to write, {', '.join(SUFFIXES)}; what is true comes beside them, FILE with "
        "the ending .truth.json",
    )
    added.add_argument(
        "--visitors", type=whole_number(1), default=20_000, metavar="N", help="(%(default)s)"
    )
    added.add_argument(
        "--impressions",
        type=_number(10_000, least=1),
        default=8.0,
        metavar="N",
        help="mean of a visitor's impressions (%(default)s)",
    )
    added.add_argument(
        "--days",
        type=whole_number(1, 3650),
        default=30,
        metavar="N",
        help="how long it goes on (%(default)s)",
    )
    added.add_argument(
        "--seed", type=whole_number(0), default=1, help="of all chance (%(default)s)"
    )
    rates = added.add_argument_group("visitors with stated rates")
    for name, (a, b) in (("ctr", PAPER_CTR), ("cvr", PAPER_CVR)):
        rates.add_argument(
            f"--{name}",
            type=_number(1),
            nargs=2,
            default=(a, b),
            metavar=("BEHAVIOUR", "IMAGE"),
            help=f"over all categories, for what either method answers ({a} {b}, the paper's)",
        )
    rates.add_argument(
        "--categories", type=whole_number(1, 100_000), default=20, metavar="N", help="(%(default)s)"
    )
    rates.add_argument(
        "--differ",
        type=_number(3),
        default=0.3,
        help="how much the categories' rates, and what image gains in each, differ: the standard "
        "deviation of their logarithms (%(default)s)",
    )
    rates.add_argument(
        "--preferences",
        type=_file,
        metavar="FILE",
        help="a JSON file with each category's share and rates, in place of these: like a .truth.json",
    )
    rates.add_argument(
        "--spread",
        type=_number(100),
        default=1.0,
        help="how much the visitors differ: the standard deviation of what multiplies the rates of "
        "each (%(default)s)",
    )
    rates.add_argument(
        "--share", type=_number(1), default=0.5, help="of visitors with pattern B (%(default)s)"
    )
    rates.add_argument(
        "--fallback",
        type=_number(1),
        nargs=2,
        default=(0.0, 0.0),
        metavar=("A", "B"),
        help="how often a pattern has nothing and the other's method answers (0 0)",
    )
    rates.add_argument(
        "--unanswered", type=_number(1), default=0.0, help="how often nothing does (%(default)s)"
    )
    rates.add_argument(
        "--no-visitors",
        action="store_true",
        help="records do not say whose they are, and every impression gets a pattern of its own",
    )
    shop = added.add_argument_group("visitors of a shop that runs")
    taste = Taste()
    shop.add_argument(
        "--url", metavar="URL", help="ask the server http://HOST:PORT for /related at every page"
    )
    shop.add_argument(
        "--root",
        type=_folder,
        metavar="ROOT",
        help="the release root that it serves: the catalogue",
    )
    shop.add_argument(
        "--appeal",
        type=_number(1),
        default=taste.appeal,
        help="the probability of a click on a first product that looks the same (%(default)s)",
    )
    shop.add_argument(
        "--patience",
        type=_number(1),
        default=taste.patience,
        help="what every further place multiplies that with (%(default)s)",
    )
    shop.add_argument(
        "--reach",
        type=_number(10, least=0.01),
        default=taste.reach,
        help="the angular distance at which it is down to 1/e (%(default)s)",
    )
    shop.add_argument(
        "--bought",
        type=_number(1),
        default=taste.bought,
        help="the share of clicks that a purchase follows (%(default)s)",
    )
    added.set_defaults(parser=added)


def check_shop(options: argparse.Namespace) -> None:
    """End the process with 2 where a shop is named in part."""
    if (options.url is None) != (options.root is None):
        options.parser.error("--url and --root: give both, the server and the root that it serves")


def _add_behaviour(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "Make a release of the current one and of what users have rated: pattern A of an experiment."
    added = commands.add_parser(
        "behaviour",
        help=text,
        description=text,
        epilog="example: lookalike-build behaviour ratings.parquet --root /var/lib/lookalike",
    )
    defaults = RatingSettings()
    added.add_argument(
        "events",
        type=_file,
        metavar="EVENTS",
        help="CSV, Parquet or JSON Lines file, or a .sql file whose last statement gives the rows: "
        "user_id, product_id and rated_at (date, timestamp or Unix seconds) of all ratings",
    )
    _add_columns(added, RATING_COLUMNS, "the events call")
    added.add_argument("--root", type=_folder, required=True, help="the release root to publish in")
    added.add_argument(
        "--half-life",
        type=_number(36_500, least=0.001),
        default=defaults.half_life,
        metavar="DAYS",
        help="a rating that is so much older than the newest of all weighs half (%(default)g)",
    )
    added.add_argument(
        "--neighbours",
        type=whole_number(1),
        default=defaults.neighbours,
        metavar="K",
        help="related products kept of each product (%(default)s)",
    )
    added.add_argument(
        "--user-ratings",
        type=whole_number(1),
        default=defaults.user_ratings,
        metavar="N",
        help="how many of a user's ratings count, the newest (%(default)s)",
    )
    added.add_argument(
        "--product-ratings",
        type=whole_number(1, MOST_PRODUCT_RATINGS),
        default=defaults.product_ratings,
        metavar="N",
        help="how many of a product's ratings of these make similar users, the newest (%(default)s)",
    )
    added.add_argument(
        "--memory-limit",
        type=_bytes,
        default="4GB",
        metavar="SIZE",
        help="how much memory to take, such as 4GB; the rest is in the root meanwhile (%(default)s)",
    )
    _add_keep(added, "releases to keep, and as many of those that `follow` made")


def _add_columns(added: argparse.ArgumentParser, names: Sequence[str], who: str) -> None:
    for name in names:
        added.add_argument(
            f"--{name.replace('_', '-')}-column",
            default=name,
            metavar="COLUMN",
            help=f"what {who} {name}",
        )


def _add_as_of(added: argparse.ArgumentParser, default: str) -> None:
    added.add_argument(
        "--as-of",
        type=_past,
        metavar="TIME",
        help="when the export of the catalogue began, such as 2026-01-31T02:00+09:00: products changed "
        f"live since then stay as they are ({default})",
    )


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

    added.add_argument(
        "--allow-scheme",
        type=_scheme,
        action="append",
        default=[],
        metavar="SCHEME",
        help="take photos also from SCHEME:// URLs, by fsspec; may be given again (http, https, file, "
        "s3, gs and az need none). Some schemes, such as reference, read local files for whoever wrote "
        "the URL",
    )
    added.add_argument(
        "--public-addresses-only",
        action="store_true",
        help="take photos only from http and https URLs whose server has a public address, redirects "
        "included, and by schemes of --allow-scheme; paths are refused and proxies not used: for "
        "catalogues in which others write URLs",
    )


def schemes(options: argparse.Namespace) -> frozenset[str]:
    """Those of the URLs from which photos are taken."""
    taken = WEB_SCHEMES if options.public_addresses_only else SCHEMES
    return taken | frozenset(options.allow_scheme)


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


def _scheme(text: str) -> str:
    if not re.fullmatch("[A-Za-z][A-Za-z0-9+.-]{0,31}", text):
        raise argparse.ArgumentTypeError(f'must be the name of a scheme such as sftp, not "{text}"')
    return text.lower()


def _events(text: str) -> Path:
    path = Path(text)
    if path.suffix not in SUFFIXES:
        raise argparse.ArgumentTypeError(f'must end in {" or ".join(SUFFIXES)}, not "{path.name}"')
    return path


def _moment(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'must be a date or a time such as 2026-01-31T12:00+09:00, not "{text}"'
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _past(text: str) -> float:
    moment = None
    with suppress(ValueError):
        moment = datetime.fromisoformat(text)
    if moment is None or moment.tzinfo is None:
        raise argparse.ArgumentTypeError(
            f'must be a time with its zone such as 2026-01-31T02:00+09:00, not "{text}"'
        )
    if moment.timestamp() > time.time():
        raise argparse.ArgumentTypeError(f'must be a time that has passed, not "{text}"')
    return moment.timestamp()


def _size(text: str) -> str:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)? ?[KMGT]i?B", text):
        raise argparse.ArgumentTypeError(f'must be a size such as 512MB or 4GB, not "{text}"')
    return text


def _bytes(text: str) -> int:
    number, unit = _size(text).rstrip(" KMGTiB"), text.lstrip("0123456789. ")
    return int(float(number) * (1024 if "i" in unit else 1000) ** (1 + "KMGT".index(unit[0])))


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
