"""A build's products have the values of the release that is current when it is published."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lookalike.release.attributes import HIDDEN, Values
from lookalike.release.files import MANIFEST, columns_file
from lookalike.release.ids import Id, category_folder
from lookalike.release.root import ReleaseRoot
from lookalike_build.features.store import FeatureSource
from lookalike_build.indexing import build
from lookalike_build.indexing.build import IndexSettings, index, index_here
from lookalike_build.indexing.category import Done
from lookalike_build.indexing.neighbours import exact_neighbours
from lookalike_build.publishing.category import CategoryWriter, Written
from lookalike_build.publishing.removal import ANY
from lookalike_build.publishing.staging import Published
from support import (
    Catalogue,
    change,
    publish,
    random_features,
    string_catalogue,
    values_in,
    write_store,
)

SETTINGS = IndexSettings(neighbours=10)
KEPT, UPDATED, REBUILT, GONE = range(1, 5)
SETS: dict[Id, dict[Id, Values]] = {
    category: {
        **{one: {"hidden": True} for one in range(0, 60, 7)},
        **{one: {"hidden": one % 2 == 0} for one in (1, 3, 58)},
    }
    for category in (KEPT, UPDATED, REBUILT, GONE)
}


def catalogue(seeds: Iterable[int]) -> Catalogue:
    """Categories of 60 products."""
    return {
        category: (list(range(60)), random_features(60, seed))
        for category, seed in enumerate(seeds, 1)
    }


def next_catalogue() -> Catalogue:
    """One category as it was, one with a few changes, one with other features, one gone."""
    ids, features = catalogue(range(4))[UPDATED]
    features = features.copy()
    features[3] = random_features(1, 77)[0]
    return {
        KEPT: catalogue(range(4))[KEPT],
        UPDATED: ([*ids[:-2], 99], np.concatenate([features[:-2], random_features(1, 78)])),
        REBUILT: (list(range(10, 70)), random_features(60, 79)),
    }


@pytest.fixture
def root(tmp_path: Path) -> ReleaseRoot:
    return publish(tmp_path / "root", catalogue(range(4)), tmp_path / "features", neighbours=10)


def build_next(
    root: ReleaseRoot, folder: Path, engine: build.IndexEngine = index_here, rebuild: bool = False
) -> Published:
    store = write_store(folder, next_catalogue())
    return index(store, root, SETTINGS, engine=engine, allowed=ANY, rebuild=rebuild)


def check(root: ReleaseRoot, expected: dict[Id, dict[Id, Values]]) -> None:
    """Products have these values or none, and lists have those that are not hidden."""
    release = root.open(root.chosen())
    found = values_in(release)
    for category_id, (ids, features) in next_catalogue().items():
        values = {one: expected.get(category_id, {}).get(one, {}) for one in ids}
        assert found[category_id] == values
        hidden = np.array([bool(values[one].get(HIDDEN)) for one in ids])
        category = release.categories[category_id]
        items, distances = exact_neighbours(features, category.entry.k, hidden=hidden)
        for item, product_id in enumerate(ids):
            own = category.item_of(product_id)
            assert own is not None
            listed, apart = category.listed(own, category.entry.k)
            assert category.ids(listed) == [ids[other] for other in items[item]]
            np.testing.assert_array_equal(apart, distances[item])
    list(root.check(root.chosen()))


@pytest.mark.parametrize("rebuild", [False, True])
def test_products_keep_their_values(root: ReleaseRoot, tmp_path: Path, rebuild: bool) -> None:
    change(root, {}, None, SETS)
    published = build_next(root, tmp_path / "next", rebuild=rebuild)
    assert published.left_out == ()
    check(root, SETS)


@pytest.mark.parametrize("rebuild", [False, True])
def test_what_is_set_while_a_build_runs_is_in_it(
    root: ReleaseRoot, tmp_path: Path, rebuild: bool
) -> None:
    change(root, {}, None, SETS)
    later: dict[Id, dict[Id, Values]] = {
        KEPT: {0: {"hidden": False}, 5: {"hidden": True}},
        REBUILT: {58: {"hidden": None}, 20: {"hidden": True}},
    }

    def engine(
        store: FeatureSource, settings: IndexSettings, writers: Sequence[CategoryWriter], done: Done
    ) -> list[Written]:
        written = index_here(store, settings, writers, done)
        change(root, {UPDATED: {7: None}}, None, later)
        change(root, {UPDATED: {7: random_features(1, 80)[0]}})
        return written

    published = build_next(root, tmp_path / "next", engine, rebuild)
    assert published.left_out == ()
    expected = {one: dict(values) for one, values in SETS.items()}
    for category, values in later.items():
        expected[category] |= values
    del expected[REBUILT][58], expected[UPDATED][7]
    check(root, expected)


def test_a_build_that_was_killed_goes_on_with_what_was_set_meanwhile(
    root: ReleaseRoot, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    def engine(*arguments: object) -> list[Written]:
        index_here(*arguments)  # type: ignore[arg-type]
        raise Killed

    with pytest.raises(Killed):
        build_next(root, tmp_path / "next", engine)
    change(root, {}, None, SETS)
    build_next(root, tmp_path / "again")
    check(root, SETS)


def other_ids(folder: Path, root: ReleaseRoot) -> Catalogue:
    return string_catalogue()


def damaged_manifest(folder: Path, root: ReleaseRoot) -> Catalogue:
    (folder / MANIFEST).write_text("{")
    return next_catalogue()


def damaged_columns(folder: Path, root: ReleaseRoot) -> Catalogue:
    path = folder / category_folder(REBUILT) / columns_file(0)
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    return next_catalogue()


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        (other_ids, "category and product ids of release .* are integers and integers"),
        (damaged_manifest, "the current release cannot be read: manifest.json"),
        (damaged_columns, "category 3: 3/columns-0.npy: is not the file the manifest describes"),
    ],
)
def test_values_that_cannot_be_taken_over_are_reported(
    root: ReleaseRoot,
    tmp_path: Path,
    before: Callable[[Path, ReleaseRoot], Catalogue],
    reason: str,
) -> None:
    change(root, {}, None, SETS)
    folder = root.folder(root.chosen())
    made = before(folder, root)
    store = replace(write_store(tmp_path / "next", made), as_of=0)
    (left_out,) = index(store, root, SETTINGS, allowed=ANY).left_out
    assert left_out.startswith("attributes are left out: ")
    assert left_out.endswith("; run `lookalike-build attributes`")
    assert re.search(reason, left_out)
    list(root.check(root.chosen()))
