"""The catalogue: which products there are, in which category, with which photo.

A table with the columns `product_id`, `category_id` and `image` (or others that `ColumnNames` names);
other columns are ignored. `image` is a URL, or a path, relative to the catalogue's folder or absolute.
A product may stand in several categories, once in each. Ids in Parquet, SQL and JSON Lines are integers
or strings by their types; in CSV they are integers if all of their column are whole numbers without
leading zeros, otherwise strings.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from lookalike_build.catalogue.ids import typed_ids
from lookalike_build.catalogue.moment import moment_of
from lookalike_build.catalogue.rows import COLUMNS, ColumnNames, Rows
from lookalike_build.tables.error import TableError
from lookalike_build.tables.reader import open_table

__all__ = ["COLUMNS", "Catalogue", "ColumnNames", "read_catalogue"]


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
    Raises TableError with every malformed row and repeated id by line number, OSError if the
    file cannot be read.
    """
    sql = path.suffix.lower() == ".sql"
    if as_of is None:
        as_of = time.time() if sql else moment_of([path])
    rows = _read_rows(path, names)
    if rows.num_rows == 0:
        raise TableError(path, ["holds no products"])
    if problems := _repeated(rows, names, "rows" if sql else "lines"):
        raise TableError(path, problems)
    # A query need not give its rows in the same order twice.
    within = "product_id" if sql else "line"
    order = pc.sort_indices(rows, [("category_id", "ascending"), (within, "ascending")])
    return Catalogue(rows.take(order).select(COLUMNS), path.parent, as_of)


def _read_rows(path: Path, names: ColumnNames) -> pa.Table:
    """The rows as `Rows.table` gives them; TableError if one is invalid."""
    rows = Rows(names)
    with open_table(path, names.columns()) as table:
        for chunk in table.chunks:
            rows.add(chunk)
    if rows.problems:
        raise table.error(rows.problems)
    valid = rows.table()
    if table.format == "csv":
        for place, name in enumerate(COLUMNS[:2]):
            valid = valid.set_column(place, name, typed_ids(valid[name]))
    return valid


def _repeated(rows: pa.Table, names: ColumnNames, places: str) -> list[str]:
    """A line for each product that stands more than once in one category."""
    keys = ["category_id", "product_id"]
    if rows.group_by(keys).aggregate([]).num_rows == rows.num_rows:
        return []
    groups = rows.group_by(keys).aggregate([("line", "count"), ("line", "list")])
    repeated = groups.filter(pc.greater(groups["line_count"], 1)).to_pylist()
    return [
        f"{names.product_id} {group['product_id']} of category {group['category_id']} is repeated"
        f" in {places} {', '.join(map(str, sorted(group['line_list'])))}"
        for group in sorted(repeated, key=lambda group: min(group["line_list"]))
    ]
