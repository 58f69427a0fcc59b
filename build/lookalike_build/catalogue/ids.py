"""Ids of products, categories and users in the columns of a table."""

import re
import reprlib
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.release.ids import MAX_INTEGER_ID, MAX_STRING_ID_BYTES, Id, IdType, id_problem
from lookalike_build.tables.columns import STRINGS, WHOLE, Column, is_whole
from lookalike_build.tables.csv import misread

_CONTROL = r"[\x00-\x1f\x7f-\x{9f}]"
_SHORTENED = "^[0-9][.,][0-9]+E[+][0-9]+$"
"""What a spreadsheet makes of a long number: its other digits are gone."""
_NO_VALUE = (
    r"^(=\".*\"|#(N/A|REF!|VALUE!|NAME\?|NULL!|NUM!|DIV/0!)|nan|NaN|null|NULL|\\N|undefined)$"
)
"""A formula, an error, or what programs write where there is no value."""
_DECIMAL = "^[0-9]+[.,]0+$"
"""What a spreadsheet, or a library that knows a missing number as a float only, makes of a number."""
WHOLE_NUMBER = "^(0|[1-9][0-9]{0,18})$"
"""A text that is a whole number without leading zeros."""
_A_TYPE: Final[dict[IdType, str]] = {"integer": "a whole number", "string": "a string"}


def invalid_id(name: str, value: object) -> str | None:
    """What makes `value` invalid as an id in the column `name`, or None."""
    if value is None:
        return f"{name} is empty"
    if isinstance(value, bool) or not isinstance(value, int | str):
        return f"{name} must be a whole number or a string, not {reprlib.repr(value)}"
    if isinstance(value, str) and re.match(_SHORTENED, value):
        return (
            f"{name} {value} is a number that a spreadsheet has shortened; make the column text there "
            "and export it again"
        )
    if isinstance(value, str) and re.match(_NO_VALUE, value):
        return f"{name} is {value}, which stands for a formula or for no value; write the id"
    problem = (isinstance(value, str) and misread(value)) or id_problem(value)
    return f"{name} {problem}" if problem else None


def valid_ids(ids: pa.Array) -> bool:
    """Whether a column holds whole numbers or strings, none of them an `invalid_id`."""
    if ids.null_count:
        return False
    if pa.types.is_string(ids.type):
        lengths = pc.binary_length(ids)
        return _within(lengths, 1, MAX_STRING_ID_BYTES) and not any_of(
            pc.match_substring_regex(ids, f"{_CONTROL}|{_SHORTENED}|{_NO_VALUE}")
        )
    return is_whole(ids.type) and _within(ids, 0, MAX_INTEGER_ID)


def not_whole(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which texts are no whole numbers without leading zeros, up to `MAX_INTEGER_ID`."""
    # Of the same length, texts are ordered as their numbers are.
    longest = str(MAX_INTEGER_ID)
    large = pc.and_(pc.equal(pc.binary_length(texts), len(longest)), pc.greater(texts, longest))
    return pc.or_(pc.invert(pc.match_substring_regex(texts, WHOLE_NUMBER)), large)


def decimals(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which texts are whole numbers with needless decimals, such as 12.0."""
    return pc.match_substring_regex(texts, _DECIMAL)


def typed_ids(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Ids as int64 if all are whole numbers without leading zeros, otherwise as strings."""
    return texts if any_of(not_whole(texts)) else texts.cast(pa.int64())


def whole_number(text: str) -> int | None:
    """The id that a text is in a column of whole numbers; None if it is none."""
    number = int(text) if re.fullmatch(WHOLE_NUMBER, text) else None
    return None if number is None or number > MAX_INTEGER_ID else number


@dataclass(frozen=True)
class ReleasedIds:
    """A column of ids that must be of the release's type: what the table calls it, what has the ids."""

    name: str
    id_type: IdType
    what: Literal["category", "product"]

    @property
    def column(self) -> Column:
        """The column to read."""
        kind = WHOLE if self.id_type == "integer" else STRINGS
        said = f"{kind.expected}: {self.what} ids are {_A_TYPE[self.id_type]} each in the release"
        return Column(self.name, replace(kind, expected=said))

    def array(self, ids: pa.Array) -> pa.Array | None:
        """Ids with the release's type, int64 or string; None if one is invalid or of another type."""
        if self.id_type == "integer" and pa.types.is_string(ids.type):
            ids = typed_ids(ids)
        if not valid_ids(ids) or pa.types.is_string(ids.type) != (self.id_type == "string"):
            return None
        return ids if self.id_type == "string" else ids.cast(pa.int64())

    def problem(self, value: object) -> str | None:
        """What makes `value` invalid, or None."""
        wrong = f"{self.name} must be {_A_TYPE[self.id_type]} as in the release, not {value!r}"
        if self.id_type == "integer" and isinstance(value, str):
            if not re.fullmatch(WHOLE_NUMBER, value):
                return wrong
            value = int(value)
        if problem := invalid_id(self.name, value):
            return problem
        return None if isinstance(value, int) == (self.id_type == "integer") else wrong

    def valid(self, value: Any) -> Id:
        """A valid id as the release has it."""
        return int(value) if self.id_type == "integer" else str(value)


def any_of(flags: pa.Array) -> bool:
    """Whether one of the flags is set."""
    return bool(pc.any(flags, min_count=0).as_py())


def _within(numbers: pa.Array, least: int, most: int) -> bool:
    """Whether no number is outside."""
    if not len(numbers):
        return True
    found = pc.min_max(numbers).as_py()
    return bool(found["min"] >= least and found["max"] <= most)
