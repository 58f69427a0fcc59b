"""What commands that publish a release share: their options, and what they say of it."""

import time
from pathlib import Path

from lookalike.release.root import LOCK_WAIT_S, ReleaseRoot
from lookalike.terminal.command import REQUIRED, gathered, option, together
from lookalike.terminal.output import complain, say
from lookalike.terminal.types import FOLDER, Number, WholeNumber
from lookalike_build.commands import options
from lookalike_build.commands.progress import progress
from lookalike_build.features.store import FeatureSource
from lookalike_build.indexing.build import index
from lookalike_build.indexing.category import IndexSettings
from lookalike_build.publishing.staging import Published
from lookalike_build.ray_cluster import ray_cluster

_USUAL = IndexSettings()

index_options = together(
    option("--root", FOLDER, REQUIRED, "the release root to publish in"),
    gathered(
        "settings",
        IndexSettings,
        option("--trees", WholeNumber(1), _USUAL.n_trees, "trees of Annoy", dest="n_trees"),
        option(
            "--neighbours",
            WholeNumber(1),
            _USUAL.neighbours,
            "exact neighbours kept of each product",
            metavar="K",
        ),
        option("--seed", WholeNumber(1), _USUAL.seed, "seed of Annoy's trees"),
        option(
            "--recall",
            Number(0, 1),
            _USUAL.recall,
            "recall that vectors are to be answered with, 0 to 1",
        ),
    ),
    options.keep("releases to keep, and as many of those that `follow` made"),
    options.engine("index"),
)
"""For a command that indexes: `root`, `settings`, `keep`, `engine` and `ray_address`."""


def publish(
    source: FeatureSource,
    root: Path,
    settings: IndexSettings,
    keep: int,
    engine: str,
    ray_address: str | None,
) -> None:
    """Make a release of the features and say what became of it."""
    started = time.monotonic()
    releases = ReleaseRoot(root.absolute())
    with progress("index", sum(source.categories.values())) as done:
        if engine == options.LOCAL:
            published = index(source, releases, settings, done)
        else:
            with ray_cluster(ray_address):
                from lookalike_build.indexing.ray_engine import index_on_ray

                published = index(source, releases, settings, done, index_on_ray)
    categories = releases.manifest(published.release).categories
    for entry in categories:
        recall = "" if entry.recall is None else f", recall by vector {entry.recall:.3f}"
        say(f"category {entry.category_id}: {entry.n_items} products, k {entry.k}{recall}")
    prune(releases, keep)
    if published.left_out:
        complain(
            f"lookalike-build: behaviour is left out: {published.left_out}; "
            "run `lookalike-build behaviour`"
        )
    unchanged = published.n_unchanged
    say(f"categories: {len(categories) - unchanged} indexed, {unchanged} unchanged")
    say_published(published, started)


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
