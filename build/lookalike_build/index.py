"""Indexing: a feature store becomes a checked, published release."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from annoy import AnnoyIndex

from lookalike.category import Items
from lookalike.manifest import METRIC
from lookalike.root import ReleaseRoot
from lookalike_build.features import CategoryFeatures, FeatureError, Features, FeatureStore
from lookalike_build.neighbours import exact_neighbours, recall_at_k
from lookalike_build.staging import Staging

RECALL_SAMPLE = 100


@dataclass(frozen=True)
class IndexSettings:
    """How to index: Annoy's trees, seed and recall, and how many neighbours the table holds."""

    n_trees: int = 10
    neighbours: int = 100
    seed: int = 1
    recall: float = 0.95


def index(
    store: FeatureStore,
    root: ReleaseRoot,
    settings: IndexSettings,
    done: Callable[[int], object] = lambda _: None,
) -> tuple[str, bool]:
    """Make a release of all of `store` and publish it under `root`.

    Returns its name and whether it is new: where the current release holds the same already, that
    stays. The same features and settings give the same bytes. `done` hears how many more products
    are finished. Raises FeatureError, ReleaseError or RootError; the current release then stays.
    """
    if not store.categories:
        raise FeatureError(f"{store.folder} holds no products: a release of it would serve nothing")
    root.create()
    with root.lock():
        staging = Staging(root)
        try:
            for category_id in store.categories:
                _index_category(staging, store.read(category_id), settings, done)
            return staging.publish(store.model, store.n_dims, store.id_types)
        finally:
            root.remove_staging()  # what was not published, a full disk's worth perhaps


def _index_category(
    staging: Staging,
    category: CategoryFeatures,
    settings: IndexSettings,
    done: Callable[[int], object],
) -> None:
    features = category.features
    k = min(settings.neighbours, len(features) - 1)
    table = exact_neighbours(features, k, done)
    annoy = build_annoy(features, settings)
    search_k, recall, n_sampled = _search_k(annoy, features, table[0], settings)
    index = (annoy, settings.n_trees, search_k)
    measured = (recall, n_sampled)
    staging.add_category(category.category_id, category.product_ids, table, index, measured)


def build_annoy(features: Features, settings: IndexSettings) -> AnnoyIndex:
    """The Annoy index of features (n_items, n_dims), built, not saved; by seed the same bytes."""
    annoy = AnnoyIndex(features.shape[1], METRIC)
    annoy.set_seed(settings.seed)
    for item, feature in enumerate(features):
        annoy.add_item(item, feature.tolist())
    # Only one job gives the same bytes twice (github.com/spotify/annoy issue 603).
    annoy.build(settings.n_trees, n_jobs=1)
    return annoy


def _search_k(
    annoy: AnnoyIndex, features: Features, neighbours: Items, settings: IndexSettings
) -> tuple[int, float | None, int]:
    """How far Annoy has to search for the recall asked for; the recall measured, over how many items.

    At least Annoy's own default, which is the paper's setting, and at most through all of every tree.
    """
    n_items, k = neighbours.shape
    search_k = settings.n_trees * (k + 1)
    if k == 0:
        return search_k, None, 0
    sample = np.unique(np.linspace(0, n_items - 1, RECALL_SAMPLE, dtype=np.int64))

    def recall(search_k: int) -> float:
        """Mean recall of the sampled items, asked by vector."""
        found = (
            annoy.get_nns_by_vector(features[item].tolist(), k + 1, search_k=search_k)
            for item in sample
        )
        pairs = zip(neighbours[sample], found, strict=True)
        return float(np.mean([recall_at_k(exact, items) for exact, items in pairs]))

    measured, too_low = recall(search_k), 0
    while measured < settings.recall and search_k < settings.n_trees * n_items:
        search_k, too_low = 2 * search_k, search_k
        measured = recall(search_k)
    for _ in range(3 if too_low else 0):
        less = (too_low + search_k) // 2
        if (found := recall(less)) >= settings.recall:
            search_k, measured = less, found
        else:
            too_low = less
    return search_k, measured, len(sample)
