"""What ``/browse`` shows of a product besides its photo."""

import math
from itertools import repeat
from typing import Final, NamedTuple

import numpy as np

from lookalike.release.arrays import Distances, Items
from lookalike.release.attributes import HIDDEN, Value
from lookalike.release.category import Category
from lookalike.release.ids import Id
from lookalike.release.rules import ProductRules

_TITLES: Final = ("title", "name")
"""The attributes that are a product's title; the first that it has is."""
_PRICE: Final = "price"


class Card(NamedTuple):
    """A product: its id, the values of its attributes as text, its distance from the one asked for.

    What is missing is None, or not among the `others`. `is_pinned` in the answers to the one asked for.
    """

    product_id: Id
    title: str | None
    price: str | None
    others: dict[str, str]
    is_hidden: bool
    distance: float | None = None
    is_pinned: bool = False


def cards_of(category: Category, items: Items) -> list[Card]:
    """The cards of items."""
    return list(map(_card, repeat(category), category.ids(items), items.tolist()))


def cards_of_neighbours(
    category: Category, items: Items, distances: Distances, rules: ProductRules
) -> list[Card]:
    """The cards of a product's neighbours, NaN where a distance is not known."""
    return [
        card._replace(
            distance=None if math.isnan(distance) else distance,
            is_pinned=card.product_id in rules.pins,
        )
        for card, distance in zip(cards_of(category, items), distances.tolist(), strict=True)
    ]


def card_of(category: Category, item: int) -> Card:
    """The card of one item."""
    (card,) = cards_of(category, np.array([item], np.uint32))
    return card


def _card(category: Category, product_id: Id, item: int) -> Card:
    columns = category.columns
    values = {name: columns.value(name, item) for name in columns.types}
    is_hidden = bool(values.pop(HIDDEN, None))
    shown = {name: _text(value) for name, value in values.items() if value is not None}
    title = next((shown.pop(name) for name in _TITLES if name in shown), None)
    return Card(product_id, title, shown.pop(_PRICE, None), shown, is_hidden)


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return value
