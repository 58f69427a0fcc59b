"""The rows of a catalogue: their columns, and what is wrong with them.

A chunk of rows is checked as a whole; only where it holds a problem is it gone through row by row.
"""

import reprlib
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from lookalike_build.catalogue.ids import any_of, invalid_id, valid_ids
from lookalike_build.tables.chunks import Chunk, Problem
from lookalike_build.tables.columns import STRINGS, WHOLE_OR_STRINGS, Column
from lookalike_build.tables.csv import misread

_KINDS = {int: "a whole number", str: "a string"}


class ColumnNames(NamedTuple):
    """What a catalogue calls its columns."""

    product_id: str = "product_id"
    category_id: str = "category_id"
    image: str = "image"

    def columns(self) -> list[Column]:
        """The columns to read."""
        return list(map(Column, self, (WHOLE_OR_STRINGS, WHOLE_OR_STRINGS, STRINGS)))


COLUMNS: Final = ColumnNames()
"""What Lookalike calls them."""


class Rows:
    """Takes the chunks of a catalogue that calls its columns `names`, and keeps the valid ones."""

    def __init__(self, names: ColumnNames) -> None:
        self.problems: list[Problem] = []
        self.names = names
        self._valid: list[pa.Table] = []
        self._first_kinds: dict[str, tuple[type, int]] = {}

    def add(self, chunk: Chunk) -> None:
        """Take the next chunk."""
        self.problems += chunk.problems
        if not chunk.numbers:
            return
        arrays = chunk.arrays()
        if valid(*arrays):
            kinds = [str if pa.types.is_string(ids.type) else int for ids in arrays[:2]]
            if not self._other_kind(chunk.numbers[0], kinds):
                self._valid.append(_table(chunk.numbers, *arrays))
                return
        for number, *row in chunk.rows():
            problem = invalid_row(self.names, *row) or self._other_kind(number, map(type, row))
            if problem:
                self.problems.append((number, problem))

    def table(self) -> pa.Table:
        """The valid rows: product_id, category_id (int64 or string), image (string), line (int64).

        A product without a photo has an empty image.
        """
        return pa.concat_tables(self._valid or [_EMPTY])

    def _other_kind(self, number: int, kinds: Iterable[type]) -> str | None:
        """What is wrong where an id is of another kind than the first of its column."""
        for name, kind in zip(self.names[:2], kinds, strict=False):
            first, first_number = self._first_kinds.setdefault(name, (kind, number))
            if kind is not first:
                return (
                    f"{name} is {_KINDS[kind]}, in line {first_number} it is {_KINDS[first]}: "
                    "make it the same in all lines"
                )
        return None


def invalid_row(
    names: ColumnNames, product_id: object, category_id: object, image: object
) -> str | None:
    """What makes a row invalid, or None."""
    for name, value in ((names.product_id, product_id), (names.category_id, category_id)):
        if problem := invalid_id(name, value):
            return problem
    if image is None:
        return None
    if not isinstance(image, str):
        return f"{names.image} must be a string, not {reprlib.repr(image)}"
    problem = misread(image) or ("must not hold a zero byte" if "\0" in image else None)
    return f"{names.image} {problem}" if problem else None


def valid(product_ids: pa.Array, category_ids: pa.Array, images: pa.Array) -> bool:
    """Whether these columns, of at least one row, hold no `invalid_row`."""
    return valid_ids(product_ids) and valid_ids(category_ids) and _valid_images(images)


def _valid_images(images: pa.Array) -> bool:
    return pa.types.is_string(images.type) and not any_of(pc.match_substring(images, "\0"))


def _table(
    numbers: Sequence[int], product_ids: pa.Array, category_ids: pa.Array, images: pa.Array
) -> pa.Table:
    return pa.table(
        {
            "product_id": _id_column(product_ids),
            "category_id": _id_column(category_ids),
            "image": images.fill_null(""),
            "line": pa.array(numbers, pa.int64()),
        }
    )


def _id_column(ids: pa.Array) -> pa.Array:
    return ids if pa.types.is_string(ids.type) else ids.cast(pa.int64())


_EMPTY = pa.table({name: pa.array([], pa.string()) for name in (*COLUMNS, "line")})
