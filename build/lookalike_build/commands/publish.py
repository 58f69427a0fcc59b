"""What commands that publish a release share: their options, and what they say of it."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lookalike.release.root import LOCK_WAIT_S, ReleaseRoot
from lookalike.terminal.command import REQUIRED, Decorator, gathered, option
from lookalike.terminal.output import complain, say
from lookalike.terminal.types import FOLDER, Number, WholeNumber
from lookalike_build.commands import options
from lookalike_build.commands.progress import progress
from lookalike_build.features.adopted import AdoptedFeatures
from lookalike_build.features.store import FeatureSource, FeatureStore
from lookalike_build.indexing.build import index
from lookalike_build.indexing.category import Done, IndexSettings
from lookalike_build.publishing.staging import Published
from lookalike_build.ray_cluster import ray_cluster

_USUAL = IndexSettings()


@dataclass(frozen=True)
class Publisher:
    """Makes a release of features, as the options of the command say; `started` when they were read."""

    root: Path
    settings: IndexSettings
    keep: int
    engine: str
    ray_address: str | None
    as_of: float | None
    started: float = field(default_factory=time.monotonic)

    def publish(self, source: FeatureStore | AdoptedFeatures) -> None:
        """Make the release and say what became of it."""
        if self.as_of is not None:
            source = replace(source, as_of=self.as_of)
        root = ReleaseRoot(self.root.absolute())
        with progress("index", sum(source.categories.values())) as done:
            published = self._index(source, root, done)
        categories = root.manifest(published.release).categories
        for entry in categories:
            recall = "" if entry.recall is None else f", recall by vector {entry.recall:.3f}"
            say(f"category {entry.category_id}: {entry.n_items} products, k {entry.k}{recall}")
        prune(root, self.keep)
        if published.left_out:
            complain(
                f"lookalike-build: behaviour is left out: {published.left_out}; "
                "run `lookalike-build behaviour`"
            )
        unchanged = published.n_unchanged
        say(f"categories: {len(categories) - unchanged} indexed, {unchanged} unchanged")
        say_published(published, self.started)

    def _index(self, source: FeatureSource, root: ReleaseRoot, done: Done) -> Published:
        if self.engine == options.LOCAL:
            return index(source, root, self.settings, done)
        with ray_cluster(self.ray_address):
            from lookalike_build.indexing.ray_engine import index_on_ray

            return index(source, root, self.settings, done, index_on_ray)


def _publisher(
    root: Path,
    keep: int,
    engine: str,
    ray_address: str | None,
    as_of: float | None,
    **settings: Any,
) -> Publisher:
    return Publisher(root, IndexSettings(**settings), keep, engine, ray_address, as_of)


def index_options(usual_as_of: str) -> Decorator:
    """For a command that indexes, as `publisher`; `usual_as_of` is what `--as-of` is unless given."""
    return gathered(
        "publisher",
        _publisher,
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
        options.keep("releases to keep, and as many of those that `follow` made"),
        options.engine("index"),
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
