"""Ids of products and categories: integers or short strings, checked, and quoted in errors."""

import re
from typing import Final, Literal
from urllib.parse import quote

import msgspec

MAX_INTEGER_ID: Final = 2**63 - 1
MAX_STRING_ID_BYTES: Final = 64
Id = int | str
IdType = Literal["integer", "string"]
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def id_problem(value: Id) -> str | None:
    """Why `value` is invalid as a product or category id; None if it is valid."""
    if isinstance(value, int):
        if 0 <= value <= MAX_INTEGER_ID:
            return None
        return f"must be a whole number from 0 to {MAX_INTEGER_ID}, not {value}"
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "must be valid Unicode text"
    if not 1 <= size <= MAX_STRING_ID_BYTES:
        return f"must be 1 to {MAX_STRING_ID_BYTES} bytes of UTF-8, not {size}"
    if _CONTROL.search(value):
        return "must not hold control characters"
    return None


def category_folder(category_id: Id) -> str:
    """The folder name of a category: its id percent-encoded, and dots too, so that none is ``..``."""
    return quote(str(category_id), safe="").replace(".", "%2E")


def json_id_problem(value: object, id_type: IdType) -> str | None:
    """Why a JSON value is invalid as an id of the type `id_type`; None if it is valid."""
    if id_type == "string":
        return (
            id_problem(value) if isinstance(value, str) else f"must be a string, not {shown(value)}"
        )
    if isinstance(value, bool) or not isinstance(value, int) or id_problem(value):
        return f"must be a whole number from 0 to {MAX_INTEGER_ID}, not {shown(value)}"
    return None


def shown(value: object) -> str:
    """A value as JSON, cut after 40 characters."""
    try:
        text = msgspec.json.encode(value).decode()
    except RecursionError:
        return "something nested too deep"
    return text if len(text) <= 40 else f"{text[:40]}…"
