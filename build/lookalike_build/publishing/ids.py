"""Product ids of a category as its files have them: int64 or bytes of UTF-8."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lookalike.release.arrays import Flags, Positions
from lookalike.release.files import LATER_IDS, LEFT, PRODUCT_IDS
from lookalike.release.manifest import CategoryEntry
from lookalike.release.memory import map_array

Ids = npt.NDArray[np.int64] | npt.NDArray[np.bytes_]


def positions_of(known: Ids, product_ids: Ids) -> tuple[Positions, Flags]:
    """Where each product id is or would be among those `known`, ascending, and whether it is there."""
    positions = known.searchsorted(product_ids)
    if not known.size:
        return positions, np.zeros(positions.size, np.bool_)
    inside = np.minimum(positions, known.size - 1)
    return positions, known[inside] == product_ids


def id_array(product_ids: Ids | list[str]) -> Ids:
    """Product ids as their file has them."""
    if isinstance(product_ids, list):
        return np.array([product_id.encode() for product_id in product_ids], dtype=np.bytes_)
    if product_ids.dtype.kind == "S":
        # As narrow as they are, whatever has left.
        return np.array(product_ids.tolist(), np.bytes_)
    return product_ids.astype("<i8")


class ItemIds(NamedTuple):
    """The product ids (n,) of all items of a category, and which of these have left (n,)."""

    ids: Ids
    left: Flags

    @classmethod
    def read(cls, folder: Path, entry: CategoryEntry) -> "ItemIds":
        """Those of a published category; ReleaseError if a file is damaged."""
        shapes = {PRODUCT_IDS: entry.n_table}
        if updates := entry.updates:
            shapes |= {LATER_IDS: updates.n_later, LEFT: updates.n_left}
        arrays = []
        for file, n in shapes.items():
            entry.files[file].check_all(folder / file, f"{folder.name}/{file}")
            arrays.append(map_array(folder / file, (n,)))
        left = np.zeros(entry.n_all, np.bool_)
        left[arrays[2] if entry.updates else []] = True
        return cls(np.concatenate(arrays[:2]), left)

    def rows_of(self, product_ids: Ids) -> Positions:
        """By item, where among `product_ids`, each there once, its product is; -1 if not or it left."""
        order = np.argsort(product_ids, kind="stable")
        positions, known = positions_of(product_ids[order], self.ids)
        rows = np.full(self.ids.size, -1)
        there = known & ~self.left
        rows[there] = order[positions[there]]
        return rows
