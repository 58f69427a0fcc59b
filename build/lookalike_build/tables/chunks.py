"""Chunks: some rows of a table at a time, so that the table may be larger than memory."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Final

import pyarrow as pa

from lookalike_build.tables.columns import Column, plain, trimmed, values_of

ROWS: Final = 65_536
"""How many rows a chunk has, at most."""

Problem = tuple[int, str]
"""The number of a line or row, and what is wrong with it."""
Row = tuple[int, tuple[object, ...] | str]
"""The number of a line, and the values in it or what is wrong with it."""


@dataclass(frozen=True)
class Chunk:
    """Some rows of a table, in its order.

    `numbers` (n,) are the lines that the rows end in, or the rows' own numbers from 1. `columns` are
    those asked for, (n,) each: Arrow's where the format has types, otherwise Python's values.
    `problems` are the lines that hold no row.
    """

    numbers: Sequence[int]
    columns: Sequence[Sequence[object] | pa.Array]
    problems: Sequence[Problem] = ()

    def arrays(self) -> list[pa.Array]:
        """The columns as Arrow's, trimmed; nulls in place of one whose values have no common type."""
        return [trimmed(as_array(column)) for column in self.columns]

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Each row: its number, then its values, trimmed."""
        return zip(self.numbers, *map(values_of, self.columns), strict=True)


Chunks = Generator[Chunk, None, None]


def of_rows(rows: Iterator[Row], n_columns: int) -> Chunks:
    """The chunks of a format of lines."""
    while first := next(rows, None):
        numbers: list[int] = []
        columns: list[list[object]] = [[] for _ in range(n_columns)]
        problems = []
        for number, row in chain([first], islice(rows, ROWS - 1)):
            if isinstance(row, str):
                problems.append((number, row))
                continue
            numbers.append(number)
            # Twice as fast as zip(*rows).
            for column, value in zip(columns, row, strict=True):
                column.append(value)
        yield Chunk(numbers, columns, problems)


def of_batches(batches: Iterable[pa.RecordBatch], columns: Sequence[Column]) -> Chunks:
    """The chunks of a format with types."""
    first = 1
    for batch in batches:
        last = first + batch.num_rows
        yield Chunk(range(first, last), [plain(batch.column(name)) for name, _ in columns])
        first = last


def as_array(column: Sequence[object] | pa.Array) -> pa.Array:
    """A column as Arrow's; if its values have no common type, nulls, of the type `pa.null()`."""
    if isinstance(column, pa.Array):
        return column
    try:
        return plain(pa.array(column))
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return pa.nulls(len(column))
