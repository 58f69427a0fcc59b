"""Ids of products, categories and users in the columns of a table."""

import re
import reprlib

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.release.ids import MAX_INTEGER_ID, MAX_STRING_ID_BYTES, id_problem
from lookalike_build.tables.columns import is_whole

_CONTROL = r"[\x00-\x1f\x7f-\x{9f}]"
WHOLE_NUMBER = "^(0|[1-9][0-9]{0,18})$"
"""A text that is a whole number without leading zeros."""


def invalid_id(name: str, value: object) -> str | None:
    """What makes `value` invalid as an id in the column `name`, or None."""
    if value is None:
        return f"{name} is empty"
    if isinstance(value, bool) or not isinstance(value, int | str):
        return f"{name} must be a whole number or a string, not {reprlib.repr(value)}"
    problem = id_problem(value)
    return f"{name} {problem}" if problem else None


def valid_ids(ids: pa.Array) -> bool:
    """Whether a column holds whole numbers or strings, none of them an `invalid_id`."""
    if ids.null_count:
        return False
    if pa.types.is_string(ids.type):
        lengths = pc.binary_length(ids)
        return _within(lengths, 1, MAX_STRING_ID_BYTES) and not any_of(
            pc.match_substring_regex(ids, _CONTROL)
        )
    return is_whole(ids.type) and _within(ids, 0, MAX_INTEGER_ID)


def typed_ids(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Ids as int64 if all are whole numbers without leading zeros, otherwise as strings."""
    if not all_whole(texts):
        return texts
    try:
        return texts.cast(pa.int64())
    except pa.ArrowInvalid:  # one of them is too large
        return texts


def all_whole(texts: pa.ChunkedArray) -> bool:
    """Whether all texts are whole numbers without leading zeros."""
    return bool(pc.all(pc.match_substring_regex(texts, WHOLE_NUMBER)).as_py())


def whole_number(text: str) -> int | None:
    """The id that a text is in a column of whole numbers; None if it is none."""
    number = int(text) if re.fullmatch(WHOLE_NUMBER, text) else None
    return None if number is None or number > MAX_INTEGER_ID else number


def any_of(flags: pa.Array) -> bool:
    """Whether one of the flags is set."""
    return bool(pc.any(flags, min_count=0).as_py())


def _within(numbers: pa.Array, least: int, most: int) -> bool:
    """Whether no number is outside."""
    if not len(numbers):
        return True
    found = pc.min_max(numbers).as_py()
    return bool(found["min"] >= least and found["max"] <= most)
