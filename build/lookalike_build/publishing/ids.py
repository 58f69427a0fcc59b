"""Product ids of a category as its file has them: ascending, int64 or bytes of UTF-8."""

import numpy as np
import numpy.typing as npt

from lookalike.release.arrays import Flags, Positions

Ids = npt.NDArray[np.int64] | npt.NDArray[np.bytes_]


def positions_of(known: Ids, product_ids: Ids) -> tuple[Positions, Flags]:
    """Where each product id is or would be among those `known`, ascending, and whether it is there."""
    positions = known.searchsorted(product_ids)
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
