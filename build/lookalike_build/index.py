"""Indexing: a feature store becomes a checked, published release."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from annoy import AnnoyIndex

from lookalike.release import METRIC, Items
from lookalike.root import ReleaseRoot
from lookalike_build.features import CategoryFeatures, FeatureError, Features, FeatureStore
from lookalike_build.neighbours import exact_neighbours, recall_at_k
from lookalike_build.staging import Staging

RECALL_SAMPLE = 200


@dataclass(frozen=True)
class IndexSettings:
    """How to index: Annoy's trees and seed, and how many neighbours the exact table holds."""

    n_trees: int = 10
    neighbours: int = 100
    seed: int = 1


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
    annoy = _annoy(features, settings)
    # Annoy's own default, which is the paper's setting, for as many answers as the table holds.
    search_k = settings.n_trees * (k + 1)
    recall = _recall(annoy, features, table[0], search_k)
    index = (annoy, settings.n_trees, search_k)
    staging.add_category(category.category_id, category.product_ids, table, index, recall)


def _annoy(features: Features, settings: IndexSettings) -> AnnoyIndex:
    annoy = AnnoyIndex(features.shape[1], METRIC)
    annoy.set_seed(settings.seed)
    for item, feature in enumerate(features):
        annoy.add_item(item, feature.tolist())
    # Only one job gives the same bytes twice (github.com/spotify/annoy issue 603).
    annoy.build(settings.n_trees, n_jobs=1)
    return annoy


def _recall(
    annoy: AnnoyIndex, features: Features, neighbours: Items, search_k: int
) -> tuple[float | None, int]:
    """Annoy's mean recall over a sample of items, asked by vector; the size of the sample."""
    n_items, k = neighbours.shape
    if k == 0:
        return None, 0
    sample = np.unique(np.linspace(0, n_items - 1, RECALL_SAMPLE, dtype=np.int64))
    recalls = [
        recall_at_k(
            neighbours[item],
            annoy.get_nns_by_vector(features[item].tolist(), k + 1, search_k=search_k),
        )
        for item in sample
    ]
    return float(np.mean(recalls)), len(sample)
