"""Columns: the values that a category's products have of its attributes, by item.

They are in parts of `PART` items each, so that a change writes little of a large category:

====================  ===========================================================================
``columns-<i>.npy``   one record, of which each field is an attribute's column (n,) of the items from
                      i × `PART` on: a flag ``|i1``, 0 or 1, or -1 for a missing value; a number
                      ``<f8``, or NaN; a text ``<u4``, its place in the part's texts, or `NO_TEXT`
``texts-<i>.npy``     one record: ``ends`` ``<u4`` (n_texts,) and ``utf8`` ``|u1`` (n_bytes,): text j is
                      ``utf8`` from ``ends[j - 1]`` up to ``ends[j]``. Each is there once, ascending
                      as bytes. Only of a category that has texts
====================  ===========================================================================
"""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lookalike.release.arrays import Flags, Items
from lookalike.release.attributes import HIDDEN, AttributeType, AttributeTypes, Value, Values
from lookalike.release.files import ReleaseError, columns_file, texts_file
from lookalike.release.memory import map_array

PART: Final = 2**15
"""How many items a part has, but for the last one."""
NO_FLAG: Final = -1
NO_TEXT: Final = 2**32 - 1
DTYPES: Final[Mapping[AttributeType, str]] = {"flag": "|i1", "number": "<f8", "text": "<u4"}
_MAX_CODES = 4096

Column = npt.NDArray[Any]
"""The values (n,) of an attribute, as files have them."""


class Texts:
    """The different texts of a part, ascending as UTF-8; `record` is what its file holds."""

    def __init__(self, record: npt.NDArray[np.void]) -> None:
        self.record = record
        self._ends = memoryview(record["ends"].data)
        self._utf8 = memoryview(record["utf8"].data)
        self._codes: dict[str, int | None] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, code: int) -> str:
        return self._raw(code).decode()

    def code_of(self, text: str) -> int | None:
        """The place of `text`; None if it is not there."""
        if text in self._codes:
            return self._codes[text]
        raw = text.encode()
        code = bisect_left(range(len(self)), raw, key=self._raw)
        known = code < len(self) and self._raw(code) == raw
        if len(self._codes) >= _MAX_CODES:
            self._codes.clear()
        self._codes[text] = code if known else None
        return self._codes[text]

    def _raw(self, code: int) -> bytes:
        return bytes(self._utf8[self._ends[code - 1] if code else 0 : self._ends[code]])


@dataclass(frozen=True)
class Part:
    """The columns, by attribute, of some items that follow one another, and their texts."""

    columns: Mapping[str, Column]
    texts: Texts | None

    def value(self, name: str, position: int) -> Value | None:
        """The value of an attribute at a position of the part; None if it is missing."""
        value = self.columns[name][position].item()
        if isinstance(value, float):
            return None if value != value else value
        if self.texts is not None and self.columns[name].dtype == DTYPES["text"]:
            return None if value == NO_TEXT else self.texts[value]
        return None if value == NO_FLAG else bool(value)


@dataclass(frozen=True)
class Columns:
    """The columns of a category of `n_items` items, also of those that have left; `types` says of which
    attributes."""

    types: AttributeTypes
    parts: tuple[Part, ...]
    n_items: int

    def value(self, name: str, item: int) -> Value | None:
        """An item's value of an attribute, None if it is missing, as it is where there is no column."""
        if name not in self.types:
            return None
        return self.parts[item // PART].value(name, item % PART)

    def values(self, item: int) -> Values:
        """An item's values, of all columns."""
        return {name: self.value(name, item) for name in self.types}

    def column(self, name: str) -> Column:
        """The whole column (n_items,) of a flag or a number."""
        return np.concatenate([part.columns[name] for part in self.parts])

    @cached_property
    def hidden(self) -> Items:
        """The items that are hidden, also of those that have left, ascending."""
        if HIDDEN not in self.types:
            return np.empty(0, np.uint32)
        return np.flatnonzero(self.column(HIDDEN) == 1).astype(np.uint32)


def split(items: Items, n_parts: int) -> Iterator[tuple[int, Flags, Items]]:
    """The parts that have some of `items`: the part's number, which of the items, their positions."""
    of_part = items // PART
    for number in range(n_parts) if n_parts < items.size else np.unique(of_part).tolist():
        here = of_part == number
        yield number, here, items[here] % PART


def n_parts(n_items: int) -> int:
    """How many parts so many items have."""
    return -(-n_items // PART)


def columns_dtype(types: AttributeTypes, n_items: int) -> "np.dtype[Any]":
    """The record of a part with so many items."""
    return np.dtype([(name, DTYPES[one], (n_items,)) for name, one in types.items()])


def texts_dtype(n_texts: int, n_bytes: int) -> "np.dtype[Any]":
    """The record of so many texts with so many bytes."""
    return np.dtype([("ends", "<u4", (n_texts,)), ("utf8", "|u1", (n_bytes,))])


def part_files(types: AttributeTypes, n_items: int) -> list[str]:
    """The files of the columns of so many items."""
    files = [columns_file(part) for part in range(n_parts(n_items))] if types else []
    has_texts = "text" in types.values()
    return files + [texts_file(part) for part in range(n_parts(n_items) if has_texts else 0)]


def open_columns(
    folder: Path, types: AttributeTypes, n_items: int, sound: Collection[str] = ()
) -> Columns:
    """Map the columns of a category of so many items, and check what is not in the files `sound`.

    ReleaseError if a file is invalid.
    """
    parts = []
    for number in range(n_parts(n_items) if types else 0):
        n = min(PART, n_items - number * PART)
        file = columns_file(number)
        record = map_array(folder / file, (), columns_dtype(types, n))
        texts = _open_texts(folder, number, sound) if "text" in types.values() else None
        part = Part({name: record[name] for name in types}, texts)
        if not {file, texts_file(number)} <= set(sound):
            _check(part, types, f"{folder.name}/{file}")
        parts.append(part)
    return Columns(types, tuple(parts), n_items)


def _open_texts(folder: Path, number: int, sound: Collection[str]) -> Texts:
    file = texts_file(number)
    name = f"{folder.name}/{file}"
    record = map_array(folder / file, ())
    names, n_texts, n_bytes = record.dtype.names, 0, 0
    if names == ("ends", "utf8"):
        n_texts, n_bytes = record["ends"].size, record["utf8"].size
    if record.dtype != texts_dtype(n_texts, n_bytes):
        raise ReleaseError(name, f"holds {record.dtype}, no texts")
    if file not in sound:
        ends = record["ends"].astype(np.int64)
        starts = np.concatenate([[0], ends])
        if starts[-1] != n_bytes or np.any(starts[1:] <= starts[:-1]):
            raise ReleaseError(name, f"texts end at other places than those of {n_bytes} bytes")
        try:
            bytes(record["utf8"].data).decode()
        except UnicodeDecodeError as error:
            raise ReleaseError(name, "holds a text that is not UTF-8") from error
        if np.any(record["utf8"][starts[:-1]] & 0xC0 == 0x80):
            raise ReleaseError(name, "has a text that begins within a character")
    return Texts(record)


def _check(part: Part, types: AttributeTypes, name: str) -> None:
    n_texts = 0 if part.texts is None else len(part.texts)
    for attribute, column in part.columns.items():
        if types[attribute] == "flag":
            valid = (column >= NO_FLAG) & (column <= 1)
        elif types[attribute] == "text":
            valid = (column < n_texts) | (column == NO_TEXT)
        else:
            valid = ~np.isinf(column)
        if not valid.all():
            raise ReleaseError(name, f"{attribute} has a value that is no {types[attribute]}")
