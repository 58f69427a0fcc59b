"""Features in memory become the release that the same features in a store become."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lookalike
from lookalike.release.manifest import Model
from lookalike.release.root import ReleaseRoot
from lookalike_build import FeatureError, IndexSettings, build_release
from support import Catalogue, integer_catalogue, publish, string_catalogue


@pytest.mark.parametrize("catalogue", [integer_catalogue(), string_catalogue()], ids=["int", "str"])
def test_a_release_has_the_same_files_as_one_from_a_store(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    stored = publish(tmp_path / "stored", catalogue, tmp_path / "features")
    name = build_release(tmp_path / "root", catalogue, model="test")
    root = ReleaseRoot(tmp_path / "root")
    assert root.current() == name
    made, expected = root.manifest(name), stored.manifest(str(stored.current()))
    assert [entry.files for entry in made.categories] == [
        entry.files for entry in expected.categories
    ]
    assert [entry.digest for entry in made.categories] == [
        entry.digest for entry in expected.categories
    ]
    assert made.model == Model("test", "unknown")


def test_ids_and_features_may_be_numpys_and_in_any_order(tmp_path: Path) -> None:
    product_ids, features = integer_catalogue()[1]
    order = np.random.default_rng(0).permutation(len(product_ids))
    given = {np.int64(1): (np.array(product_ids)[order], features[order].astype(np.float64))}
    build_release(tmp_path / "root", given, model="test")  # type: ignore[arg-type]
    build_release(tmp_path / "sorted", {1: (product_ids, features)}, model="test")
    found = [lookalike.open_release(tmp_path / name) for name in ("root", "sorted")]
    for product_id in product_ids:
        assert found[0].neighbours(1, product_id) == found[1].neighbours(1, product_id)


def test_settings_are_taken(tmp_path: Path) -> None:
    name = build_release(
        tmp_path, integer_catalogue(), model="test", settings=IndexSettings(neighbours=3)
    )
    assert max(entry.k for entry in ReleaseRoot(tmp_path).manifest(name).categories) == 3


def test_building_the_same_again_publishes_nothing(tmp_path: Path) -> None:
    first = build_release(tmp_path, integer_catalogue(), model="test")
    assert build_release(tmp_path, integer_catalogue(), model="test") == first
    assert ReleaseRoot(tmp_path).names() == [first]


TWO = np.eye(2, 3)


@pytest.mark.parametrize(
    ("categories", "said"),
    [
        ({}, "holds no products"),
        (
            {1: ([1, 2], TWO[:1])},
            r"category 1: features have the shape \(1, 3\), expected \(2, 3\)",
        ),
        ({1: ([1], TWO[0])}, r"category 1: features have the shape \(3,\)"),
        ({1: ([1, 2], TWO), 2: ([1], [[1.0]])}, r"category 2: .* \(1, 1\), expected \(1, 3\)"),
        ({1: ([1, 1], TWO)}, "category 1: product 1 is there more than once"),
        ({1: ([1, 2], 0 * TWO)}, "category 1: product 1 has features that are all zero"),
        ({1: ([1, 2], np.nan * TWO)}, "product 1 has a NaN"),
        ({1: ([1, "2"], TWO)}, "product ids must be all integers or all strings"),
        ({1: ([1, 2], TWO), "b": ([3, 4], TWO)}, "category ids must be all integers"),
        ({1: ([-1, 2], TWO)}, "id -1 must be a whole number from 0"),
        ({1: (["", "b"], TWO)}, "id '' must be 1 to 64 bytes"),
        ({1: ([True, 2], TWO)}, "an id must be an integer or a string, not True"),
        ({1: ([1.5, 2], TWO)}, "an id must be an integer or a string, not 1.5"),
        ({1: (np.array([1.0, 2.0]), TWO)}, "an id must be an integer or a string, not"),
    ],
)
def test_what_is_invalid_is_named_and_nothing_published(
    categories: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(FeatureError, match=said):
        build_release(tmp_path / "root", categories, model="test")
    assert ReleaseRoot(tmp_path / "root").names() == []
