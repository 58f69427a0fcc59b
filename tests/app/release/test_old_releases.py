"""Releases of the formats 4 to 6 answer as ever, are not updated, and the next build replaces them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lookalike.release.files import (
    FILES_BEFORE_6,
    FILES_BEFORE_7,
    LENGTHS,
    MANIFEST,
    SAME_PHOTO,
    ReleaseError,
)
from lookalike.release.manifest import FORMAT, OLD_FORMATS, Manifest
from lookalike.release.root import ReleaseRoot
from lookalike.release.rules import Rule
from lookalike_build.features.store import FeatureStore
from lookalike_build.indexing.build import IndexSettings, index
from support import (
    Catalogue,
    Rating,
    change,
    client_of,
    give,
    make_slim,
    post,
    publish,
    random_features,
    rate,
    ruled,
)

N_ITEMS, K = 400, 10
METHOD_2 = "method 2, n_trees 10, neighbours 10, seed 1, recall 0.95"
OLD = [(FILES_BEFORE_6, 4), (FILES_BEFORE_7, 6)]
"""The files of a category in old releases without behaviour, and their format."""
RATINGS: list[Rating] = [(str(user), 1 + user % 7, 1_000 + user) for user in range(60)]
RATINGS += [(str(user), 2 + user % 5, 2_000 + user) for user in range(60)]


@pytest.fixture
def root(tmp_path: Path) -> ReleaseRoot:
    catalogue: Catalogue = {1: (list(range(1, N_ITEMS + 1)), random_features(N_ITEMS, 1))}
    return publish(tmp_path / "root", catalogue, tmp_path / "features", neighbours=K)


def make_old(root: ReleaseRoot, names: tuple[str, ...] = FILES_BEFORE_6) -> None:
    """Make the current release one of an earlier version, whose categories have the files `names`."""
    folder = root.folder(root.chosen())
    manifest = Manifest.read(folder)
    (entry,) = manifest.categories
    for file in entry.files.keys() - set(names):
        (folder / "1" / file).unlink()
    files = {file: entry.files[file] for file in names}
    entry = replace(entry, files=files, made_with=METHOD_2, same_photo=None, random_distances=())
    manifest = replace(manifest, categories=(entry,))
    name = f"20200101T000000.000Z-{manifest.content_digest()[:12]}"
    folder = folder.rename(root.releases / name)
    (folder / MANIFEST).write_text(replace(manifest, release=name).to_json())
    root.make_current(name)


def answers(root: ReleaseRoot) -> list[bytes]:
    """Of by-item, by-vector and beyond-the-table requests, and of behaviour."""
    client = client_of(root)
    paths = ("/nns?category_id=1&product_id=7", "/related?category_id=1&product_id=3&visitor=a")
    found = [client.get(f"{path}&limit={limit}") for path in paths for limit in (5, K + 1, 50)]
    vector = random_features(1, 2)[0].tolist()
    found.append(post(client, {"category_id": 1, "vector": vector, "limit": 20}))
    assert {one.status for one in found} == {"200 OK"}
    return [one.body for one in found]


@pytest.mark.parametrize(("names", "format_"), OLD)
@pytest.mark.parametrize("behaviour", [False, True])
def test_an_old_release_answers_as_a_new_one(
    root: ReleaseRoot, behaviour: bool, names: tuple[str, ...], format_: int
) -> None:
    if behaviour:
        rate(root, RATINGS)
    before = answers(root)
    make_old(root, names)
    assert answers(root) == before
    manifest = Manifest.read(root.folder(root.chosen()))
    expected = 5 if behaviour and format_ == 4 else format_
    assert f'"format": {expected},' in manifest.to_json()
    for rest, lacks in (("distinct=photo", "photos"), ("closer_than=1", "random pairs")):
        answer = client_of(root).get(f"/nns?category_id=1&product_id=7&{rest}")
        assert answer.status == "400 Bad Request"
        assert lacks in json.loads(answer.body)["detail"]
    make_slim(root)
    client = client_of(root)
    assert client.get("/nns?category_id=1&product_id=7&limit=5").body == before[0]


def test_what_a_new_version_adds_to_an_old_release_leaves_it_old(root: ReleaseRoot) -> None:
    make_old(root)
    rate(root, RATINGS)
    manifest = Manifest.read(root.folder(root.chosen()))
    assert '"format": 5,' in manifest.to_json()
    answers(root)


def test_an_old_release_is_not_updated(root: ReleaseRoot) -> None:
    make_old(root)
    before = root.chosen()
    with pytest.raises(ReleaseError, match=r"made with .*method 2.*; index again"):
        change(root, {1: {5: None}})
    with pytest.raises(ReleaseError, match=r"made with .*method 2.*; index again"):
        change(root, {}, None, {1: {5: {"hidden": True}}})
    with pytest.raises(ReleaseError, match=r"made with .*method 2.*; index again"):
        give(root, {1: {5: {"price": 1}}})
    assert root.chosen() == before


@pytest.mark.parametrize("names", [names for names, _ in OLD])
def test_the_next_build_indexes_an_old_release_anew(
    root: ReleaseRoot, tmp_path: Path, names: tuple[str, ...]
) -> None:
    before = answers(root)
    make_old(root, names)
    store = FeatureStore.open(tmp_path / "features")
    published = index(store, root, IndexSettings(neighbours=K))
    assert published.n_rebuilt == 1
    manifest = Manifest.read(root.folder(published.release))
    assert f'"format": {FORMAT},' in manifest.to_json()
    assert answers(root) == before
    for file in (LENGTHS, SAME_PHOTO):
        assert np.load(root.folder(published.release) / "1" / file).shape == (N_ITEMS,)


@pytest.mark.parametrize("format_", [*OLD_FORMATS, FORMAT + 1])
def test_new_files_in_a_manifest_of_another_format_are_refused(
    root: ReleaseRoot, format_: int
) -> None:
    path = root.folder(root.chosen()) / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": format_}))
    with pytest.raises(ReleaseError, match=f"format is {format_}, this version reads {FORMAT}"):
        Manifest.read(path.parent)


@pytest.mark.parametrize(("names", "format_"), OLD)
def test_an_old_release_takes_rules(
    root: ReleaseRoot, names: tuple[str, ...], format_: int
) -> None:
    make_old(root, names)
    assert (
        Manifest.read(root.folder(root.chosen())).to_json().startswith(f'{{\n "format": {format_},')
    )
    ruled(root, {1: [Rule(7, "pin", 300)]})
    assert f'"format": {FORMAT},' in (root.folder(root.chosen()) / MANIFEST).read_text()
    answer = client_of(root).get("/nns?category_id=1&product_id=7&limit=2&distances=true")
    assert answer.body.startswith(b'{"product_ids":[7,300],"distances":[0.0,')
