"""Conditions in a request: parameters such as ``price__lte=5000`` and ``distinct=photo``.

A condition's name is an attribute, or an attribute and an operator with ``__`` between them, as in
Datasette's column filters. In a URL its value is text; in a body it is JSON.
"""

import re
from collections.abc import Iterable, Mapping
from math import inf
from typing import Any, Final, NamedTuple, get_args

import msgspec

from lookalike.release.attributes import (
    MAX_TEXT_BYTES,
    AttributeType,
    AttributeTypes,
    Value,
    value_problem,
)
from lookalike.release.ids import shown
from lookalike.release.manifest import RANDOM_PERCENTS
from lookalike.release.selection import PHOTO, Condition, Distinct, Op, Selection

MAX_CONDITIONS: Final = 16
MAX_VALUES: Final = 100
MAX_EACH: Final = 1000
"""The most products of one value that `distinct` may allow."""
DISTINCT: Final = "distinct"
SELECTING: Final = ("max_distance", "closer_than", DISTINCT, "defaults")
"""The parameters of a selection besides conditions."""

_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?")  # as JSON has them
_COMPARED: Final = ("lt", "lte", "gt", "gte")
_OPS: Final[Mapping[str, Op]] = {
    "": "in",
    "not": "notin",
    **{op: op for op in get_args(Op)},
}
_SCHEMAS: Final[Mapping[AttributeType, dict[str, Any]]] = {
    "flag": {"type": "boolean"},
    "number": {"type": "number"},
    "text": {"type": "string", "minLength": 1, "maxLength": MAX_TEXT_BYTES},
}
_DESCRIPTIONS: Final[Mapping[str, str]] = {
    "": "Keep products with this {}.",
    "not": "Keep products without this {}.",
    "in": "Keep products with one of these as {}.",
    "notin": "Keep products with none of these as {}.",
    "lt": "Keep products whose {} is below this.",
    "lte": "Keep products whose {} is at most this.",
    "gt": "Keep products whose {} is above this.",
    "gte": "Keep products whose {} is at least this.",
    "missing": "Keep products that have no {}, if true; those that have one, if false.",
    "same": "Keep products with the {} of the product asked for, if true; with another, if false.",
}
_OPERATORS: Final[Mapping[AttributeType, tuple[str, ...]]] = {
    "flag": ("", "not", "missing", "same"),
    "number": ("", "not", "in", "notin", *_COMPARED, "missing", "same"),
    "text": ("", "not", "in", "notin", "missing", "same"),
}


class ConditionError(ValueError):
    """A parameter of a selection is invalid; the text names it, its value and what it may be."""


def is_condition(name: str, attributes: AttributeTypes) -> bool:
    """Whether a parameter is a condition on an attribute that the release knows."""
    return name.partition("__")[0] in attributes


def names_of(known: Iterable[str], attributes: AttributeTypes | None) -> str:
    """What an error says that is known."""
    conditions = f", and conditions on {', '.join(attributes)}" if attributes else ""
    return f"{', '.join(known)}{conditions}"


def described(attributes: AttributeTypes) -> dict[str, dict[str, Any]]:
    """The conditions that requests may have, by name: each as a JSON schema of its value."""
    return {
        f"{name}__{operator}" if operator else name: _schema(name, operator, kind)
        for name, kind in attributes.items()
        for operator in _OPERATORS[kind]
    }


def _schema(name: str, operator: str, kind: AttributeType) -> dict[str, Any]:
    value: dict[str, Any] = _SCHEMAS["flag" if operator in ("missing", "same") else kind]
    if operator in ("in", "notin"):
        value = {"type": "array", "items": value, "minItems": 1, "maxItems": MAX_VALUES}
    return value | {"description": _DESCRIPTIONS[operator].format(name)}


def parse_selection(
    values: Mapping[str, Any], attributes: AttributeTypes, is_text: bool
) -> Selection:
    """The selection in a request's parameters by name; others are passed over.

    Values are the text of parameters if `is_text`, else what JSON has. ConditionError names the first
    invalid one.
    """
    names = [name for name in values if name not in SELECTING and is_condition(name, attributes)]
    if len(names) > MAX_CONDITIONS:
        raise ConditionError(f"{len(names)} conditions are too many: give at most {MAX_CONDITIONS}")
    given = _Given(values, attributes, is_text)
    return Selection(
        tuple(map(given.condition, names)),
        given.distinct(),
        given.number("max_distance", 0, 2, "0.8", inf),
        given.number("closer_than", RANDOM_PERCENTS[0], 100, "0.1", None),
    )


class _Given(NamedTuple):
    """The values given by name, as `parse_selection` has them."""

    values: Mapping[str, Any]
    attributes: AttributeTypes
    is_text: bool

    def condition(self, name: str) -> Condition:
        """The condition of that name."""
        attribute, separator, operator = name.partition("__")
        kind, given = self.attributes[attribute], self.values[name]
        if (separator and not operator) or operator not in _OPERATORS[kind]:
            names = (f"{attribute}__{one}" if one else attribute for one in _OPERATORS[kind])
            raise ConditionError(
                f"unknown condition {shown(name)}; {attribute} is a {kind} and takes {', '.join(names)}"
            )
        op = _OPS[operator]
        if op in ("missing", "same"):
            return Condition(attribute, op, bool(self._value(name, given, "flag")))
        if operator in ("in", "notin"):
            each = self._list(name, given)
            return Condition(attribute, op, tuple(self._value(name, one, kind) for one in each))
        value = self._value(name, given, kind)
        return Condition(attribute, op, (value,) if op in ("in", "notin") else float(value))

    def distinct(self) -> Distinct | None:
        """What must be distinct."""
        if DISTINCT not in self.values:
            return None
        given = self.values[DISTINCT]
        of, colon, most = (given if isinstance(given, str) else "").partition(":")
        if of != PHOTO and of not in self.attributes:
            known = ", ".join([PHOTO, *self.attributes])
            raise ConditionError(f"{DISTINCT} must be one of {known}, not {shown(given)}")
        if not colon:
            return Distinct(of)
        if of == PHOTO:
            raise ConditionError(f"{DISTINCT}={PHOTO} takes no number, not {shown(given)}")
        if not (most.isascii() and most.isdigit() and 1 <= int(most[:9]) <= MAX_EACH):
            raise ConditionError(
                f"{DISTINCT} must have a whole number from 1 to {MAX_EACH} after the colon, not "
                f"{shown(given)}"
            )
        return Distinct(of, int(most))

    def number(self, name: str, least: float, most: float, example: str, default: Any) -> Any:
        """The number of that name, or the default."""
        if name not in self.values:
            return default
        given = self.values[name]
        number = float(given) if self._is_number(given) else given
        if type(number) not in (int, float) or not least <= number <= most:
            raise ConditionError(
                f"{name} must be a number from {least:g} to {most:g}, such as {example}, not "
                f"{shown(given)}"
            )
        return float(number)

    def _list(self, name: str, given: Any) -> list[Any]:
        """Several values: an array or, as text, values with commas between them."""
        values = given
        if self.is_text and not given.startswith("["):
            values = given.split(",")
        elif self.is_text:
            try:
                values = msgspec.json.decode(given)
            except (ValueError, RecursionError):
                raise ConditionError(f"{name} begins with [ and is no JSON array") from None
        if not isinstance(values, list) or not 1 <= len(values) <= MAX_VALUES:
            size = f"{len(values)} of them" if isinstance(values, list) else shown(values)
            raise ConditionError(f"{name} must be 1 to {MAX_VALUES} values, not {size}")
        return values

    def _value(self, name: str, given: Any, kind: AttributeType) -> Value:
        value = given
        if self.is_text and kind == "flag":
            value = {"true": True, "false": False}.get(given, given)
        elif self._is_number(given) and kind == "number":
            value = float(given)
        if problem := value_problem(value, kind):
            raise ConditionError(f"{name} {problem}")
        return float(value) if kind == "number" else value

    def _is_number(self, given: Any) -> bool:
        return self.is_text and isinstance(given, str) and _NUMBER.fullmatch(given) is not None
