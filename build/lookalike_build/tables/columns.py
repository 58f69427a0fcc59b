"""Columns: which a reader asks for, and Arrow's types of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from lookalike_build.tables.error import TableError

BLANKS: Final = " \t\n\r\f\v\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff" + "".join(
    map(chr, range(0x2000, 0x200C))
)
"""What is no part of a text at its ends: white space, and what has no width."""
_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)


class ColumnError(TableError):
    """A table lacks a column, or has it more than once."""


@dataclass(frozen=True)
class Kind:
    """Which of Arrow's types a typed column may have, and what a message calls them.

    Text of any type is `pa.string()`. Lines of JSON may lack an `optional` column, but not all of them.
    """

    expected: str
    allows: Callable[[pa.DataType], bool]
    optional: bool = False


class Column(NamedTuple):
    """A column to read: what the table calls it, and its kind where the format has types."""

    name: str
    kind: Kind


def is_whole(type_: pa.DataType) -> bool:
    """Whether it is a type of whole numbers."""
    # DuckDB's HUGEINT, the type of its sums of integers, comes as a decimal without places.
    return bool(pa.types.is_integer(type_) or (pa.types.is_decimal(type_) and type_.scale == 0))


def is_number(type_: pa.DataType) -> bool:
    """Whether it is a type of numbers, whole or not."""
    return is_whole(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_)


STRINGS: Final = Kind("strings", pa.types.is_string)
WHOLE: Final = Kind("integers", is_whole)
WHOLE_OR_STRINGS: Final = Kind(
    "integers or strings", lambda type_: is_whole(type_) or pa.types.is_string(type_)
)


def check_names(
    path: Path, found: Sequence[str], columns: Sequence[Column], has: str, more: str = ""
) -> None:
    """ColumnError unless each of the columns is found once; `has` and `more` complete its message."""
    problems = [
        f"{has} {found.count(name) or 'no'} column {name}{more}"
        for name, _ in columns
        if found.count(name) != 1
    ]
    if problems:
        raise ColumnError(path, problems)


def check_types(path: Path, schema: pa.Schema, columns: Sequence[Column]) -> None:
    """TableError unless each of the columns, all of which are there, is of its kind."""
    problems = []
    for name, kind in columns:
        type_ = schema.field(name).type
        if not kind.allows(pa.string() if _is_text(type_) else type_):
            problems.append(f"column {name} holds {type_}, expected {kind.expected}")
    if problems:
        raise TableError(path, problems)


def plain(column: pa.Array) -> pa.Array:
    """The column, as `pa.string()` if it holds text or nothing at all."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.string()) if _is_text(column.type) else column


def trimmed(column: pa.Array) -> pa.Array:
    """The column, its texts without `BLANKS` at their ends."""
    return pc.utf8_trim(column, BLANKS) if pa.types.is_string(column.type) else column


def values_of(column: Sequence[object] | pa.Array) -> Sequence[object]:
    """The values of a column as Python has them, whole numbers as `int`, texts as `trimmed`."""
    values = column.to_pylist() if isinstance(column, pa.Array) else column
    return list(map(_value, values))


def _value(value: object) -> object:
    if isinstance(value, str):
        return value.strip(BLANKS)
    return int(value) if isinstance(value, Decimal) else value


def _is_text(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return any(is_type(type_) for is_type in _TEXT)
