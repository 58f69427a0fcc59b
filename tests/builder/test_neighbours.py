"""The exact neighbour table equals brute force, whatever the features are like."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lookalike_build import neighbours
from lookalike_build.neighbours import exact_neighbours, recall_at_k
from support import Features, random_features


def brute_force_table(features: Features, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The table by its definition: distances in float32, ties by item."""
    unit = features.astype(np.float64)
    unit /= np.sqrt(np.einsum("ij,ij->i", unit, unit))[:, None]
    distances = np.empty((len(unit), len(unit)), np.float32)
    for item in range(len(unit)):
        away = unit - unit[item]
        distances[item] = np.sqrt(np.einsum("ij,ij->i", away, away))
    np.fill_diagonal(distances, np.inf)
    items = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return items, np.take_along_axis(distances, items, axis=1)


def assert_exact(features: Features, k: int) -> None:
    items, distances = exact_neighbours(features, k)
    expected_items, expected_distances = brute_force_table(features, k)
    np.testing.assert_array_equal(items, expected_items)
    np.testing.assert_array_equal(distances, expected_distances)
    assert items.dtype == np.uint32
    assert distances.dtype == np.float32


@pytest.mark.parametrize("n", [1, 2, 3, 50, 400])
def test_table_of_any_size(n: int) -> None:
    for k in {0, 1, n // 2, n - 1}:
        if k < n:
            assert_exact(random_features(n, n, n_dims=32), k)


def test_features_that_float32_can_hardly_tell_apart() -> None:
    """An untrained network gives features at cosine 0.9999 and more to one another."""
    assert_exact(1 + 1e-3 * random_features(300, 1, n_dims=64), 20)


def test_copies_beyond_the_tables_width() -> None:
    features = random_features(300, 2)
    features[40:200] = features[7]
    features[250] = 2 * features[251]
    assert_exact(features, 10)


def test_all_features_equal() -> None:
    items, distances = exact_neighbours(np.ones((50, 8), np.float32), 3)
    assert items[0].tolist() == [1, 2, 3]
    assert items[2].tolist() == [0, 1, 3]
    assert items[49].tolist() == [0, 1, 2]
    assert not distances.any()


def test_lengths_do_not_matter() -> None:
    features = random_features(100, 3)
    scales = np.logspace(-15, 15, 100, dtype=np.float32)[:, None]
    items, _ = exact_neighbours(features, 5)
    scaled, _ = exact_neighbours(features * scales, 5)
    assert (items == scaled).mean() > 0.99


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_coarse_features_full_of_ties(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 40))
    values = data.draw(st.lists(st.integers(0, 2), min_size=3 * n, max_size=3 * n))
    features = np.array(values, np.float32).reshape(n, 3)
    features[~features.any(axis=1)] = 1
    assert_exact(features, data.draw(st.integers(1, n - 1)))


def test_every_item_is_counted_as_done() -> None:
    counted: list[int] = []
    features = random_features(90, 4)
    features[10:60] = features[0]
    exact_neighbours(features, 5, counted.append)
    assert sum(counted) == 90


def test_recall_is_the_share_of_the_exact_that_is_found() -> None:
    assert recall_at_k([1, 2, 3, 4], [4, 9, 1]) == 0.5
    assert recall_at_k([1, 2], [2, 1]) == 1.0


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that a few hundred items take the way of a large category."""
    monkeypatch.setattr(neighbours, "_BLOCK", 64)
    monkeypatch.setattr(neighbours, "_BLOCK_BYTES", 40_000)
    monkeypatch.setattr(neighbours, "_SPARE", 4)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("n", [113, 127, 128, 129, 500])
def test_a_large_category_by_halves_of_the_product(n: int) -> None:
    assert_exact(random_features(n, n), 10)


@pytest.mark.usefixtures("small_blocks")
def test_a_large_category_of_features_alike() -> None:
    assert_exact(1 + 1e-3 * random_features(400, 1, n_dims=64), 20)


@pytest.mark.usefixtures("small_blocks")
def test_a_large_category_with_more_near_copies_than_are_kept() -> None:
    """Their scores are the same to float32: who is among the k nearest takes a second look."""
    features = random_features(400, 2)
    features[50:150] = features[7] * (1 + 1e-7 * random_features(100, 3))
    features[200:230] = features[9]
    assert_exact(features, 10)


@pytest.mark.usefixtures("small_blocks")
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_large_category_full_of_ties(data: st.DataObject) -> None:
    n = data.draw(st.integers(60, 200))
    seed = data.draw(st.integers(0, 2**32 - 1))
    features = np.random.default_rng(seed).integers(0, 3, (n, 4)).astype(np.float32)
    features[~features.any(axis=1)] = 1
    assert_exact(features, data.draw(st.integers(1, 3)))


@pytest.mark.usefixtures("small_blocks")
def test_every_item_of_a_large_category_is_counted_as_done() -> None:
    counted: list[int] = []
    features = random_features(400, 4)
    features[10:60] = features[0]
    exact_neighbours(features, 5, counted.append)
    assert sum(counted) == 400
