"""A release asked from Python: the same answers as over HTTP, and one clear line for what is wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lookalike
from lookalike.release.attributes import Values
from lookalike.release.ids import Id
from lookalike.release.root import ReleaseRoot
from support import (
    N_DIMS,
    Client,
    give,
    integer_catalogue,
    make_slim,
    post,
    publish,
    random_features,
)


@pytest.fixture(scope="module")
def release(integer_root: ReleaseRoot) -> lookalike.Release:
    return lookalike.open_release(integer_root.path)


@pytest.mark.parametrize(("category_id", "product_id"), [(1, 100), (2, 0), (3, 77), (40, 5010)])
@pytest.mark.parametrize("limit", [1, 9, 200])
def test_neighbours_are_those_of_get_nns(
    release: lookalike.Release,
    integer_root: ReleaseRoot,
    category_id: int,
    product_id: int,
    limit: int,
) -> None:
    client = Client(lookalike.make_application(lookalike.Settings(integer_root.path)))
    query = f"category_id={category_id}&product_id={product_id}&exclude_self=true&distances=true"
    over_http = json.loads(client.get(f"/nns?{query}&limit={limit}").body)
    found = release.neighbours(category_id, product_id, limit)
    assert found.product_ids == over_http["product_ids"]
    assert np.array_equal(
        np.array(found.distances, np.float32), np.array(over_http["distances"], np.float32)
    )


def test_a_search_is_that_of_post_nns(
    release: lookalike.Release, integer_root: ReleaseRoot
) -> None:
    client = Client(lookalike.make_application(lookalike.Settings(integer_root.path)))
    vector = random_features(1, 9)[0]
    asked = {"category_id": 40, "vector": vector.tolist(), "limit": 5, "distances": True}
    over_http = json.loads(post(client, asked).body)
    found = release.search(40, vector, limit=5)
    assert found.product_ids == over_http["product_ids"]
    assert np.array_equal(
        np.array(found.distances, np.float32), np.array(over_http["distances"], np.float32)
    )


def test_ids_may_be_numpys(release: lookalike.Release) -> None:
    assert release.neighbours(np.int64(1), np.int64(100)) == release.neighbours(1, 100)  # type: ignore[arg-type]


def test_products_with_string_ids(string_root: ReleaseRoot) -> None:
    release = lookalike.open_release(str(string_root.path))
    assert release.neighbours("../hats & caps", "only").product_ids == ["two"]


def test_a_named_release_stays_what_it_is(root: ReleaseRoot) -> None:
    name = root.names()[0]
    assert lookalike.open_release(root.path, name).manifest.release == name
    with pytest.raises(lookalike.RootError, match=r"no release 'other' under .*; it has: "):
        lookalike.open_release(root.path, "other")


def test_a_root_without_a_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(lookalike.RootError, match=r"no release in .* yet"):
        lookalike.open_release(tmp_path)


@pytest.mark.parametrize(
    ("category_id", "product_id", "said"),
    [
        (1, 99, "category 1 has no product 99"),
        (1, "100", "category 1 has no product '100'"),
        (9, 100, "has no category 9"),
        ("1", 100, "has no category '1'"),
    ],
)
def test_an_unknown_product_is_named(
    release: lookalike.Release, category_id: Any, product_id: Any, said: str
) -> None:
    with pytest.raises(LookupError, match=said):
        release.neighbours(category_id, product_id)


def test_a_string_release_has_no_product_of_an_integer(string_root: ReleaseRoot) -> None:
    with pytest.raises(LookupError, match="category 'shoes' has no product 100"):
        lookalike.open_release(string_root.path).neighbours("shoes", 100)


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        (np.ones(N_DIMS - 1), rf"must have the shape \({N_DIMS},\), not \({N_DIMS - 1},\)"),
        (np.ones((1, N_DIMS)), rf"not \(1, {N_DIMS}\)"),
        (np.zeros(N_DIMS), "vector is all zeros"),
        ([float("nan")] * N_DIMS, "vector has a NaN or infinite number"),
        ([float("inf")] * N_DIMS, "vector has a NaN or infinite number"),
    ],
)
def test_an_invalid_vector_is_refused(release: lookalike.Release, vector: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        release.search(1, vector)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(release: lookalike.Release, limit: int) -> None:
    with pytest.raises(ValueError, match=f"limit must be at least 1, not {limit}"):
        release.neighbours(1, 100, limit)
    with pytest.raises(ValueError, match=f"limit must be at least 1, not {limit}"):
        release.search(1, np.ones(N_DIMS), limit)


def test_none_is_further_away_than_asked(release: lookalike.Release) -> None:
    near = release.neighbours(1, 100, 8)
    for n in (1, 4, 8):
        some = release.neighbours(1, 100, 8, max_distance=near.distances[n - 1])
        assert some == lookalike.Neighbours(near.product_ids[:n], near.distances[:n])
    feature = integer_catalogue()[1][1][0]
    found = release.search(1, feature, 8)
    assert (
        release.search(1, feature, 8, max_distance=found.distances[3]).product_ids
        == found.product_ids[:4]
    )


@pytest.mark.parametrize("max_distance", [-0.1, float("nan")])
def test_a_distance_that_is_none_is_refused(
    release: lookalike.Release, max_distance: float
) -> None:
    said = "max_distance must be a number from 0 to 2, such as 0.8, not "
    with pytest.raises(ValueError, match=said):
        release.neighbours(1, 100, 5, max_distance=max_distance)
    with pytest.raises(ValueError, match=said):
        release.search(1, np.ones(N_DIMS), 5, max_distance=max_distance)


def test_conditions_are_those_of_requests(tmp_path: Path) -> None:
    root = publish(tmp_path / "root", integer_catalogue(), tmp_path / "features")
    prices: dict[Id, Values] = {one: {"price": one % 5} for one in range(100, 160)}
    give(root, {1: prices}, {"price": "number"})
    release = lookalike.open_release(root.path)
    everything = release.neighbours(1, 100, 60).product_ids
    cheap = [one for one in everything if int(one) % 5 < 2]
    assert release.neighbours(1, 100, 60, price__lt=2).product_ids == cheap
    feature = integer_catalogue()[1][1][0]
    assert release.search(1, feature, 60, price__lt=2).product_ids == [100, *cheap]
    two = release.neighbours(1, 100, 60, distinct="price:2").product_ids
    assert sorted(int(one) % 5 for one in two) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    with pytest.raises(
        ValueError, match=r"unknown argument cost; known are max_distance, .* price"
    ):
        release.neighbours(1, 100, cost=2)
    with pytest.raises(ValueError, match='price must be a finite number, not "2"'):
        release.search(1, feature, price="2")


def test_a_slim_copy_has_neighbours_and_no_search(root: ReleaseRoot) -> None:
    full = lookalike.open_release(root.path).neighbours(1, 100)
    make_slim(root)
    slim = lookalike.open_release(root.path)
    assert slim.neighbours(1, 100) == full
    with pytest.raises(ValueError, match="is a slim copy, which has no index for vectors"):
        slim.search(1, np.ones(N_DIMS))


def test_every_feature_finds_itself(release: lookalike.Release) -> None:
    product_ids, features = integer_catalogue()[1]
    for product_id, feature in zip(product_ids, features, strict=True):
        found = release.search(1, 1e30 * feature.astype(float), limit=1)
        assert found.product_ids == [product_id]
        assert found.distances[0] < 1e-3
