"""Values of attributes in the columns of a table, of whatever type these are.

A null and a blank text are missing values. A number in a text has a point before its decimals and no
other separator; a currency code may follow it. A text is taken as it stands, with blanks at its ends.
"""

import reprlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.release.attributes import MAX_TEXT_BYTES, AttributeType
from lookalike_build.publishing.columns import ARROW_TYPES
from lookalike_build.tables.chunks import as_array
from lookalike_build.tables.columns import Kind, is_number, is_whole, trimmed
from lookalike_build.tables.csv import misread

_NUMBER = (
    r"^(?P<number>-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"(?: ?(?P<currency>[A-Z]{3}))?$"
)
_FLAG_TEXTS: Final = pa.array(["true", "1", "yes", "t", "false", "0", "no", "f"])
_FLAGS: Final = pa.array([True] * 4 + [False] * 4)
_EXPECTED: Final[dict[AttributeType, str]] = {
    "flag": "true or false (or 1 or 0, yes or no, t or f)",
    "number": "a finite number, with a point before decimals and nothing between thousands, such as "
    "1234.5",
    "text": f"text of 1 to {MAX_TEXT_BYTES} bytes of UTF-8",
}
KINDS: Final[dict[AttributeType, Kind]] = {
    "flag": Kind(
        "booleans, 1 and 0, or strings",
        lambda type_: pa.types.is_boolean(type_) or is_number(type_) or pa.types.is_string(type_),
        optional=True,
    ),
    "number": Kind(
        "numbers or strings",
        lambda type_: is_number(type_) or pa.types.is_string(type_),
        optional=True,
    ),
    "text": Kind(
        "strings or integers",
        lambda type_: pa.types.is_string(type_) or is_whole(type_),
        optional=True,
    ),
}
"""The kinds of columns that values of a type are read from."""


class Values(NamedTuple):
    """Values (n,), null where missing or invalid; the positions of those that are `invalid`; the
    `currencies` (n,) of numbers in texts, "" for none and null for other values."""

    values: pa.Array
    invalid: list[int]
    currencies: pa.Array


def values_of(column: Sequence[object] | pa.Array, attribute_type: AttributeType) -> Values:
    """The values in a column, as a chunk has it."""
    array = as_array(column)
    if pa.types.is_null(array.type) or _is_converted(column, array, attribute_type):
        each = [as_array([value]) for value in column]
    else:
        each = [array]
    parsed = [_parsed(one, attribute_type) for one in each]
    values, currencies, given = map(pa.concat_arrays, zip(*parsed, strict=True))
    invalid = pc.indices_nonzero(pc.and_(given, pc.is_null(values)))
    return Values(values, invalid.to_pylist(), currencies)


def problem(column: str, value: object, attribute_type: AttributeType) -> str:
    """What is wrong with an invalid value of a column."""
    if isinstance(value, str) and (hint := misread(value)):
        return f"{column} {hint}"
    shown = reprlib.repr(value)
    if attribute_type == "text" and isinstance(value, str):
        shown = f"{len(value.encode())} bytes"
    return f"{column} must be {_EXPECTED[attribute_type]}, not {shown}"


def _is_converted(
    column: Sequence[object] | pa.Array, array: pa.Array, attribute_type: AttributeType
) -> bool:
    """Whether Arrow has made numbers of flags, or for a text floats of whole numbers."""
    if isinstance(column, pa.Array) or not is_number(array.type):
        return False
    types = set(map(type, column))
    return bool in types or (attribute_type == "text" and float in types)


def _parsed(array: pa.Array, attribute_type: AttributeType) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Values, currencies, and which values are given; `pa.null()` is the type of what is no value."""
    currencies = pa.nulls(len(array), pa.string())
    if pa.types.is_null(array.type):
        values, given = array.cast(ARROW_TYPES[attribute_type]), pa.array([True] * len(array))
    elif pa.types.is_string(array.type):
        texts = trimmed(array)
        given = pc.fill_null(pc.not_equal(texts, ""), False)
        if attribute_type == "flag":
            values = _FLAGS.take(pc.index_in(pc.utf8_lower(texts), _FLAG_TEXTS))
        elif attribute_type == "number":
            found = pc.extract_regex(texts, _NUMBER)
            values = _finite(pc.struct_field(found, "number").cast(pa.float64()))
            currencies = pc.struct_field(found, "currency")
        else:
            fits = pc.and_(given, pc.less_equal(pc.binary_length(array), MAX_TEXT_BYTES))
            values = pc.if_else(fits, array, None).cast(pa.large_string())
    else:
        values, given = _of_type(array, attribute_type), array.is_valid()
    return values, currencies, given


def _of_type(array: pa.Array, attribute_type: AttributeType) -> pa.Array:
    """The values of an array that holds no text."""
    type_ = array.type
    if attribute_type == "text" and is_whole(type_):
        return array.cast(pa.string()).cast(pa.large_string())
    if attribute_type == "flag" and pa.types.is_boolean(type_):
        return array
    if attribute_type == "text" or not is_number(type_):
        return pa.nulls(len(array), ARROW_TYPES[attribute_type])
    numbers = array.cast(pa.float64(), safe=False)
    if attribute_type == "number":
        return _finite(numbers)
    return pc.if_else(
        pc.or_(pc.equal(numbers, 0), pc.equal(numbers, 1)), pc.equal(numbers, 1), None
    )


def _finite(numbers: pa.Array) -> pa.Array:
    return pc.if_else(pc.is_finite(numbers), numbers, None)
