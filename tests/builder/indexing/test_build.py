"""Indexing: what a release holds, that it is reproducible, and what is refused."""

import errno
import hashlib
import json
import os
import resource
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import lookalike_build.indexing.build
import lookalike_build.indexing.category
from lookalike.release.files import FEATURES, INDEX, MANIFEST, PROJECTION
from lookalike.release.manifest import Manifest
from lookalike.release.root import ReleaseRoot, RootError
from lookalike.release.vectors import node_dtype
from lookalike_build.features.store import FeatureError, FeatureSource, FeatureStore, FeatureWriter
from lookalike_build.indexing.build import Done, IndexSettings, index_category, index_here
from lookalike_build.indexing.build import index as guarded_index
from lookalike_build.indexing.neighbours import exact_neighbours
from lookalike_build.publishing.category import CategoryWriter, Counts, Written
from lookalike_build.publishing.removal import ANY
from lookalike_build.publishing.staging import Staging
from support import (
    MODEL,
    N_DIMS,
    Catalogue,
    change,
    etag_of,
    integer_catalogue,
    make_slim,
    publish,
    random_features,
    string_catalogue,
    write_store,
)
from waiting import HUNG_S

index = partial(guarded_index, allowed=ANY)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }


def current(root: ReleaseRoot) -> Path:
    name = root.current()
    assert name is not None
    return root.folder(name)


def test_the_same_features_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        publish(tmp_path / name, integer_catalogue(), tmp_path / f"features-{name}")
    one, other = (current(ReleaseRoot(tmp_path / name)) for name in ("a", "b"))
    assert digests(one) == digests(other)
    assert Manifest.read(one).content_digest() == Manifest.read(other).content_digest()


def test_another_seed_gives_another_index_and_the_same_table(tmp_path: Path) -> None:
    for seed in (1, 2):
        publish(tmp_path / str(seed), integer_catalogue(), tmp_path / "features", seed=seed)
    one, other = (digests(current(ReleaseRoot(tmp_path / seed))) for seed in ("1", "2"))
    changed = {file for file in one if one[file] != other[file]}
    assert changed == {"1/index.ann", "40/index.ann"}


def test_what_the_manifest_says(integer_root: ReleaseRoot) -> None:
    manifest = Manifest.read(current(integer_root))
    assert (manifest.n_dims, manifest.n_items) == (16, 368)
    assert (manifest.category_id_type, manifest.product_id_type) == ("integer", "integer")
    entries = {entry.category_id: entry for entry in manifest.categories}
    assert [(entry.n_items, entry.k) for entry in entries.values()] == [
        (60, 59),
        (7, 6),
        (1, 0),
        (300, 100),
    ]
    assert all(entry.n_trees == 10 for entry in entries.values())
    assert (entries[3].recall, entries[3].recall_sample) == (None, 0)
    assert entries[2].recall == 1.0
    assert entries[40].recall_sample == 100
    assert 95 <= entries[40].candidates <= 105
    assert entries[40].search_k == 300
    assert 0.95 <= (entries[40].recall or 0) <= 1
    assert [entry.n_index_dims for entry in entries.values()] == [16, 7, 1, 16]


def test_the_settings_are_used(tmp_path: Path) -> None:
    settings = {"n_trees": 3, "neighbours": 5, "recall": 0}
    root = publish(tmp_path / "r", integer_catalogue(), tmp_path / "f", **settings)
    category = root.open(current(root).name).categories[40]
    assert category.neighbours.shape == (300, 5)
    assert category.entry.n_trees == 3


@pytest.mark.parametrize("recall", [0.0, 0.5, 0.95, 0.99])
@pytest.mark.slow
def test_vectors_reach_the_recall_asked_for_in_a_large_category(
    tmp_path: Path, recall: float
) -> None:
    rng = np.random.default_rng(0)
    groups = np.abs(rng.normal(size=(300, 40)))
    features = groups[rng.integers(0, 300, 6000)] + 0.1 * np.abs(rng.normal(size=(6000, 40)))
    catalogue: Catalogue = {1: (list(range(6000)), features.astype(np.float32))}
    root = publish(tmp_path / "r", catalogue, tmp_path / "f", recall=recall, neighbours=10)
    (entry,) = Manifest.read(current(root)).categories
    assert (entry.recall or 0) >= (1 + recall) / 2
    assert entry.search_k < 6000 / 5  # in groups so far apart, trees pay


def test_what_is_stored_of_a_feature(integer_root: ReleaseRoot) -> None:
    folder = current(integer_root) / "40"
    features = integer_catalogue()[40][1]
    np.testing.assert_array_equal(np.load(folder / FEATURES), features)
    projection = np.load(folder / PROJECTION)
    np.testing.assert_allclose(projection.T @ projection, np.eye(16), atol=1e-6)
    unit = features / np.linalg.norm(features, axis=1)[:, None]
    nodes = np.memmap(folder / INDEX, node_dtype(16), mode="r")
    np.testing.assert_allclose(nodes["vector"][:300], unit @ projection, atol=1e-6)


def test_indexing_what_is_current_already_changes_nothing(
    root: ReleaseRoot, tmp_path: Path
) -> None:
    before = root.current()
    store = write_store(tmp_path / "features", integer_catalogue())
    assert index(store, root, IndexSettings())[:4] == (before, False, 4, ())
    assert root.names() == [before]


def test_unchanged_categories_are_hard_links(root: ReleaseRoot, tmp_path: Path) -> None:
    before = current(root)
    changed = {**integer_catalogue(), 2: ([1, 2], random_features(2, 9))}
    publish(root.path, changed, tmp_path / "features")
    for category in ("1", "3", "40"):
        for path in (current(root) / category).iterdir():
            assert path.samefile(before / category / path.name)
    assert not (current(root) / "2" / "index.ann").samefile(before / "2" / "index.ann")


@pytest.fixture
def indexed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the categories whose neighbours are looked for from now on."""
    sizes: list[int] = []

    def spy(features: Any, *rest: Any) -> Any:
        sizes.append(len(features))
        return exact_neighbours(features, *rest)

    monkeypatch.setattr(lookalike_build.indexing.category, "exact_neighbours", spy)
    return sizes


def test_only_categories_of_which_much_has_changed_are_rebuilt(
    root: ReleaseRoot, tmp_path: Path, indexed: list[int]
) -> None:
    before = root.manifest(current(root).name).categories
    features = integer_catalogue()[1][1].copy()
    features[17, 3] += 1
    product_ids, unchanged = integer_catalogue()[2]
    changed: Catalogue = {
        1: (list(range(100, 160)), features),
        2: ([*product_ids[:-1], 1], unchanged),
        3: ([77], random_features(1, 9)),
        40: integer_catalogue()[40],
        50: integer_catalogue()[40],
    }
    done: list[int] = []
    store = write_store(tmp_path / "features", changed)
    published = index(store, root, IndexSettings(), done.append)
    assert published[:5] == (root.current(), True, 1, (), 2)
    assert published.counts == Counts(new=1 + 300, changed=1 + 1, gone=1, unchanged=59 + 6 + 300)
    assert indexed == [1, 300]
    assert sum(done) == 60 + 7 + 1 + 300 + 300
    categories = root.manifest(published.release).categories
    assert [entry.category_id for entry in categories] == [1, 2, 3, 40, 50]
    assert categories[3] == before[3]


def test_all_is_rebuilt_if_asked_for(root: ReleaseRoot, tmp_path: Path, indexed: list[int]) -> None:
    before = current(root)
    path = before / "40" / FEATURES
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    store = write_store(tmp_path / "features", integer_catalogue())
    assert index(store, root, IndexSettings())[:4] == (before.name, False, 4, ())
    published = index(store, root, IndexSettings(), rebuild=True)
    assert published[:5] == (root.current(), True, 0, (), 4)
    assert indexed == [60, 7, 1, 300]
    assert len(list(root.check(published.release))) == 4


def test_what_is_taken_over_makes_the_release_that_indexing_all_makes(
    root: ReleaseRoot, tmp_path: Path
) -> None:
    changed = {**integer_catalogue(), 2: ([1, 2], random_features(2, 9))}
    publish(root.path, changed, tmp_path / "features")
    publish(tmp_path / "anew", changed, tmp_path / "features")
    one, other = current(root), current(ReleaseRoot(tmp_path / "anew"))
    assert digests(one) == digests(other)
    assert Manifest.read(one).content_digest() == Manifest.read(other).content_digest()


@pytest.mark.parametrize(
    "setting", [{"n_trees": 9}, {"neighbours": 99}, {"seed": 2}, {"recall": 0.94}]
)
def test_other_settings_index_everything_and_share_the_features(
    root: ReleaseRoot, tmp_path: Path, indexed: list[int], setting: dict[str, Any]
) -> None:
    before = current(root)
    store = write_store(tmp_path / "features", integer_catalogue())
    assert index(store, root, IndexSettings(**setting))[:4] == (root.current(), True, 0, ())
    assert indexed == [60, 7, 1, 300]
    assert (current(root) / "40" / FEATURES).samefile(before / "40" / FEATURES)


def test_another_method_indexes_everything(
    root: ReleaseRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = root.current()
    monkeypatch.setattr(lookalike_build.indexing.category, "METHOD", -1)
    store = write_store(tmp_path / "features", integer_catalogue())
    assert index(store, root, IndexSettings())[:4] == (root.current(), True, 0, ())
    assert root.current() != before


@pytest.mark.parametrize("rebuild", [False, True])
def test_a_build_that_was_killed_goes_on_where_it_was(
    tmp_path: Path, indexed: list[int], rebuild: bool
) -> None:
    store = write_store(tmp_path / "features", integer_catalogue())
    root = ReleaseRoot(tmp_path / "root")

    def killed(
        store: FeatureSource, settings: IndexSettings, writers: Sequence[CategoryWriter], done: Done
    ) -> list[Written]:
        for writer in writers[:2]:
            index_category(store, settings, writer)
        writers[2].begin(1, N_DIMS)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index(store, root, IndexSettings(), engine=killed)
    assert indexed == [60, 7]
    changed = {**integer_catalogue(), 2: ([1, 2], random_features(2, 9))}
    del changed[3]
    store = write_store(tmp_path / "features", changed)
    published = index(store, root, IndexSettings(), rebuild=rebuild)
    assert indexed == [60, 7, *([60] if rebuild else []), 2, 300]
    assert published.counts == Counts(new=362)
    publish(tmp_path / "other", changed, tmp_path / "features")
    assert digests(current(root)) == digests(current(ReleaseRoot(tmp_path / "other")))
    assert [path.name for path in root.releases.iterdir()] == [published.release]


def test_a_follower_beside_a_build_leaves_what_it_has_finished(root: ReleaseRoot) -> None:
    writer = Staging(root, root.staging, root.finished).category(40)
    writer.finish(writer.keep())
    change(root, {40: {5000: None}})
    made_with = root.manifest(root.names()[0]).categories[3].made_with
    assert writer.finished(made_with)


def test_what_a_killed_build_finished_otherwise_is_done_again(
    tmp_path: Path, indexed: list[int]
) -> None:
    """With other settings, and where a file is not what was written."""
    store = write_store(tmp_path / "features", integer_catalogue())
    root = ReleaseRoot(tmp_path / "root")

    def killed(*arguments: Any) -> list[Written]:
        index_here(*arguments)
        raise KeyboardInterrupt

    for settings, damage, expected in (
        (IndexSettings(), False, [60, 7, 1, 300]),
        (IndexSettings(), False, []),
        (IndexSettings(seed=2), False, [60, 7, 1, 300]),
        (IndexSettings(seed=2), True, [7]),
    ):
        if damage:
            os.truncate(root.staging / "2" / INDEX, 100)
        with pytest.raises(KeyboardInterrupt):
            index(store, root, settings, engine=killed)
        assert indexed == expected
        indexed.clear()


def test_where_links_cannot_be_made_files_are_copied(
    root: ReleaseRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    before = current(root)
    changed = {**integer_catalogue(), 2: ([1, 2], random_features(2, 9))}
    store = write_store(tmp_path / "features", changed)
    assert index(store, root, IndexSettings())[:4] == (root.current(), True, 3, ())
    assert len(list(root.check(current(root).name))) == 4
    assert (current(root) / "40" / INDEX).stat().st_ino != (before / "40" / INDEX).stat().st_ino
    assert index(store, root, IndexSettings())[:4] == (root.current(), False, 4, ())


def test_a_release_of_another_format_is_followed_by_one_of_this(
    root: ReleaseRoot, tmp_path: Path
) -> None:
    path = current(root) / MANIFEST
    document = json.loads(path.read_text())
    document["format"] = 2
    for entry in document["categories"]:
        del entry["made_with"]
    path.write_text(json.dumps(document))
    before = root.current()
    store = write_store(tmp_path / "features", integer_catalogue())
    assert index(store, root, IndexSettings())[:4] == (root.current(), True, 0, ())
    assert root.current() != before
    assert len(list(root.check(current(root).name))) == 4


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
@pytest.mark.parametrize("changed", [False, True])
def test_a_damaged_current_release_is_mended_by_indexing_again(
    root: ReleaseRoot, tmp_path: Path, damage: str, changed: bool
) -> None:
    before = current(root)
    path = before / "40" / "neighbours.npy"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    if damage != "missing":
        path.write_bytes(data if damage == "flipped" else data[:-4])
    catalogue = integer_catalogue()
    if changed:
        catalogue = {**catalogue, 2: ([1, 2], random_features(2, 9))}
    publish(root.path, catalogue, tmp_path / "features")
    assert current(root) != before
    assert list(root.check(current(root).name))
    assert (current(root) / "1" / "neighbours.npy").samefile(before / "1" / "neighbours.npy")


def test_copies_of_a_photo_are_as_good_as_one_another(tmp_path: Path) -> None:
    features = np.concatenate([random_features(300, 1), np.repeat(random_features(1, 2), 130, 0)])
    catalogue: Catalogue = {1: (list(range(430)), features)}
    root = publish(tmp_path / "r", catalogue, tmp_path / "f", neighbours=20)
    (entry,) = Manifest.read(current(root)).categories
    assert (entry.recall or 0) > 0.99


@pytest.mark.slow
def test_many_categories_need_no_more_open_files_than_few(tmp_path: Path) -> None:
    catalogue: Catalogue = {number: ([1, 2], random_features(2, number)) for number in range(40)}
    store = write_store(tmp_path / "f", catalogue)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 40, limits[1]))
    try:
        root = ReleaseRoot(tmp_path / "r")
        published = index(store, root, IndexSettings())
        assert len(list(root.check(published.release))) == 40
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_where_the_current_release_is_a_slim_copy_a_full_one_is_made(
    root: ReleaseRoot, tmp_path: Path
) -> None:
    slim = current(root)
    make_slim(root)
    publish(root.path, integer_catalogue(), tmp_path / "features")
    assert current(root) != slim
    assert not root.open(current(root).name).slim


def test_ids_of_two_types_publish_to_one_root(root: ReleaseRoot, tmp_path: Path) -> None:
    publish(root.path, string_catalogue(), tmp_path / "strings")
    assert sorted(root.open(current(root).name).categories) == ["../hats & caps", "shoes"]
    assert sorted(path.name for path in current(root).iterdir() if path.is_dir()) == [
        "%2E%2E%2Fhats%20%26%20caps",
        "shoes",
    ]


def test_a_store_without_products_is_refused(root: ReleaseRoot, tmp_path: Path) -> None:
    FeatureWriter(tmp_path / "none", MODEL, 16, (pa.int64(), pa.int64()), 0).finish()
    before = root.current()
    with pytest.raises(FeatureError, match="holds no products"):
        index(FeatureStore.open(tmp_path / "none"), root, IndexSettings())
    assert root.current() == before


def test_unfit_features_leave_the_current_release(root: ReleaseRoot, tmp_path: Path) -> None:
    before = root.current()
    features = random_features(3, 0)
    features[1] = np.nan
    store = write_store(tmp_path / "bad", {1: ([1, 2, 3], features)})
    with pytest.raises(FeatureError, match="product 2"):
        index(store, root, IndexSettings())
    assert root.current() == before
    publish(root.path, {1: ([1], random_features(1, 0))}, tmp_path / "good")
    assert root.current() != before


@pytest.mark.parametrize("largest_bytes", [100, 2000, 6000, 20_000])
def test_a_disk_that_fills_up_leaves_the_current_release_and_its_own_room(
    root: ReleaseRoot, tmp_path: Path, largest_bytes: int
) -> None:
    before = root.current()
    store = write_store(tmp_path / "features", {8: (list(range(200)), random_features(200, 8))})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_bytes, hard))
    try:
        with pytest.raises(OSError, match=r"too large|written|write"):
            index(store, root, IndexSettings())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert root.current() == before
    assert root.names() == [before]
    assert not root.staging.exists()
    assert index(store, root, IndexSettings())[:4] == (root.current(), True, 0, ())


def test_one_builder_at_a_time(root: ReleaseRoot, tmp_path: Path) -> None:
    store = write_store(tmp_path / "features", integer_catalogue())
    root.staging.mkdir()  # the other's
    with root.build_lock(), pytest.raises(RootError, match="another builder is at work"):
        index(store, root, IndexSettings())
    assert root.staging.exists()


def test_what_is_indexed_waits_for_whoever_changes_the_root(
    root: ReleaseRoot, tmp_path: Path
) -> None:
    before = root.current()
    store = write_store(tmp_path / "features", {8: ([1, 2], random_features(2, 8))})
    indexed = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with root.lock():
            published = pool.submit(
                index, store, root, IndexSettings(), done=lambda _: indexed.set()
            )
            assert indexed.wait(HUNG_S)
            with pytest.raises(TimeoutError):
                published.result(0.2)
            assert root.current() == before
        assert published.result(HUNG_S)[:4] == (root.current(), True, 0, ())
    assert root.current() != before


def test_who_waits_too_long_for_the_root_leaves_the_current_release(
    root: ReleaseRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = root.names()
    monkeypatch.setattr(lookalike_build.indexing.build, "LOCK_WAIT_S", 0.1)
    store = write_store(tmp_path / "features", {8: ([1, 2], random_features(2, 8))})
    with root.lock(), pytest.raises(RootError, match="another writer is at work"):
        index(store, root, IndexSettings())
    assert root.names() == before
    assert not root.staging.exists()


def test_a_current_release_removed_while_indexing_is_taken_over_all_the_same(
    root: ReleaseRoot, tmp_path: Path, indexed: list[int]
) -> None:
    before = current(root)
    inodes = {path.relative_to(before): path.stat().st_ino for path in before.glob("*/*")}

    def follow_then_index(*arguments: Any) -> list[Written]:
        change(root, {40: {5000: None}})
        root.prune(keep=0)
        return index_here(*arguments)

    store = write_store(tmp_path / "features", integer_catalogue())
    published = index(store, root, IndexSettings(), engine=follow_then_index)
    assert published[:4] == (root.current(), True, 4, ())
    assert indexed == []
    assert not before.exists()
    after = current(root)
    assert {path.relative_to(after): path.stat().st_ino for path in after.glob("*/*")} == inodes
    assert len(list(root.check(after.name))) == 4
    assert [path.name for path in root.releases.iterdir() if path.name[0] == "."] == []


def test_a_category_that_was_changed_live_and_is_as_in_the_catalogue_is_kept(
    root: ReleaseRoot, tmp_path: Path, indexed: list[int]
) -> None:
    product_ids, features = integer_catalogue()[40]
    change(root, {40: {product_ids[7]: None}})
    change(root, {40: {product_ids[7]: features[7]}})
    live, etag = current(root), etag_of(root, 40)
    store = write_store(tmp_path / "features", integer_catalogue())
    assert index(store, root, IndexSettings())[:4] == (root.current(), True, 4, ())
    assert indexed == []
    assert digests(current(root)) == digests(live)
    assert etag_of(root, 40) == etag
    # From now on it is known to be of these features, without comparing them.
    assert index(store, root, IndexSettings())[:4] == (root.current(), False, 4, ())


def test_old_releases_are_pruned_but_never_the_current_one(
    root: ReleaseRoot, tmp_path: Path
) -> None:
    for seed in (2, 3, 4, 5):
        publish(root.path, {1: ([1, 2], random_features(2, seed))}, tmp_path / "features")
    names = root.names()
    root.switch(names[1])
    assert root.prune(keep=2) == [names[0], names[2]]
    assert root.names() == [names[1], *names[3:]]
    assert sorted(path.name for path in root.releases.iterdir() if path.name[0] == ".") == []


def test_a_new_release_sorts_last_even_if_the_clock_was_set_back(root: ReleaseRoot) -> None:
    future = "29991231T235959.999Z-000000000000"
    current(root).rename(root.releases / future)
    assert root.new_name("a" * 64) == f"30000101T000000.000Z-{'a' * 12}"


def test_a_release_that_was_named_but_never_current_is_taken_up(
    root: ReleaseRoot, tmp_path: Path
) -> None:
    """Where a writer dies just before `current` is replaced, a rollback must still go back."""
    old = root.current()
    publish(root.path, {1: ([1, 2], random_features(2, 1))}, tmp_path / "features")
    new = root.current()
    root.make_current(str(old))
    publish(root.path, {1: ([1, 2], random_features(2, 1))}, tmp_path / "features")
    assert root.current() == new
    assert root.previous() == old
