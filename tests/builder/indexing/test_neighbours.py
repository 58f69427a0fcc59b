"""The exact neighbour table equals brute force, whatever the features are like."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lookalike.release.arrays import Flags
from lookalike_build.indexing import neighbours
from lookalike_build.indexing.neighbours import exact_neighbours
from lookalike_build.indexing.unit_vectors import OFF, RELATIVELY_OFF, UnitVectors
from support import RANDOM_CASES, Features, random_features, recall_at_k


def brute_force_table(
    features: Features, k: int, hidden: Flags | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The table by its definition: distances in float32, ties by item, none hidden."""
    vectors = UnitVectors.all_of(features)
    everything = np.arange(len(features))
    distances = np.array([vectors.distances(item, everything) for item in everything.tolist()])
    np.fill_diagonal(distances, np.inf)
    if hidden is not None:
        distances[:, hidden] = np.inf
    items = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return items, np.take_along_axis(distances, items, axis=1)


@pytest.mark.parametrize("n_dims", [1, 3, 16, 130, 2048])
@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-7])
def test_a_distance_is_right_to_what_is_said_and_the_same_from_either_end_and_in_any_company(
    n_dims: int, spread: float
) -> None:
    features = 1 + spread * random_features(60, n_dims, n_dims=n_dims)
    features[7] = features[8]
    features[9] = 4 * features[8]
    vectors = UnitVectors.all_of(features)
    everything = np.arange(len(features))
    distances = np.array([vectors.distances(item, everything) for item in everything.tolist()])
    wide = features.astype(np.longdouble)
    wide /= np.sqrt((wide * wide).sum(axis=1))[:, None]
    true = np.sqrt(np.square(wide[:, None] - wide).sum(axis=2))
    assert (np.abs(distances - true) <= OFF + RELATIVELY_OFF * true).all()
    np.testing.assert_array_equal(distances, distances.T)
    assert distances[7, 8] == distances[9, 8] == distances[3, 3] == 0
    alone = [[vectors.distances(one, np.array([other]))[0] for other in (3, 50)] for one in (4, 5)]
    np.testing.assert_array_equal(distances[np.ix_([4, 5], [3, 50])], alone)


def assert_exact(features: Features, k: int, hidden: Flags | None = None) -> None:
    items, distances = exact_neighbours(features, k, hidden=hidden)
    expected_items, expected_distances = brute_force_table(features, k, hidden)
    np.testing.assert_array_equal(items, expected_items)
    np.testing.assert_array_equal(distances, expected_distances)
    assert items.dtype == np.uint32
    assert distances.dtype == np.float32


@pytest.mark.parametrize("n", [1, 2, 3, 50, 400])
def test_table_of_any_size(n: int) -> None:
    for k in {0, 1, n // 2, n - 1}:
        if k < n:
            assert_exact(random_features(n, n, n_dims=32), k)


def some_hidden(n: int, n_hidden: int) -> Flags:
    hidden = np.arange(n) < n_hidden
    np.random.default_rng(n_hidden).shuffle(hidden)
    return hidden


@pytest.mark.parametrize(("n", "n_hidden"), [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (50, 25)])
def test_hidden_items_are_in_no_list_but_have_one(n: int, n_hidden: int) -> None:
    features, most = random_features(n, n), max(0, n - n_hidden - 1)
    for k in {0, most // 2, most}:
        assert_exact(features, k, some_hidden(n, n_hidden))


def test_nothing_is_hidden() -> None:
    assert_exact(random_features(50, 1), 10, np.zeros(50, np.bool_))


@pytest.mark.parametrize("hidden", [slice(7), slice(40, 200), slice(100, 250), slice(0, 270)])
def test_copies_of_which_some_are_hidden(hidden: slice) -> None:
    """Some others, all but one of the copies, some of them, and nearly everything."""
    features = random_features(300, 2)
    features[40:200] = features[7]
    flags = np.zeros(300, np.bool_)
    flags[hidden] = True
    assert_exact(features, 10, flags)


def test_hidden_items_far_from_all_that_are_visible() -> None:
    """Where rounding is coarser than among the visible."""
    features = 1 + 1e-3 * random_features(300, 1, n_dims=64)
    hidden = some_hidden(300, 100)
    features[hidden] = random_features(100, 2, n_dims=64) - 0.5
    assert_exact(features, 20, hidden)


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


@settings(max_examples=60 * RANDOM_CASES)
@given(st.data())
def test_coarse_features_full_of_ties(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 40))
    values = data.draw(st.lists(st.integers(0, 2), min_size=3 * n, max_size=3 * n))
    features = np.array(values, np.float32).reshape(n, 3)
    features[~features.any(axis=1)] = 1
    hidden = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    most = max(0, n - 1 - int(hidden.sum()))
    assert_exact(features, data.draw(st.integers(min(1, most), most)), hidden)


def test_every_item_is_counted_as_done() -> None:
    counted: list[int] = []
    features = random_features(90, 4)
    features[10:60] = features[0]
    exact_neighbours(features, 5, counted.append)
    assert sum(counted) == 90
    exact_neighbours(features, 5, counted.append, hidden=some_hidden(90, 20))
    assert sum(counted) == 180


def test_recall_is_the_share_of_the_exact_that_is_found() -> None:
    assert recall_at_k([1, 2, 3, 4], [4, 9, 1]) == 0.5
    assert recall_at_k([1, 2], [2, 1]) == 1.0


def assert_spares(features: Features, k: int, spare: int, hidden: Flags | None = None) -> float:
    """The first k are as without spares; what is given of these is exact; the share that is."""
    n = len(features)
    items, distances = exact_neighbours(features, k, spare=spare, hidden=hidden)
    assert items.shape == distances.shape == (n, k + spare)
    assert items.dtype == np.uint32
    assert distances.dtype == np.float32
    alone_items, alone_distances = exact_neighbours(features, k, hidden=hidden)
    np.testing.assert_array_equal(items[:, :k], alone_items)
    np.testing.assert_array_equal(distances[:, :k], alone_distances)
    known = np.isfinite(distances)
    assert known[:, :k].all()
    assert np.all(np.diff(known.astype(int), axis=1) <= 0)  # from some place on nothing is known
    expected_items, expected_distances = brute_force_table(features, k + spare, hidden)
    own = np.arange(n)[:, None]
    np.testing.assert_array_equal(items, np.where(known, expected_items, own))
    np.testing.assert_array_equal(distances, np.where(known, expected_distances, np.inf))
    return float(known[:, k:].mean())


@pytest.mark.parametrize(("n", "k", "spare"), [(1, 0, 0), (2, 1, 0), (3, 1, 1), (50, 20, 29)])
def test_a_small_category_knows_all_its_spares(n: int, k: int, spare: int) -> None:
    features = random_features(n, n)
    items, distances = exact_neighbours(features, k, spare=spare)
    np.testing.assert_array_equal(items, brute_force_table(features, k + spare)[0])
    assert np.isfinite(distances).all()


@pytest.mark.parametrize("spare", [1, 24, 30, 60])
def test_a_small_category_of_many_copies_knows_all_its_spares(spare: int) -> None:
    """Fewer, as many and more than there are copies, of each of which the lists hold the first."""
    features = random_features(300, 2)
    features[40:200] = features[7]
    features[210:240] = 2 * features[9]
    assert assert_spares(features, 10, spare) == 1


@pytest.mark.parametrize("n", [300, 700])
def test_spares_of_features_alike_are_exact(n: int) -> None:
    """With 300 items all are compared with all, with 700 the best scores of each are kept."""
    assert_spares(1 + 1e-3 * random_features(n, 1, n_dims=64), 20, 24)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that a few hundred items take the way of a large category."""
    monkeypatch.setattr(neighbours, "_BLOCK", 64)
    monkeypatch.setattr(neighbours, "_BLOCK_BYTES", 40_000)
    monkeypatch.setattr(neighbours, "_EXTRA_SCORES", 4)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("n", [113, 127, 128, 129, 500])
def test_a_large_category_by_halves_of_the_product(n: int) -> None:
    assert_exact(random_features(n, n), 10)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("n_hidden", [1, 100, 250, 400])
def test_a_large_category_with_hidden_items(n_hidden: int) -> None:
    features = random_features(500, 1)
    assert_exact(features, 10, some_hidden(500, n_hidden))
    features[50:150] = features[7] * (1 + 1e-7 * random_features(100, 3))
    features[200:330] = features[9]
    assert_exact(features, 10, some_hidden(500, n_hidden))
    assert_spares(features, 10, 12, some_hidden(500, n_hidden))


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
    max_examples=25 * RANDOM_CASES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_a_large_category_full_of_ties(data: st.DataObject) -> None:
    n = data.draw(st.integers(60, 200))
    seed = data.draw(st.integers(0, 2**32 - 1))
    features = np.random.default_rng(seed).integers(0, 3, (n, 4)).astype(np.float32)
    features[~features.any(axis=1)] = 1
    hidden = some_hidden(n, data.draw(st.sampled_from([0, 1, n // 3, n - 4])))
    assert_exact(features, data.draw(st.integers(1, 3)), hidden)


@pytest.mark.usefixtures("small_blocks")
def test_every_item_of_a_large_category_is_counted_as_done() -> None:
    counted: list[int] = []
    features = random_features(400, 4)
    features[10:60] = features[0]
    exact_neighbours(features, 5, counted.append)
    assert sum(counted) == 400
    exact_neighbours(features, 5, counted.append, hidden=some_hidden(400, 100))
    assert sum(counted) == 800


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("spare", "known"), [(1, 1), (3, 1), (4, 3 / 4), (5, 4 / 5), (24, 23 / 24)]
)
def test_a_large_category_knows_all_spares_but_the_last_score_that_is_kept(
    spare: int, known: float
) -> None:
    """Fewer than the scores that are kept anyway, as many, and more."""
    assert assert_spares(random_features(500, 1), 10, spare) == pytest.approx(known, abs=0.001)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("spare", [2, 12])
def test_spares_of_a_large_category_with_copies_and_near_copies(spare: int) -> None:
    features = random_features(600, 2)
    features[50:150] = features[7] * (1 + 1e-7 * random_features(100, 3))
    features[200:330] = features[9]
    features[400:412] = 3 * features[399]
    assert_spares(features, 10, spare)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("scale", [1e-2, 1e-3, 1e-5, 1e-6])
def test_spares_of_a_large_category_where_rounding_matters_are_exact(scale: float) -> None:
    assert_spares(1 + scale * random_features(400, 1, n_dims=64), 10, 8)


@pytest.mark.usefixtures("small_blocks")
@settings(
    max_examples=25 * RANDOM_CASES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_spares_of_a_large_category_full_of_ties(data: st.DataObject) -> None:
    n = data.draw(st.integers(100, 250))
    seed = data.draw(st.integers(0, 2**32 - 1))
    highest = data.draw(st.integers(1, 30))
    features = np.random.default_rng(seed).integers(0, highest, (n, 4)).astype(np.float32)
    features[~features.any(axis=1)] = 1
    hidden = some_hidden(n, data.draw(st.sampled_from([0, n // 3])))
    assert_spares(features, data.draw(st.integers(1, 3)), data.draw(st.integers(1, 6)), hidden)
