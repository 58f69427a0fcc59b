"""``lookalike-build index``: features become a release."""

from pathlib import Path

from lookalike.terminal.command import REQUIRED, command, option
from lookalike.terminal.types import FOLDER
from lookalike_build.commands.publish import Publisher, index_options
from lookalike_build.features.store import FeatureStore


@command("lookalike-build index --features features/ --root /var/lib/lookalike")
@option("--features", FOLDER, REQUIRED, "the feature store to read")
@index_options("as `extract` found it")
def run(features: Path, publisher: Publisher) -> None:
    """Make a release of a feature store, check it and make it the current one."""
    publisher.publish(FeatureStore.open(features.absolute()))
