"""Selections: which products an answer may hold, besides how many."""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from lookalike.release.arrays import Flags, Items
from lookalike.release.attributes import Value
from lookalike.release.columns import NO_FLAG, NO_TEXT, Column, Columns, Part, split

Op = Literal["in", "notin", "lt", "lte", "gt", "gte", "missing", "same"]
PHOTO: Final = "photo"
"""What is distinct if products may not show the same photo."""

_COMPARED: Final[Mapping[Op, Callable[[Any, Any], Any]]] = {
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}


class Condition(NamedTuple):
    """What an attribute's value must be.

    `operand` is a tuple of values for ``in`` and ``notin``, a number for comparisons, and whether it is
    so for ``missing`` and for ``same``, the value of the product asked for. A missing value is in
    nothing, the same as nothing, and compares with nothing.
    """

    attribute: str
    op: Op
    operand: "tuple[Value, ...] | float | bool"

    def resolved(self, asked: "tuple[Columns, int] | None") -> "Condition":
        """The condition without ``same`` for the item asked for; None has no values."""
        if self.op != "same":
            return self
        value = asked[0].value(self.attribute, asked[1]) if asked else None
        return Condition(
            self.attribute, "in" if self.operand else "notin", () if value is None else (value,)
        )

    def of_items(self, columns: Columns, items: Items) -> Flags:
        """Which of the items (n,) meet it."""
        if self.attribute not in columns.types:
            return np.full(items.size, self._of_missing)
        if len(columns.parts) == 1:
            return self._of_column(columns.parts[0], items)
        found = np.empty(items.size, np.bool_)
        for number, here, positions in split(items, len(columns.parts)):
            found[here] = self._of_column(columns.parts[number], positions)
        return found

    def of_all(self, columns: Columns) -> Flags:
        """Which of all items meet it."""
        if self.attribute not in columns.types:
            return np.full(columns.n_items, self._of_missing)
        return np.concatenate([self._of_column(part, slice(None)) for part in columns.parts])

    @property
    def _of_missing(self) -> bool:
        """Whether a missing value meets it."""
        return bool(self.operand) if self.op == "missing" else self.op == "notin"

    def _of_column(self, part: Part, positions: "Items | slice") -> Flags:
        column, op, operand = part.columns[self.attribute], self.op, self.operand
        values = column[positions] if isinstance(positions, slice) else column.take(positions)
        if op == "missing":
            return np.asarray(_missing(values) == operand)
        if not isinstance(operand, tuple):
            return np.asarray(_COMPARED[op](values, operand))
        if part.texts is not None and values.dtype == np.uint32:
            codes = (part.texts.code_of(str(text)) for text in operand)
            operand = tuple(code for code in codes if code is not None)
        if len(operand) == 1:
            found = values == operand[0]
        else:
            found = np.isin(values, np.array(operand, values.dtype))
        return np.asarray(found if op == "in" else ~found)


def _missing(values: Column) -> Flags:
    if values.dtype == np.float64:
        return np.isnan(values)
    return np.asarray(values == (NO_FLAG if values.dtype == np.int8 else NO_TEXT))


class Distinct(NamedTuple):
    """At most `most` products of an answer may have one value of the attribute `of`, or show one photo
    for `PHOTO`; then none may show that of the product asked for. Missing values all differ."""

    of: str
    most: int = 1


class Selection(NamedTuple):
    """Which products an answer may hold.

    They meet all `conditions`, are `distinct`, no further away than `max_distance`, and closer than all
    but `closer_than` percent of random pairs of the category's products.
    """

    conditions: tuple[Condition, ...] = ()
    distinct: Distinct | None = None
    max_distance: float = math.inf
    closer_than: float | None = None

    @property
    def is_of_conditions(self) -> bool:
        """Whether it asks for nothing but conditions."""
        return self[1:] == _NOTHING_ELSE and bool(self.conditions)

    @property
    def is_plain(self) -> bool:
        """Whether it has all products that are near enough."""
        return not self.conditions and self.distinct is None

    def over(self, defaults: "Selection") -> "Selection":
        """This one, and of the defaults what it does not speak of itself."""
        own = {condition.attribute for condition in self.conditions}
        others = (each for each in defaults.conditions if each.attribute not in own)
        return Selection(
            (*self.conditions, *others),
            self.distinct or defaults.distinct,
            defaults.max_distance if self.max_distance == math.inf else self.max_distance,
            defaults.closer_than if self.closer_than is None else self.closer_than,
        )

    def resolved(self, asked: "tuple[Columns, int] | None") -> "Selection":
        """The selection for an item asked for."""
        for condition in self.conditions:
            if condition.op == "same":
                each = [condition.resolved(asked) for condition in self.conditions]
                return self._replace(conditions=tuple(each))
        return self

    def of_items(self, columns: Columns, items: Items) -> Flags:
        """Which of the items (n,) meet all conditions, of which there is at least one."""
        found = self.conditions[0].of_items(columns, items)
        for condition in self.conditions[1:]:
            found &= condition.of_items(columns, items)
        return found

    def of_all(self, columns: Columns) -> Flags:
        """Which of all items meet all conditions."""
        found = np.ones(columns.n_items, np.bool_)
        for condition in self.conditions:
            found &= condition.of_all(columns)
        return found


EVERYTHING: Final = Selection()
_NOTHING_ELSE: Final = EVERYTHING[1:]
