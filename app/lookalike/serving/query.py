"""Query parameters and ids in a URL, checked and typed; the query of ``GET /nns``."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from lookalike.release.attributes import AttributeTypes
from lookalike.release.conditions import (
    SELECTING,
    ConditionError,
    is_condition,
    names_of,
    parse_selection,
)
from lookalike.release.ids import MAX_INTEGER_ID, Id, IdType, id_problem
from lookalike.release.manifest import Manifest
from lookalike.release.selection import EVERYTHING, Selection
from lookalike.serving.errors import BadRequest

DEFAULT_LIMIT = 10
"""How many product ids ``/nns`` answers if `limit` is not given, as in Miyake et al. (2017)."""

_PARAMETERS = ("category_id", "product_id", "limit", "exclude_self", "distances", *SELECTING)
_BROKEN_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Query(NamedTuple):
    """What a request asks for. `limit` counts every product id in the answer."""

    category_id: Id
    product_id: Id
    limit: int
    exclude_self: bool
    distances: bool
    selection: Selection


def parse_query(
    text: str, max_limit: int, manifest: Manifest, defaults: Selection = EVERYTHING
) -> Query:
    """Parse a WSGI query string; BadRequest names the first invalid parameter."""
    attributes = manifest.known_attributes
    values = split_query(text, _PARAMETERS, attributes=attributes)
    return Query(
        required_id(values, "category_id", manifest.category_id_type),
        required_id(values, "product_id", manifest.product_id_type),
        typed_count(values.get("limit"), "limit", DEFAULT_LIMIT, max_limit),
        _boolean(values, "exclude_self"),
        _boolean(values, "distances"),
        typed_selection(values, attributes, defaults),
    )


def typed_selection(
    values: Mapping[str, str], attributes: AttributeTypes, defaults: Selection = EVERYTHING
) -> Selection:
    """The selection in parameters, over the defaults unless these are declined."""
    try:
        selection = parse_selection(values, attributes, is_text=True)
    except ConditionError as error:
        raise BadRequest(str(error)) from None
    return selection.over(defaults) if _boolean(values, "defaults", "true") else selection


def split_query(
    text: str,
    known: Sequence[str],
    repeated: Mapping[str, list[str]] | None = None,
    attributes: AttributeTypes | None = None,
) -> dict[str, str]:
    """The values of a WSGI query string by parameter, decoded.

    BadRequest if one is neither `known` nor a condition on one of the attributes. A parameter in
    `repeated` may be given more than once; its values are added to the list there.
    """
    values: dict[str, str] = {}
    for part in text.split("&") if text else ():
        name_text, equals, value = part.partition("=")
        name = _unquote_form(name_text, "a parameter's name")
        if not name:
            raise BadRequest('a parameter has no name; remove the extra "&" or "="')
        if name not in known and not (attributes and is_condition(name, attributes)):
            names = names_of(known, attributes)
            raise BadRequest(f"unknown parameter {_quoted(name)}; known are {names}")
        if not equals:
            raise BadRequest(f"{name} has no value; write {name}=…")
        if repeated and name in repeated:
            repeated[name].append(_unquote_form(value, name))
            continue
        if name in values:
            raise BadRequest(f"{name} is given more than once")
        values[name] = _unquote_form(value, name)
    return values


def typed_id(text: str, name: str, id_type: IdType) -> Id:
    """The id in the decoded `text`; BadRequest names it `name` if it is invalid."""
    if id_type == "string":
        if problem := id_problem(text):
            raise BadRequest(f"{name} {problem}")
        return text
    number = _whole(text, 19)
    if number is None or number > MAX_INTEGER_ID:
        raise BadRequest(
            f"{name} must be a whole number from 0 to {MAX_INTEGER_ID}, not {_quoted(text)}"
        )
    return number


def required_id(values: Mapping[str, str], name: str, id_type: IdType) -> Id:
    """The id in the parameter `name`; BadRequest if it is missing or invalid."""
    text = values.get(name)
    if text is None:
        raise BadRequest(f"{name} is missing")
    return typed_id(text, name, id_type)


def typed_count(text: str | None, name: str, default: int, most: int) -> int:
    """The number in `text`, 1 to `most`, or the default; BadRequest names it `name` if invalid."""
    if text is None:
        return min(default, most)
    number = _whole(text, 9)
    if number is None or not 1 <= number <= most:
        raise BadRequest(f"{name} must be a whole number from 1 to {most}, not {_quoted(text)}")
    return number


def unquote(text: str, what: str) -> str:
    """Undo the percent-encoding of `text` from a URL; BadRequest names it `what` if invalid."""
    if _BROKEN_PERCENT.search(text):
        raise BadRequest(
            f'{what} has a "%" that two hexadecimal digits do not follow; write %25 for "%"'
        )
    return _utf8(unquote_to_bytes(text.encode("latin-1")), what)


def decoded(text: str, what: str) -> str:
    """The text whose UTF-8 bytes WSGI gave as latin-1; BadRequest names it `what` if invalid."""
    return _utf8(text.encode("latin-1"), what)


def _utf8(raw: bytes, what: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise BadRequest(f"{what} is not UTF-8; percent-encode its UTF-8 bytes") from None


def _unquote_form(text: str, what: str) -> str:
    return unquote(text.replace("+", " "), what)


def _whole(text: str, max_digits: int) -> int | None:
    """`text` as a number if it is ASCII digits only; int() would take '1_0', ' 1' and '١' too."""
    digits = text.lstrip("0")
    valid = text.isascii() and text.isdigit() and len(digits) <= max_digits
    return int(digits or "0") if valid else None


def _boolean(values: Mapping[str, str], name: str, default: str = "false") -> bool:
    text = values.get(name, default)
    if text not in ("true", "false"):
        raise BadRequest(f"{name} must be true or false, not {_quoted(text)}")
    return text == "true"


def _quoted(text: str) -> str:
    return f'"{text}"' if len(text) <= 40 else f'"{text[:40]}…"'
