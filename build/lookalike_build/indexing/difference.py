"""The difference between a category's features and what the current release has of it."""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from lookalike.release.arrays import Features
from lookalike.release.category import ids_of
from lookalike.release.ids import Id
from lookalike_build.features.store import FeatureSource
from lookalike_build.indexing.live import FeatureChanges, LiveCategory
from lookalike_build.indexing.under_way import ahead
from lookalike_build.publishing.category import Counts


class Difference(NamedTuple):
    """How many products differ, and the changes that make the release's category what the features
    are; None where more have come or have another feature than `difference` was to keep."""

    counts: Counts
    changes: FeatureChanges | None


def difference(store: FeatureSource, category_id: Id, live: LiveCategory, most: int) -> Difference:
    """Compare a category of `store` with `live`, reading both through; FeatureError as `store.read`.

    The features of at most `most` products are kept.
    """
    table, rows = live.table, live.table.rows.astype(np.intp)
    changes: dict[Id, Features | None] = {}
    unseen = ~table.left
    n_new = n_changed = 0
    with ThreadPoolExecutor(1) as pool:
        blocks = ahead(pool, store.blocks(category_id))
        for ids, features in blocks:
            items, same = table.items_of(live.ids(ids))
            known = np.flatnonzero(same)
            unseen[items[known]] = False
            n_new += len(ids) - known.size
            same[known] = (live.features.of(rows[items[known]]) == features[known]).all(axis=1)
            n_changed += known.size - int(np.count_nonzero(same))
            if n_new + n_changed <= most:
                changes |= {
                    ids[row]: features[row].copy() for row in np.flatnonzero(~same).tolist()
                }
    gone = np.flatnonzero(unseen).astype(np.uint32)
    changes |= dict.fromkeys(ids_of(table.ids, gone))
    n_unchanged = table.n_items - gone.size - n_changed
    counts = Counts(n_new, n_changed, gone.size, n_unchanged)
    return Difference(counts, changes if n_new + n_changed <= most else None)
