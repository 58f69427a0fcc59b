"""Attributes in bulk: a release with other columns, whose lists are those of what is visible."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lookalike.journal import SET, Change, Journal
from lookalike.release.attributes import HIDDEN, Values
from lookalike.release.ids import Id
from lookalike.release.manifest import Applied
from lookalike.release.root import ReleaseRoot
from lookalike_build.indexing.attributes import (
    AttributesError,
)
from lookalike_build.indexing.neighbours import exact_neighbours
from support import (
    ATTRIBUTES,
    change,
    give,
    integer_catalogue,
    make_slim,
    publish,
    random_features,
    values_in,
)

SHOP: Mapping[Id, Mapping[Id, Values]] = {
    1: {
        one: {"price": one / 2, "in_stock": one % 2 == 0, "title": f"Ü {one % 5}"}
        for one in range(100, 150)
    },
    40: {5000: {"price": -1.5}, 5010: {"title": "z"}, 5020: {}},
}


def values_of(root: ReleaseRoot) -> dict[Id, dict[Id, Values]]:
    """By category, the products that have values."""
    found = values_in(root.open(root.chosen()))
    return {
        category: {one: each for one, each in products.items() if each}
        for category, products in found.items()
    }


@pytest.fixture
def root(tmp_path: Path) -> ReleaseRoot:
    return publish(tmp_path / "root", integer_catalogue(), tmp_path / "features", neighbours=20)


def test_products_have_the_values_that_are_given_and_no_others(root: ReleaseRoot) -> None:
    before = root.manifest(root.chosen())
    published, n_unknown = give(root, {**SHOP, 2: {99: {"price": 1}}, 88: {1: {}, 2: {}}})
    assert (published.new, n_unknown) == (True, 3)
    expected: dict[Id, Any] = {1: SHOP[1], 2: {}, 3: {}, 40: {5000: {"price": -1.5}}}
    expected[40][5010] = {"title": "z"}
    assert values_of(root) == expected
    manifest = root.manifest(root.chosen())
    assert manifest.attributes == ATTRIBUTES
    assert [dict(one.attributes) for one in manifest.categories] == [
        ATTRIBUTES,
        {},
        {},
        {"price": "number", "title": "text"},
    ]
    for was, now in zip(before.categories, manifest.categories, strict=True):
        assert was.digest == now.digest
        assert was.made_with == now.made_with
    list(root.check(root.chosen()))


def test_what_is_not_named_stays_and_what_is_dropped_vanishes(root: ReleaseRoot) -> None:
    give(root, SHOP)
    give(root, {1: {100: {"price": "dear", "seller": 7}}}, {"price": "text", "seller": "number"})
    manifest = root.manifest(root.chosen())
    assert [*manifest.attributes.items()] == [
        ("price", "text"),
        ("in_stock", "flag"),
        ("title", "text"),
        ("seller", "number"),
    ]
    values = values_of(root)
    assert values[1][100] == {"price": "dear", "in_stock": True, "title": "Ü 0", "seller": 7}
    assert values[1][101] == {"in_stock": False, "title": "Ü 1"}
    assert values[40] == {5010: {"title": "z"}}
    give(root, {}, {}, dropped=["title", "in_stock", "price"])
    assert values_of(root) == {1: {100: {"seller": 7}}, 2: {}, 3: {}, 40: {}}
    assert root.manifest(root.chosen()).attributes == {"seller": "number"}


def test_where_nothing_differs_the_release_stays(root: ReleaseRoot) -> None:
    release = give(root, SHOP).published.release
    again = give(root, {each: dict(reversed([*one.items()])) for each, one in SHOP.items()})
    assert (again.published.release, again.published.new) == (release, False)


@pytest.mark.parametrize("n_hidden", [3, 150])
def test_lists_are_those_of_the_products_that_are_not_hidden(
    root: ReleaseRoot, n_hidden: int
) -> None:
    """Of a few the lists that name them change; where they are many the table is rebuilt."""
    ids = list(range(5000, 8000, 10))
    hidden = ids[::2][:n_hidden]
    give(root, {40: {one: {HIDDEN: True} for one in hidden}}, {HIDDEN: "flag"})
    release = root.open(root.chosen())
    category = release.categories[40]
    is_hidden = np.isin(ids, hidden)
    items, distances = exact_neighbours(random_features(300, 4), 20, hidden=is_hidden)
    for item in range(300):
        found = category.listed(item, 20)
        np.testing.assert_array_equal(found[0], items[item])
        np.testing.assert_array_equal(found[1], distances[item])
    assert category.entry.n_hidden == n_hidden
    give(root, {}, {}, dropped=[HIDDEN])
    shown = root.manifest(root.chosen())
    assert [one.n_hidden for one in shown.categories] == [0, 0, 0, 0]
    assert shown.attributes == {}


def test_products_that_came_and_left_live_are_given_values_too(root: ReleaseRoot) -> None:
    feature = random_features(1, 9)[0]
    change(root, {40: {5000: None, 5: feature, 5010: feature}})
    give(root, {40: {5: {"price": 1}, 5000: {"price": 2}, 5010: {"price": 3}, 7990: {"price": 4}}})
    assert values_of(root)[40] == {5: {"price": 1}, 5010: {"price": 3}, 7990: {"price": 4}}


def test_what_was_set_live_since_stays(root: ReleaseRoot) -> None:
    give(root, SHOP)
    values: dict[Id, Values] = {100: {"price": 7.0, "in_stock": None}, 159: {"title": "new"}}
    with closing(Journal(root.journal)) as journal:
        numbers = journal.add(Change(SET, 1, one, values=each) for one, each in values.items())
        journal_id = journal.id
    change(root, {}, Applied(journal_id, numbers[-1]), {1: values})
    give(root, SHOP, as_of=1.0)
    assert values_of(root)[1] == {
        **SHOP[1],
        100: {"price": 7.0, "title": "Ü 0"},
        159: {"title": "new"},
    }
    give(root, SHOP, {**ATTRIBUTES, "price": "number", "title": "text"})
    assert values_of(root)[1] == SHOP[1]


def test_a_release_that_cannot_have_them_is_named(root: ReleaseRoot) -> None:
    with pytest.raises(AttributesError, match="integer product ids, the attributes of category 1"):
        give(root, {1: {"a": {"price": 1}}})
    with pytest.raises(AttributesError, match="would have 33 attributes, at most 32"):
        give(root, {}, {f"a{number}": "flag" for number in range(33)})
    make_slim(root)
    with pytest.raises(AttributesError, match="is a slim copy"):
        give(root, SHOP)
