"""What changes make of products depends on their order."""

from collections.abc import Collection

import numpy as np
import pytest

from lookalike.journal import DELETE, PUT, SET, Change
from lookalike.release.attributes import AttributeTypes, Values
from lookalike.release.ids import Id
from lookalike_build.following.batch import resolved

KNOWN: AttributeTypes = {"hidden": "flag", "price": "number", "title": "text"}
FORGOTTEN: Values = dict.fromkeys(KNOWN)
FEATURE = np.ones(3, np.float32)


def there(category_id: Id, product_ids: Collection[Id]) -> frozenset[Id]:
    return frozenset(one for one in product_ids if category_id == 1 and one == 7)


def put(product_id: int) -> Change:
    return Change(PUT, 1, product_id, photo=b"")


def delete(product_id: int) -> Change:
    return Change(DELETE, 1, product_id)


def set_(product_id: int, category_id: int = 1, **values: float | str | None) -> Change:
    return Change(SET, category_id, product_id, values=values)


@pytest.mark.parametrize(
    ("batch", "values"),
    [
        ([set_(7, price=1)], {7: {"price": 1}}),
        ([set_(7, price=1), set_(7, title="a", price=None)], {7: {"title": "a", "price": None}}),
        ([put(8), set_(8, price=1)], {8: {"price": 1}}),
        ([set_(7, price=1), put(7)], {7: {"price": 1}}),
        ([set_(7, price=1), delete(7)], {7: FORGOTTEN}),
        ([set_(7, price=1), delete(7), put(7)], {7: FORGOTTEN}),
        ([delete(7), put(7), set_(7, price=1)], {7: {**FORGOTTEN, "price": 1}}),
    ],
)
def test_the_last_word_counts(batch: list[Change], values: dict[Id, Values]) -> None:
    numbered = [*enumerate(batch)]
    features = {number: FEATURE for number, change in numbered if change.op == PUT}
    changes, reasons = resolved(numbered, features, KNOWN, there)
    assert reasons == {}
    assert changes[1].values == values
    last = {change.product_id: change.op for change in batch if change.op != SET}
    assert {one: feature is not None for one, feature in changes[1].features.items()} == {
        one: op == PUT for one, op in last.items()
    }


@pytest.mark.parametrize(
    ("batch", "reason"),
    [
        ([set_(8, price=1), put(8)], "category 1 has no product 8; put it first, then set its"),
        ([set_(7, 2, price=1)], "category 2 has no product 7; put it first"),
        ([delete(7), set_(7, price=1)], "category 1 has no product 7"),
        (
            [set_(7, colour="red")],
            'the release has no attribute "colour"; it has hidden, price, title',
        ),
        ([set_(7, title=1)], "title must be text of 1 to 1000 bytes of UTF-8, not 1"),
        ([set_(7, price=float("inf"))], "price must be a finite number, not "),
        ([set_(7, price=1, hidden=1)], "hidden must be true or false, not 1"),
    ],
)
def test_what_cannot_be_set_is_rejected_whole(batch: list[Change], reason: str) -> None:
    changes, reasons = resolved([*enumerate(batch)], {1: FEATURE}, KNOWN, there)
    (number,) = reasons
    assert batch[number].op == SET
    assert reasons[number].startswith(reason)
    assert [values for each in changes.values() for values in each.values.values()] in (
        [],
        [FORGOTTEN],
    )
