"""Vectors: what is found is ranked rightly, whichever way the candidates are found."""

from dataclasses import replace

import numpy as np
import pytest

from lookalike.release.vectors import Changed, VectorIndex
from lookalike_build.indexing.category import IndexSettings, build_annoy
from lookalike_build.indexing.projection import N_INDEX_DIMS, project
from support import Features, brute_force, random_features


def vector_index(features: Features, trees: bool, candidates: int, k: int) -> VectorIndex:
    projection, items, lengths = project(features)
    index = build_annoy(items, IndexSettings()) if trees else items.T
    return VectorIndex(features, lengths, projection, index, candidates, 5000, k, None, items.T)


@pytest.mark.parametrize("trees", [False, True])
@pytest.mark.parametrize("n", [1, 10, 100, 400])
def test_what_is_found_is_the_brute_force_ranking(trees: bool, n: int) -> None:
    features = random_features(800, 1, n_dims=200)
    vectors = vector_index(features, trees, 400, 100)
    for query in random_features(20, 2, n_dims=200):
        order, distances = brute_force(np.vstack([features, query]), 800)
        items, found = vectors.search(query.astype(np.float64) / np.linalg.norm(query), n)
        assert len(items) == n
        assert np.isin(order[:n], items).mean() > 0.9
        ranks = np.argsort(order)[items]
        assert len(np.unique(ranks)) == n
        # In the order of distances as float32 rounds them, which is another on another CPU.
        assert np.all(np.diff(found) >= 0)
        np.testing.assert_allclose(found, distances[ranks], atol=1e-6)


def test_lengths_that_are_not_known_are_computed() -> None:
    features, queries = random_features(300, 9), random_features(10, 10)
    vectors = vector_index(features, False, 50, 10)
    for query in queries:
        unit = query.astype(np.float64) / np.linalg.norm(query)
        items, found = vectors.search(unit, 10)
        same_items, same = replace(vectors, lengths=None).search(unit, 10)
        assert items.tolist() == same_items.tolist()
        np.testing.assert_allclose(found, same, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-1, 1e-2])
def test_features_that_are_nearly_alike_are_told_apart(scale: float) -> None:
    features = (1 + scale * random_features(500, 3, n_dims=300)).astype(np.float32)
    vectors = vector_index(features, False, 200, 20)
    for item in range(0, 500, 50):
        order, distances = brute_force(features, item)
        items, found = vectors.search(vectors.unit_vector(item), 21)
        assert (items[0], found[0]) == (item, pytest.approx(0, abs=1e-7))
        assert np.isin(order[:20], items).mean() >= 0.9
        np.testing.assert_allclose(found[1:], np.sort(distances)[:20], atol=2e-7)


@pytest.mark.parametrize(("n", "n_dims"), [(1, 1), (1, 300), (2, 300), (129, 300), (500, 7)])
def test_a_projection_has_as_many_dimensions_as_the_features_span(n: int, n_dims: int) -> None:
    features = random_features(n, 4, n_dims=n_dims)
    projection, items, lengths = project(features)
    np.testing.assert_allclose(lengths, np.linalg.norm(features, axis=1), rtol=1e-6)
    assert projection.shape == (n_dims, min(n, n_dims, N_INDEX_DIMS))
    np.testing.assert_allclose(projection.T @ projection, np.eye(projection.shape[1]), atol=1e-5)
    if n_dims <= N_INDEX_DIMS or n <= N_INDEX_DIMS:
        np.testing.assert_allclose(np.linalg.norm(items, axis=1), 1, atol=1e-5)


def test_copies_of_one_feature_span_one_dimension() -> None:
    projection, items, _ = project(np.repeat(random_features(1, 5, n_dims=50), 30, axis=0))
    assert projection.shape == (50, 1)
    np.testing.assert_allclose(np.abs(items), 1, atol=1e-6)


def test_more_than_there_are_is_all_there_is() -> None:
    vectors = vector_index(random_features(7, 6), False, 3, 6)
    items, distances = vectors.search(vectors.unit_vector(0), 1000)
    assert sorted(items) == list(range(7))
    assert np.all(np.diff(distances) >= 0)


@pytest.mark.parametrize("trees", [False, True])
def test_where_all_that_the_index_holds_is_gone_what_is_new_is_found(trees: bool) -> None:
    features, added = random_features(20, 7), random_features(3, 8)
    old = vector_index(features, trees, 5, 5)
    changed = Changed.of(np.arange(20, 23, dtype=np.uint32), np.empty(0, np.uint32), 20, added)
    vectors = replace(old, changed=changed)
    order, distances = brute_force(added, 1)
    items, found = vectors.search(vectors.unit_vector(1), 10)
    assert items.tolist() == [1, *order]
    np.testing.assert_allclose(found[1:], distances, atol=1e-6)
