"""Releases made for load tests: of any size, in seconds, with neighbours that a client can check.

Category c (1, 2, …) has items 0 … n-1 with product ids 10000 + 3 * item. Neighbour j of an item is
the item `1 + (j + 1) * step` further on, modulo n, so an answer is right or wrong by arithmetic; what
is served cannot tell it from a real one. Features are at random.
"""

from collections.abc import Sequence

import numpy as np

from lookalike.release.arrays import Distances, Items
from lookalike.release.manifest import Manifest, Model
from lookalike.release.root import ReleaseRoot
from lookalike_build.indexing.category import IndexSettings, build_annoy
from lookalike_build.indexing.projection import project
from lookalike_build.publishing.category import Tuned
from lookalike_build.publishing.columns import no_columns
from lookalike_build.publishing.staging import Staging

FIRST_ID, ID_STEP = 10_000, 3


def product_id(item: int) -> int:
    """The product id of an item."""
    return FIRST_ID + ID_STEP * item


def neighbour_ids(n_items: int, item: int, n: int, step: int) -> list[int]:
    """The product ids of the n nearest neighbours of an item, nearest first."""
    return [product_id((item + 1 + (j + 1) * step) % n_items) for j in range(n)]


def make_release(
    root: ReleaseRoot, sizes: Sequence[int], k: int, n_dims: int, step: int = 1
) -> str:
    """Publish a release of categories of these sizes; its name. The same arguments: the same."""
    root.create()
    with root.lock():
        staging = Staging(root, root.staging)
        categories = []
        for number, n_items in enumerate(sizes, 1):
            rng = np.random.default_rng(number)
            writer = staging.category(number)
            features = writer.begin(n_items, n_dims)
            rng.random(dtype=np.float32, out=features)
            projected = project(features)
            annoy = build_annoy(projected.items, IndexSettings(n_trees=1))
            writer.add_ids(FIRST_ID + ID_STEP * np.arange(n_items, dtype=np.int64))
            table = _table(n_items, k, step, rng)
            columns = no_columns(n_items)
            tuned = Tuned(n_trees=1, candidates=k, search_k=n_items, recall=None, recall_sample=0)
            entry = writer.add_index(table, k, projected, annoy, tuned, "made", columns, 0.0, ())
            categories.append(entry)
        model = Model("random", "sha256:0")
        draft = Manifest("draft", model, n_dims, "integer", "integer", (), None)
        return staging.publish(draft, categories).release


def _table(n_items: int, k: int, step: int, rng: np.random.Generator) -> tuple[Items, Distances]:
    further = np.arange(1, k + 1, dtype=np.uint32) * step + 1
    neighbours = (np.arange(n_items, dtype=np.uint32)[:, None] + further) % n_items
    distances = np.sort(rng.random((n_items, k), np.float32), axis=1)
    return neighbours.astype(np.uint32), distances
