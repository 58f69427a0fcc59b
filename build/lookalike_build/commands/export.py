"""``lookalike-build export``: features become CSV."""

import time
from pathlib import Path

import click

from lookalike.terminal.command import REQUIRED, command, option
from lookalike.terminal.output import say
from lookalike.terminal.types import FOLDER
from lookalike_build.commands.progress import progress
from lookalike_build.features.adopted import export
from lookalike_build.features.store import FeatureStore


@command("lookalike-build export csv/ --features features/")
@click.argument("folder", type=FOLDER, help="where to write the files")
@option("--features", FOLDER, REQUIRED, "the feature store to read")
def run(folder: Path, features: Path) -> None:
    """Write a feature store as CSV: features_<id>.csv for each category."""
    started = time.monotonic()
    store = FeatureStore.open(features)
    n_products = sum(store.categories.values())
    with progress("export", n_products) as done:
        export(store, folder, done)
    seconds = time.monotonic() - started
    say(f"{n_products} products in {len(store.categories)} files, in {seconds:.1f} s")
