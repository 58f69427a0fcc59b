"""``lookalike-build extract``: a catalogue's photos become features."""

import time
from dataclasses import replace
from itertools import count
from pathlib import Path

import click

from lookalike.errors import LookalikeError
from lookalike.terminal.command import REQUIRED, at_most_one, command, flag, gathered, option
from lookalike.terminal.output import complain, say
from lookalike.terminal.types import FOLDER, PRESENT_FILE, Number, WholeNumber
from lookalike_build.catalogue.export import EXPORTS, Export
from lookalike_build.catalogue.reader import (
    COLUMNS,
    Catalogue,
    CatalogueFormat,
    ColumnNames,
    read_catalogue,
)
from lookalike_build.commands import options
from lookalike_build.commands.progress import progress
from lookalike_build.extraction.local_engine import LocalEngine
from lookalike_build.extraction.pipeline import (
    MAX_SAME_PHOTO,
    Engine,
    PhotoPipeline,
    Product,
    Summary,
    extract,
)
from lookalike_build.features.store import PHOTOS, REJECTED, STORE, FeatureError, FeatureStore
from lookalike_build.networks.settings import ExtractorSettings
from lookalike_build.photos.cache import PhotoCache
from lookalike_build.photos.image import has_urls
from lookalike_build.photos.reader import PhotoReader
from lookalike_build.publishing.removal import (
    AllowedRemoval,
    check_removal,
    in_catalogue,
    in_source,
)
from lookalike_build.tables.csv import Dialect

_MAX_SHOWN = 10
"""The most rejected products that are named on standard error; all are in the store's file."""


def _mapping(text: str) -> Path:
    path = EXPORTS.get(text, Path(text))
    if path.suffix.lower() == ".sql" and path.is_file():
        return path
    raise click.BadParameter(
        f'must be {", ".join(EXPORTS)} or a .sql file like theirs, not "{text}"'
    )


def _level(text: str) -> int | None:
    return None if text == "leaf" else WholeNumber(1, 100).convert(text, None, None)


def _export(mapping: Path | None, level: int | None) -> Export | None:
    if mapping is None:
        if level is not None:
            raise click.UsageError("--category-level: only with --from")
        return None
    return Export(mapping, level)


@command("lookalike-build extract catalogue.csv --features features/")
@click.argument(
    "catalogue",
    type=PRESENT_FILE,
    help="CSV, Parquet or JSON Lines file, or a .sql file whose last statement gives the rows: "
    "product_id, category_id and image (a URL, or a path relative to it); or what --from reads",
)
@options.columns(COLUMNS, "the catalogue calls")
@gathered(
    "export",
    _export,
    option(
        "--from SYSTEM",
        _mapping,
        None,
        f"the catalogue is an export of {', '.join(EXPORTS)} as it comes, or one that a .sql file like "
        "theirs reads",
        dest="mapping",
    ),
    option(
        "--category-level N",
        _level,
        "leaf",
        "which part of a category's path in the export is the category: 1 for the top, or leaf",
        dest="level",
    ),
)
@options.dialect
@option(
    "--image-base URL",
    str,
    None,
    "a URL or folder that images without a scheme are relative to (the catalogue's folder unless "
    "given)",
)
@option("--features", FOLDER, REQUIRED, "the feature store to write")
@options.as_of("an hour before its file was last written, or when its query began,")
@options.network
@options.reader
@options.connections
@options.engine("extract")
@option(
    "--workers",
    WholeNumber(1),
    None,
    "networks at work on the Ray cluster (one for each of its GPUs or, without any, CPUs)",
    callback=options.only_with_ray,
)
@option(
    "--cache",
    FOLDER,
    None,
    "where photos from URLs are kept, so that only what has changed is downloaded again; one "
    f"folder a catalogue ({PHOTOS}/ in the feature store unless given)",
)
@flag("--no-cache", "keep no photos from URLs")
@options.allowed("the store")
@option(
    "--max-rejected PERCENT",
    Number(0, 100),
    5.0,
    "exit with status 1, and leave the store as it was, where more of the photos are rejected",
)
@option(
    "--max-same-photo",
    WholeNumber(1),
    MAX_SAME_PHOTO,
    'reject the products of a category that have one and the same photo, such as a "no photo" picture, '
    "where there are more",
)
def run(
    catalogue: Path,
    columns: ColumnNames,
    export: Export | None,
    dialect: Dialect,
    image_base: str | None,
    features: Path,
    as_of: float | None,
    network: ExtractorSettings,
    reader: PhotoReader,
    connections: int,
    engine: str,
    ray_address: str | None,
    workers: int | None,
    cache: Path | None,
    no_cache: bool,
    allowed: AllowedRemoval,
    max_rejected: float,
    max_same_photo: int,
) -> None:
    """Take the features of every photo of a catalogue into a feature store."""
    started = time.monotonic()
    at_most_one("cache", "no_cache")
    if export:
        _no_column_options()
    rows = _read(catalogue, CatalogueFormat(columns, dialect, export, image_base), as_of)
    if (features / STORE).exists():
        _check_removal(features, rows, catalogue, allowed)
    extractor = network.make() if engine == options.LOCAL else network.make_off_gpu()
    images = rows.rows["image"]
    urls = has_urls(images)
    photos = None
    if urls and not no_cache:
        photos = PhotoCache((cache or features / PHOTOS).absolute())
        photos.folder.mkdir(parents=True, exist_ok=True)
    n_readers = connections if urls else 0
    work: Engine = LocalEngine(extractor, n_readers)
    if engine == options.RAY:
        from lookalike_build.extraction.ray_engine import RayEngine

        work = RayEngine(network.make, extractor.model, ray_address, workers, n_readers)
    reader = replace(reader, folder=rows.folder.absolute(), cache=photos)
    n_rejected = count(1)

    def rejected(product: Product, reason: str) -> None:
        if next(n_rejected) <= _MAX_SHOWN:
            complain(f"rejected product {product.product_id}: {reason}")

    with progress("extract", len(images)) as done:
        summary = extract(
            rows,
            PhotoPipeline(reader, work, extractor.model, extractor.n_dims),
            features,
            max_rejected / 100,
            max_same_photo,
            done,
            rejected,
        )
    if photos and summary.complete:
        photos.prune(images.to_pylist())
    seconds = time.monotonic() - started
    say(
        f"{summary.n_products} products = {summary.n_extracted} extracted + {summary.n_known} known"
        f" + {summary.n_rejected} rejected, in {seconds:.1f} s, model {extractor.model.name}"
    )
    if summary.n_stand_ins:
        say(f"cached photos used as their servers failed or sent no photo: {summary.n_stand_ins}")
    if sharing := summary.sharing:
        one = sharing.product
        say(
            f"{sharing.n_products} products have the photo of another of their category; at most "
            f"{sharing.most} share one (that of product {one.product_id} of category {one.category_id})"
        )
    _judge(summary, features, max_rejected)


def _read(path: Path, written: CatalogueFormat, as_of: float | None) -> Catalogue:
    """The catalogue; what must be known of it is said."""
    catalogue = read_catalogue(path, written, as_of)
    for remark in catalogue.remarks:
        complain(f"lookalike-build: {path}: {remark}")
    if counts := [f"{what} {n}" for what, n in catalogue.left_out.items()]:
        say(f"left out of the export: {', '.join(counts)}")
    if catalogue.as_of is None:
        complain(
            f"lookalike-build: {path}: its time lies ahead of this host's clock, so of when it is "
            "is not known; where products change between builds, give `index` or this --as-of TIME"
        )
    return catalogue


def _no_column_options() -> None:
    """Raise UsageError where the catalogue's columns are named beside --from."""
    context = click.get_current_context()
    for column in COLUMNS._fields:
        if context.get_parameter_source(column) == click.core.ParameterSource.COMMANDLINE:
            context.fail(f"--{column.replace('_', '-')}-column: not allowed with --from")


def _check_removal(
    features: Path, catalogue: Catalogue, path: Path, allowed: AllowedRemoval
) -> None:
    """RemovalError if the catalogue lacks more of the store's products than is allowed."""
    try:
        store = in_source(FeatureStore.open(features))
    except FeatureError as error:  # this makes a new one
        complain(f"lookalike-build: {error}; what {path} takes away of it is not checked")
        return
    check_removal(store, in_catalogue(str(path), catalogue, store.model), allowed)


def _judge(summary: Summary, features: Path, max_rejected: float) -> None:
    report = features / REJECTED
    if not summary.complete:
        raise LookalikeError(
            f"{100 * summary.rejected_share:.1f} % of the photos were rejected, more than "
            f"--max-rejected {max_rejected:g}; {report} names them; {features} stays the store that "
            "it was"
        )
    if summary.n_rejected:
        say(f"the rejected are named in {report}")
