"""Hidden products are not found by a vector, and the recall is that of the others."""

from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest

from lookalike.release.arrays import Flags
from lookalike.release.attributes import HIDDEN, TYPES
from lookalike.release.vectors import Changed, VectorIndex
from lookalike_build.indexing import category
from lookalike_build.indexing.category import IndexSettings, index_features
from lookalike_build.publishing.category import CategoryWriter, Written
from lookalike_build.publishing.columns import columns_of
from support import Features, random_features


def indexed(folder: Path, features: Features, hidden: Flags, settings: IndexSettings) -> Written:
    writer = CategoryWriter(1, folder, None)
    writer.begin(*features.shape)[:] = features
    writer.add_ids(np.arange(len(features)))
    columns = columns_of(TYPES, {HIDDEN: pa.array(hidden)}, hidden.size)
    return index_features(features, settings, writer, columns=columns)


@pytest.mark.parametrize("trees_cost", [0.01, 10])
def test_a_search_for_vectors_finds_visible_products_with_the_recall_asked_for(
    tmp_path: Path, trees_cost: float
) -> None:
    """By trees, which know nothing of what is hidden, and by comparing all projections."""
    n = 1500
    features = random_features(n, 1, n_dims=40)
    hidden = np.random.default_rng(1).random(n) < 0.5
    asked: list[VectorIndex] = []
    made = category.vector_index

    def spy(*arguments: object) -> VectorIndex:
        asked.append(made(*arguments))  # type: ignore[arg-type]
        return asked[-1]

    settings = IndexSettings(n_trees=5, neighbours=10)
    with (
        mock.patch.object(category, "_TREES_COST", trees_cost),
        mock.patch.object(category, "vector_index", spy),
    ):
        entry = indexed(tmp_path / "1", features, hidden, settings).entry
    assert (entry.n_items, entry.n_hidden, entry.k) == (n, hidden.sum(), 10)
    assert (entry.search_k == n) == (trees_cost > 1)
    assert entry.recall is not None
    assert entry.recall >= 0.97
    vectors = asked[-1]
    assert isinstance(vectors.changed, Changed)
    for item in (0, 7, *np.flatnonzero(hidden)[:5]):
        items, _ = vectors.search(vectors.unit_vector(item), 20)
        assert items.size == 20
        assert not hidden[items].any()


@pytest.mark.parametrize("n_visible", [0, 1, 2])
def test_a_category_with_hardly_a_visible_product(tmp_path: Path, n_visible: int) -> None:
    hidden = np.arange(30) >= n_visible
    entry = indexed(tmp_path / "1", random_features(30, 2), hidden, IndexSettings()).entry
    assert (entry.n_visible, entry.k, entry.n_spare) == (n_visible, max(0, n_visible - 1), 0)
    assert (entry.recall is None) == (entry.k == 0)
    assert entry.search_k == 30
