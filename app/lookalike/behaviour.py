"""Behaviour: for each product those that the users who rated it have rated, made by the builder.

The method is user-based collaborative filtering as Miyake et al. (2017) have it for pattern A of their
experiment. Its files are in one folder of the release:

=====================  ==========================================================================
``product_ids.npy``    row → product id, ascending: ``<i8``, or ``|S<width>`` UTF-8 (n_products,)
``starts.npy``         ``<u8`` (n_products + 1,): the list of a row is ``related`` from ``starts[row]``
                       up to ``starts[row + 1]``
``related.npy``        ``<u4`` (n_related,): rows, of the lists one after the other, the best first;
                       none has its own row
``gone.npy``           ``|u1`` (n_products / 8, rounded up,): a bit for each row, from the highest of
                       a byte on: 1 where its product is in no category of this release
=====================  ==========================================================================

A product may have a list and be gone, for it is looked up by those who have it on their page; it is in
no answer. So ``gone.npy`` is made anew for each release, and the others stay as they are until all of
them are made anew.
"""

from bisect import bisect_left
from collections.abc import Callable, Container
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.category import check_product_ids, identity_of, item_of, map_array, slots_of
from lookalike.manifest import (
    BEHAVIOUR,
    BEHAVIOUR_FILES,
    BEHAVIOUR_TABLE,
    GONE,
    PRODUCT_IDS,
    RELATED,
    STARTS,
    BehaviourEntry,
    Id,
    IdType,
    ReleaseError,
)
from lookalike.memory import lock, read_in


class Behaviour:
    """The behaviour of a release, memory-mapped and read-only; `entry` is the manifest's."""

    def __init__(
        self,
        folder: Path,
        entry: BehaviourEntry,
        id_type: IdType,
        before: "Behaviour | None" = None,
    ) -> None:
        """Check the files in `folder` against `entry` and map them; ReleaseError if unfit.

        A table that is also that of the open release `before` is taken from there.
        """
        _check_ends(folder, entry)
        self.entry = entry
        self.table: _Table
        if before and before.entry.table == entry.table and before.table.is_in(folder):
            self.table = before.table
        else:
            self.table = _Table(folder, entry, id_type)
        self._gone = open_gone(folder, entry).tobytes()

    def related(self, product_id: Id, n: int, exclude: Container[Id] = ()) -> list[Id]:
        """The `n` product ids that are related most, the best first; fewer where there are no more.

        Without those in `exclude` and what is in no category of the release. None are related to a
        product that is unknown.
        """
        table = self.table
        row = table.row_of(product_id)
        if row is None:
            return []
        ids, gone = table.ids, self._gone
        first, end = table.starts[row], table.starts[row + 1]
        if not exclude:
            some = table.related[first : min(first + n, end)]
            found = [ids[other] for other in some if not gone[other]]
            if len(found) == len(some):
                return found
        found = []
        for other in table.related[first:end]:
            if len(found) == n:
                break
            if not gone[other] and (other_id := ids[other]) not in exclude:
                found.append(other_id)
        return found

    def lock(self) -> None:
        """Keep what every look-up touches in memory; OSError if that is not allowed."""
        self.table.lock()


class _Table:
    """What stays as it is until behaviour is made anew.

    `ids` gives the product id of a row and `row_of` the row of a product id, None for an unknown one;
    `starts` and `related` are the arrays, as plain ints.
    """

    def __init__(self, folder: Path, entry: BehaviourEntry, id_type: IdType) -> None:
        for file in BEHAVIOUR_TABLE:
            read_in(folder / file)
        self._identity = identity_of(folder, BEHAVIOUR_TABLE)
        n_products = entry.n_products
        product_ids = map_array(folder / PRODUCT_IDS, (n_products,))
        starts = map_array(folder / STARTS, (n_products + 1,), "<u8")
        related = map_array(folder / RELATED, (entry.n_related,), "<u4")
        check_product_ids(product_ids, f"{BEHAVIOUR}/{PRODUCT_IDS}", id_type)
        ends = int(starts[0]), int(starts[-1])
        if ends != (0, entry.n_related) or np.any(starts[1:] < starts[:-1]):
            raise ReleaseError(f"{BEHAVIOUR}/{STARTS}", f"not those of {entry.n_related} in lists")
        # Reads all of it, without the GIL: it is in memory and mapped before it serves.
        if related.size and int(related.max()) >= n_products:
            reason = f"names a row past the last of {n_products}"
            raise ReleaseError(f"{BEHAVIOUR}/{RELATED}", reason)
        integers = id_type == "integer"
        self._arrays = product_ids, starts, related
        # Memoryviews and bytes give plain ints, several times as fast as an ndarray its scalars.
        self.starts, self.related = memoryview(starts.data), memoryview(related.data)
        self.ids: Any = memoryview(product_ids.data) if integers else _Texts(product_ids)
        self.row_of = _row_of_integer(product_ids) if integers else partial(item_of, product_ids)

    def is_in(self, folder: Path) -> bool:
        """Whether the files in `folder` are those that are open here."""
        return identity_of(folder, BEHAVIOUR_TABLE) == self._identity

    def lock(self) -> None:
        """As `Behaviour.lock`."""
        for array in self._arrays:
            lock(array)


class _Texts:
    """Product ids (n,) in UTF-8, which are decoded when asked for."""

    def __init__(self, product_ids: npt.NDArray[np.bytes_]) -> None:
        self._product_ids = product_ids

    def __getitem__(self, row: int) -> str:
        text: bytes = self._product_ids[row]
        return text.decode()


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


def check_behaviour(
    folder: Path,
    entry: BehaviourEntry,
    id_type: IdType,
    before: tuple[Path, BehaviourEntry] | None = None,
) -> None:
    """Open the behaviour in `folder` and keep nothing; ReleaseError if it is unfit.

    A table that is also that of `before`, its folder and entry, is not read again.
    """
    if before and before[1].table == entry.table:
        with suppress(OSError):
            if identity_of(folder, BEHAVIOUR_TABLE) == identity_of(before[0], BEHAVIOUR_TABLE):
                _check_ends(folder, entry)
                open_gone(folder, entry)
                return
    Behaviour(folder, entry, id_type)


def open_gone(folder: Path, entry: BehaviourEntry) -> npt.NDArray[np.bool_]:
    """Which rows are gone, bool (n_products,), every bit of it checked; ReleaseError if unfit."""
    file = f"{BEHAVIOUR}/{GONE}"
    entry.files[GONE].check_all(folder / GONE, file)
    bits = map_array(folder / GONE, (-(-entry.n_products // 8),), "|u1")
    flags = np.unpackbits(bits)
    n_gone = int(np.count_nonzero(flags))
    if n_gone != entry.n_gone or flags[entry.n_products :].any():
        raise ReleaseError(file, f"has {n_gone} rows gone, the manifest says {entry.n_gone}")
    return flags[: entry.n_products].view(np.bool_)


def _check_ends(folder: Path, entry: BehaviourEntry) -> None:
    for file in BEHAVIOUR_FILES:
        entry.files[file].check_ends(folder / file, f"{BEHAVIOUR}/{file}")
