"""A table of attributes: a row for each product of a category, with its ids and its values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.release.attributes import AttributeType
from lookalike.release.ids import Id, IdType
from lookalike_build.attributes.values import KINDS, problem, values_of
from lookalike_build.catalogue.ids import ReleasedIds
from lookalike_build.indexing.attributes import ProductValues
from lookalike_build.tables.chunks import Chunk, Problem, as_array
from lookalike_build.tables.columns import Column, trimmed
from lookalike_build.tables.columns import values_of as python_values
from lookalike_build.tables.csv import Dialect
from lookalike_build.tables.error import TableError
from lookalike_build.tables.reader import Table, open_table

_MAX_PROBLEMS: Final = 1000
KEYS: Final = ["category_id", "product_id"]
"""The columns of ids in `FileValues.rows`; no attribute can have such a name."""
_LINE: Final = "line number"
"""Nor such a one."""


class IdColumns(NamedTuple):
    """What a table of attributes calls its columns of ids."""

    category_id: str = "category_id"
    product_id: str = "product_id"


ID_COLUMNS: Final = IdColumns()
"""What Lookalike calls them."""


class Attribute(NamedTuple):
    """An attribute to read: its name, its type, and what the table calls its column."""

    name: str
    type: AttributeType
    column: str


@dataclass(frozen=True)
class FileValues:
    """What a table says of products.

    `rows` has the columns `KEYS` (int64 or string), each pair once, and one of each attribute (bool,
    float64 or large_string; null where missing), sorted by `KEYS`. Numbers of an attribute may have had
    one of the `currencies`.
    """

    rows: pa.Table
    currencies: Mapping[str, str] = field(default_factory=dict)

    def by_category(self) -> dict[Id, ProductValues]:
        """The values by category."""
        values: dict[Id, ProductValues] = {}
        first = 0
        for group in pc.value_counts(self.rows[KEYS[0]]).to_pylist():
            rows = self.rows.slice(first, group["counts"])
            columns = {name: rows[name].combine_chunks() for name in rows.column_names[1:]}
            values[group["values"]] = ProductValues(columns.pop(KEYS[1]), columns)
            first += group["counts"]
        return values


def read_attributes(
    path: Path,
    names: IdColumns,
    dialect: Dialect,
    id_types: tuple[IdType, IdType],
    attributes: Sequence[Attribute],
) -> FileValues:
    """Read and check a table of attributes; ids are of `id_types`, those of categories and products.

    Raises TableError with the malformed rows by line number, the first thousand, or OSError if the
    file cannot be read.
    """
    ids = [
        ReleasedIds(names.category_id, id_types[0], "category"),
        ReleasedIds(names.product_id, id_types[1], "product"),
    ]
    columns = [Column(one.column, KINDS[one.type]) for one in attributes]
    with open_table(path, [*(each.column for each in ids), *columns], dialect) as table:
        rows = _Rows(table, ids, attributes)
        for chunk in table.chunks:
            rows.add(chunk)
        return rows.finish()


class _Rows:
    """Checks rows by the chunk; only columns of ids with a problem are read row by row."""

    def __init__(
        self, table: Table, ids: Sequence[ReleasedIds], attributes: Sequence[Attribute]
    ) -> None:
        self._table = table
        self._ids = ids
        self._attributes = attributes
        self._problems: list[Problem] = []
        self._valid: list[pa.Table] = []
        self._currencies: dict[str, dict[str, int]] = {one.name: {} for one in attributes}

    def add(self, chunk: Chunk) -> None:
        """Take the next chunk; TableError if there are too many problems."""
        self._problems += chunk.problems
        arrays = {_LINE: pa.array(chunk.numbers, pa.int64())}
        columns = iter(chunk.columns)
        for key, one in zip(KEYS, self._ids, strict=True):
            arrays[key] = self._read_ids(one, chunk, next(columns))
        for attribute, column in zip(self._attributes, columns, strict=True):
            arrays[attribute.name] = self._read_values(attribute, chunk, column)
        if len(self._problems) >= _MAX_PROBLEMS:
            raise self._table.error(sorted(self._problems)[:_MAX_PROBLEMS])
        if not self._problems:
            self._valid.append(pa.table(arrays))

    def finish(self) -> FileValues:
        """All rows; TableError with all problems."""
        if not self._problems:
            self._problems += self._other_currencies()
        if self._problems:
            raise self._table.error(self._problems)
        rows = pa.concat_tables(self._valid) if self._valid else pa.table({_LINE: []})
        if not rows.num_rows:
            raise TableError(self._table.path, ["holds no rows"])
        rows = self._once(rows.combine_chunks()).sort_by([(key, "ascending") for key in KEYS])
        currencies = {name: min(codes) for name, codes in self._currencies.items() if any(codes)}
        return FileValues(rows.drop_columns([_LINE]), currencies)

    def _read_ids(self, ids: ReleasedIds, chunk: Chunk, column: Any) -> pa.Array | None:
        """The ids; None if one is invalid, which is noted."""
        array = ids.array(trimmed(as_array(column)))
        if array is not None:
            return array
        values = python_values(column)
        found = [ids.problem(value) for value in values]
        problems = [(n, said) for n, said in zip(chunk.numbers, found, strict=True) if said]
        self._problems += problems
        return None if problems else pa.array(map(ids.valid, values))

    def _read_values(self, attribute: Attribute, chunk: Chunk, column: Any) -> pa.Array:
        """The values; invalid ones are noted."""
        _, type_, name = attribute
        values, invalid, currencies = values_of(column, type_)
        if invalid:
            given = python_values(column)
            self._problems += [
                (chunk.numbers[at], problem(name, given[at], type_)) for at in invalid
            ]
        codes = self._currencies[attribute.name]
        for code in pc.unique(currencies).drop_null().to_pylist():
            if code not in codes:
                codes[code] = chunk.numbers[pc.index(currencies, code).as_py()]
        return values

    def _other_currencies(self) -> list[Problem]:
        """A problem for each currency of an attribute but the first: where it is found first."""
        problems = []
        for attribute in self._attributes:
            codes = self._currencies[attribute.name]
            first, *others = sorted(codes, key=codes.__getitem__) or [""]
            for code in others:
                said = f"{attribute.column} is {_in(code)}, in {self._table.place} {codes[first]} it is"
                more = f"{_in(first)}: give all of its numbers the same currency, or none"
                problems.append((codes[code], f"{said} {more}"))
        return problems

    def _once(self, rows: pa.Table) -> pa.Table:
        """The rows, each product once; TableError where rows of a product differ."""
        counted = rows.group_by(KEYS).aggregate([(_LINE, "min"), (_LINE, "max")])
        if counted.num_rows == rows.num_rows:
            return rows
        names = [name for name in rows.column_names if name != _LINE]
        different = rows.group_by(names).aggregate([(_LINE, "min")])
        if different.num_rows > counted.num_rows:
            again = different.group_by(KEYS).aggregate([(f"{_LINE}_min", "list")]).to_pylist()
            raise self._table.error(
                [
                    (lines[1], self._repeated(row, lines[0]))
                    for row in again
                    if len(lines := sorted(row[f"{_LINE}_min_list"])) > 1
                ][:_MAX_PROBLEMS]
            )
        return different.rename_columns([*names, _LINE])

    def _repeated(self, row: Mapping[str, object], line: int) -> str:
        return (
            f"{self._ids[1].name} {row['product_id']} of category {row['category_id']} has other "
            f"values in {self._table.place} {line}"
        )


def _in(currency: str) -> str:
    return f"in {currency}" if currency else "without a currency"
