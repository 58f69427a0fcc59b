"""The catalogue: which products there are, in which category, with which photo.

A table with the columns `product_id`, `category_id` and `image` (or others that `ColumnNames` names);
other columns are ignored. `image` is a URL, or a path, relative to the catalogue's folder or absolute.
A product may stand in several categories, once in each. Ids in Parquet, SQL and JSON Lines are integers
or strings by their types; in CSV they are integers if all of their column are whole numbers without
leading zeros, otherwise strings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from lookalike_build.catalogue.export import Export, open_export, recognised
from lookalike_build.catalogue.ids import decimals, not_whole
from lookalike_build.catalogue.moment import moment_of_table
from lookalike_build.catalogue.rows import COLUMNS, ColumnNames, Rows
from lookalike_build.photos.image import SCHEME
from lookalike_build.tables.columns import ColumnError
from lookalike_build.tables.csv import AS_IT_BEGINS, Dialect
from lookalike_build.tables.error import TableError
from lookalike_build.tables.reader import Table, open_table

__all__ = ["COLUMNS", "Catalogue", "CatalogueFormat", "ColumnNames", "read_catalogue"]

_NO_PATH = r"""^$|^//|^[\[{<"'=]|^data:|^[A-Za-z]:[\\/]"""
"""Images that are no paths: what they hold is said only if nothing is put before them."""


@dataclass(frozen=True)
class CatalogueFormat:
    """How a catalogue is written.

    It calls its columns `names`, or is an `export` of a shop system; `dialect` is for CSV. `image_base`
    is a URL or folder to put before images that are no URL.
    """

    names: ColumnNames = COLUMNS
    dialect: Dialect = AS_IT_BEGINS
    export: Export | None = None
    image_base: str | None = None


@dataclass(frozen=True)
class Catalogue:
    """A checked catalogue.

    `rows` has the columns product_id and category_id (int64 or string) and image (string; empty where
    there is no photo), sorted by category and otherwise in the file's order, of a query by product;
    `folder` is what relative images are relative to; `as_of` is its moment, see `moment`: when the
    query began, or an hour before the file was last written. `left_out` counts an export's rows that
    are no products by what they are; `remarks` are to be shown. `type_reasons` says of each of the
    two columns of ids what makes them integers or strings.
    """

    rows: pa.Table
    folder: Path
    as_of: float | None
    left_out: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    type_reasons: Mapping[str, str] = field(default_factory=dict)


def read_catalogue(
    path: Path, written: CatalogueFormat = CatalogueFormat(), as_of: float | None = None
) -> Catalogue:
    """Read and check the catalogue at `path`.

    `as_of` is its moment where that is known better than by the file.
    Raises TableError with every malformed row and repeated id by line number, OSError if the
    file cannot be read.
    """
    sql = path.suffix.lower() == ".sql"
    if as_of is None:
        as_of = moment_of_table(path)
    if written.export:
        found = _read_export(path, written, written.export)
    else:
        found = _read_table(path, written)
    rows = found.rows
    if rows.num_rows == 0:
        raise TableError(path, ["holds no products"])
    if problems := _repeated(rows, written.names, "rows" if sql else "lines"):
        raise TableError(path, problems)
    # A query need not give its rows in the same order twice.
    within = "product_id" if sql else "line"
    order = pc.sort_indices(rows, [("category_id", "ascending"), (within, "ascending")])
    rows = rows.take(order).select(COLUMNS)
    images = _based(rows["image"], written.image_base)
    return replace(found, rows=rows.set_column(2, "image", images), as_of=as_of)


def _read_table(path: Path, written: CatalogueFormat) -> Catalogue:
    rows = Rows(written.names)
    try:
        with open_table(path, written.names.columns(), written.dialect) as table:
            for chunk in table.chunks:
                rows.add(chunk)
    except ColumnError as error:
        if name := recognised(path, written.dialect):
            hint = f"it is an export that `--from {name}` reads as it is"
            raise TableError(path, [*error.problems, hint]) from None
        raise
    return _checked(table, rows)


def _read_export(path: Path, written: CatalogueFormat, export: Export) -> Catalogue:
    rows = Rows(COLUMNS)
    with open_export(path, export, written.dialect) as (table, products):
        rows.add(products.chunk)
    found = _checked(table, rows)
    remarks = (
        f"category {category_id} holds the products of {len(paths)} paths: {', '.join(paths)}"
        for category_id, paths in products.ambiguous.items()
    )
    return replace(found, left_out=products.left_out, remarks=(*found.remarks, *remarks))


def _checked(table: Table, rows: Rows) -> Catalogue:
    """A catalogue of the rows, in their order and with their lines; TableError if one is invalid."""
    if rows.problems:
        raise table.error(rows.problems)
    found = Catalogue(rows.table(), table.path.parent, None)
    for column, name in zip(COLUMNS[:2], rows.names, strict=False):
        found = _typed(found, table, column, name)
    return found


def _typed(found: Catalogue, table: Table, column: str, name: str) -> Catalogue:
    """The catalogue with ids as integers where a column of text has only such; what decided it."""
    rows, ids = found.rows, found.rows[column]
    if table.format not in ("csv", "xml"):
        kind = "strings" if pa.types.is_string(ids.type) else "integers"
        return _known(found, column, f"column {name} holds {kind}")
    odd = not_whole(ids)
    n_odd = pc.sum(odd).as_py()
    if not n_odd:
        integers = ids.cast(pa.int64())
        rows = rows.set_column(rows.schema.get_field_index(column), column, integers)
        return _known(replace(found, rows=rows), column, f"all of {name} are whole numbers")
    if pc.all(pc.equal(odd, decimals(ids))).as_py():
        problem = "is a whole number that was made a decimal; write it without"
        changed = rows.filter(odd).select(["line", column]).to_pylist()
        raise table.error([(row["line"], f"{name} {row[column]} {problem}") for row in changed])
    first = pc.index(odd, True).as_py()
    line, value = rows["line"][first].as_py(), ids[first].as_py()
    reason = f"{table.place} {line}: {name} {value!r} is no whole number"
    if n_odd * 2 < len(ids):
        remark = f"{name} is text: {n_odd} of {len(ids)} are no whole numbers; {reason}"
        found = replace(found, remarks=(*found.remarks, remark))
    return _known(found, column, reason)


def _known(found: Catalogue, column: str, reason: str) -> Catalogue:
    return replace(found, type_reasons={**found.type_reasons, column: reason})


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


def _based(images: pa.ChunkedArray, base: str | None) -> pa.ChunkedArray:
    """The images, those that are paths after `base`."""
    if base is None:
        return images
    full = pc.binary_join_element_wise(base.rstrip("/"), pc.utf8_ltrim(images, "/"), "/")
    as_it_is = pc.match_substring_regex(images, f"{SCHEME}|{_NO_PATH}")
    return pc.if_else(as_it_is, images, full)
