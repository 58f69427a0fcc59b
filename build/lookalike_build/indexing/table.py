"""A category's exact neighbour table, as products come and go, are hidden and shown.

A list holds an item's nearest others by (distance in float32, product id), as `exact_neighbours` makes
it. There is one right list; a list may be shorter, and is then its beginning. Removing an item makes
lists shorter. A new item enters where it comes before a list's last; where it comes after, other items
that the list does not know may be nearer, so it stays out. A list that gets shorter than what is served
is rebuilt by comparing its item with all others.

Lists hold visible items only. An item that is hidden leaves them as a removed one does, and keeps its
own; one that is shown enters them as a new one does.

So any sequence of changes gives the neighbours that a table built from the remaining products has.

Only the lists that a change touches are read and written again. An item keeps its number: one that
comes is counted on, and one that has left leaves its number behind.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from lookalike.release.arrays import Distances, Flags, Float64, Items, Positions
from lookalike_build.indexing.rows import Comparison
from lookalike_build.indexing.under_way import in_turn
from lookalike_build.indexing.unit_vectors import furthest
from lookalike_build.publishing.category import NeighbourTable
from lookalike_build.publishing.ids import Ids, positions_of

N_SPARE = 24
"""How many neighbours a list may have beyond those served: removals use these up before a rebuild."""
_COMPARED_BYTES = 2**25
"""How much memory the distances of the items that are compared at once take, or of a single one."""
_CHUNK = 65_536
_IN_TABLE = -1


def widths(n_visible: int, neighbours: int) -> tuple[int, int]:
    """k and the width of a table of so many visible items, of which at most `neighbours` are to be
    served; both are 0 where no item is visible."""
    most = max(0, n_visible - 1)
    return min(neighbours, most), min(neighbours + N_SPARE, most)


class Lists(NamedTuple):
    """Lists of items (n, width) and their distances (n, width): infinite, and the list's own item or
    anything else for a neighbour, from where on nothing is known."""

    items: Items
    distances: Distances


class ListEnds(NamedTuple):
    """Of each item's list: how many neighbours it knows, and the distance of the last of these."""

    n_known: Positions
    last: Distances


@dataclass(frozen=True)
class LiveTable:
    """A table as files have it, and the lists that have changed since.

    `ids` (n,) are the product ids of all items, those of the table's first, ascending; `rows` uint32
    (n,) the rows of their features; `left` (n,) says which have left, and `hidden` (n,) which of the
    others are in no list. `table` has the neighbours served, the spares and the distances of its items.
    `places` (n,) is where in `changed` an item's list is, or -1 if it is in the table.
    """

    ids: Ids
    rows: Items
    left: Flags
    hidden: Flags
    table: tuple[Items, Items, Distances]
    places: Positions
    changed: Lists

    @property
    def n_table(self) -> int:
        """How many items the table has."""
        return len(self.table[0])

    @property
    def k(self) -> int:
        """How many neighbours of each are served."""
        return int(self.table[0].shape[1])

    @property
    def width(self) -> int:
        """How many neighbours a list may have."""
        return int(self.table[2].shape[1])

    @property
    def n_items(self) -> int:
        """How many items have not left."""
        return int(np.count_nonzero(~self.left))

    @property
    def visible(self) -> Flags:
        """The items (n,) that may be in lists."""
        return ~(self.left | self.hidden)

    @property
    def order(self) -> Positions:
        """The items that have not left, by their product ids."""
        there = np.flatnonzero(~self.left)
        return np.asarray(there[np.argsort(self.ids[there])])

    def items_of(self, product_ids: Ids) -> tuple[Positions, Flags]:
        """The items of products (n,), and which of these are there."""
        items, known = positions_of(self.ids[: self.n_table], product_ids)
        items = np.minimum(items, self.n_table - 1)
        known &= ~self.left[items]
        later = self.n_table + np.flatnonzero(~self.left[self.n_table :])
        if later.size:
            later = later[np.argsort(self.ids[later])]
            positions, came = positions_of(self.ids[later], product_ids)
            items[came], known[came] = later[positions[came]], True
        return items, known

    def lists(self, items: Positions) -> Lists:
        """Copies of the lists of items."""
        found = Lists(
            np.empty((items.size, self.width), np.uint32),
            np.empty((items.size, self.width), np.float32),
        )
        places = self.places[items]
        here = places == _IN_TABLE
        neighbours, spares, distances = self.table
        found.items[here, : self.k] = neighbours[items[here]]
        found.items[here, self.k :] = spares[items[here]]
        found.distances[here] = distances[items[here]]
        for into, changed in zip(found, self.changed, strict=True):
            into[~here] = changed[places[~here]]
        return found

    def naming(self, gone: Flags) -> Positions:
        """The items that have not left whose lists name one that is `gone`."""
        naming = np.zeros(self.left.size, np.bool_)
        for first in range(0, self.n_table, _CHUNK):
            rows = slice(first, min(first + _CHUNK, self.n_table))
            for items in self.table[:2]:
                naming[rows] |= np.any(gone[items[rows]], axis=1)
        elsewhere = np.flatnonzero(self.places != _IN_TABLE)
        in_changed = np.asarray(gone[self.changed.items].any(axis=1))
        naming[elsewhere] = in_changed[self.places[elsewhere]]
        return np.flatnonzero(naming & ~self.left)

    def ends(self) -> ListEnds:
        """How far each list goes; those of the table are read through."""
        n = self.left.size
        ends = ListEnds(np.zeros(n, np.intp), np.zeros(n, np.float32))
        for first in range(0, self.n_table, _CHUNK):
            rows = slice(first, min(first + _CHUNK, self.n_table))
            _set_ends(ends, rows, self.table[2][rows])
        changed = np.flatnonzero(self.places != _IN_TABLE)
        _set_ends(ends, changed, self.changed.distances[self.places[changed]])
        return ends

    def folded(self) -> NeighbourTable:
        """A table of those that have not left, numbered by their product ids.

        Example: items 0 to 3 have the ids 10, 30, 40 and 20, and the item 1 has left. Those that are
        left become, in the order of their ids, the items 0 (of 0), 1 (of 3) and 2 (of 2), and so they
        are called in lists.
        """
        order = self.order
        number = np.zeros(self.left.size, np.uint32)
        number[order] = own = np.arange(order.size, dtype=np.uint32)
        items, distances = self.lists(order)
        for first in range(0, order.size, _CHUNK):
            rows = slice(first, first + _CHUNK)
            known = np.isfinite(distances[rows])
            items[rows] = np.where(known, number[items[rows]], own[rows, None])
        hidden = self.hidden[order]
        return NeighbourTable(self.ids[order], self.rows[order], items, distances, self.k, hidden)


def _set_ends(ends: ListEnds, items: Positions | slice, distances: Distances) -> None:
    if not distances.size:
        return
    n_known = np.isfinite(distances).sum(axis=1)
    ends.n_known[items] = n_known
    ends.last[items] = np.take_along_axis(distances, np.maximum(n_known - 1, 0)[:, None], 1)[:, 0]


class Compared(NamedTuple):
    """An item, its squared distances (n,) from all, by how much these may be off, its list (width,).

    The item is infinitely far away from itself.
    """

    item: int
    squared: Float64
    error: float
    own: Lists


class Changed(NamedTuple):
    """A table after changes: the `items` whose lists are others than before, and all lists' ends."""

    table: LiveTable
    items: Positions
    ends: ListEnds


def changed(
    table: LiveTable,
    gone: Positions,
    product_ids: Ids,
    hidden: Flags,
    comparison: Comparison,
    ends: ListEnds,
) -> Changed:
    """The table without the items `gone` and with new products (n,), whose features are the last rows.

    New product ids are ascending, and none is one of those that stay. `hidden` says of all items of
    `table` and then of the new ones which are hidden from now on. The table's width stays what
    `widths` says. `ends` are those of `table`.
    """
    n_rows = comparison.n_rows
    n_before, n_new = table.left.size, product_ids.size
    left = np.concatenate([table.left, np.zeros(n_new, np.bool_)])
    left[gone] = True
    after = replace(
        table,
        ids=np.concatenate([table.ids, product_ids]),
        rows=np.concatenate([table.rows, np.arange(n_rows - n_new, n_rows, dtype=np.uint32)]),
        left=left,
        hidden=hidden & ~left,
        places=np.concatenate([table.places, np.full(n_new, _IN_TABLE)]),
    )
    before, now = table.visible, after.visible
    leave = before & ~now[:n_before]
    touched = table.naming(leave)
    touched = touched[~left[touched]]
    # To enter lists a shown item is compared with all, which gives its own list too.
    enter = ~left
    enter[:n_before] &= now[:n_before] & ~before
    lists = _Lists(after, comparison, ends)
    lists.remove(leave, touched)
    lists.add(np.flatnonzero(enter), np.flatnonzero(~left & ~enter))
    lists.refill(touched)
    return lists.finished()


class _Lists:
    """The lists of a table that are being changed: read where a change touches them.

    The first `n_known` entries of a list are right, and the distances after them infinite. A new item's
    squared distances from all others are known but for an `error`, so they only tell which items need
    an exact comparison.
    """

    def __init__(self, table: LiveTable, comparison: Comparison, ends: ListEnds) -> None:
        n = table.left.size
        self._table = table
        self._comparison = comparison
        self._visible = np.flatnonzero(table.visible)
        self._place = np.full(n, -1)
        self._touched = np.empty(0, np.intp)
        self._items = np.empty((0, table.width), np.uint32)
        self._distances = np.empty((0, table.width), np.float32)
        n_more = n - ends.n_known.size
        self._n_known = np.concatenate([ends.n_known, np.zeros(n_more, np.intp)])
        self._last = np.concatenate([ends.last, np.zeros(n_more, np.float32)])

    def remove(self, leave: Flags, touched: Positions) -> None:
        """Take items that `leave` out of the lists `touched`, which name them: a list closes up.

        Example: of the list [4 7 9], 7 is gone. Its distance becomes infinite and it the last, [4 9 .].
        """
        places = self._read(touched)
        items, distances = self._items[places], self._distances[places]
        known = np.isfinite(distances)
        gone = np.zeros_like(known)
        gone[known] = leave[items[known]]
        distances[gone] = np.inf
        order = np.argsort(distances, axis=1, kind="stable")
        self._items[places] = np.take_along_axis(items, order, axis=1)
        self._distances[places] = np.take_along_axis(distances, order, axis=1)
        self._note(touched)

    def add(self, new: Positions, stay: Positions) -> None:
        """Build the lists of the new items, and put those visible into the lists of those that stay."""
        self._read(new)
        for item, squared, error, own in self._compared(new):
            self._set(item, own)
            if not self._table.hidden[item]:
                self._insert(item, squared[stay], error, stay)

    def refill(self, items: Positions) -> None:
        """Rebuild those lists that hold less than is served."""
        for item, _, _, own in self._compared(items[self._n_known[items] < self._table.k]):
            self._set(item, own)

    def finished(self) -> Changed:
        """The table with these lists."""
        table, places, n = self._table, self._table.places.copy(), self._touched.size
        own, distances = self._touched.astype(np.uint32)[:, None], self._distances[:n]
        items = np.where(np.isfinite(distances), self._items[:n], own)
        places[self._touched] = len(table.changed.items) + np.arange(n)
        lists = Lists(
            np.concatenate([table.changed.items, items]),
            np.concatenate([table.changed.distances, distances]),
        )
        ends = ListEnds(self._n_known, self._last)
        return Changed(replace(table, places=places, changed=lists), self._touched, ends)

    def _read(self, items: Positions) -> Positions:
        """Where the lists of items are, read if they have not been touched yet; nothing of new ones."""
        missing = items[self._place[items] < 0]
        if missing.size:
            places = self._touched.size + np.arange(missing.size)
            self._touched = np.concatenate([self._touched, missing])
            self._place[missing] = places
            self._make_room(self._touched.size)
            self._distances[places] = np.inf
            known = self._n_known[missing] > 0
            lists = self._table.lists(missing[known])
            self._items[places[known]], self._distances[places[known]] = lists
        return self._place[items]

    def _make_room(self, n: int) -> None:
        """Have room for n lists, and for as many again, so that it is seldom made."""
        if n > len(self._items):
            more = 2 * n - len(self._items), self._table.width
            self._items = np.concatenate([self._items, np.zeros(more, np.uint32)])
            self._distances = np.concatenate([self._distances, np.empty(more, np.float32)])

    def _note(self, items: Positions) -> None:
        _set_ends(ListEnds(self._n_known, self._last), items, self._distances[self._place[items]])

    def _compared(self, items: Positions) -> Iterator[Compared]:
        """The items compared with all; some while others are used."""
        at_once = max(1, _COMPARED_BYTES // (8 * self._comparison.n_rows))
        batches = [items[first : first + at_once] for first in range(0, items.size, at_once)]
        with ThreadPoolExecutor(1) as pool:
            for compared in in_turn(pool.submit(self._compare, batch) for batch in batches):
                yield from compared

    def _compare(self, items: Positions) -> list[Compared]:
        squared, errors = self._comparison.squared_distances(self._rows(items))
        compared = []
        for item, row, error in zip(items.tolist(), squared, errors.tolist(), strict=True):
            others = row[self._table.rows]
            others[item] = np.inf
            compared.append(Compared(item, others, error, self._nearest(item, others, error)))
        return compared

    def _rows(self, items: Positions) -> Positions:
        return self._table.rows[items].astype(np.intp)

    def _exact(self, item: int, others: Positions) -> Distances:
        row = int(self._table.rows[item])
        return self._comparison.unit_vectors.distances(row, self._rows(others))

    def _nearest(self, item: int, squared: Float64, error: float) -> Lists:
        """An item's list (width,).

        The `width` nearest by measure are in truth at most the width-th measure and `error` away, and
        `furthest` by their distances as the table has them. Whoever is as near by these is at most
        `furthest` of that away in truth, and `error` more by measure. Example: for width 1 and error
        0.01, squared distances measured as 0.50, 0.515 and 0.53 may in truth be 0.51, 0.505 and 0.52.
        The second is the nearest; the third cannot be.
        """
        width = self._table.width
        if width == 0:
            return Lists(np.empty(0, np.uint32), np.empty(0, np.float32))
        squared = squared[self._visible]
        last = np.sqrt(max(0, np.partition(squared, width - 1)[width - 1] + error))
        candidates = self._visible[squared <= np.square(furthest(furthest(last))) + error]
        candidates = candidates[np.argsort(self._table.ids[candidates])]
        distances = self._exact(item, candidates)
        nearest = np.argsort(distances, kind="stable")[:width]
        return Lists(candidates[nearest].astype(np.uint32), distances[nearest])

    def _set(self, item: int, own: Lists) -> None:
        (place,) = self._read(np.array([item]))
        self._items[place], self._distances[place] = own
        self._note(np.array([item]))

    def _insert(self, item: int, squared: Float64, error: float, stay: Positions) -> None:
        """Put an item into those lists of `stay` that it belongs in."""
        near = stay[squared <= self._furthest(stay) + error]
        distances = self._exact(item, near)
        # What comes after the last known entry may come after items that the list does not know.
        # Example: of 9 others a list knows the nearest 3. Then it takes a new item at the ranks 0 to 2,
        # and at rank 3 one of the other 6 may be nearer.
        near_enough = distances <= self._last[near]
        near, distances = near[near_enough], distances[near_enough]
        places = self._read(near)
        ranks = self._ranks(places, item, distances)
        fits = ranks < self._n_known[near]
        self._put(item, places[fits], ranks[fits], distances[fits])
        self._note(near[fits])

    def _furthest(self, lists: Positions) -> Float64:
        """The squared distance beyond which each of the lists takes no further item.

        An item may come before a list's last if its distance as the table has it is no larger. A list
        that knows nothing takes none.
        """
        squared: Float64 = np.square(furthest(self._last[lists].astype(np.float64)))
        squared[self._n_known[lists] == 0] = -np.inf
        return squared

    def _ranks(self, places: Positions, item: int, distances: Distances) -> Positions:
        """How many entries of each list come before the item, which is at these distances."""
        theirs, own = self._distances[places], distances[:, None]
        before = theirs < own
        tied = theirs == own
        before[tied] = self._table.ids[self._items[places][tied]] < self._table.ids[item]
        ranks: Positions = before.sum(axis=1)
        return ranks

    def _put(self, item: int, places: Positions, ranks: Positions, distances: Distances) -> None:
        """Put the item into each of the lists at its rank; what follows moves on, the last one out.

        Example: item 5 comes into [4 7 9] at rank 1. The columns [0 1 1] give [4 7 7], and writing 5
        at rank 1 gives [4 5 7].
        """
        columns = np.arange(self._table.width)
        sources = columns - (columns > ranks[:, None])
        for array, value in ((self._items, item), (self._distances, distances)):
            moved = array[places[:, None], sources]
            moved[np.arange(places.size), ranks] = value
            array[places] = moved
