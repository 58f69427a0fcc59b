"""``lookalike-build attributes``: what a table says of products becomes part of a release."""

import time
from functools import partial
from pathlib import Path
from typing import get_args

import click

from lookalike.release.attributes import TYPES, AttributeType, name_problem
from lookalike.release.manifest import Manifest
from lookalike.release.root import ReleaseRoot
from lookalike.terminal.command import REQUIRED, command, option
from lookalike.terminal.output import complain, say
from lookalike.terminal.types import PRESENT_FILE, PRESENT_FOLDER, Number
from lookalike_build.attributes.build import Made, Source, set_attributes
from lookalike_build.attributes.files import ID_COLUMNS, Attribute, IdColumns, read_attributes
from lookalike_build.catalogue.moment import moment_of_table
from lookalike_build.commands import options
from lookalike_build.commands.publish import prune, say_published
from lookalike_build.tables.csv import Dialect


def _attribute(text: str) -> Attribute:
    name, _, rest = text.partition(":")
    given, equals, column = rest.partition("=")
    types = {each: each for each in get_args(AttributeType)}
    if given not in types or bool(equals) != bool(column):
        raise click.BadParameter(
            f'must be NAME:TYPE or NAME:TYPE=COLUMN, the type flag, number or text, not "{text}"'
        )
    fixed = TYPES.get(_name(name), given)
    if given != fixed:
        raise click.BadParameter(f"{name} is a {fixed}: write {name}:{fixed}")
    return Attribute(name, types[given], column or name)


def _name(text: str) -> str:
    if problem := name_problem(text):
        raise click.BadParameter(f'the name "{text}" {problem}')
    return text


@command(
    "lookalike-build attributes prices.csv --root /var/lib/lookalike --attribute price:number "
    "--attribute hidden:flag=sold_out"
)
@click.argument(
    "file",
    type=PRESENT_FILE,
    required=False,
    help="CSV, Parquet, JSON Lines or XML file, or a .sql file whose last statement gives the rows: "
    "category_id, product_id and a column of each attribute",
)
@options.columns(ID_COLUMNS, "the file calls")
@options.dialect
@option(
    "--attribute NAME:TYPE[=COLUMN]",
    _attribute,
    None,
    "an attribute to read, and its type: flag, number or text; COLUMN is what the file calls it, if "
    "not NAME. May be given again. The file replaces all values of it; other attributes stay",
    "attributes",
    multiple=True,
)
@option(
    "--drop NAME",
    _name,
    None,
    "an attribute to remove from the release; may be given again",
    "dropped",
    multiple=True,
)
@options.as_of(
    "an hour before the file was last written, or when the query begins,", "values set live"
)
@option("--root", PRESENT_FOLDER, REQUIRED, "the release root to publish in")
@option(
    "--max-hidden PERCENT",
    Number(0, 100),
    50.0,
    "exit with status 1, and leave the current release as it was, where more of its visible products "
    "would be hidden",
)
@options.keep("releases to keep, and as many of `follow` and `attributes`")
def run(
    file: Path | None,
    columns: IdColumns,
    dialect: Dialect,
    attributes: tuple[Attribute, ...],
    dropped: tuple[str, ...],
    as_of: float | None,
    root: Path,
    max_hidden: float,
    keep: int,
) -> None:
    """Give the products of the current release attributes, such as price and stock, from a file."""
    started = time.monotonic()
    _check(file, len(attributes), [*(one.name for one in attributes), *dropped])
    source = None
    if file and attributes:
        moment = moment_of_table(file) if as_of is None else as_of
        read = partial(read_attributes, file.absolute(), columns, dialect, attributes=attributes)
        types = {one.name: one.type for one in attributes}
        source = Source(file.absolute(), types, read, moment)
    releases = ReleaseRoot(root.absolute())
    made = set_attributes(releases, source, dropped, max_hidden / 100)
    prune(releases, keep)
    _say_made(made, releases.manifest(made.published.release))
    say_published(made.published, started)


def _check(file: Path | None, attributes: int, names: list[str]) -> None:
    """UsageError unless there is something to do, and one thing only to do with each attribute."""
    if not names:
        raise click.UsageError(
            "give --attribute NAME:TYPE for each attribute to read, or --drop NAME"
        )
    if (file is not None) != bool(attributes):
        missing = "--attribute NAME:TYPE" if file else "FILE"
        raise click.UsageError(f"missing {missing}: attributes are read from a file")
    for name in names:
        if names.count(name) > 1:
            raise click.UsageError(f"{name} is given twice")


def _say_made(made: Made, manifest: Manifest) -> None:
    if made.found and made.comparison:
        rows, comparison = made.found.rows, made.comparison
        codes = (f"; {name} in {code}" for name, code in made.found.currencies.items())
        say(f"{rows.num_rows} products in the file{''.join(codes)}")
        n_without = manifest.n_items - comparison.n_known
        say(
            f"products: {comparison.n_known} with values, {n_without} of the release not in the file, "
            f"{comparison.n_unknown} of the file not in the release"
        )
        if comparison.unknown:
            category_id, product_id = comparison.unknown
            complain(
                "lookalike-build: products of the file that the release does not have: "
                f"{comparison.n_unknown}, such as {product_id} of category {category_id}; `index` adds "
                "products"
            )
        say(f"values set live since the export, which stay: {made.n_live}")
    n_hidden = sum(entry.n_hidden for entry in manifest.categories)
    say(f"hidden: {n_hidden} of {manifest.n_items} products")
    has = ", ".join(f"{name}:{type_}" for name, type_ in manifest.attributes.items())
    say(f"attributes: {has or 'none'}")
    n_unchanged = made.published.n_unchanged
    say(f"categories: {len(manifest.categories) - n_unchanged} changed, {n_unchanged} unchanged")
