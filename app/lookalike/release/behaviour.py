"""Behaviour: for each product those that the users who rated it have rated, made by the builder.

The method is user-based collaborative filtering as Miyake et al. (2017) have it for pattern A of their
experiment. Its files are in one folder of the release:

=====================  ==========================================================================
``product_ids.npy``    row → product id, ascending: ``<i8``, or ``|S<width>`` UTF-8 (n_products,)
``starts.npy``         ``<u8`` (n_products + 1,): the list of a row is ``related`` from ``starts[row]``
                       up to ``starts[row + 1]``
``related.npy``        (n_related,): the lists one after the other, the best first, none with the row
                       itself: product ids, ``<u4`` where all are below 2^32, else ``<i8``; where these
                       are text, rows, ``<u4``
``listed.npy``         ``|u1`` (n_products / 8, rounded up,): a bit for each row, from the highest of a
                       byte on: 1 where it is in a list
``gone.npy``           ``<u4`` (n_gone,): the rows, ascending, that are in a list and of products that
                       are in no category of this release, or hidden
=====================  ==========================================================================

A product may have a list and be gone, for some may still look at its page; it is in no answer.
``gone.npy`` is rebuilt for each release; the others stay until all of them are rebuilt.
"""

from bisect import bisect_left
from collections.abc import Callable, Container
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.release.arrays import Items
from lookalike.release.category import (
    check_product_ids,
    identity_of,
    ids_of,
    item_of,
    slots_of,
)
from lookalike.release.files import (
    BEHAVIOUR,
    BEHAVIOUR_FILES,
    BEHAVIOUR_HOT_FILES,
    BEHAVIOUR_TABLE,
    GONE,
    LISTED,
    PRODUCT_IDS,
    RELATED,
    STARTS,
    ReleaseError,
)
from lookalike.release.ids import Id, IdType
from lookalike.release.manifest import BehaviourEntry
from lookalike.release.memory import map_array, read_in


class Behaviour:
    """The behaviour of a release, memory-mapped and read-only; `entry` is the manifest's."""

    def __init__(
        self,
        folder: Path,
        entry: BehaviourEntry,
        id_type: IdType,
        before: "Behaviour | None" = None,
    ) -> None:
        """Check the files in `folder` against `entry` and map them; ReleaseError if invalid.

        A table that is also that of the open release `before` is taken from there.
        """
        _check_ends(folder, entry)
        self.entry = entry
        self.table: _Table
        if before and before.entry.table == entry.table and before.table.is_in(folder):
            self.table = before.table
        else:
            self.table = _Table(folder, entry, id_type)
        gone = open_gone(folder, entry)
        self._gone = frozenset(ids_of(self.table.product_ids, gone))

    def related(self, product_id: Id, n: int, exclude: Container[Id] = ()) -> list[Id]:
        """The `n` product ids that are related most, the best first; fewer where there are no more.

        Without those in `exclude` and what no category of the release shows. None are related to a
        product that is unknown.
        """
        table, gone = self.table, self._gone
        row = table.row_of(product_id)
        if row is None:
            return []
        first, end = table.starts[row], table.starts[row + 1]
        if not exclude:
            some = table.listed(first, min(first + n, end))
            if gone.isdisjoint(some):
                return some
        others = (one for one in table.listed(first, end) if one not in gone and one not in exclude)
        return list(islice(others, n))


class _Table:
    """All of behaviour but which products are gone: the same files in many releases.

    `product_ids` (n_products,); `starts`, as plain ints; `row_of` gives the row of a product id, None
    for an unknown one; `listed` the product ids of all lists from one position up to another. `arrays`
    are what every look-up touches.
    """

    row_of: Callable[[Any], int | None]
    listed: Callable[[int, int], list[Any]]

    def __init__(self, folder: Path, entry: BehaviourEntry, id_type: IdType) -> None:
        for file in BEHAVIOUR_HOT_FILES:
            read_in(folder / file)
        self._identity = identity_of(folder, BEHAVIOUR_TABLE)
        self.product_ids = product_ids = map_array(folder / PRODUCT_IDS, (entry.n_products,))
        check_product_ids(product_ids, f"{BEHAVIOUR}/{PRODUCT_IDS}", id_type)
        starts = _open_starts(folder, entry)
        related = _open_related(folder, entry, product_ids)
        map_array(folder / LISTED, (-(-entry.n_products // 8),), "|u1")  # only the builder reads it
        self.arrays = product_ids, starts, related
        # Memoryviews give plain ints, several times as fast as an ndarray its scalars. No function
        # below may hold `self`: in a circle of references the files would stay mapped.
        self.starts = memoryview(starts.data)
        if id_type == "integer":
            numbers = memoryview(related.data)
            self.row_of = _row_of_integer(product_ids)
            self.listed = lambda first, end: numbers[first:end].tolist()
        else:
            self.row_of = partial(item_of, product_ids)
            self.listed = lambda first, end: ids_of(product_ids, related[first:end])

    def is_in(self, folder: Path) -> bool:
        """Whether the files in `folder` are those that are open here."""
        return identity_of(folder, BEHAVIOUR_TABLE) == self._identity


def _open_starts(folder: Path, entry: BehaviourEntry) -> npt.NDArray[np.uint64]:
    """Where each list starts, and the end of the last one: the lists follow one another.

    Example: [0 2 2 5] are three lists of 2, 0 and 3 products, 5 in all.
    """
    starts = map_array(folder / STARTS, (entry.n_products + 1,), "<u8")
    ends = int(starts[0]), int(starts[-1])
    if ends != (0, entry.n_related) or np.any(starts[1:] < starts[:-1]):
        raise ReleaseError(f"{BEHAVIOUR}/{STARTS}", f"not those of {entry.n_related} in lists")
    return starts


def _open_related(
    folder: Path, entry: BehaviourEntry, product_ids: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """What is in the lists: ids where they are integers, otherwise rows. None is past the last."""
    related = map_array(folder / RELATED, (entry.n_related,), related_dtype(product_ids))
    last = product_ids[-1] if product_ids.dtype.kind == "i" else entry.n_products - 1
    # Reads all of it, without the GIL: it is in memory and mapped before it serves.
    if related.size and related.max() > last:
        raise ReleaseError(f"{BEHAVIOUR}/{RELATED}", "names a product past the last")
    return related


def _row_of_integer(product_ids: npt.NDArray[np.int64]) -> Callable[[Any], int | None]:
    ids, (first, shift, starts) = memoryview(product_ids.data), slots_of(product_ids)

    def row_of(product_id: int) -> int | None:
        slot = (product_id - first) >> shift
        if not 0 <= slot < len(starts) - 1:
            return None
        row = bisect_left(ids, product_id, starts[slot], starts[slot + 1])
        known = row < len(ids) and ids[row] == product_id
        return row if known else None

    return row_of


def related_dtype(product_ids: npt.NDArray[Any]) -> str:
    """What ``related.npy`` holds of the products with these ids, ascending.

    Ids themselves spare a look-up a wait for memory for each of them.
    """
    return "<i8" if product_ids.dtype.kind == "i" and product_ids[-1] >= 2**32 else "<u4"


def check_behaviour(
    folder: Path,
    entry: BehaviourEntry,
    id_type: IdType,
    before: tuple[Path, BehaviourEntry] | None = None,
) -> None:
    """Open the behaviour in `folder` and keep nothing; ReleaseError if it is invalid.

    A table that is also that of `before`, its folder and entry, is not read again.
    """
    if before and before[1].table == entry.table:
        with suppress(OSError):
            if identity_of(folder, BEHAVIOUR_TABLE) == identity_of(before[0], BEHAVIOUR_TABLE):
                _check_ends(folder, entry)
                open_gone(folder, entry)
                return
    Behaviour(folder, entry, id_type)


def open_gone(folder: Path, entry: BehaviourEntry) -> Items:
    """The rows (n_gone,) that are gone, every byte of them checked; ReleaseError if invalid."""
    file = f"{BEHAVIOUR}/{GONE}"
    entry.files[GONE].check_all(folder / GONE, file)
    rows = map_array(folder / GONE, (entry.n_gone,), "<u4")
    if rows.size and (np.any(rows[1:] <= rows[:-1]) or rows[-1] >= entry.n_products):
        raise ReleaseError(file, f"not rows of {entry.n_products}, ascending, each once")
    return rows


def _check_ends(folder: Path, entry: BehaviourEntry) -> None:
    for file in BEHAVIOUR_FILES:
        entry.files[file].check_ends(folder / file, f"{BEHAVIOUR}/{file}")
