"""The command: takes the options and prints the plan."""

import click

from lookalike.operate.plan.machine import Machine
from lookalike.operate.plan.needs import Catalogue, PlanError, plan
from lookalike.operate.plan.size import Shape
from lookalike.terminal.command import REQUIRED, command, flag, gathered, option
from lookalike.terminal.output import say, say_json
from lookalike.terminal.types import WholeNumber, percentage

_N = WholeNumber(1)


@command("lookalike plan --products 3800000 --categories 120 --largest-category 440000")
@gathered(
    "catalogue",
    Catalogue,
    option("--products", _N, REQUIRED, "products, counted in each of their categories"),
    option("--categories", _N, Catalogue.categories, "categories"),
    option(
        "--largest-category",
        _N,
        None,
        "products in the largest (by rank^-0.8 unless given)",
        dest="largest",
    ),
    option("--changed N", percentage, 100, "percent of the categories that change a night"),
    option("--keep", _N, Catalogue.keep, "releases kept"),
    option("--photo-bytes", _N, Catalogue.photo_bytes, "bytes of a photo from a URL"),
)
@gathered(
    "shape",
    Shape,
    option("--neighbours", _N, Shape.neighbours, "neighbours kept of each product"),
    option("--dims", _N, Shape.n_dims, "numbers in a feature", dest="n_dims"),
    option(
        "--id-bytes", _N, None, "length of product ids that are strings (integers unless given)"
    ),
)
@option("--photos-per-second", _N, None, "photos extracted in a second (estimated unless given)")
@option("--requests-per-second", _N, None, "requests to serve in a second")
@option("--cores", _N, None, "cores of the machine (this one's unless given)")
@flag("--no-measure", "take the reference machine's speed, not this one's")
@flag("--json", "print JSON")
def run(
    catalogue: Catalogue,
    shape: Shape,
    photos_per_second: int | None,
    requests_per_second: int | None,
    cores: int | None,
    no_measure: bool,
    json: bool,
) -> None:
    """Say what a catalogue will need of disk, memory and time."""
    machine = Machine.reference if no_measure else Machine.measure
    try:
        made = plan(catalogue, shape, machine(cores), photos_per_second, requests_per_second)
    except PlanError as error:
        raise click.UsageError(str(error)) from None
    if json:
        say_json(made)
    else:
        say(*made.lines())
