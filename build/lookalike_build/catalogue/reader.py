"""The catalogue: which products there are, in which category, with which photo.

A CSV, Parquet or JSON Lines file, or an SQL query, with the columns `product_id`, `category_id` and
`image` (or others that `ColumnNames` names); what else there is in it is ignored. `image` is a URL, or
a path, relative to the catalogue's folder or absolute. A product may stand in several categories, once
in each. How each is read is in `catalogue_csv` and its siblings, the checks are in `catalogue_rows`.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.release.root import named
from lookalike_build.catalogue.csv import read_csv
from lookalike_build.catalogue.form import form_of
from lookalike_build.catalogue.jsonl import read_jsonl
from lookalike_build.catalogue.moment import moment_of
from lookalike_build.catalogue.parquet import read_parquet
from lookalike_build.catalogue.rows import COLUMNS, CatalogueError, ColumnNames
from lookalike_build.catalogue.sql import read_sql

__all__ = ["COLUMNS", "Catalogue", "CatalogueError", "ColumnNames", "read_catalogue"]


@dataclass(frozen=True)
class Catalogue:
    """A checked catalogue.

    `rows` has the columns product_id and category_id (int64 or string) and image (string), sorted
    by category and otherwise in the file's order, of an SQL query by product; `folder` is what
    relative images are relative to; `as_of` is its moment, see `moment`: when the
    query began, or an hour before the file was last written.
    """

    rows: pa.Table
    folder: Path
    as_of: float | None


def read_catalogue(
    path: Path, names: ColumnNames = COLUMNS, as_of: float | None = None
) -> Catalogue:
    """Read and check the catalogue at `path`, which calls its columns `names`.

    `as_of` is its moment where that is known better than by the file.
    Raises CatalogueError with every malformed row and repeated id by line number, OSError if the
    file cannot be read.
    """
    sql = path.suffix.lower() == ".sql"
    if as_of is None:
        as_of = time.time() if sql else moment_of([path])
    with named(path):
        table = read_sql(path, names) if sql else _read_file(path, names)
    if table.num_rows == 0:
        raise CatalogueError(path, ["holds no products"])
    if problems := _repeated(table, names, "rows" if sql else "lines"):
        raise CatalogueError(path, problems)
    # A query need not give its rows in the same order twice.
    within = "product_id" if sql else "line"
    order = pc.sort_indices(table, [("category_id", "ascending"), (within, "ascending")])
    return Catalogue(table.take(order).select(COLUMNS), path.parent, as_of)


def _read_file(path: Path, names: ColumnNames) -> pa.Table:
    return {"parquet": read_parquet, "jsonl": read_jsonl, "csv": read_csv}[form_of(path)](
        path, names
    )


def _repeated(table: pa.Table, names: ColumnNames, places: str) -> list[str]:
    """A line for each product that stands more than once in one category."""
    keys = ["category_id", "product_id"]
    if table.group_by(keys).aggregate([]).num_rows == table.num_rows:
        return []
    groups = table.group_by(keys).aggregate([("line", "count"), ("line", "list")])
    repeated = groups.filter(pc.greater(groups["line_count"], 1)).to_pylist()
    return [
        f"{names.product_id} {group['product_id']} of category {group['category_id']} is repeated"
        f" in {places} {', '.join(map(str, sorted(group['line_list'])))}"
        for group in sorted(repeated, key=lambda group: min(group["line_list"]))
    ]
