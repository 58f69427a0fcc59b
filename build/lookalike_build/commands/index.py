"""``lookalike-build index``: features become a release."""

from dataclasses import replace
from pathlib import Path

from lookalike.terminal.command import REQUIRED, command, option
from lookalike.terminal.types import FOLDER
from lookalike_build.commands import options
from lookalike_build.commands.publish import index_options, publish
from lookalike_build.features.store import FeatureStore
from lookalike_build.indexing.category import IndexSettings


@command("lookalike-build index --features features/ --root /var/lib/lookalike")
@option("--features", FOLDER, REQUIRED, "the feature store to read")
@options.as_of("as `extract` found it")
@index_options
def run(
    features: Path,
    as_of: float | None,
    root: Path,
    settings: IndexSettings,
    keep: int,
    engine: str,
    ray_address: str | None,
) -> None:
    """Make a release of a feature store, check it and make it the current one."""
    store = FeatureStore.open(features.absolute())
    if as_of is not None:
        store = replace(store, as_of=as_of)
    publish(store, root, settings, keep, engine, ray_address)
