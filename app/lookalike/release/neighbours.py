"""Neighbours: the items nearest to an item or to a vector, as far as a selection has them.

An item's list in the table is exact and comes first. Where it does not have enough that the selection
has, all items of the category that it has are searched: ranked exactly where they are few, else the
best candidates by their projections. The selection is made before the search, so an answer is full
wherever there are enough.

What is pinned in the answers to an item comes before its neighbours, if the selection has it, however
far away it is; what is banned there is in none.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from lookalike.release.arrays import Distances, Flags, Float64, Items
from lookalike.release.category import Category, within
from lookalike.release.ids import Id
from lookalike.release.manifest import RANDOM_PERCENTS, CategoryEntry
from lookalike.release.rules import ProductRules
from lookalike.release.selection import EVERYTHING, PHOTO, Selection
from lookalike.release.vectors import VectorIndex

Searching = Callable[[], AbstractContextManager[object]]
"""Called for each search beyond the table, which is made within what it returns; it may raise."""
Found = tuple[Items, Distances]

_MOST_CANDIDATES = 8192
"""How many candidates a search ranks at most, to find enough that are distinct."""


class NotKnown(Exception):  # noqa: N818
    """The category lacks what the selection needs; the text says what to do."""


def nearest(
    category: Category,
    item: int,
    n: int,
    selection: Selection = EVERYTHING,
    searching: Searching = nullcontext,
    measured: bool = False,
) -> Found:
    """The `n` items nearest to `item` that `selection` has, without itself, and their distances.

    What is pinned comes first, then the others, nearest first. There are fewer only where the category
    has no more; a slim copy has only the table. The distances of what is pinned are NaN unless they are
    to be `measured`, and where they are not known, in a slim copy. NotKnown if the release was made by
    a version that did not measure what the selection asks for.
    """
    most = _most_distance(category.entry, selection)
    rules = _rules_for(category, item)
    if rules is None and selection.is_plain:
        with searching() if category.is_beyond(n) else nullcontext():
            return category.nearest(item, n, most)
    picker = _Picker(category, selection, item, rules)
    if rules is None:
        return _picked(picker, item, n, most, searching)
    pins = picker.pins(n)
    items, distances = _picked(picker, item, n - pins.size, most, searching)
    if not pins.size:
        return items, distances
    far = _apart(category, item, pins) if measured else np.full(pins.size, np.nan, np.float32)
    return np.append(pins, items), np.append(far, distances)


def first_that_meet(category: Category, item: int, n: int, selection: Selection) -> Items | None:
    """The first `n` items of an item's list in the table that meet the conditions; None if too few do.

    What `nearest` answers to most requests with conditions alone, in half of its time.
    """
    columns, items = category.columns, category.listed_items(item)
    meet = selection.resolved((columns, item)).of_items(columns, items)
    places = meet.nonzero()[0][:n]
    return items[places] if places.size == n else None


def pinned(category: Category, product_id: Id, n: int, selection: Selection) -> list[Id]:
    """The first `n` products that are pinned in answers to a product, which may be unknown, as far as
    `selection` has them."""
    if category.rules is None:
        return []
    rules = category.rules.for_product(product_id)
    return category.ids(_Picker(category, selection, category.item_of(product_id), rules).pins(n))


def _picked(picker: "_Picker", item: int, n: int, most: float, searching: Searching) -> Found:
    """The `n` items nearest to `item` that the picker takes, no further away than `most`."""
    category = picker.category
    listed = category.listed(item, category.entry.k)
    near = listed if most == math.inf else within(*listed, most)
    items, distances = picker.pick(*near, n)
    if items.size == n:
        return items, distances
    is_all = category.entry.k == category.entry.most_neighbours or len(near[0]) < len(listed[0])
    vectors = category.vectors
    if is_all or vectors is None:
        return items, distances
    with searching():
        has = picker.all_selected()
        has[listed[0]] = has[item] = False
        more = _searched(picker, vectors, vectors.unit_vector(item), has, n - items.size)
    # Copies of the last exact one may be rounded to less; distances must not decrease.
    further = np.maximum(more[1], listed[1][-1:]) if listed[1].size else more[1]
    return within(np.append(items, more[0]), np.append(distances, further), most)


def search(category: Category, vector: Float64, n: int, selection: Selection = EVERYTHING) -> Found:
    """About the `n` items nearest to a vector of length 1 that `selection` has, and their distances.

    Nearest first, without what is banned from all answers; nothing is pinned. ValueError for a slim
    copy, which has no index for vectors.
    """
    vectors, most = category.vectors, _most_distance(category.entry, selection)
    if vectors is None:
        raise ValueError("a slim copy has no index for vectors")
    bans = category.rules.own.bans if category.rules else None
    if selection.is_plain and not bans:
        return within(*vectors.search(vector, n), most)
    picker = _Picker(category, selection, rules=ProductRules((), bans) if bans else None)
    return within(*_searched(picker, vectors, vector, picker.all_selected(), n), most)


def _most_distance(entry: CategoryEntry, selection: Selection) -> float:
    """How far away the selection's products may be in this category."""
    if selection.closer_than is None:
        return selection.max_distance
    if not entry.random_distances and entry.same_photo is None:
        raise NotKnown("the distances of random pairs are not known in this release: index again")
    if not entry.random_distances:  # a single product has no neighbours
        return selection.max_distance
    percent = math.log(selection.closer_than)
    random = np.interp(percent, np.log(RANDOM_PERCENTS), entry.random_distances)
    return min(selection.max_distance, float(random))


def _rules_for(category: Category, item: int) -> ProductRules | None:
    """The rules for answers to an item; None if there are none."""
    if category.rules is None:
        return None
    (product_id,) = category.ids(np.array([item], np.uint32))
    return category.rules.for_product(product_id) if category.rules.concern(product_id) else None


def _apart(category: Category, item: int, others: Items) -> Distances:
    """The distances (n,) of others from an item, NaN where they are not known."""
    if category.vectors:
        return category.vectors.distances(item, others)
    known = dict(
        zip(*(each.tolist() for each in category.listed(item, category.entry.k)), strict=True)
    )
    return np.array([known.get(one, np.nan) for one in others.tolist()], np.float32)


def _searched(
    picker: "_Picker", vectors: VectorIndex, vector: Float64, has: Flags, n: int
) -> Found:
    """About the `n` items nearest to a vector that the picker takes, of those that there are, `has`
    (n_all,).

    If the first candidates are too much alike, as thousands of one photo are, others are looked at.
    """
    items, distances = np.empty(0, np.uint32), np.empty(0, np.float32)
    n_ranked = 0
    while True:
        found = vectors.best_of(vector, has, n)
        n_ranked += found[0].size
        picked = picker.pick(*found, n - items.size)
        items, distances = np.append(items, picked[0]), np.append(distances, picked[1])
        has[found[0]] = False
        if items.size >= n or not has.any() or n_ranked >= _MOST_CANDIDATES:
            order = np.argsort(distances, kind="stable")
            return items[order], distances[order]


class _Picker:
    """Picks those items that a selection has, nearest first, and remembers which it has picked.

    By `rules` some come first, and some not at all.
    """

    def __init__(
        self,
        category: Category,
        selection: Selection,
        item: int | None = None,
        rules: ProductRules | None = None,
    ) -> None:
        self.category = category
        self._of_product = item is not None
        columns = category.columns
        self._selection = selection.resolved(None if item is None else (columns, item))
        self._pins = rules.pins if rules else ()
        self._excluded: frozenset[Id] = rules.bans if rules else frozenset()
        distinct = selection.distinct
        if distinct is None:
            return
        self._n_of: dict[object, int] = {}
        self._shown: list[int] = []
        self._same_photo: set[int] = set()
        if distinct.of == PHOTO and category.same_photo is None:
            raise NotKnown("which photos are the same is not known in this release: index again")

    def pins(self, n: int) -> Items:
        """The first `n` pinned items that are selected; they are not picked again."""
        items = self._items(self._pins)
        items = items[np.isin(items, self.category.columns.hidden, invert=True)]
        items, _ = self.pick(items, np.full(items.size, np.inf, np.float32), n)
        self._excluded = self._excluded.union(self.category.ids(items))
        return items

    def _items(self, product_ids: Iterable[Id]) -> Items:
        """The items of those products that are there."""
        items = map(self.category.item_of, product_ids)
        return np.array([one for one in items if one is not None], np.uint32)

    def all_selected(self) -> Flags:
        """Which of all items (n_all,) meet the conditions and may be in answers."""
        selected = self._selection.of_all(self.category.columns) & self.category.visible()
        selected[self._items(self._excluded)] = False
        return selected

    def pick(self, items: Items, distances: Distances, n: int) -> Found:
        """The first `n` of the items that are selected, and their distances."""
        if self._excluded:
            stay = [one not in self._excluded for one in self.category.ids(items)]
            items, distances = items[stay], distances[stay]
        if self._selection.conditions:
            meet = self._selection.of_items(self.category.columns, items).nonzero()[0]
            if self._selection.distinct is None:
                meet = meet[:n]
            items, distances = items[meet], distances[meet]
        distinct = self._selection.distinct
        if distinct is None:
            return items[:n], distances[:n]
        if distinct.of != PHOTO:
            places = self._values(items, n)
        else:
            if self._of_product:
                own = distances <= np.float32(self.category.entry.same_photo or 0)
                self._same_photo.update(items[own].tolist())
            places = self._photos(items, n)
        return items[places], distances[places]

    def _values(self, items: Items, n: int) -> list[int]:
        """The places of the first `n` items that are distinct by their attribute's value."""
        of, most = self._selection.distinct or ("", 0)
        places: list[int] = []
        for place, item in enumerate(items.tolist()):
            if len(places) == n:
                break
            value = self.category.columns.value(of, item)
            seen = self._n_of.get(value, 0)
            if seen < most or value is None:
                self._n_of[value] = seen + 1
                places.append(place)
        return places

    def _photos(self, items: Items, n: int) -> list[int]:
        """The places of the first `n` items that show distinct photos."""
        category, same = self.category, self._same_photo
        for one in self._shown:
            same |= category.same_photos(one, items)
        places: list[int] = []
        for place, item in enumerate(items.tolist()):
            if len(places) == n:
                break
            if item not in same:
                places.append(place)
                if category.n_same_photo(item):
                    self._shown.append(item)
                    same |= category.same_photos(item, items)
        return places
