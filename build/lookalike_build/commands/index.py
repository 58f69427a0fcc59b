"""``lookalike-build index``: features become a release."""

import time
from pathlib import Path
from typing import Any

from lookalike.terminal.command import REQUIRED, command, option
from lookalike.terminal.types import FOLDER
from lookalike_build.commands.publish import index_options, publish
from lookalike_build.features.store import FeatureStore


@command("lookalike-build index --features features/ --root /var/lib/lookalike")
@option("--features", FOLDER, REQUIRED, "the feature store to read")
@index_options("as `extract` found it")
def run(features: Path, **publishing: Any) -> None:
    """Make a release of a feature store, check it and make it the current one."""
    started = time.monotonic()
    publish(FeatureStore.open(features.absolute()), started, **publishing)
