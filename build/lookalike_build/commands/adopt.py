"""``lookalike-build adopt``: another installation's files become a release."""

import time
from pathlib import Path
from typing import Any

import click

from lookalike.release.manifest import MAX_DIMS
from lookalike.terminal.command import command, option
from lookalike.terminal.output import say
from lookalike.terminal.types import PRESENT_FOLDER, WholeNumber
from lookalike_build.commands.publish import index_options, publish
from lookalike_build.features.adopted import AdoptedFeatures
from lookalike_build.networks.inception import N_DIMS


def _name(text: str) -> str:
    if not text or not text.isprintable():
        raise click.BadParameter(f"must be printable text, not {text!r:.40}")
    return text


@command("lookalike-build adopt /srv/annoy --root /var/lib/lookalike")
@click.argument(
    "folder",
    type=PRESENT_FOLDER,
    help="where the files are: category_<id>.ann (float32 or float64, angular metric; an item's "
    "number is its product id unless a product_ids_<id>.csv lists one for each item, one a line), "
    "or features_<id>.csv (product id, then the features)",
)
@option("--dims", WholeNumber(1, MAX_DIMS), N_DIMS, "how many numbers a product has")
@option("--model-name NAME", _name, "adopted", "what to call the network that made the features")
@index_options("an hour before the oldest file was last written")
def run(folder: Path, dims: int, model_name: str, **publishing: Any) -> None:
    """Make a release of what another installation left: Annoy's indexes or features as CSV."""
    started = time.monotonic()
    adopted = AdoptedFeatures.open(folder.absolute(), dims, model_name)
    for category_id, n in adopted.without_vector.items():
        if n:
            say(f"category {category_id}: {n} items left out, which have no vector")
    publish(adopted, started, **publishing)
