"""The catalogue: which products there are, in which category, with which photo.

A CSV file (UTF-8, with a header) or a Parquet file with the columns `product_id`, `category_id` and
`image`; other columns are ignored. `image` is a path, relative to the catalogue's folder or absolute.
A product may stand in several categories, once in each.

Ids of a CSV file are integers if all of the column are whole numbers without leading zeros, otherwise
strings; a Parquet file's column types decide for themselves.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.manifest import MAX_INTEGER_ID, id_problem

COLUMNS = ("product_id", "category_id", "image")
_MAX_PROBLEMS = 20
_PARQUET_MAGIC = b"PAR1"


class CatalogueError(Exception):
    """A catalogue that work must not start from; `problems` has a line for each fault found."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        shown = problems[:_MAX_PROBLEMS]
        if len(problems) > len(shown):
            shown.append(f"and {len(problems) - len(shown)} more")
        super().__init__("\n".join(f"{path}: {problem}" for problem in shown))
        self.problems = problems


@dataclass(frozen=True)
class Catalogue:
    """A checked catalogue.

    `rows` has the columns product_id and category_id (int64 or string) and image (string), sorted
    by category and otherwise in the file's order; `folder` is what relative images are relative to.
    """

    rows: pa.Table
    folder: Path


def read_catalogue(path: Path) -> Catalogue:
    """Read and check the catalogue at `path`.

    Raises CatalogueError with every malformed row and repeated id by line number, OSError if the
    file cannot be read.
    """
    with path.open("rb") as file:
        parquet = file.read(4) == _PARQUET_MAGIC
    table = _read_parquet(path) if parquet else _read_csv(path)
    problems = _repeated(table)
    if table.num_rows == 0:
        problems = ["holds no products"]
    if problems:
        raise CatalogueError(path, problems)
    order = pc.sort_indices(table, [("category_id", "ascending"), ("line", "ascending")])
    return Catalogue(table.take(order).select(COLUMNS), path.parent)


def _read_csv(path: Path) -> pa.Table:
    problems: list[str] = []
    columns: dict[str, list[str]] = {name: [] for name in COLUMNS}
    lines: list[int] = []
    # Bytes that are not UTF-8 are carried as surrogates and found by the row's own check.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            places = _places(path, header)
            for row in reader:
                if not row:
                    continue
                problem = _row_problem(row, len(header), places)
                if problem:
                    problems.append(f"line {reader.line_num}: {problem}")
                    continue
                lines.append(reader.line_num)
                for name in COLUMNS:
                    columns[name].append(row[places[name]])
        except csv.Error as error:
            problems.append(f"line {reader.line_num}: not CSV: {error}")
    if problems:
        raise CatalogueError(path, problems)
    return pa.table(
        {
            "product_id": _ids(columns["product_id"]),
            "category_id": _ids(columns["category_id"]),
            "image": pa.array(columns["image"], pa.string()),
            "line": pa.array(lines, pa.int64()),
        }
    )


def _places(path: Path, header: list[str]) -> dict[str, int]:
    problems = [
        f"line 1: the header has {header.count(name) or 'no'} column {name}, expected one"
        for name in COLUMNS
        if header.count(name) != 1
    ]
    if problems:
        raise CatalogueError(path, problems)
    return {name: header.index(name) for name in COLUMNS}


def _row_problem(row: list[str], n_columns: int, places: dict[str, int]) -> str | None:
    if len(row) != n_columns:
        return f"has {len(row)} fields, the header has {n_columns}"
    for name in ("product_id", "category_id"):
        if problem := id_problem(row[places[name]]):
            return f"{name} {problem}"
    return _image_problem(row[places["image"]])


def _image_problem(image: str | None) -> str | None:
    if not image:
        return "image is empty"
    try:
        fit = "\0" not in image and image.encode()
    except UnicodeEncodeError:
        fit = False
    return None if fit else "image must be a path in UTF-8"


def _ids(texts: list[str]) -> pa.Array:
    if all(_is_integer(text) for text in texts):
        return pa.array([int(text) for text in texts], pa.int64())
    return pa.array(texts, pa.string())


def _is_integer(text: str) -> bool:
    canonical = text.isascii() and text.isdigit() and (text == "0" or text[0] != "0")
    return canonical and len(text) <= 19 and int(text) <= MAX_INTEGER_ID


def _read_parquet(path: Path) -> pa.Table:
    try:
        schema = pq.read_schema(path)
        missing = [name for name in COLUMNS if name not in schema.names]
        if missing:
            raise CatalogueError(path, [f"has no column {name}" for name in missing])
        table = pq.read_table(path, columns=list(COLUMNS))
        columns = {name: _parquet_ids(path, name, table[name]) for name in COLUMNS[:2]}
        columns["image"] = table["image"].cast(pa.string())
    except pa.ArrowInvalid as error:
        raise CatalogueError(
            path, [f"cannot be read as Parquet: {error}".splitlines()[0]]
        ) from None
    problems = []
    for line, row in enumerate(zip(*(columns[name] for name in COLUMNS), strict=True), 1):
        product_id, category_id, image = (value.as_py() for value in row)
        problem = (
            _parquet_id_problem("product_id", product_id)
            or _parquet_id_problem("category_id", category_id)
            or _image_problem(image)
        )
        if problem:
            problems.append(f"row {line}: {problem}")
    if problems:
        raise CatalogueError(path, problems)
    return pa.table({**columns, "line": pa.array(range(1, table.num_rows + 1), pa.int64())})


def _parquet_ids(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_integer(column.type):
        return column.cast(pa.int64())
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column.cast(pa.string())
    raise CatalogueError(path, [f"column {name} holds {column.type}, expected integers or strings"])


def _parquet_id_problem(name: str, value: int | str | None) -> str | None:
    if value is None:
        return f"{name} is empty"
    problem = id_problem(value)
    return f"{name} {problem}" if problem else None


def _repeated(table: pa.Table) -> list[str]:
    """A line for each product that stands more than once in one category."""
    keys = ["category_id", "product_id"]
    groups = table.group_by(keys).aggregate([("line", "count"), ("line", "list")])
    repeated = groups.filter(pc.greater(groups["line_count"], 1)).to_pylist()
    return [
        f"product_id {group['product_id']} of category {group['category_id']} is repeated"
        f" in lines {', '.join(map(str, sorted(group['line_list'])))}"
        for group in sorted(repeated, key=lambda group: min(group["line_list"]))
    ]
