"""``lookalike-build simulate``: visitors whose truth is known make the records of an experiment."""

import time
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np

from lookalike.release.root import named, open_release
from lookalike.terminal.command import REQUIRED, command, flag, gathered, option
from lookalike.terminal.output import say
from lookalike.terminal.types import PRESENT_FILE, PRESENT_FOLDER, Number, WholeNumber
from lookalike_build.commands.progress import progress
from lookalike_build.experiment.writer import SUFFIXES
from lookalike_build.simulation.files import Sample, simulate, simulate_shop, truth_path
from lookalike_build.simulation.shop import Shelf, Taste, server
from lookalike_build.simulation.visitors import (
    PAPER_CTR,
    PAPER_CVR,
    PreferenceError,
    Preferences,
    Simulation,
)

_SHARE, _TASTE = Number(0, 1), Taste()


def _records_file(text: str) -> Path:
    path = Path(text)
    if path.suffix not in SUFFIXES:
        raise click.BadParameter(f'must end in {" or ".join(SUFFIXES)}, not "{path.name}"')
    return path


@command("lookalike-build simulate --out events.parquet --visitors 100000")
@option(
    "--out FILE",
    _records_file,
    REQUIRED,
    f"the records to write, {', '.join(SUFFIXES)}; what is true comes beside them, FILE with "
    "the ending .truth.json",
)
@option("--visitors", WholeNumber(1), 20_000, "how many there are")
@option("--impressions N", Number(1, 10_000), 8.0, "mean of a visitor's impressions")
@option("--days", WholeNumber(1, 3650), 30, "how long it goes on")
@option("--seed", WholeNumber(0), 1, "of all chance")
@gathered(
    "rates",
    dict[str, Any],
    *(
        option(
            f"--{name} BEHAVIOUR IMAGE",
            _SHARE,
            rates,
            f"{what}, over all categories, for what either method answers (the paper's)",
            nargs=2,
        )
        for name, rates, what in (
            ("ctr", PAPER_CTR, "clicks per impression"),
            ("cvr", PAPER_CVR, "purchases per click"),
        )
    ),
    option("--categories", WholeNumber(1, 100_000), 20, "how many there are", dest="n_categories"),
    option(
        "--differ",
        Number(0, 3),
        0.3,
        "how much the categories' rates, and what image gains in each, differ: the standard "
        "deviation of their logarithms",
    ),
)
@option(
    "--preferences",
    PRESENT_FILE,
    None,
    "a JSON file with each category's share and rates, in place of these: like a .truth.json",
)
@option(
    "--spread",
    Number(0, 100),
    1.0,
    "how much the visitors differ: the standard deviation of what multiplies the rates of each",
)
@option("--share", _SHARE, 0.5, "of visitors with pattern B")
@option(
    "--fallback A B",
    _SHARE,
    (0.0, 0.0),
    "how often a pattern has nothing and the other's method answers",
    nargs=2,
)
@option("--unanswered", _SHARE, 0.0, "how often nothing does")
@flag(
    "--no-visitors",
    "records do not say whose they are, and every impression gets a pattern of its own",
)
@option("--url URL", str, None, "ask the server http://HOST:PORT for /related at every page")
@option("--root", PRESENT_FOLDER, None, "the release root that it serves: the catalogue")
@gathered(
    "taste",
    Taste,
    option(
        "--appeal",
        _SHARE,
        _TASTE.appeal,
        "the probability of a click on a first product that looks the same",
    ),
    option("--patience", _SHARE, _TASTE.patience, "what every further place multiplies that with"),
    option(
        "--reach", Number(0.01, 10), _TASTE.reach, "the angular distance at which it is down to 1/e"
    ),
    option("--bought", _SHARE, _TASTE.bought, "the share of clicks that a purchase follows"),
)
def run(
    out: Path,
    visitors: int,
    impressions: float,
    days: int,
    seed: int,
    rates: dict[str, Any],
    preferences: Path | None,
    spread: float,
    share: float,
    fallback: tuple[float, float],
    unanswered: float,
    no_visitors: bool,
    url: str | None,
    root: Path | None,
    taste: Taste,
) -> None:
    """Make the records of an experiment whose truth is known.

    Visitors click and buy at stated rates (--ctr to --no-visitors), those of the paper unless given.
    With --url they browse a shop that runs, and click on what looks alike (--appeal to --bought).
    """
    started = time.monotonic()
    sample = Sample(visitors, days, seed)
    with progress("simulate", visitors, "visitors") as done:
        if url and root:
            release = open_release(root.absolute())
            with server(url) as ask:
                shelf = Shelf(release)
                n_records = simulate_shop(shelf, ask, taste, impressions, sample, out, done)
        elif url or root:
            raise click.UsageError(
                "--url and --root: give both, the server and the root that it serves"
            )
        else:
            if preferences:
                likes = _preferences(preferences, spread)
            else:
                likes = Preferences.drawn(np.random.default_rng(seed), spread=spread, **rates)
            simulation = Simulation(
                likes, impressions, share, fallback, unanswered, known=not no_visitors
            )
            n_records = simulate(simulation, sample, out, done)
    seconds = time.monotonic() - started
    say(f"{n_records} records of {visitors} visitors in {out}, in {seconds:.1f} s")
    say(f"what is true of them is in {truth_path(out)}")


def _preferences(file: Path, spread: float) -> Preferences:
    try:
        with named(file):
            document = msgspec.json.decode(file.read_bytes())
        return Preferences.read(document, spread)
    except (PreferenceError, ValueError, RecursionError) as error:
        raise PreferenceError(f"{file}: {error}") from None
