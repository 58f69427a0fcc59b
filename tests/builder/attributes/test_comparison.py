"""What a table says is compared with a release as it is after live changes, too."""

from pathlib import Path

import pyarrow as pa
import pytest

from lookalike.release.attributes import Value
from lookalike.release.ids import Id
from lookalike.release.root import ReleaseRoot
from lookalike_build.attributes.comparison import Comparison, Live, compare
from lookalike_build.indexing.attributes import ProductValues, publish_attributes
from support import change, integer_catalogue, publish, random_features, updates_beside


def hides(product_ids: list[int], hidden: list[Value | None]) -> ProductValues:
    return ProductValues(pa.array(product_ids), {"hidden": pa.array(hidden, pa.bool_())})


@pytest.fixture
def root(tmp_path: Path) -> ReleaseRoot:
    """A release that hides the products 100 and 101 of category 1."""
    root = publish(tmp_path / "r", integer_catalogue(), tmp_path / "f", n_trees=2, neighbours=5)
    publish_attributes(root, {"hidden": "flag"}, {1: hides([100, 101], [True, True])})
    return root


def compared(root: ReleaseRoot, values: dict[Id, ProductValues], live: Live) -> Comparison:
    name = str(root.current())
    return compare(root.folder(name), root.manifest(name), values, live)


def test_only_visible_products_of_the_release_would_be_hidden(root: ReleaseRoot) -> None:
    values: dict[Id, ProductValues] = {
        1: hides([100, 101, 102, 103, 104, 7], [True, False, True, None, True, True]),
        9: hides([100], [True]),
    }
    live: Live = {(1, 102): {"hidden": False}, (1, 104): {"price": 5}, (2, 104): {"hidden": True}}
    assert compared(root, values, {}) == Comparison(5, 2, (1, 7), 2)
    assert compared(root, values, live) == Comparison(5, 2, (1, 7), 1)
    assert compared(root, {9: values[9]}, {}) == Comparison(0, 1, (9, 100), 0)


def test_products_that_came_and_left_count_as_they_are(root: ReleaseRoot) -> None:
    (feature,) = random_features(1, 9)
    with updates_beside():
        change(root, {1: {100: None, 999: feature}})
        # As a new product it is visible again.
        change(root, {1: {100: feature, 102: None}})
    (entry, *_) = root.manifest(str(root.current())).categories
    assert entry.updates
    values: dict[Id, ProductValues] = {1: hides([100, 101, 102, 999], [True] * 4)}
    assert compared(root, values, {}) == Comparison(3, 1, (1, 102), 2)
