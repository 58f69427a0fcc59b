"""A category's exact neighbour table, from which products are removed and to which they are added.

A list holds an item's nearest others by (distance in float32, item), as `exact_neighbours` makes it:
so far as it goes, it is the one right list. Removing keeps it right and makes it shorter; adding keeps
it right where the new item comes before the list's last, and tells nothing where it comes after. Where
less is left than is served, the list is made anew by comparing the item with all others.

So any sequence of changes leads to what a table made of the remaining products would say.
"""

from collections.abc import Iterator

import numpy as np

from lookalike.release.arrays import Distances, Float64, Items, Positions
from lookalike_build.indexing.rows import Comparison
from lookalike_build.publishing.category import NeighbourTable
from lookalike_build.publishing.ids import Ids

N_SPARE = 24
"""How many more neighbours than are served a list may have: what removals use up before a list has to
be made anew."""
_AT_ONCE = 32
_TIES = 1 + 8 * 2.0**-24
"""Squared distances that are no further apart may be the same distance in float32."""


def widths(n_items: int, neighbours: int) -> tuple[int, int]:
    """k and the width of a table of so many items, of which at most `neighbours` are to be served."""
    return min(neighbours, n_items - 1), min(neighbours + N_SPARE, n_items - 1)


def changed(
    table: NeighbourTable,
    gone: Positions,
    product_ids: Ids,
    rows: Items,
    comparison: Comparison,
    neighbours: int,
) -> NeighbourTable:
    """The table without the items `gone` and with new products (n,), whose features are in `rows`.

    New product ids are ascending, and none is one of those that stay. At least one item is left.
    """
    kept = np.delete(np.arange(table.rows.size), gone)
    ids = np.concatenate([table.product_ids[kept], product_ids])
    ids.sort()
    lists = _Lists(
        comparison,
        np.zeros(ids.size, np.uint32),
        *widths(ids.size, neighbours),
        table.items.shape[1],
    )
    stay, new = ids.searchsorted(table.product_ids[kept]), ids.searchsorted(product_ids)
    lists.rows[stay], lists.rows[new] = table.rows[kept], rows
    lists.take(stay, *_without(table, kept, gone, stay))
    lists.add(new, stay)
    lists.refill(stay)
    return NeighbourTable(ids, lists.rows, *lists.finished(), lists.k)


def _without(
    table: NeighbourTable, kept: Positions, gone: Positions, stay: Positions
) -> tuple[Items, Distances]:
    """The lists of the items `kept` without those `gone`, in the numbers that these now have."""
    is_gone = np.zeros(table.rows.size, np.bool_)
    is_gone[gone] = True
    items, distances = table.items[kept], table.distances[kept]
    shorter = np.flatnonzero(is_gone[items].any(axis=1))
    short_items, short_distances = items[shorter], distances[shorter]
    short_distances[is_gone[short_items]] = np.inf
    order = np.argsort(short_distances, axis=1, kind="stable")
    items[shorter] = np.take_along_axis(short_items, order, axis=1)
    distances[shorter] = np.take_along_axis(short_distances, order, axis=1)
    number = np.zeros(table.rows.size, np.uint32)
    number[kept] = stay
    return number[items], distances


class _Lists:
    """The lists of a table that is being changed: `known` of each are right, what follows is not."""

    def __init__(
        self, comparison: Comparison, rows: Items, k: int, width: int, width_before: int
    ) -> None:
        self.k = k
        self.rows = rows
        self._comparison = comparison
        self._width = width
        n, most = rows.size, max(width, width_before)
        self._items = np.zeros((n, most), np.uint32)
        self._distances = np.full((n, most), np.inf, np.float32)
        self._known = np.zeros(n, np.intp)

    def take(self, positions: Positions, items: Items, distances: Distances) -> None:
        """Take lists over; they may be narrower."""
        width = items.shape[1]
        self._items[positions, :width], self._distances[positions, :width] = items, distances
        self._known[positions] = np.isfinite(distances).sum(axis=1)

    def add(self, new: Positions, stay: Positions) -> None:
        """Make the lists of the new items, and put these into the lists of those that stay."""
        n_others = stay.size - 1
        for item, squared, error in self._compared(new):
            self._make(item, squared, error)
            self._insert(item, squared[stay], error, stay, n_others)
            n_others += 1

    def refill(self, positions: Positions) -> None:
        """Make those lists anew that hold less than is served."""
        for item, squared, error in self._compared(positions[self._known[positions] < self.k]):
            self._make(item, squared, error)

    def finished(self) -> tuple[Items, Distances]:
        """Items and distances, (n_items, width) each."""
        items, distances = self._items[:, : self._width], self._distances[:, : self._width]
        own = np.arange(self.rows.size, dtype=np.uint32)[:, None]
        return np.where(np.isfinite(distances), items, own), np.ascontiguousarray(distances)

    def _compared(self, items: Positions) -> Iterator[tuple[int, Float64, float]]:
        """Each of the items, its squared distance from all (n_items,), and by how much that is off."""
        for first in range(0, items.size, _AT_ONCE):
            some = items[first : first + _AT_ONCE]
            squared, errors = self._comparison.squared_distances(self.rows[some].astype(np.intp))
            for item, row, error in zip(some.tolist(), squared, errors.tolist(), strict=True):
                yield item, row[self.rows], error

    def _exact(self, item: int, others: Positions) -> Distances:
        rows = self.rows[others].astype(np.intp)
        return self._comparison.directions.distances(int(self.rows[item]), rows)

    def _make(self, item: int, squared: Float64, error: float) -> None:
        width = self._width
        if width == 0:
            return
        squared[item] = np.inf
        furthest = np.partition(squared, width - 1)[width - 1]
        candidates = np.flatnonzero(squared <= (furthest + 2 * error) * _TIES)
        distances = self._exact(item, candidates)
        nearest = np.argsort(distances, kind="stable")[:width]
        self._items[item, :width] = candidates[nearest]
        self._distances[item, :width] = distances[nearest]
        self._known[item] = width

    def _insert(
        self, item: int, squared: Float64, error: float, stay: Positions, n_others: int
    ) -> None:
        """Put an item into the lists that it belongs in; each of `stay` has n_others others so far."""
        known = self._known[stay]
        last = self._distances[stay, np.maximum(known - 1, 0)].astype(np.float64)
        # A list of all others takes whatever comes; one of which nothing is known nothing.
        last[known == 0] = -1
        last[known == n_others] = np.inf
        near = stay[squared <= np.square(last) * np.sign(last) * _TIES + error]
        distances = self._exact(item, near)
        lists, lists_distances = self._items[near], self._distances[near]
        before = (lists_distances < distances[:, None]) | (
            (lists_distances == distances[:, None]) & (lists < item)
        )
        position = before.sum(axis=1)
        known = self._known[near]
        fits = ((position < known) | (known == n_others)) & (position < lists.shape[1])
        near, position, distances = near[fits], position[fits], distances[fits]
        lists, lists_distances = lists[fits], lists_distances[fits]
        column = np.arange(lists.shape[1])
        source = np.maximum(column - (column > position[:, None]), 0)
        lists = np.take_along_axis(lists, source, axis=1)
        lists_distances = np.take_along_axis(lists_distances, source, axis=1)
        at = np.arange(near.size)
        lists[at, position], lists_distances[at, position] = item, distances
        self._items[near], self._distances[near] = lists, lists_distances
        self._known[near] = np.minimum(self._known[near] + 1, lists.shape[1])
