"""What commands that publish a release share: their options, and what they say of it."""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lookalike.release.root import LOCK_WAIT_S, ReleaseRoot
from lookalike.terminal.command import REQUIRED, Decorator, flag, option, together
from lookalike.terminal.output import complain, say
from lookalike.terminal.types import FOLDER, Number, WholeNumber
from lookalike_build.commands import options
from lookalike_build.commands.progress import progress
from lookalike_build.features.adopted import AdoptedFeatures
from lookalike_build.features.store import FeatureStore
from lookalike_build.indexing.build import index
from lookalike_build.indexing.category import IndexSettings
from lookalike_build.publishing.removal import AllowedRemoval
from lookalike_build.publishing.staging import Published
from lookalike_build.ray_cluster import ray_cluster

_USUAL = IndexSettings()


def publish(
    source: FeatureStore | AdoptedFeatures,
    started: float,
    root: Path,
    keep: int,
    engine: str,
    ray_address: str | None,
    as_of: float | None,
    allowed: AllowedRemoval,
    rebuild: bool,
    **settings: Any,
) -> None:
    """Make a release of features as `index_options` say, and say what became of it.

    `started` is when the command began (monotonic).
    """
    if as_of is not None:
        source = replace(source, as_of=as_of)
    releases = ReleaseRoot(root.absolute())
    make = partial(
        index, source, releases, IndexSettings(**settings), allowed=allowed, rebuild=rebuild
    )
    with progress("index", sum(source.categories.values())) as done:
        if engine == options.LOCAL:
            published = make(done)
        else:
            with ray_cluster(ray_address):
                from lookalike_build.indexing.ray_engine import index_on_ray

                published = make(done, index_on_ray)
    categories = releases.manifest(published.release).categories
    for entry in categories:
        recall = "" if entry.recall is None else f", recall by vector {entry.recall:.3f}"
        say(f"category {entry.category_id}: {entry.n_items} products, k {entry.k}{recall}")
    prune(releases, keep)
    for left_out in published.left_out:
        complain(f"lookalike-build: {left_out}")
    if not rebuild:  # which compares nothing
        new, changed, gone, unchanged = published.counts
        say(f"products: {new} new, {changed} changed, {gone} gone, {unchanged} unchanged")
    n_updated = len(categories) - published.n_unchanged - published.n_rebuilt
    say(
        f"categories: {published.n_rebuilt} rebuilt, {n_updated} updated, {published.n_unchanged} "
        "unchanged"
    )
    say_published(published, started)


def index_options(usual_as_of: str) -> Decorator:
    """The options of `publish`; `usual_as_of` is what `--as-of` is unless given."""
    return together(
        options.as_of(usual_as_of),
        option("--root", FOLDER, REQUIRED, "the release root to publish in"),
        option("--trees", WholeNumber(1), _USUAL.n_trees, "trees of Annoy", dest="n_trees"),
        option(
            "--neighbours K",
            WholeNumber(1),
            _USUAL.neighbours,
            "exact neighbours kept of each product",
        ),
        option("--seed", WholeNumber(1), _USUAL.seed, "seed of Annoy's trees"),
        option(
            "--recall",
            Number(0, 1),
            _USUAL.recall,
            "recall that vectors are to be answered with, 0 to 1",
        ),
        option(
            "--same-photo SHARE",
            Number(0, 1),
            _USUAL.same_photo,
            "products no further apart than this share of the median distance of random pairs of their "
            "category show the same photo; 0 for copies only",
        ),
        flag("--rebuild", "rebuild every category, however little has changed"),
        options.keep("releases to keep, and as many of `follow` and `attributes`"),
        options.engine("index"),
        options.allowed(
            "the current release",
            flag("--allow-other-model", "allow features of another network", "other_model"),
        ),
    )


def prune(root: ReleaseRoot, keep: int) -> None:
    """Remove old releases, and say which."""
    with root.lock(LOCK_WAIT_S):
        removed = root.prune(keep)
    if removed:
        say(f"old releases removed: {', '.join(removed)}")


def say_published(published: Published, started: float) -> None:
    """Say which release it is, and how long that took."""
    what = "published and made current" if published.new else "unchanged: it holds this already"
    say(f"release {published.release} {what}, in {time.monotonic() - started:.1f} s")
