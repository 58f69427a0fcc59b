"""The command ``lookalike-build``: photos to features, features to a release, records to a report."""

import argparse
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import orjson

from lookalike.journal import Journal, JournalError
from lookalike.release.files import ReleaseError
from lookalike.release.root import LOCK_WAIT_S, ReleaseRoot, RootError, named
from lookalike.terminal.arguments import parsed
from lookalike.terminal.output import complain, say
from lookalike_build.behaviour.build import add_behaviour
from lookalike_build.behaviour.files import RATING_COLUMNS, RatingColumns, read_ratings
from lookalike_build.behaviour.ratings import RatingsError, RatingSettings
from lookalike_build.catalogue.reader import COLUMNS, CatalogueError, ColumnNames, read_catalogue
from lookalike_build.commands.options import LOCAL, check_engine, check_shop, parser, schemes
from lookalike_build.commands.progress import progress
from lookalike_build.experiment.checks import Period
from lookalike_build.experiment.files import EventColumns, EventError, LogPaths, event_files
from lookalike_build.experiment.html import as_html
from lookalike_build.experiment.json import as_json
from lookalike_build.experiment.records import Memory, read_records
from lookalike_build.experiment.report import NoExperiment, Question, report_of
from lookalike_build.experiment.text import as_text
from lookalike_build.extraction.local_engine import LocalEngine
from lookalike_build.extraction.pipeline import Engine, Outcome, Product, extract
from lookalike_build.features.adopted import AdoptedFeatures, export
from lookalike_build.features.store import (
    PHOTOS,
    REJECTED,
    FeatureError,
    FeatureSource,
    FeatureStore,
)
from lookalike_build.files.whole import whole_file
from lookalike_build.following.at_work import AtWork
from lookalike_build.following.background import BackgroundThread
from lookalike_build.following.feed import FeedError, open_feed
from lookalike_build.following.follower import Follower, FollowError, follow
from lookalike_build.following.seal import FeedSeal
from lookalike_build.following.status import report as follow_report
from lookalike_build.indexing.build import index
from lookalike_build.indexing.carry_over import CarryOverError
from lookalike_build.indexing.category import IndexSettings
from lookalike_build.networks.extractor import Extractor, WeightsError
from lookalike_build.networks.settings import ExtractorSettings, warm_up
from lookalike_build.photos.cache import PhotoCache
from lookalike_build.photos.decoding import HostError
from lookalike_build.photos.reader import PhotoReader, has_urls
from lookalike_build.publishing.staging import Published
from lookalike_build.ray_cluster import ClusterError, ray_cluster
from lookalike_build.simulation.files import simulate, simulate_shop, truth_path
from lookalike_build.simulation.shop import Server, Shelf, ShopError, Taste
from lookalike_build.simulation.visitors import PreferenceError, Preferences, Simulation

DONE, FAILED = 0, 1  # argparse exits with 2 where the call is wrong
_MAX_SHOWN = 10
_WRITTEN = ("out", "root", "folder", "features")
"""Options that say where a command writes."""


class TooManyRejected(Exception):  # noqa: N818
    """More of the photos were rejected than `--max-rejected` allows."""


_FAILURES = (
    CarryOverError,
    ClusterError,
    EventError,
    FeatureError,
    FeedError,
    FollowError,
    HostError,
    JournalError,
    NoExperiment,
    PreferenceError,
    RatingsError,
    ReleaseError,
    RootError,
    ShopError,
    TooManyRejected,
    WeightsError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status: 0, 1 (the work failed) or 2 (the call was wrong)."""
    options = parsed(parser(), arguments)
    try:
        _COMMANDS[options.command](options)
    except CatalogueError as error:
        lines = str(error).split("\n")
        complain(f"lookalike-build: {lines[0]}", *lines[1:])
        return FAILED
    except _FAILURES as error:
        complain(f"lookalike-build: {error}")
        return FAILED
    except OSError as error:
        complain(f"lookalike-build: {_told(error, options)}")
        return FAILED
    except MemoryError:
        complain("lookalike-build: out of memory")
        return FAILED
    except KeyboardInterrupt:
        complain("lookalike-build: interrupted")
        return FAILED
    return DONE


def _told(error: OSError, options: argparse.Namespace) -> str:
    """An error of the system in one line: the file, else where the command writes, and the reason."""
    written = (getattr(options, name) for name in _WRITTEN if name in options)
    where = error.filename or next(written, None)
    # Arrow puts more into the reason than the system says.
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"{where}: {reason}" if where else reason


def _extract(options: argparse.Namespace) -> None:
    started = time.monotonic()
    check_engine(options)
    names = ColumnNames(*(getattr(options, f"{name}_column") for name in COLUMNS))
    catalogue = read_catalogue(options.catalogue, names, options.as_of)
    if catalogue.as_of is None:
        _complain(
            f"{options.catalogue}: its time lies ahead of this host's clock, so of when it is is not "
            "known; where products change between builds, give `index` or this --as-of TIME"
        )
    settings = ExtractorSettings(options.model, options.weights, options.precision)
    extractor = settings.make() if options.engine == LOCAL else settings.make_off_gpu()
    shown = 0

    def reject(product: Product, reason: str) -> None:
        nonlocal shown
        shown += 1
        if shown <= _MAX_SHOWN:
            complain(f"rejected product {product.product_id}: {reason}")

    images = catalogue.rows["image"]
    urls = has_urls(images)
    cache = _cache(options) if urls and not options.no_cache else None
    reader = _reader(options, catalogue.folder.absolute(), cache)
    n_readers = options.connections if urls else 0
    with progress("extract", len(images)) as done:
        outcome = extract(
            catalogue,
            _extraction_engine(options, settings, extractor, n_readers),
            reader,
            extractor.model,
            extractor.n_dims,
            options.features,
            options.max_rejected / 100,
            done,
            reject,
        )
    if cache and outcome.complete:
        cache.prune(images.to_pylist())
    seconds = time.monotonic() - started
    say(
        f"{outcome.n_products} products = {outcome.n_extracted} extracted + {outcome.n_known} known"
        f" + {outcome.n_rejected} rejected, in {seconds:.1f} s, model {extractor.model.name}"
    )
    _judge(outcome, options)


def _extraction_engine(
    options: argparse.Namespace, settings: ExtractorSettings, extractor: Extractor, n_readers: int
) -> Engine:
    if options.engine == LOCAL:
        return LocalEngine(extractor, n_readers)
    from lookalike_build.extraction.ray_engine import RayEngine

    address, n_workers = options.ray_address, options.workers
    return RayEngine(settings.make, extractor.model, address, n_workers, n_readers)


def _reader(
    options: argparse.Namespace, folder: Path, cache: PhotoCache | None = None
) -> PhotoReader:
    return PhotoReader(
        folder,
        options.timeout,
        options.retries,
        cache,
        schemes(options),
        options.public_addresses_only,
    )


def _cache(options: argparse.Namespace) -> PhotoCache:
    cache = PhotoCache((options.cache or options.features / PHOTOS).absolute())
    cache.folder.mkdir(parents=True, exist_ok=True)
    return cache


def _judge(outcome: Outcome, options: argparse.Namespace) -> None:
    report = options.features / REJECTED
    if not outcome.complete:
        raise TooManyRejected(
            f"{100 * outcome.rejected_share:.1f} % of the photos were rejected, more than "
            f"--max-rejected {options.max_rejected:g}; {report} names them; {options.features} stays "
            "the store that it was"
        )
    if outcome.n_rejected:
        say(f"the rejected are named in {report}")


def _index(options: argparse.Namespace) -> None:
    started = time.monotonic()
    check_engine(options)
    store = FeatureStore.open(options.features.absolute())
    if options.as_of is not None:
        store = replace(store, as_of=options.as_of)
    _publish(store, options, started)


def _adopt(options: argparse.Namespace) -> None:
    started = time.monotonic()
    check_engine(options)
    adopted = AdoptedFeatures.open(options.folder.absolute(), options.dims, options.model_name)
    for category_id, n in adopted.without_vector.items():
        if n:
            say(f"category {category_id}: {n} items left out, which have no vector")
    if options.as_of is not None:
        adopted = replace(adopted, as_of=options.as_of)
    _publish(adopted, options, started)


def _export(options: argparse.Namespace) -> None:
    started = time.monotonic()
    store = FeatureStore.open(options.features)
    n_products = sum(store.categories.values())
    with progress("export", n_products) as done:
        export(store, options.folder, done)
    seconds = time.monotonic() - started
    say(f"{n_products} products in {len(store.categories)} files, in {seconds:.1f} s")


def _publish(source: FeatureSource, options: argparse.Namespace, started: float) -> None:
    root = ReleaseRoot(options.root.absolute())
    settings = IndexSettings(options.trees, options.neighbours, options.seed, options.recall)
    with progress("index", sum(source.categories.values())) as done:
        published = _indexed(options, source, root, settings, done)
    categories = root.manifest(published.release).categories
    for entry in categories:
        recall = "" if entry.recall is None else f", recall by vector {entry.recall:.3f}"
        say(f"category {entry.category_id}: {entry.n_items} products, k {entry.k}{recall}")
    _prune(root, options.keep)
    if published.left_out:
        _complain(f"behaviour is left out: {published.left_out}; run `lookalike-build behaviour`")
    unchanged = published.n_unchanged
    say(f"categories: {len(categories) - unchanged} indexed, {unchanged} unchanged")
    _tell_release(published, started)


def _prune(root: ReleaseRoot, keep: int) -> None:
    with root.lock(LOCK_WAIT_S):
        removed = root.prune(keep)
    if removed:
        say(f"old releases removed: {', '.join(removed)}")


def _tell_release(published: Published, started: float) -> None:
    what = "published and made current" if published.new else "unchanged: it holds this already"
    say(f"release {published.release} {what}, in {time.monotonic() - started:.1f} s")


def _indexed(
    options: argparse.Namespace,
    source: FeatureSource,
    root: ReleaseRoot,
    settings: IndexSettings,
    done: Callable[[int], object],
) -> Published:
    if options.engine == LOCAL:
        return index(source, root, settings, done)
    with ray_cluster(options.ray_address):
        from lookalike_build.indexing.ray_engine import index_on_ray

        return index(source, root, settings, done, index_on_ray)


def _follow(options: argparse.Namespace) -> None:
    root = ReleaseRoot(options.root.absolute())
    if options.status:
        say(*follow_report(root))
        return
    if root.current() is None:
        raise root.none_yet()
    stop = threading.Event()
    at_work = AtWork(root.at_work, _log)

    def end(*_: object) -> None:
        stop.set()
        at_work.forgive()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    with root.follow_lock(), closing(Journal(root.journal)) as journal:
        manifest = root.manifest(str(root.current()))
        types = manifest.category_id_type, manifest.product_id_type
        feed = None
        if options.changes is not None:
            seal = FeedSeal(root.feed_key).seal
            feed = open_feed(options.changes, journal, types, _complain, seal)
        extractor = ExtractorSettings(options.model, options.weights, options.precision).make()
        reader = _reader(options, Path.cwd())
        follower = Follower(
            root,
            journal,
            LocalEngine(extractor, options.connections),
            reader,
            extractor.model,
            extractor.n_dims,
            BackgroundThread(),
            options.keep,
            _log,
            at_work,
        )
        warm_up(extractor)
        say(f"following {root.path}, model {extractor.model.name}")
        follow(follower, feed, stop, options.once)
    say("stopped; what is pending stays in the journal")


def _log(line: str) -> None:
    """Say what a follower does; it goes on where that cannot be written."""
    try:
        say(line)
    except OSError as error:
        complain(f"lookalike-build: {error}")


def _report(options: argparse.Namespace) -> None:
    started = time.monotonic()
    columns = EventColumns(*(getattr(options, f"{name}_column") for name in EventColumns._fields))
    paths = LogPaths(*(getattr(options, f"{name}_path") for name in LogPaths._fields))
    files = event_files(options.records, columns, paths)
    question = Question(options.confidence, options.share, options.min_impressions, options.best_by)
    with progress("report", len(files), "files") as done:
        period = Period(options.start, options.until)
        memory = Memory(options.memory_limit, options.temporary)
        records = read_records(files, period, memory, done)
    report = report_of(records, question)
    for path, render in ((options.json, as_json), (options.html, as_html)):
        if path:
            with whole_file(path) as part:
                part.write_bytes(render(report))
    say(*as_text(report).split("\n"))
    say(f"files: {len(files)}, in {time.monotonic() - started:.1f} s")


def _simulate(options: argparse.Namespace) -> None:
    started = time.monotonic()
    check_shop(options)
    making = options.visitors, options.days, options.seed, options.out
    with progress("simulate", options.visitors, "visitors") as done:
        if options.url is None:
            n_records = simulate(_simulation(options), *making, done)
        else:
            root = ReleaseRoot(options.root.absolute())
            current = root.current()
            if current is None:
                raise root.none_yet()
            taste = Taste(options.appeal, options.patience, options.reach, options.bought)
            with closing(Server(options.url)) as server:
                shelf = Shelf(root.open(current))
                n_records = simulate_shop(
                    shelf, server.ask, taste, options.impressions, *making, done
                )
    seconds = time.monotonic() - started
    say(f"{n_records} records of {options.visitors} visitors in {options.out}, in {seconds:.1f} s")
    say(f"what is true of them is in {truth_path(options.out)}")


def _simulation(options: argparse.Namespace) -> Simulation:
    rng = np.random.default_rng(options.seed)
    if options.preferences is not None:
        try:
            with named(options.preferences):
                document = orjson.loads(options.preferences.read_bytes())
            preferences = Preferences.read(document, options.spread)
        except (PreferenceError, orjson.JSONDecodeError) as error:
            raise PreferenceError(f"{options.preferences}: {error}") from None
    else:
        preferences = Preferences.drawn(
            rng,
            options.categories,
            tuple(options.ctr),
            tuple(options.cvr),
            options.spread,
            options.differ,
        )
    return Simulation(
        preferences,
        options.impressions,
        options.share,
        tuple(options.fallback),
        options.unanswered,
        known=not options.no_visitors,
    )


def _behaviour(options: argparse.Namespace) -> None:
    started = time.monotonic()
    root = ReleaseRoot(options.root.absolute())
    names = RatingColumns(*(getattr(options, f"{name}_column") for name in RATING_COLUMNS))
    settings = RatingSettings(
        options.neighbours, options.half_life, options.user_ratings, options.product_ratings
    )
    published, counts, entry = add_behaviour(
        root,
        partial(read_ratings, options.events.absolute(), names),
        settings,
        options.memory_limit,
        partial(progress, "behaviour"),
    )
    _prune(root, options.keep)
    newest = datetime.fromtimestamp(entry.newest_rating, UTC)
    say(
        f"{counts.n_ratings} ratings, {counts.n_counted} of them count, to {newest:%Y-%m-%d %H:%M} UTC"
    )
    say(f"{entry.n_products} products, {entry.n_related / entry.n_products:.1f} related to each")
    _tell_release(published, started)


def _complain(line: str) -> None:
    complain(f"lookalike-build: {line}")


_COMMANDS = {
    "extract": _extract,
    "index": _index,
    "adopt": _adopt,
    "export": _export,
    "follow": _follow,
    "report": _report,
    "simulate": _simulate,
    "behaviour": _behaviour,
}
