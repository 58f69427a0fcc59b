"""What a table says of products, compared with a release: which it has, and which would be hidden."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.release.attributes import HIDDEN, Values
from lookalike.release.category import read_product_ids
from lookalike.release.columns import open_columns
from lookalike.release.files import LATER_IDS, LEFT, PRODUCT_IDS
from lookalike.release.ids import Id, category_folder
from lookalike.release.manifest import CategoryEntry, Manifest
from lookalike.release.memory import map_array
from lookalike_build.indexing.attributes import ProductValues

Live = Mapping[tuple[Id, Id], Values]
"""Values that were set live and stay, by category id and product id."""


class Comparison(NamedTuple):
    """Of a table's products, `n_known` are in the release and `n_unknown` are not, of which the first
    has the category and product id `unknown`; `n_hidden` that are visible in it would be hidden."""

    n_known: int
    n_unknown: int
    unknown: tuple[Id, Id] | None
    n_hidden: int


def compare(
    folder: Path, manifest: Manifest, values: Mapping[Id, ProductValues], live: Live
) -> Comparison:
    """Compare the values, except those that are `live`, with the release in `folder`.

    ReleaseError if that is damaged.
    """
    entries = {entry.category_id: entry for entry in manifest.categories}
    set_live: dict[Id, list[Id]] = defaultdict(list)
    for (category_id, product_id), each in live.items():
        if HIDDEN in each:
            set_live[category_id].append(product_id)
    n_known = n_unknown = n_hidden = 0
    unknown = None
    for category_id, (product_ids, columns) in values.items():
        entry = entries.get(category_id)
        nothing = product_ids.slice(0, 0)
        known, hidden = _products(folder, entry) if entry else (nothing, nothing)
        is_known = pc.is_in(product_ids, known)
        n_known_here = is_known.true_count
        if unknown is None and n_known_here < len(product_ids):
            unknown = category_id, product_ids[pc.index(is_known, False).as_py()].as_py()
        n_known += n_known_here
        n_unknown += len(product_ids) - n_known_here
        if HIDDEN in columns:
            of_live = pa.array(set_live[category_id], known.type)
            stays = pc.or_(pc.is_in(product_ids, hidden), pc.is_in(product_ids, of_live))
            n_hidden += pc.and_not(pc.and_(columns[HIDDEN], is_known), stays).true_count
    return Comparison(n_known, n_unknown, unknown, n_hidden)


def _products(folder: Path, entry: CategoryEntry) -> tuple[pa.Array, pa.Array]:
    """The ids of a category's products, and of those that are hidden."""
    folder /= category_folder(entry.category_id)
    product_ids = read_product_ids(folder, entry)
    hidden = product_ids[:0]
    if entry.n_hidden:
        # The release was checked when it was published.
        items = open_columns(folder, entry.attributes, entry.n_all, sound=entry.files).hidden
        ids = map_array(folder / PRODUCT_IDS, (entry.n_table,))
        if entry.updates:
            ids = np.concatenate([ids, map_array(folder / LATER_IDS, (entry.updates.n_later,))])
            items = np.setdiff1d(items, map_array(folder / LEFT, (entry.updates.n_left,), "<u4"))
        hidden = ids[items]
    return _arrow_ids(product_ids), _arrow_ids(hidden)


def _arrow_ids(ids: npt.NDArray[Any]) -> pa.Array:
    if ids.dtype.kind == "i":
        return pa.array(ids, pa.int64())
    return pa.array(ids.tolist(), pa.binary()).cast(pa.string())
