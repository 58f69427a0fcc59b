"""A build beside a follower: what has changed since the catalogue is as it was made live."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lookalike.journal import DELETE, PUT, Change, Journal
from lookalike.release.files import MANIFEST, ROWS
from lookalike.release.ids import Id
from lookalike.release.manifest import Applied, Model
from lookalike.release.root import CURRENT, ReleaseRoot
from lookalike_build.catalogue.moment import as_text
from lookalike_build.features.store import STORE, FeatureStore
from lookalike_build.following.background import in_background
from lookalike_build.following.update import Updater
from lookalike_build.indexing.build import IndexSettings, index
from lookalike_build.indexing.carry_over import CarryOverError
from lookalike_build.indexing.live import CategoryChanges, FeatureChanges
from lookalike_build.publishing.removal import ANY
from support import Catalogue, client_of, make_slim, publish, random_features, write_store

DAY_S = 24 * 3600.0
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


def make_live(root: ReleaseRoot, journal: Journal, changes: dict[Id, FeatureChanges]) -> int:
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


def apply(
    root: ReleaseRoot, journal: Journal, changes: dict[Id, FeatureChanges], number: int
) -> None:
    manifest = root.manifest(str(root.current()))
    by_category = {one: CategoryChanges(each) for one, each in changes.items()}
    with root.lock():
        Updater(root, in_background).publish(manifest, by_category, Applied(journal.id, number))


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


# What the current release may be that no features can be taken from, though it holds the changes.


def an_older_format(root: ReleaseRoot) -> str:
    path = root.folder(str(root.current())) / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 1}))
    return r"the current release cannot be read: manifest.json: format is 1, this version reads"


def damaged(root: ReleaseRoot) -> str:
    path = root.folder(str(root.current())) / "1" / ROWS
    os.truncate(path, path.stat().st_size - 1)
    return "is damaged: 1/rows.npy"


def slim(root: ReleaseRoot) -> str:
    make_slim(root)
    return "is a slim copy, without features"


def missing(root: ReleaseRoot) -> str:
    (root.path / CURRENT).unlink()
    return "there is no current release"


UNUSABLE = [an_older_format, damaged, slim, missing]
ANOTHER = Model("another", "sha256:1")


@pytest.mark.parametrize("spoil", UNUSABLE)
def test_removals_outlive_a_current_release_that_cannot_be_used(
    root: ReleaseRoot, journal: Journal, tmp_path: Path, spoil: Callable[[ReleaseRoot], str]
) -> None:
    make_live(root, journal, {1: {5: NEW[0]}})
    make_live(root, journal, {1: {5: None, 7: None}, 9: {1: None}})
    spoil(root)
    index(store_of(tmp_path / "same", CATALOGUE), root, SETTINGS)
    ids = [one for one in range(20) if one not in (5, 7)]
    expect(root, tmp_path, {1: (ids, OLD[ids]), 2: CATALOGUE[2]})


@pytest.mark.parametrize("spoil", UNUSABLE)
def test_what_cannot_be_carried_over_is_refused(
    root: ReleaseRoot, journal: Journal, tmp_path: Path, spoil: Callable[[ReleaseRoot], str]
) -> None:
    make_live(root, journal, {1: {5: None, 77: NEW[3], 3: NEW[2], 78: NEW[4], 79: NEW[0]}})
    names, reason = root.names(), spoil(root)
    store = store_of(tmp_path / "same", CATALOGUE)
    with pytest.raises(
        CarryOverError,
        match=r"its catalogue is of 1970-01-01T00:00:00Z; products put since, which cannot be carried "
        r"over: 4 \(77 of category 1, 3 of category 1, 78 of category 1, …\); " + f".*{reason}.*; "
        "export the catalogue again .* send them again, .* --as-of TIME",
    ):
        index(store, root, SETTINGS)
    assert root.names() == names
    assert not root.staging.exists()
    outcome = journal.outcome(5)
    assert outcome
    index(replace(store, as_of=outcome.received_at + 1), root, SETTINGS)
    expect(root, tmp_path, CATALOGUE)


@pytest.mark.parametrize("spoil", UNUSABLE)
def test_products_that_were_sent_again_keep_no_build_from_it(
    root: ReleaseRoot, journal: Journal, tmp_path: Path, spoil: Callable[[ReleaseRoot], str]
) -> None:
    make_live(root, journal, {1: {5: None, 77: NEW[3]}})
    spoil(root)
    (number,) = journal.add([Change(PUT, 1, 77, photo=NEW[3].tobytes())])
    index(store_of(tmp_path / "same", CATALOGUE), root, SETTINGS)
    ids = [one for one in range(20) if one != 5]
    expect(root, tmp_path, {1: (ids, OLD[ids]), 2: CATALOGUE[2]})
    assert [pending for pending, _ in journal.pending(9)] == [number]


def test_with_another_model_removals_are_carried_over_and_photos_refused(
    root: ReleaseRoot, journal: Journal, tmp_path: Path
) -> None:
    make_live(root, journal, {1: {5: None}})
    index(write_store(tmp_path / "other", OTHER, ANOTHER), root, SETTINGS, allowed=ANY)
    ids = [one for one in range(19) if one != 5]
    expect(root, tmp_path, {1: (ids, OTHER[1][1][ids]), 2: OTHER[2]})
    make_live(root, journal, {1: {77: NEW[3]}})
    with pytest.raises(
        CarryOverError, match=r"has features of another sha256:1 .* of test sha256:0"
    ):
        index(store_of(tmp_path / "same", CATALOGUE), root, SETTINGS, allowed=ANY)


def test_what_must_be_refused_is_refused_before_the_work(
    root: ReleaseRoot, journal: Journal, tmp_path: Path
) -> None:
    make_live(root, journal, {1: {77: NEW[3]}})
    store = write_store(tmp_path / "other", OTHER, ANOTHER)
    with pytest.raises(CarryOverError):
        index(store, root, SETTINGS, lambda _: None, lambda *_: pytest.fail("indexes"))


STRINGS: Catalogue = {
    "1": ([str(one) for one in range(20)], OLD),
    "2": (["50", "A-1"], NEW[:2]),
}


def test_products_are_the_same_though_their_ids_become_strings(
    root: ReleaseRoot, journal: Journal, tmp_path: Path
) -> None:
    make_live(root, journal, {1: {5: None, 3: NEW[2]}, 7: {9: NEW[4]}})
    index(store_of(tmp_path / "strings", STRINGS), root, SETTINGS, allowed=ANY)
    features = OLD.copy()
    features[3] = NEW[2]
    ids = [one for one in range(20) if one != 5]
    first = [str(one) for one in ids], features[ids]
    expect(root, tmp_path, {"1": first, "2": STRINGS["2"], "7": (["9"], NEW[4:5])})


def test_products_are_the_same_though_their_ids_become_numbers(tmp_path: Path) -> None:
    root = publish(tmp_path / "strings", STRINGS, tmp_path / "features", n_trees=2, neighbours=5)
    with closing(Journal(root.journal)) as journal:
        make_live(root, journal, {"1": {"5": None, "3": NEW[2]}, "2": {"A-1": None}})
        store = store_of(tmp_path / "numbers", CATALOGUE)
        index(store, root, SETTINGS, allowed=ANY)
        features = OLD.copy()
        features[3] = NEW[2]
        ids = [one for one in range(20) if one != 5]
        expect(root, tmp_path, {1: (ids, features[ids]), 2: CATALOGUE[2]})


def test_a_product_whose_id_is_no_number_cannot_be_among_numbers(tmp_path: Path) -> None:
    root = publish(tmp_path / "strings", STRINGS, tmp_path / "features", n_trees=2, neighbours=5)
    with closing(Journal(root.journal)) as journal:
        make_live(root, journal, {"1": {"A-2": NEW[2]}})
        with pytest.raises(
            CarryOverError, match=r"A-2 of category 1\); ids of this store are whole"
        ):
            index(store_of(tmp_path / "numbers", CATALOGUE), root, SETTINGS, allowed=ANY)


def test_a_removal_outlives_a_catalogue_of_weeks(
    root: ReleaseRoot, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    make_live(root, journal, {1: {5: None}})
    now += 30 * DAY_S
    make_live(root, journal, {1: {6: None}})
    index(store_of(tmp_path / "same", CATALOGUE), root, SETTINGS)
    ids = [one for one in range(20) if one not in (5, 6)]
    expect(root, tmp_path, {1: (ids, OLD[ids]), 2: CATALOGUE[2]})


def test_a_catalogue_older_than_what_is_remembered_is_refused(
    root: ReleaseRoot, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    make_live(root, journal, {1: {5: None}})
    began, now = now, now + 100 * DAY_S
    make_live(root, journal, {1: {6: None}})
    store = store_of(tmp_path / "same", CATALOGUE, began - 60)
    with pytest.raises(
        CarryOverError,
        match=f"its catalogue is of {as_text(began - 60)}, and of live changes up to {as_text(began)} "
        "the journal knows .*; export the catalogue again .* --as-of TIME",
    ):
        index(store, root, SETTINGS)
    index(replace(store, as_of=began + 60), root, SETTINGS)
    ids = [one for one in range(20) if one != 6]
    expect(root, tmp_path, {1: (ids, OLD[ids]), 2: CATALOGUE[2]})


@pytest.mark.parametrize("ahead", [DAY_S, 10 * DAY_S, 1000 * DAY_S])
def test_a_clock_that_was_ahead_neither_undoes_changes_nor_makes_them_newer(
    root: ReleaseRoot,
    journal: Journal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ahead: float,
) -> None:
    now = began = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    now = began + ahead
    make_live(root, journal, {1: {5: None}})
    now = began + 600
    store = store_of(tmp_path / "same", CATALOGUE, began - 60)
    index(store, root, SETTINGS)
    ids = [one for one in range(20) if one != 5]
    expect(root, tmp_path, {1: (ids, OLD[ids]), 2: CATALOGUE[2]})
    now = began + 7200
    index(replace(store, as_of=began + 3600), root, SETTINGS)
    expect(root, tmp_path, CATALOGUE)


@pytest.mark.parametrize(
    ("as_of", "message"),
    [(None, "does not say of when its catalogue is"), (60, "ahead of this host's clock")],
)
def test_a_catalogue_of_no_known_moment_is_refused_where_products_change(
    root: ReleaseRoot, tmp_path: Path, as_of: float | None, message: str
) -> None:
    store = replace(
        store_of(tmp_path / "other", OTHER), as_of=None if as_of is None else time.time() + as_of
    )
    index(store, root, SETTINGS)  # nothing ever changed
    with closing(Journal(root.journal)), pytest.raises(CarryOverError, match=message) as caught:
        index(store, root, SETTINGS)
    assert "--as-of TIME" in str(caught.value)


def test_building_the_same_again_changes_nothing(
    root: ReleaseRoot, journal: Journal, tmp_path: Path
) -> None:
    make_live(root, journal, {1: {77: NEW[3]}})
    store = store_of(tmp_path / "same", CATALOGUE)
    first = index(store, root, SETTINGS)
    again = index(store, root, SETTINGS)
    assert again.release == first.release
    assert client_of(root).get("/nns?category_id=1&product_id=77").status == "200 OK"
