"""A category that is read, changed and written again is the one that its products make from nothing."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lookalike.release.attributes import HIDDEN
from lookalike.release.files import MANIFEST
from lookalike.release.ids import Id
from lookalike.release.manifest import Manifest
from lookalike_build.indexing.category import IndexSettings
from lookalike_build.indexing.live import (
    FeatureChanges,
    LiveCategory,
    NewCategory,
    ValueChanges,
    index_new,
    write_changed,
)
from lookalike_build.indexing.neighbours import exact_neighbours
from lookalike_build.indexing.table import widths
from lookalike_build.publishing.category import CategoryWriter, Written
from support import MODEL, N_DIMS, Features, random_features, updates_beside

SETTINGS = IndexSettings(n_trees=2, neighbours=5)

Hiding = Mapping[Id, bool]


def _values(hiding: Hiding) -> ValueChanges:
    return {one: {HIDDEN: is_hidden} for one, is_hidden in hiding.items()}


@dataclass
class Shop:
    """A category's products and which are hidden, and the category in files that is to be theirs."""

    folder: Path
    products: dict[Id, Features]
    hidden: set[Id] = field(default_factory=set)
    n_written: int = 0

    def write(self, write: Callable[[CategoryWriter], Written]) -> None:
        """Write the category's next state, and hold what is read of it against the products."""
        self.n_written += 1
        folder = self.folder / str(self.n_written)
        entry = write(CategoryWriter(1, folder, None)).entry
        assert (entry.n_items, entry.n_hidden) == (len(self.products), len(self.hidden))
        manifest = Manifest(
            "x", MODEL, N_DIMS, "integer", "integer", (entry,), None, None, entry.attributes
        )
        (self.folder / MANIFEST).write_text(manifest.to_json())
        Manifest.read(self.folder)
        self.live = LiveCategory.read(folder, entry)
        self.check(self.live)

    def change(self, changes: FeatureChanges, hiding: Hiding) -> LiveCategory | NewCategory | None:
        """What becomes of the category; the products are changed too."""
        after = {**self.products, **changes}
        self.products = {one: feature for one, feature in after.items() if feature is not None}
        self.hidden = {one for one in self.products if hiding.get(one, one in self.hidden)}
        return self.live.with_changes(changes, _values(hiding))

    def check(self, live: LiveCategory) -> None:
        ids = np.array(sorted(self.products, key=int))
        hidden = np.isin(ids, [*self.hidden])
        k, width = widths(int((~hidden).sum()), SETTINGS.neighbours)
        features = np.stack([self.products[one] for one in ids.tolist()])
        items, distances = exact_neighbours(features, width, hidden=hidden)
        table = live.table.folded()
        np.testing.assert_array_equal(table.product_ids, ids)
        np.testing.assert_array_equal(table.hidden, hidden)
        assert (table.k, table.items.shape) == (k, items.shape)
        known = np.isfinite(table.distances)
        assert known[:, :k].all()
        np.testing.assert_array_equal(table.items[known], items[known])
        np.testing.assert_array_equal(table.distances[known], distances[known])


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Sixty products in a category, none hidden."""
    shop = Shop(tmp_path, dict(enumerate(random_features(60, 1))))
    shop.write(partial(index_new, NewCategory(shop.products), SETTINGS))
    return shop


@pytest.mark.parametrize("written", [nullcontext, updates_beside])
def test_any_sequence_of_changes_leads_to_the_category_made_from_nothing(
    shop: Shop, written: Callable[[], AbstractContextManager[None]]
) -> None:
    """Written whole or as updates; at times the table is rewritten, or the index rebuilt."""
    random, features = np.random.default_rng(1), random_features(40, 2)
    n_updates = 0
    for step in range(20):
        some = random.integers(0, 90, 6).tolist()
        changes = {one: None if one % 3 == 0 else features[step] for one in some[:3]}
        hiding = dict.fromkeys(random.integers(0, 90, 8).tolist(), step % 3 != 2)
        if step == 13:
            hiding = dict.fromkeys(range(90), True)
        after = shop.change(changes, hiding)
        assert after is not None
        with written():
            shop.write(partial(write_changed, after, SETTINGS))
        n_updates += shop.live.entry.updates is not None
        if step % 5 == 4:
            shop.write(shop.live.rebased if step % 2 else shop.live.folded)
    assert (n_updates == 0) == (written is nullcontext)


def test_a_product_with_another_photo_stays_hidden(shop: Shop) -> None:
    another, third = random_features(2, 3)
    shop.hidden = {7}
    live = shop.live.with_changes({}, _values({7: True}))
    assert isinstance(live, LiveCategory)
    cases: list[tuple[Hiding, bool]] = [({}, True), ({7: False}, False)]
    for hiding, expected in cases:
        after = live.with_changes({7: another, 100: third}, _values(hiding))
        assert isinstance(after, LiveCategory)
        (item, new), known = after.table.items_of(np.array([7, 100]))
        assert known.all()
        assert (after.table.hidden[item], after.table.hidden[new]) == (expected, False)


def test_what_is_so_already_changes_nothing(shop: Shop) -> None:
    nothing: ValueChanges = {1: {HIDDEN: None}, 999: {HIDDEN: True}}
    assert shop.live.with_changes({}, nothing) is shop.live
    assert shop.live.with_changes({5: shop.products[5], 999: None}, nothing) is shop.live


def test_hiding_alone_changes_the_lists_that_name_the_product(shop: Shop) -> None:
    table = shop.live.table
    lists = table.lists(np.arange(60))
    names = ((lists.items == 3) & np.isfinite(lists.distances)).any(axis=1)
    after = shop.change({}, {3: True})
    assert isinstance(after, LiveCategory)
    assert after.changed is not None
    assert sorted(after.changed.tolist()) == np.flatnonzero(names).tolist()
    shop.check(after)


def test_so_few_visible_products_are_indexed_anew_with_what_is_hidden(shop: Shop) -> None:
    hiding: Hiding = dict.fromkeys([*range(10, 60), 70], True)
    new = shop.change({3: None, 70: random_features(1, 5)[0]}, hiding)
    assert isinstance(new, NewCategory)
    assert new.columns is not None
    assert new.columns.hidden.tolist() == [*range(9, 60)]  # items: 3 has left
    assert new.products.keys() == {*range(60), 70} - {3}
    shop.write(partial(index_new, new, SETTINGS))
    assert shop.live.entry.n_visible == 9


def test_what_was_hidden_during_a_rebuild_is_hidden_in_the_rebuilt_category(shop: Shop) -> None:
    def apply(changes: FeatureChanges, hiding: Hiding) -> LiveCategory:
        after = shop.change(changes, hiding)
        assert isinstance(after, LiveCategory)
        return after

    features = random_features(9, 4)
    shop.live = apply({}, {1: True, 2: True, 3: True, 4: True})
    before = shop.live
    shop.write(before.rebased)
    rebased, shop.live = shop.live, before
    shop.live = apply({2: None, 3: None, 4: None, 80: features[0]}, {1: False, 5: True, 80: True})
    shop.live = apply({3: features[1]}, {})  # came again: visible
    changes: FeatureChanges = {4: shop.products[6], 6: features[2]}
    hiding: Hiding = {7: True}
    values = {**shop.live.values_since(before), **_values(hiding)}
    after = rebased.with_changes({**shop.live.since(before), **changes}, values)
    apply(changes, hiding)
    assert isinstance(after, LiveCategory)
    assert shop.hidden == {5, 7, 80}
    shop.check(after)
