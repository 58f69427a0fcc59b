"""A category's exact neighbour table, from which products are removed and to which they are added.

A list holds an item's nearest others by (distance in float32, item), as `exact_neighbours` makes it.
There is one right list; a list may be shorter, and is then its beginning. Removing an item makes lists
shorter. A new item enters where it comes before a list's last; where it comes after, other items that
the list does not know may be nearer, so it stays out. A list that gets shorter than what is served is
rebuilt by comparing its item with all others.

So any sequence of changes gives the neighbours that a table built from the remaining products has.
"""

from collections.abc import Iterator

import numpy as np

from lookalike.release.arrays import Distances, Float64, Items, Positions
from lookalike_build.indexing.rows import Comparison
from lookalike_build.indexing.unit_vectors import furthest
from lookalike_build.publishing.category import NeighbourTable
from lookalike_build.publishing.ids import Ids

N_SPARE = 24
"""How many neighbours a list may have beyond those served: removals use these up before a rebuild."""
_AT_ONCE = 32


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
    """The lists of the items `kept`, whose new numbers are `stay`, without the items `gone`.

    A list closes up and ends with infinite distances; then its items get their new numbers. Example:
    of items 0 to 3, item 1 is removed, and a new product becomes item 0. Then `kept` is [0 2 3],
    `stay` is [1 2 3], and the list of item 3, [1 0 2], closes up to [0 2 1], of which the last is at
    infinity, and becomes [1 2 .].
    """
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
    """The lists of a table that is being changed.

    The first `known` entries of a list are right, and the distances after them infinite. A new item's
    squared distances from all others are known but for an `error`, so they only tell which items need
    an exact comparison.
    """

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
        """Build the lists of the new items, and put these into the lists of those that stay."""
        n_others = stay.size - 1
        for item, squared, error in self._compared(new):
            self._build(item, squared, error)
            self._insert(item, squared[stay], error, stay, n_others)
            n_others += 1

    def refill(self, positions: Positions) -> None:
        """Rebuild those lists that hold less than is served."""
        for item, squared, error in self._compared(positions[self._known[positions] < self.k]):
            self._build(item, squared, error)

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
        return self._comparison.unit_vectors.distances(int(self.rows[item]), rows)

    def _build(self, item: int, squared: Float64, error: float) -> None:
        """Build an item's list.

        The `width` nearest by measure are in truth at most the width-th measure and `error` away, and
        `furthest` by their distances as the table has them. Whoever is as near by these is at most
        `furthest` of that away in truth, and `error` more by measure. Example: for width 1 and error
        0.01, squared distances measured as 0.50, 0.515 and 0.53 may in truth be 0.51, 0.505 and 0.52.
        The second is the nearest; the third cannot be.
        """
        width = self._width
        if width == 0:
            return
        squared[item] = np.inf
        last = np.sqrt(max(0, np.partition(squared, width - 1)[width - 1] + error))
        candidates = np.flatnonzero(squared <= np.square(furthest(furthest(last))) + error)
        distances = self._exact(item, candidates)
        nearest = np.argsort(distances, kind="stable")[:width]
        self._items[item, :width] = candidates[nearest]
        self._distances[item, :width] = distances[nearest]
        self._known[item] = width

    def _insert(
        self, item: int, squared: Float64, error: float, stay: Positions, n_others: int
    ) -> None:
        """Put an item into the lists that it belongs in; each of `stay` has n_others others so far."""
        near = stay[squared <= self._furthest(stay, n_others) + error]
        distances = self._exact(item, near)
        ranks = self._ranks(near, item, distances)
        fits = ranks < self._open_ranks(near, n_others)
        self._put(item, near[fits], ranks[fits], distances[fits])

    def _furthest(self, lists: Positions, n_others: int) -> Float64:
        """The squared distance beyond which each of the lists takes no further item.

        An item may come before a list's last if its distance as the table has it is no larger. A list
        of all others takes any item; a list that knows nothing takes none.
        """
        known = self._known[lists]
        last = self._distances[lists, np.maximum(known - 1, 0)].astype(np.float64)
        squared: Float64 = np.square(furthest(last))
        squared[known == 0] = -np.inf
        squared[known == n_others] = np.inf
        return squared

    def _ranks(self, lists: Positions, item: int, distances: Distances) -> Positions:
        """How many entries of each list come before the item, which is at these distances."""
        theirs, own = self._distances[lists], distances[:, None]
        before = (theirs < own) | ((theirs == own) & (self._items[lists] < item))
        ranks: Positions = before.sum(axis=1)
        return ranks

    def _open_ranks(self, lists: Positions, n_others: int) -> Positions:
        """The rank from which on each of the lists is closed.

        What comes after the last known entry may come after items that the list does not know; only a
        list of all others can be appended to. Example: of 9 others a list knows the nearest 3. Then
        it takes a new item at the ranks 0 to 2, and at rank 3 one of the other 6 may be nearer.
        """
        known = self._known[lists]
        return np.where(known == n_others, self._items.shape[1], known)

    def _put(self, item: int, lists: Positions, ranks: Positions, distances: Distances) -> None:
        """Put the item into each of the lists at its rank; what follows moves on, the last one out.

        Example: item 5 comes into [4 7 9] at rank 1. The columns [0 1 1] give [4 7 7], and writing 5
        at rank 1 gives [4 5 7].
        """
        width = self._items.shape[1]
        columns = np.arange(width)
        sources = columns - (columns > ranks[:, None])
        for array, value in ((self._items, item), (self._distances, distances)):
            moved = array[lists[:, None], sources]
            moved[np.arange(lists.size), ranks] = value
            array[lists] = moved
        self._known[lists] = np.minimum(self._known[lists] + 1, width)
