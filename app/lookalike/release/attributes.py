"""Attributes: what a shop says of its products besides their photos, such as price, stock and seller.

An attribute has a name and a type, the same in the whole release. A product has a value of it, or none:
a missing value differs from every value.
"""

import math
import re
from collections.abc import Mapping
from typing import Final, Literal

from lookalike.release.ids import shown

AttributeType = Literal["flag", "number", "text"]
AttributeTypes = Mapping[str, AttributeType]
Value = bool | float | str
Values = Mapping[str, Value | None]
"""Values by attribute; None where the value is missing."""

HIDDEN: Final = "hidden"
"""The flag that keeps a product out of all lists. Every release has it; unless set it is false."""
TYPES: Final[AttributeTypes] = {HIDDEN: "flag"}
"""The attributes that need not be declared."""
RESERVED: Final = frozenset(
    (
        *("category_id", "product_id", "product_ids", "vector", "limit", "exclude", "exclude_self"),
        *("distances", "max_distance", "closer_than", "distinct", "defaults", "visitor", "op"),
    )
)
"""Names of parameters, which no attribute may have."""
MAX_ATTRIBUTES: Final = 32
MAX_TEXT_BYTES: Final = 1000

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_MAX_NAME = 40
_EXPECTED: Final[Mapping[AttributeType, str]] = {
    "flag": "true or false",
    "number": "a finite number",
    "text": f"text of 1 to {MAX_TEXT_BYTES} bytes of UTF-8",
}


def name_problem(name: str) -> str | None:
    """Why an attribute cannot be called `name`; None if it can."""
    if name in RESERVED:
        return "is the name of a parameter"
    if len(name) > _MAX_NAME or not _NAME.fullmatch(name):
        return f"must be 1 to {_MAX_NAME} of a-z, 0-9 and single _ between them, the first a letter"
    return None


def value_problem(value: object, attribute_type: AttributeType) -> str | None:
    """Why a JSON value is invalid as a value of that type; None if it is valid."""
    if _is_valid(value, attribute_type):
        return None
    return f"must be {_EXPECTED[attribute_type]}, not {shown(value)}"


def _is_valid(value: object, attribute_type: AttributeType) -> bool:
    if attribute_type == "flag":
        return isinstance(value, bool)
    if attribute_type == "text":
        return isinstance(value, str) and _is_text(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _is_text(value: str) -> bool:
    try:
        return 1 <= len(value.encode()) <= MAX_TEXT_BYTES
    except UnicodeEncodeError:
        return False
