"""``lookalike-build rules``: which products are pinned or banned becomes part of a release."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from lookalike.release.root import ReleaseRoot
from lookalike.terminal.command import REQUIRED, command, option
from lookalike.terminal.output import complain, say
from lookalike.terminal.types import PRESENT_FILE, PRESENT_FOLDER
from lookalike_build.commands import options
from lookalike_build.commands.publish import prune, say_published
from lookalike_build.rules.build import Named, set_rules
from lookalike_build.rules.files import RULE_COLUMNS, RuleColumns, read_rules
from lookalike_build.tables.csv import Dialect


@command("lookalike-build rules rules.csv --root /var/lib/lookalike")
@click.argument(
    "file",
    type=PRESENT_FILE,
    help="CSV, Parquet, JSON Lines or XML file, or a .sql file whose last statement gives the rows: "
    "category_id, product_id (blank for every product of the category), rule (pin or ban) and other_id "
    "(the product that is pinned or banned in the answers). With a header alone it removes all rules",
)
@options.columns(RULE_COLUMNS, "the file calls")
@options.dialect
@option("--root", PRESENT_FOLDER, REQUIRED, "the release root to publish in")
@options.keep("releases to keep, and as many of `follow`, `attributes` and `rules`")
def run(file: Path, columns: RuleColumns, dialect: Dialect, root: Path, keep: int) -> None:
    """Pin products to the top of answers and ban others, in place of the rules there were."""
    started = time.monotonic()
    releases = ReleaseRoot(root.absolute())
    made = set_rules(releases, partial(read_rules, file.absolute(), columns, dialect))
    prune(releases, keep)
    _complain(made.lost, "are left out, as the release does not have their category")
    _complain(made.idle, "have no effect until the release has both products")
    _complain(made.banned, "have no effect, as the product is banned there too")
    n_rules = sum(map(len, made.rules.values()))
    if n_rules:
        say(f"rules: {n_rules}, in place of {made.n_before}")
    else:
        say(f"rules: none, all {made.n_before} are removed")
    say_published(made.published, started)


def _complain(rules: Sequence[Named], what: str) -> None:
    if rules:
        category_id, (product_id, kind, other_id) = rules[0]
        of = "every product" if product_id is None else f"product {product_id}"
        complain(
            f"lookalike-build: rules that {what}: {len(rules)}, such as {kind} {other_id} for {of} of "
            f"category {category_id}"
        )
