"""A table that is changed step by step is the one that its products make from nothing."""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lookalike_build.indexing import table as indexing_table
from lookalike_build.indexing.neighbours import exact_neighbours
from lookalike_build.indexing.projection import project
from lookalike_build.indexing.rows import Comparison, FeatureRows, FeatureStatistics
from lookalike_build.indexing.table import N_SPARE, Lists, LiveTable, changed, widths
from lookalike_build.publishing.category import NeighbourTable
from lookalike_build.publishing.ids import positions_of
from support import RANDOM_CASES, Features, random_features

N_DIMS = 6
MOST = 60

Products = dict[int, Features]
Step = dict[int, Features | None]
"""Products put, with their feature, and removed."""
Hiding = Mapping[int, bool]
"""Products, there or not, that are hidden or shown."""

NO_HIDING: Hiding = MappingProxyType({})


def from_nothing(
    products: Products, neighbours: int, hiding: Collection[int] = ()
) -> NeighbourTable:
    ids = np.array(sorted(products), np.int64)
    features = np.stack([products[one] for one in ids.tolist()])
    hidden = np.isin(ids, np.array(sorted(hiding), np.int64))
    k, width = widths(int((~hidden).sum()), neighbours)
    table = exact_neighbours(features, k, spare=width - k, hidden=hidden)
    return NeighbourTable(ids, np.arange(ids.size, dtype=np.uint32), *table, k, hidden)


def as_files_have_it(table: NeighbourTable) -> LiveTable:
    n, width = table.items.shape
    nothing = Lists(np.empty((0, width), np.uint32), np.empty((0, width), np.float32))
    files = table.items[:, : table.k], table.items[:, table.k :], table.distances
    left, places = np.zeros(n, np.bool_), np.full(n, -1)
    ids, rows, hidden = table.product_ids, table.rows, table.hidden
    return LiveTable(ids, rows, left, hidden, files, places, nothing)


def statistics_of(features: Features) -> FeatureStatistics:
    """What a release lets one know of features without reading them."""
    projection, items, lengths = project(features)
    return FeatureStatistics.of(lengths, projection, items.T)


class Changing:
    """A category's products, and its table, which only ever changes as long as its width stays."""

    def __init__(self, products: Products, neighbours: int) -> None:
        self.products = dict(products)
        self.neighbours = neighbours
        self.hidden: set[int] = set()
        self._begin()

    @property
    def table(self) -> NeighbourTable:
        """The table with all changes."""
        return self.live.folded()

    def _begin(self) -> None:
        table = from_nothing(self.products, self.neighbours, self.hidden)
        self.live = as_files_have_it(table)
        base = np.stack([self.products[one] for one in sorted(self.products)])
        self._features = FeatureRows(base, np.empty((0, base.shape[1]), np.float32))
        self._measured = statistics_of(base)
        self._ends = self.live.ends()

    def change(self, step: Step, hiding: Hiding = NO_HIDING) -> None:
        """Do what leaves at least one product."""
        new = {one: feature for one, feature in step.items() if feature is not None}
        if not new and not self.products.keys() - step.keys():
            return
        gone = np.array(sorted(step.keys() & self.products.keys()), np.int64)
        self.products = {one: self.products[one] for one in self.products.keys() - step.keys()}
        self.products |= new
        self.hidden = {one for one in self.products if hiding.get(one, one in self.hidden)}
        n_visible = len(self.products) - len(self.hidden)
        if widths(n_visible, self.neighbours) != (self.live.k, self.live.width):
            self._begin()
            return
        ids = np.array(sorted(new), np.int64)
        added = np.concatenate([self._features.added, *(new[one][None] for one in sorted(new))])
        self._features = self._features._replace(added=added)
        comparison = Comparison(self._features, self._measured)
        items, known = self.live.items_of(gone)
        assert known.all()
        before = self.live
        hidden = np.array([one in self.hidden for one in (*before.ids.tolist(), *ids.tolist())])
        after = changed(before, np.sort(items), ids, hidden, comparison, self._ends)
        self.live, self._ends = after.table, after.ends
        there = np.flatnonzero(~self.live.left)
        found = self.live.ends()
        np.testing.assert_array_equal(after.ends.n_known[there], found.n_known[there])
        np.testing.assert_array_equal(after.ends.last[there], found.last[there])
        others = np.setdiff1d(there, after.items)
        for lists, were in zip(self.live.lists(others), before.lists(others), strict=True):
            np.testing.assert_array_equal(lists, were)

    def check(self) -> None:
        """Hold the table against the one made from nothing."""
        table = self.table
        expected = from_nothing(self.products, self.neighbours, self.hidden)
        np.testing.assert_array_equal(table.product_ids, expected.product_ids)
        np.testing.assert_array_equal(table.hidden, expected.hidden)
        np.testing.assert_array_equal(
            self._features.of(table.rows.astype(np.intp)),
            np.stack([self.products[one] for one in table.product_ids.tolist()]),
        )
        assert (table.k, table.items.shape) == (expected.k, expected.items.shape)
        assert (table.items.dtype.str, table.distances.dtype.str) == ("<u4", "<f4")
        np.testing.assert_array_equal(table.items[:, : table.k], expected.items[:, : table.k])
        np.testing.assert_array_equal(
            table.distances[:, : table.k], expected.distances[:, : table.k]
        )
        known = np.isfinite(table.distances)
        assert (known[:, 1:] <= known[:, :-1]).all()  # nothing known after what is not
        both = known & np.isfinite(expected.distances)
        np.testing.assert_array_equal(table.items[both], expected.items[both])
        np.testing.assert_array_equal(table.distances[both], expected.distances[both])
        # What a table from nothing may leave out is right here too.
        width = table.items.shape[1]
        everything = from_nothing(self.products, len(self.products), self.hidden)
        np.testing.assert_array_equal(table.items[known], everything.items[:, :width][known])
        own = np.broadcast_to(np.arange(len(known))[:, None], known.shape)
        np.testing.assert_array_equal(table.items[~known], own[~known])


class World(NamedTuple):
    """Where features come from: `features` (MOST, N_DIMS), of which many products may have one."""

    features: Features
    neighbours: int


@st.composite
def worlds(draw: st.DrawFn) -> World:
    neighbours = draw(st.integers(1, 8))
    kind = draw(st.sampled_from(["coarse", "alike"]))
    if kind == "coarse":  # a few directions only: copies and ties
        small = st.tuples(*[st.integers(0, 2)] * N_DIMS).filter(any)
        values = draw(st.lists(small, min_size=1, max_size=12))
        features = np.array(values, np.float64)
    else:  # around one centre, where rounding is what tells them apart
        spread = 10.0 ** -draw(st.integers(0, 7))
        random = np.random.default_rng(draw(st.integers(0, 9)))
        features = 1 + random.random(N_DIMS) + spread * random.normal(size=(MOST, N_DIMS))
    return World(features.astype(np.float32), neighbours)


@settings(max_examples=80 * RANDOM_CASES)
@given(worlds(), st.data())
@pytest.mark.slow
def test_any_sequence_of_changes_leads_to_the_table_made_from_nothing(
    world: World, data: st.DataObject
) -> None:
    with mock.patch.object(indexing_table, "N_SPARE", data.draw(st.sampled_from([0, 3, 24]))):
        change_and_check(world, data)


def change_and_check(world: World, data: st.DataObject) -> None:
    product_ids = st.integers(0, MOST - 1)
    feature = st.integers(0, len(world.features) - 1).map(world.features.__getitem__)
    everything = st.booleans().map(lambda one: dict.fromkeys(range(MOST), one))
    hiding = st.dictionaries(product_ids, st.booleans(), max_size=12) | everything
    n_first = data.draw(st.integers(1, MOST))
    scattered = np.random.default_rng(data.draw(st.integers(0, 9))).permutation(MOST)[:n_first]
    changing = Changing(
        {one: world.features[one % len(world.features)] for one in scattered.tolist()},
        world.neighbours,
    )
    for _ in range(data.draw(st.integers(1, 8))):
        step: Step = data.draw(
            st.dictionaries(product_ids, st.none() | feature, min_size=1, max_size=12)
        )
        changing.change(step, data.draw(hiding))
        changing.check()


@pytest.mark.parametrize("spread", [1.0, 1e-4, 1e-5, 1e-6, 1e-7])
@pytest.mark.parametrize("n_dims", [4, 256])
def test_near_copies_around_one_centre(spread: float, n_dims: int) -> None:
    """Where distances are about as large as a float32 product's rounding of them."""
    random = np.random.default_rng(1)
    features = 1 + random.random(n_dims) + spread * random.normal(size=(300, n_dims))
    features = features.astype(np.float32)
    changing = Changing({one: features[one] for one in range(0, 200, 2)}, neighbours=10)
    for first in range(0, 100, 20):
        step: Step = {one: features[200 + first // 2 + one % 10] for one in range(first, first + 5)}
        step |= dict.fromkeys(range(first + 6, first + 14))
        changing.change(step)
        changing.check()


def test_a_vector_far_from_what_the_index_is_of() -> None:
    """The centre is the base's; what is added need not be near it."""
    random = np.random.default_rng(2)
    base = 1 + 1e-5 * random.normal(size=(40, 64))
    far = np.abs(random.normal(size=64)) + 1e-6 * random.normal(size=(40, 64))
    changing = Changing(dict(enumerate(base.astype(np.float32))), neighbours=5)
    changing.change(dict(enumerate(far.astype(np.float32), 100)))
    changing.check()
    changing.change(dict.fromkeys(range(0, 40, 2)))
    changing.check()


def test_ties_that_only_float32_sees_stand_by_item() -> None:
    """Seen from the centre nothing is rounded, and still float64 knows more than the table may."""
    turns = np.random.default_rng(3).normal(size=(90, 4))
    around = turns / np.linalg.norm(turns, axis=1)[:, None]
    features = np.concatenate([np.ones((90, 1)), 0.1 * around], axis=1).astype(np.float32)
    centre = np.eye(1, 5, dtype=np.float32)[0]
    changing = Changing({1000: centre}, neighbours=3)
    changing.change(dict(zip(range(0, 180, 4), features, strict=False)))
    changing.check()
    changing.change(dict(zip(range(1, 180, 4), features[45:], strict=True)))
    changing.check()
    distances = changing.table.distances[-1]
    assert np.unique(distances).size < distances.size
    changing.change(dict.fromkeys(changing.table.product_ids[changing.table.items[-1]].tolist()))
    changing.check()


def test_lengths_do_not_matter() -> None:
    features = random_features(60, 3) * np.logspace(-10, 10, 60, dtype=np.float32)[:, None]
    changing = Changing(dict(enumerate(features[:30])), neighbours=5)
    for one in range(30, 60, 3):
        changing.change({one: features[one], one + 1: features[one + 1], one - 30: None})
        changing.check()


@pytest.mark.parametrize("n_copies", [3, 40])
def test_copies_of_one_photo_come_and_go(n_copies: int) -> None:
    features = random_features(30, 4)
    changing = Changing(dict(enumerate(features)), neighbours=4)
    copies = {100 + one: features[7] for one in range(n_copies)}
    changing.change(copies)
    changing.check()
    changing.change({7: None})
    changing.check()
    # The lowest of the copies, which every list of theirs begins with, and some in between.
    changing.change(dict.fromkeys(range(100, 100 + n_copies - 1, 2)))
    changing.check()
    changing.change(dict.fromkeys(copies))
    changing.check()
    changing.change({7: features[7], 3: features[7]})
    changing.check()


def test_from_one_product_to_many_and_back() -> None:
    """The lists grow to k and its spares, and shrink with the category again."""
    features = random_features(50, 5)
    changing = Changing({25: features[25]}, neighbours=6)
    order = np.random.default_rng(5).permutation(50).tolist()
    for one in order:
        changing.change({one: features[one]})
        changing.check()
    for one in order[:-1]:
        changing.change({one: None})
        changing.check()
    assert changing.table.items.shape == (1, 0)
    changing.change({order[-1]: None, 99: features[0]})  # its only one gives way to another
    changing.check()


def test_all_at_once() -> None:
    features = random_features(80, 6)
    changing = Changing(dict(enumerate(features[:40])), neighbours=5)
    changing.change(dict(enumerate(features[40:])))  # every product with another photo
    changing.check()
    changing.change(dict.fromkeys(range(39)) | {100: features[0], 101: features[1]})
    changing.check()


def test_a_hub_in_all_lists_goes_and_comes_back() -> None:
    random = np.random.default_rng(7)
    around = 1 + 0.3 * np.eye(60)
    hub = np.ones(60, np.float32)
    features = (around + 1e-3 * random.random(around.shape)).astype(np.float32)
    changing = Changing({one: features[one] for one in range(60)}, neighbours=3)
    steps: list[Step] = [{30: None}, {100: hub}, {100: None}, {30: features[30]}]
    for step in steps:
        changing.change(step)
        changing.check()
    changing.change({100: hub})
    (place,), _ = positions_of(changing.table.product_ids, np.array([100]))
    assert (changing.table.items[:place, 0] == place).all()


@pytest.mark.parametrize(("at_once", "hide"), [(1, False), (7, False), (7, True)])
def test_lists_whose_spares_are_used_up_are_made_anew(at_once: int, hide: bool) -> None:
    n, neighbours = 3 * N_SPARE, 4
    changing = Changing(dict(enumerate(random_features(n, 8))), neighbours)
    order = np.random.default_rng(8).permutation(n).tolist()
    shortest = neighbours + N_SPARE
    refilled = False
    for first in range(0, n - at_once, at_once):
        known_before = np.isfinite(changing.table.distances).sum(axis=1).min()
        some = order[first : first + at_once]
        changing.change({} if hide else dict.fromkeys(some), dict.fromkeys(some, True))
        changing.check()
        known = np.isfinite(changing.table.distances).sum(axis=1)
        shortest = min(shortest, int(known.min()))
        refilled = refilled or bool(known.max() > known_before)
    assert refilled
    assert shortest < neighbours + N_SPARE


def test_products_are_hidden_until_none_is_visible_and_shown_again() -> None:
    n, at_once = 36, 3
    changing = Changing(dict(enumerate(random_features(n, 10))), neighbours=4)
    order = np.random.default_rng(10).permutation(n).tolist()
    for is_hidden in (True, False):
        for first in range(0, n, at_once):
            changing.change({}, dict.fromkeys(order[first : first + at_once], is_hidden))
            changing.check()
    assert not changing.table.hidden.any()


def test_where_all_are_hidden_products_still_come_and_go() -> None:
    features = random_features(40, 11)
    changing = Changing(dict(enumerate(features[:10])), neighbours=4)
    changing.change({}, dict.fromkeys(range(10), True))
    assert changing.table.items.shape == (10, 0)
    changing.change({3: features[20], 4: None, 50: features[21]}, {50: True})
    changing.check()
    assert changing.table.hidden.all()
    changing.change({3: None, 60: features[22]})  # one is visible, in all other lists
    changing.check()
    changing.change(dict(enumerate(features[23:], 70)), {5: False, 60: True})
    changing.check()


def test_hidden_products_change_and_go_and_new_ones_are_hidden() -> None:
    features = random_features(90, 12)
    changing = Changing(dict(enumerate(features[:60])), neighbours=5)
    steps: list[tuple[Step, Hiding]] = [
        ({}, dict.fromkeys(range(0, 60, 3), True)),
        ({3: features[70], 4: features[71], 6: None, 7: None}, {}),
        ({80: features[3], 81: features[74], 9: features[75]}, {80: True, 9: False, 10: True}),
        ({6: features[6], 7: features[7]}, {}),  # came again: visible
        ({12: features[76], 13: features[77]}, {13: True, 80: False, 999: True}),
        ({}, dict.fromkeys(range(60), False)),
    ]
    for step, hiding in steps:
        changing.change(step, hiding)
        changing.check()


@pytest.mark.parametrize("n_copies", [3, 40])
def test_copies_of_one_photo_are_hidden_and_shown(n_copies: int) -> None:
    features = random_features(60, 4)
    copies = range(100, 100 + n_copies)
    products = dict(enumerate(features)) | dict.fromkeys(copies, features[7])
    changing = Changing(products, neighbours=4)
    for hidden in (copies[::2], [7], copies, range(20), [*copies[1:], *range(20)]):
        changing.change({}, dict.fromkeys(products, False) | dict.fromkeys(hidden, True))
        changing.check()


def test_only_lists_that_are_touched_are_changed() -> None:
    changing = Changing(dict(enumerate(random_features(400, 13))), neighbours=3)
    listed = changing.live.lists(np.arange(400)).items
    for is_hidden, expected in ((True, (listed == 9).any(axis=1)), (False, None)):
        before = changing.live
        changing.change({}, {9: is_hidden})
        changing.check()
        touched = np.flatnonzero(changing.live.places != before.places)
        if expected is not None:
            np.testing.assert_array_equal(touched, np.flatnonzero(expected))
        assert touched.size < 200


def test_nothing_is_a_change_that_leaves_all_as_it_is() -> None:
    changing = Changing(dict(enumerate(random_features(20, 9))), neighbours=3)
    before = changing.table
    changing.change({500: None})
    for one, other in zip(before, changing.table, strict=True):
        np.testing.assert_array_equal(one, other)


def test_where_a_product_is_or_would_be() -> None:
    table = from_nothing(dict(zip([5, 7, 9], random_features(3, 1), strict=True)), 2)
    places, known = positions_of(table.product_ids, np.array([4, 5, 8, 9, 10]))
    assert (places.tolist(), known.tolist()) == ([0, 0, 2, 2, 3], [False, True, False, True, False])


@given(st.integers(1, 500), st.integers(1, 200))
@example(1, 1)
def test_widths_are_what_a_category_of_that_size_can_fill(n_items: int, neighbours: int) -> None:
    k, width = widths(n_items, neighbours)
    assert widths(0, neighbours) == (0, 0)
    assert k <= width < n_items
    assert k == neighbours or k == n_items - 1
    assert width == k + N_SPARE or width == n_items - 1
