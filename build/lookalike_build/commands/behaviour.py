"""``lookalike-build behaviour``: ratings become part of a release."""

import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click

from lookalike.release.root import ReleaseRoot
from lookalike.terminal.command import REQUIRED, command, gathered, option
from lookalike.terminal.output import say
from lookalike.terminal.types import PRESENT_FILE, PRESENT_FOLDER, Number, WholeNumber
from lookalike_build.behaviour.build import add_behaviour
from lookalike_build.behaviour.files import RATING_COLUMNS, RatingColumns, read_ratings
from lookalike_build.behaviour.ratings import MOST_PRODUCT_RATINGS, RatingSettings
from lookalike_build.commands import options
from lookalike_build.commands.progress import progress
from lookalike_build.commands.publish import prune, say_published
from lookalike_build.tables.csv import Dialect

_USUAL = RatingSettings()


def _bytes(text: str) -> int:
    number, unit = options.memory_size(text).rstrip(" KMGTiB"), text.lstrip("0123456789. ")
    return int(float(number) * (1024 if "i" in unit else 1000) ** (1 + "KMGT".index(unit[0])))


@command("lookalike-build behaviour ratings.parquet --root /var/lib/lookalike")
@click.argument(
    "events",
    type=PRESENT_FILE,
    help="CSV, Parquet or JSON Lines file, or a .sql file whose last statement gives the rows: "
    "user_id, product_id and rated_at (date, timestamp or Unix seconds) of all ratings",
)
@options.columns(RATING_COLUMNS, "the events call")
@options.dialect
@option("--root", PRESENT_FOLDER, REQUIRED, "the release root to publish in")
@gathered(
    "settings",
    RatingSettings,
    option(
        "--half-life DAYS",
        Number(0.001, 36_500),
        _USUAL.half_life,
        "a rating that is so much older than the newest of all weighs half",
    ),
    option(
        "--neighbours K", WholeNumber(1), _USUAL.neighbours, "related products kept of each product"
    ),
    option(
        "--user-ratings",
        WholeNumber(1),
        _USUAL.user_ratings,
        "how many of a user's ratings count, the newest",
    ),
    option(
        "--product-ratings",
        WholeNumber(1, MOST_PRODUCT_RATINGS),
        _USUAL.product_ratings,
        "how many of a product's ratings of these make similar users, the newest",
    ),
)
@option(
    "--memory-limit SIZE",
    _bytes,
    "4GB",
    "how much memory to take, such as 4GB; the rest is in the root meanwhile",
)
@options.keep("releases to keep, and as many of `follow` and `attributes`")
def run(
    events: Path,
    columns: RatingColumns,
    dialect: Dialect,
    root: Path,
    settings: RatingSettings,
    memory_limit: int,
    keep: int,
) -> None:
    """Make a release of the current one and of what users have rated: pattern A of an experiment."""
    started = time.monotonic()
    releases = ReleaseRoot(root.absolute())
    published, counts, entry = add_behaviour(
        releases,
        partial(read_ratings, events.absolute(), columns, dialect),
        settings,
        memory_limit,
        partial(progress, "behaviour"),
    )
    prune(releases, keep)
    newest = datetime.fromtimestamp(entry.newest_rating, UTC)
    say(
        f"{counts.n_ratings} ratings, {counts.n_counted} of them count, to {newest:%Y-%m-%d %H:%M} UTC"
    )
    say(f"{entry.n_products} products, {entry.n_related / entry.n_products:.1f} related to each")
    say_published(published, started)
