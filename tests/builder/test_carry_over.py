"""A build beside a follower: what has changed since the catalogue is as it was made live."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lookalike.journal import DELETE, PUT, Change, Journal
from lookalike.manifest import Applied, Id, Model
from lookalike.root import ReleaseRoot
from lookalike_build.background import BackgroundThread
from lookalike_build.features import STORE, FeatureStore
from lookalike_build.index import IndexSettings, index
from lookalike_build.live_category import Changes
from lookalike_build.update import Updater
from support import Catalogue, client_of, publish, random_features, write_store

SETTINGS = IndexSettings(n_trees=2, neighbours=5)
OLD, NEW = random_features(20, 1), random_features(5, 2)
CATALOGUE: Catalogue = {1: (list(range(20)), OLD), 2: ([50, 51], NEW[:2])}
OTHER: Catalogue = {1: (list(range(19)), random_features(19, 3)), 2: ([50, 51], NEW[:2])}


@pytest.fixture
def root(tmp_path: Path) -> ReleaseRoot:
    return publish(tmp_path / "root", CATALOGUE, tmp_path / "features", n_trees=2, neighbours=5)


@pytest.fixture
def journal(root: ReleaseRoot) -> Iterator[Journal]:
    journal = Journal(root.journal)
    yield journal
    journal.close()


def make_live(root: ReleaseRoot, journal: Journal, changes: dict[Id, Changes]) -> int:
    """The number of the last of the changes, which are published and settled."""
    number = 0
    for category_id, products in changes.items():
        for product_id, feature in products.items():
            delete, put = (
                Change(DELETE, category_id, product_id),
                Change(PUT, category_id, product_id),
            )
            (number,) = journal.add([delete if feature is None else put._replace(photo=b"photo")])
    apply(root, journal, changes, number)
    journal.settle(number, str(root.current()))
    return number


def apply(root: ReleaseRoot, journal: Journal, changes: dict[Id, Changes], number: int) -> None:
    manifest = root.manifest(str(root.current()))
    with root.lock():
        Updater(root, BackgroundThread()).publish(manifest, changes, Applied(journal.id, number))


def store_of(folder: Path, catalogue: Catalogue, as_of: float = 0) -> FeatureStore:
    write_store(folder, catalogue)
    document = json.loads((folder / STORE).read_text()) | {"as_of": as_of}
    (folder / STORE).write_text(json.dumps(document))
    return FeatureStore.open(folder)


def expect(root: ReleaseRoot, tmp_path: Path, catalogue: Catalogue) -> None:
    """Every answer of the current release is that of a release made of the catalogue alone."""
    served, expected = (
        client_of(root),
        client_of(publish(tmp_path / "e", catalogue, tmp_path / "f")),
    )
    for category_id, (product_ids, _) in catalogue.items():
        for product_id in product_ids:
            target = (
                f"/nns?category_id={category_id}&product_id={product_id}&limit=6&distances=true"
            )
            assert served.get(target).body == expected.get(target).body, target
    manifest = root.manifest(str(root.current()))
    sizes = {entry.category_id: entry.n_items for entry in manifest.categories}
    assert sizes == {category_id: len(ids) for category_id, (ids, _) in catalogue.items()}
    assert [entry.category_id for entry in manifest.categories] == sorted(catalogue)
    list(root.check(manifest.release))


def test_what_is_live_since_the_catalogue_outlives_the_build(
    root: ReleaseRoot, journal: Journal, tmp_path: Path
) -> None:
    number = make_live(root, journal, {1: {3: NEW[2], 5: None, 77: NEW[3]}, 7: {9: NEW[4]}})
    index(store_of(tmp_path / "other", OTHER), root, SETTINGS)
    features = OTHER[1][1].copy()
    features[3] = NEW[2]
    ids = [one for one in range(19) if one != 5]
    expect(
        root,
        tmp_path,
        {
            1: ([*ids, 77], np.concatenate([features[ids], NEW[3:4]])),
            2: OTHER[2],
            7: ([9], NEW[4:5]),
        },
    )
    assert root.manifest(str(root.current())).applied == Applied(journal.id, number)


def test_a_catalogue_that_is_newer_has_the_last_word(
    root: ReleaseRoot, journal: Journal, tmp_path: Path
) -> None:
    number = make_live(root, journal, {1: {3: NEW[2], 5: None, 77: NEW[3]}, 7: {9: NEW[4]}})
    outcome = journal.outcome(number)
    assert outcome
    index(store_of(tmp_path / "other", OTHER, outcome.received_at + 1), root, SETTINGS)
    expect(root, tmp_path, OTHER)


def test_a_category_whose_products_were_all_removed_stays_away(
    root: ReleaseRoot, journal: Journal, tmp_path: Path
) -> None:
    make_live(root, journal, {2: {50: None, 51: None}})
    index(store_of(tmp_path / "other", OTHER), root, SETTINGS)
    expect(root, tmp_path, {1: OTHER[1]})


def test_a_change_that_is_pending_stays_so(
    root: ReleaseRoot, journal: Journal, tmp_path: Path
) -> None:
    make_live(root, journal, {1: {77: NEW[3]}})
    (number,) = journal.add([Change(DELETE, 1, 0)])
    index(store_of(tmp_path / "same", CATALOGUE), root, SETTINGS)
    outcome = journal.outcome(number)
    assert outcome
    assert outcome.state == "pending"
    assert client_of(root).get("/nns?category_id=1&product_id=0").status == "200 OK"
    assert client_of(root).get("/nns?category_id=1&product_id=77").status == "200 OK"


def test_a_change_that_a_killed_follower_published_is_kept_and_settled(
    root: ReleaseRoot, journal: Journal, tmp_path: Path
) -> None:
    (number,) = journal.add([Change(PUT, 1, 77, None, b"photo")])
    apply(root, journal, {1: {77: NEW[3]}}, number)
    index(store_of(tmp_path / "same", CATALOGUE), root, SETTINGS)
    outcome = journal.outcome(number)
    assert outcome
    assert outcome.state == "live"
    assert client_of(root).get("/nns?category_id=1&product_id=77").status == "200 OK"


def test_features_of_another_model_are_not_carried_over(
    root: ReleaseRoot, journal: Journal, tmp_path: Path
) -> None:
    make_live(root, journal, {1: {77: NEW[3]}})
    index(write_store(tmp_path / "other", OTHER, Model("another", "sha256:1")), root, SETTINGS)
    expect(root, tmp_path, OTHER)


def test_building_the_same_again_changes_nothing(
    root: ReleaseRoot, journal: Journal, tmp_path: Path
) -> None:
    make_live(root, journal, {1: {77: NEW[3]}})
    store = store_of(tmp_path / "same", CATALOGUE)
    first = index(store, root, SETTINGS)
    again = index(store, root, SETTINGS)
    assert again.release == first.release
    assert client_of(root).get("/nns?category_id=1&product_id=77").status == "200 OK"
