"""The rows of a catalogue, whatever they are read from: their columns, and what is wrong with them.

A chunk of rows is checked as a whole; only where it holds a fault is it gone through row by row.
"""

import reprlib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.errors import LookalikeError
from lookalike.release.ids import MAX_INTEGER_ID, MAX_STRING_ID_BYTES, id_problem
from lookalike.terminal.output import printable

CHUNK: Final = 65_536
_MAX_PROBLEMS = 20
_KINDS = {int: "a whole number", str: "a string"}
_CONTROL = r"[\x00-\x1f\x7f-\x{9f}]"


class ColumnNames(NamedTuple):
    """What a catalogue calls its columns."""

    product_id: str = "product_id"
    category_id: str = "category_id"
    image: str = "image"


COLUMNS: Final = ColumnNames()
"""What Lookalike calls them."""


class CatalogueError(LookalikeError):
    """A catalogue that work must not start from; `problems` has a line for each fault found."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        shown = problems[:_MAX_PROBLEMS]
        if len(problems) > len(shown):
            shown.append(f"and {len(problems) - len(shown)} more")
        super().__init__("\n".join(printable(f"{path}: {problem}") for problem in shown))
        self.problems = problems

    def lines(self) -> list[str]:
        """A line for each fault."""
        return str(self).split("\n")


def row_problem(
    names: ColumnNames, product_id: object, category_id: object, image: object
) -> str | None:
    """What makes a row unfit, in the words of the catalogue that calls its columns `names`."""
    for name, value in ((names.product_id, product_id), (names.category_id, category_id)):
        if problem := id_fault(name, value):
            return problem
    if image is None or image == "":
        return f"{names.image} is empty"
    if not isinstance(image, str):
        return f"{names.image} must be a string, not {reprlib.repr(image)}"
    try:
        fit = "\0" not in image and image.encode()
    except UnicodeEncodeError:
        fit = False
    return None if fit else f"{names.image} must be a path in UTF-8"


def id_fault(name: str, value: object) -> str | None:
    """What makes `value` unfit as an id in the column `name`."""
    if value is None:
        return f"{name} is empty"
    if isinstance(value, bool) or not isinstance(value, int | str):
        return f"{name} must be a whole number or a string, not {reprlib.repr(value)}"
    problem = id_problem(value)
    return f"{name} {problem}" if problem else None


def fit(product_ids: pa.Array, category_ids: pa.Array, images: pa.Array) -> bool:
    """Whether no row of a chunk has a `row_problem`; its ids are whole numbers or strings."""
    return ids_fit(product_ids) and ids_fit(category_ids) and _images_fit(images)


def ids_fit(ids: pa.Array) -> bool:
    """Whether no id of a column of whole numbers or strings has an `id_fault`."""
    if ids.null_count:
        return False
    if pa.types.is_string(ids.type):
        return within(pc.binary_length(ids), 1, MAX_STRING_ID_BYTES) and not _any(
            pc.match_substring_regex(ids, _CONTROL)
        )
    return within(ids, 0, MAX_INTEGER_ID)


def _images_fit(images: pa.Array) -> bool:
    return not images.null_count and not _any(
        pc.or_(pc.equal(images, ""), pc.match_substring(images, "\0"))
    )


def within(numbers: pa.Array, least: int, most: int) -> bool:
    """Whether no number is outside."""
    if not len(numbers):
        return True
    found = pc.min_max(numbers).as_py()
    return bool(found["min"] >= least and found["max"] <= most)


def _any(flags: pa.Array) -> bool:
    return bool(pc.any(flags, min_count=0).as_py())


def typed_rows(path: Path, table: pa.Table, names: ColumnNames) -> pa.Table:
    """`table` under Lookalike's own names, of int64 or strings, with `line`: the row's number from 1.

    Raises CatalogueError where a column is missing or of another type, or a row is unfit.
    """
    columns = {
        "product_id": ids_of(path, table, names.product_id),
        "category_id": ids_of(path, table, names.category_id),
        "image": _images_of(path, table, names.image),
    }
    plain = pa.table(columns)
    if problems := list(_problems(plain, names)):
        raise CatalogueError(path, problems)
    for place, name in enumerate(COLUMNS[:2]):
        if not pa.types.is_string(plain[name].type):
            plain = plain.set_column(place, name, plain[name].cast(pa.int64()))
    return plain.append_column("line", pa.array(range(1, plain.num_rows + 1), pa.int64()))


def ids_of(path: Path, table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column of whole numbers or strings; CatalogueError if it holds others."""
    column = table[name]
    if is_whole(column.type):
        return column
    if (strings := strings_of(column)) is not None:
        return strings
    raise CatalogueError(path, [f"column {name} holds {column.type}, expected integers or strings"])


def _images_of(path: Path, table: pa.Table, name: str) -> pa.ChunkedArray:
    if (strings := strings_of(table[name])) is not None:
        return strings
    raise CatalogueError(path, [f"column {name} holds {table[name].type}, expected strings"])


def is_whole(type_: pa.DataType) -> bool:
    """Whether it is a type of whole numbers."""
    # DuckDB's HUGEINT, which its sums of integers are, comes as a decimal without places.
    return bool(pa.types.is_integer(type_) or (pa.types.is_decimal(type_) and type_.scale == 0))


def strings_of(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """The column as strings if it holds text, or nothing at all."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    if any(is_type(column.type) for is_type in text):
        return column.cast(pa.string())
    return None


def _problems(table: pa.Table, names: ColumnNames) -> Iterator[str]:
    number = 0
    for chunk in table.to_batches(max_chunksize=CHUNK):
        if not fit(*chunk.columns):
            for place, row in enumerate(zip(*map(values_of, chunk.columns), strict=True), 1):
                if problem := row_problem(names, *row):
                    yield f"row {number + place}: {problem}"
        number += chunk.num_rows


def values_of(column: pa.Array) -> list[object]:
    """The values of a column, as what they mean."""
    return [int(value) if isinstance(value, Decimal) else value for value in column.to_pylist()]


class Rows(Protocol):
    """Takes the rows of a text file one by one."""

    def add(self, line: int, *row: object) -> None:
        """Take the row of three columns that ends in line `line`."""

    def refuse(self, line: int, problem: str) -> None:
        """Take note of a line that holds no fit row."""


class TextRows:
    """Takes the rows of a text file one by one and makes a table of them."""

    def __init__(self, path: Path, names: ColumnNames) -> None:
        self._path = path
        self._names = names
        self._waiting: list[tuple[Any, ...]] = []
        self._chunks: list[pa.Table] = []
        self._problems: list[tuple[int, str]] = []
        self._kinds: dict[str, tuple[type, int]] = {}

    def add(self, line: int, *row: object) -> None:
        """Take the row that ends in line `line`: product_id, category_id and image."""
        self._waiting.append((line, *row))
        if len(self._waiting) == CHUNK:
            self._check()

    def refuse(self, line: int, problem: str) -> None:
        """Take note of a line that holds no fit row."""
        self._problems.append((line, problem))

    def finish(self) -> pa.Table:
        """The rows: product_id and category_id (int64 or string), image (string), line (int64).

        Raises CatalogueError with all that is wrong, in the order of the lines.
        """
        if self._waiting:
            self._check()
        if self._problems:
            problems = [f"line {line}: {problem}" for line, problem in sorted(self._problems)]
            raise CatalogueError(self._path, problems)
        return pa.concat_tables(self._chunks or [_EMPTY])

    def _check(self) -> None:
        rows, self._waiting = self._waiting, []
        chunk = _chunk(rows)
        # A chunk's ids are of one kind if its first are.
        if chunk is not None and fit(*chunk.columns[:3]) and not self._other_kind(*rows[0]):
            self._chunks.append(chunk)
            return
        for row in rows:
            if problem := row_problem(self._names, *row[1:]) or self._other_kind(*row):
                self.refuse(row[0], problem)

    def _other_kind(self, line: int, *row: object) -> str | None:
        """What is wrong where a fit row has an id of another kind than the first of its column."""
        for name, id_ in zip(self._names[:2], row[:2], strict=True):
            kind = type(id_)
            first, first_line = self._kinds.setdefault(name, (kind, line))
            if kind is not first:
                return (
                    f"{name} is {_KINDS[kind]}, in line {first_line} it is {_KINDS[first]}: "
                    "make it the same in all lines"
                )
        return None


_EMPTY = pa.table({name: pa.array([], pa.string()) for name in (*COLUMNS, "line")})


def _chunk(rows: list[tuple[Any, ...]]) -> pa.Table | None:
    """The rows as a table, or None where a value is of no type that rows may have."""
    lines, product_ids, category_ids, images = zip(*rows, strict=True)
    try:
        columns = {
            "product_id": pa.array(product_ids),
            "category_id": pa.array(category_ids),
            "image": pa.array(images, pa.string()),
            "line": pa.array(lines, pa.int64()),
        }
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return None
    ids = (columns["product_id"].type, columns["category_id"].type)
    return pa.table(columns) if all(type_ in (pa.int64(), pa.string()) for type_ in ids) else None
