"""What ``/browse`` shows of a product besides its photo."""

from typing import Final, NamedTuple

import numpy as np

from lookalike.release.arrays import Items
from lookalike.release.attributes import HIDDEN, Value
from lookalike.release.category import Category
from lookalike.release.ids import Id

_TITLES: Final = ("title", "name")
"""The attributes that are a product's title; the first that it has is."""
_PRICE: Final = "price"


class Card(NamedTuple):
    """A product: its id, the values of its attributes as text, its distance from the one asked for.

    What is missing is None, or not among the `others`.
    """

    product_id: Id
    title: str | None
    price: str | None
    others: dict[str, str]
    is_hidden: bool
    distance: float | None


def cards_of(category: Category, items: Items, distances: list[float] | None = None) -> list[Card]:
    """The cards of items, with their distances if these are given."""
    each = zip(category.ids(items), items.tolist(), strict=True)
    return [
        _card(category, product_id, item, distances[place] if distances else None)
        for place, (product_id, item) in enumerate(each)
    ]


def card_of(category: Category, item: int) -> Card:
    """The card of one item."""
    (card,) = cards_of(category, np.array([item], np.uint32))
    return card


def _card(category: Category, product_id: Id, item: int, distance: float | None) -> Card:
    columns = category.columns
    values = {name: columns.value(name, item) for name in columns.types}
    is_hidden = bool(values.pop(HIDDEN, None))
    shown = {name: _text(value) for name, value in values.items() if value is not None}
    title = next((shown.pop(name) for name in _TITLES if name in shown), None)
    return Card(product_id, title, shown.pop(_PRICE, None), shown, is_hidden, distance)


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return value
