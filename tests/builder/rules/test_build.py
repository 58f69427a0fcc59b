"""Rules in a release, and in those that come after it."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from lookalike.release.files import MANIFEST, RULES, FileEntry, ReleaseError
from lookalike.release.manifest import Manifest
from lookalike.release.opened import map_release, verify_digests
from lookalike.release.root import ReleaseRoot
from lookalike.release.rules import Rule
from lookalike_build.features.store import FeatureStore
from lookalike_build.following.update import Updater
from lookalike_build.indexing.build import IndexSettings, index
from lookalike_build.indexing.live import CategoryChanges
from lookalike_build.publishing.removal import ANY
from lookalike_build.rules.build import Named, RulesError
from support import (
    Catalogue,
    Never,
    change,
    client_of,
    give,
    integer_catalogue,
    make_slim,
    post,
    publish,
    random_features,
    rate,
    ruled,
    updates_beside,
    write_store,
)

PIN, BAN = Rule(100, "pin", 155), Rule(None, "ban", 120)


def rules_of(root: ReleaseRoot, category_id: int = 1) -> list[str]:
    """What the current release has, and whether it is sound."""
    manifest = root.manifest(root.chosen())
    for _ in verify_digests(root.folder(manifest.release), manifest):
        pass
    root.open(manifest.release)
    (entry,) = (each for each in manifest.categories if each.category_id == category_id)
    path = root.folder(manifest.release) / str(category_id) / RULES
    assert path.exists() == bool(entry.n_rules)
    return path.read_text().strip("[]").split("],[") if entry.n_rules else []


TEXTS = ['100,"pin",155', 'null,"ban",120']


def test_rules_replace_those_before_and_everything_else_is_linked(root: ReleaseRoot) -> None:
    before = root.folder(root.chosen())
    made = ruled(root, {1: [PIN, BAN]})
    assert (made.published.new, made.published.n_unchanged, made.n_before) == (True, 3, 0)
    assert rules_of(root) == TEXTS
    assert rules_of(root, 2) == []
    now = root.folder(root.chosen())
    for path in before.glob("*/*.npy"):
        assert path.samefile(now / path.relative_to(before))
    assert not ruled(root, {1: [PIN, BAN]}).published.new
    made = ruled(root, {2: [Rule(5, "ban", 7)]})
    assert (made.published.new, made.n_before) == (True, 2)
    assert (rules_of(root), rules_of(root, 2)) == ([], ['5,"ban",7'])
    ruled(root, {})
    assert rules_of(root, 2) == []
    assert "n_rules" not in (root.folder(root.chosen()) / "manifest.json").read_text()


def test_rules_without_effect_are_told(root: ReleaseRoot) -> None:
    unknown, both = Rule(100, "pin", 4), [Rule(100, "pin", 130), Rule(100, "ban", 130)]
    made = ruled(root, {1: [PIN, unknown, *both], 9: [BAN]})
    assert made.lost == [Named(9, BAN)]
    assert made.idle == [Named(1, unknown)]
    assert made.banned == [Named(1, both[0])]
    assert ruled(root, {1: [Rule(100, "pin", 120), BAN]}).banned == [
        Named(1, Rule(100, "pin", 120))
    ]
    # Pinned for all but one is no mistake.
    assert ruled(root, {1: [Rule(None, "pin", 130), Rule(100, "ban", 130)]}).banned == []


def test_answers_obey_rules_by_every_path(root: ReleaseRoot) -> None:
    target = "/nns?category_id=1&product_id=100&limit=4&exclude_self=true"
    etag = client_of(root).get(target).headers["ETag"]
    ruled(root, {1: [PIN, Rule(100, "ban", 120)], 40: [Rule(5000, "pin", 7990)]})
    client = client_of(root)
    assert client.get(target).headers["ETag"] != etag
    answer = client.get(target).body
    assert answer.startswith(b"[155,")
    assert client.get("/nns?category_id=1&product_id=100&limit=5").body == b"[100," + answer[1:]
    body = {"category_id": 1, "product_ids": [100], "limit": 4, "exclude_self": True}
    assert post(client, body).body == b"[" + answer + b"]"
    beyond = client.get("/nns?category_id=40&product_id=5000&limit=300").body
    assert beyond.startswith(b"[5000,7990,")
    assert beyond.count(b",") == 299


def test_updates_and_builds_keep_rules(root: ReleaseRoot, tmp_path: Path) -> None:
    ruled(root, {1: [PIN, BAN]})
    with updates_beside():
        change(root, {1: {101: random_features(1, 9)[0]}})
        assert rules_of(root) == TEXTS
    change(root, {1: {155: None}, 2: {5: None}})
    assert rules_of(root) == TEXTS
    assert b"155" not in client_of(root).get("/nns?category_id=1&product_id=100").body
    change(root, {1: {155: random_features(1, 10)[0]}})
    assert client_of(root).get("/nns?category_id=1&product_id=100").body.startswith(b"[100,155,")
    give(root, {1: {155: {"hidden": True}}}, {"hidden": "flag"})
    assert rules_of(root) == TEXTS
    assert b"155" not in client_of(root).get("/nns?category_id=1&product_id=100").body
    rate(root, [("u", 100, 1), ("u", 101, 1), ("v", 100, 1), ("v", 101, 1)])
    assert rules_of(root) == TEXTS
    store = write_store(tmp_path / "again", integer_catalogue())
    for settings in (IndexSettings(), IndexSettings(n_trees=3)):
        published = index(store, root, settings, allowed=ANY)
        assert published.left_out == ()
        assert rules_of(root) == TEXTS


def test_rules_that_came_while_a_release_was_built_are_in_it(
    root: ReleaseRoot, tmp_path: Path
) -> None:
    store = write_store(tmp_path / "again", integer_catalogue())
    came: list[int] = []

    def done(_: int) -> None:
        if not came:
            came.append(1)
            ruled(root, {1: [PIN]})

    index(store, root, IndexSettings(), done, allowed=ANY)
    assert rules_of(root) == TEXTS[:1]


def test_rules_that_cannot_be_kept_are_told(root: ReleaseRoot, tmp_path: Path) -> None:
    ruled(root, {1: [PIN], 3: [Rule(None, "ban", 77)]})
    path = root.folder(root.chosen()) / "1" / RULES
    path.write_text(path.read_text().replace("155", "156"))
    catalogue = {one: each for one, each in integer_catalogue().items() if one != 3}
    left_out = index(write_store(tmp_path / "1", catalogue), root, IndexSettings(), allowed=ANY)
    said = "rules are left out: {}; run `lookalike-build rules`"
    assert left_out.left_out == (
        said.format(
            f"1/{RULES}: is not the file the manifest describes (its ends differ), "
            "category 3 is gone"
        ),
    )
    assert rules_of(root) == []
    ruled(root, {1: [PIN]})
    texts: Catalogue = {1: (list("abc"), random_features(3, 1))}
    publish(root.path, texts, tmp_path / "2")
    assert root.manifest(root.chosen()).categories[0].n_rules == 0


def test_a_category_without_products_loses_its_rules_and_that_is_logged(root: ReleaseRoot) -> None:
    ruled(root, {3: [Rule(None, "ban", 77)]})
    manifest, log = root.manifest(root.chosen()), list[str]()
    with root.lock():
        updater = Updater(root, Never(), log.append)
        updater.publish(manifest, {3: CategoryChanges({77: None})}, None)
    assert log == ["rules are left out: category 3 is gone; run `lookalike-build rules`"]


@pytest.mark.parametrize("text", [b'[[100,"pin",155]]', b"[]", b'[[100,"pin",155],[1,"pin"]]', b""])
def test_a_release_with_other_rules_than_its_manifest_says_is_refused(
    root: ReleaseRoot, text: bytes
) -> None:
    ruled(root, {1: [PIN, BAN]})
    name = root.chosen()
    path = root.folder(name) / "1" / RULES
    path.write_bytes(text)
    with pytest.raises(ReleaseError, match=f"1/{RULES}"):
        root.open(name)
    # The manifest vouches for it, and it is not what it counts.
    document = json.loads((root.folder(name) / MANIFEST).read_text())
    document["categories"][0]["files"][RULES] = asdict(FileEntry.of(path))
    (root.folder(name) / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(ReleaseError, match=f"1/{RULES}|n_bytes"):
        map_release(root.folder(name), Manifest.read(root.folder(name)))


def test_a_damaged_file_is_written_anew_by_the_same_rules(root: ReleaseRoot) -> None:
    ruled(root, {1: [PIN]})
    path = root.folder(root.chosen()) / "1" / RULES
    path.write_text(path.read_text().replace("155", "156"))
    assert ruled(root, {1: [PIN]}).published.new
    assert rules_of(root) == TEXTS[:1]


def test_a_slim_copy_has_rules_and_is_given_none(root: ReleaseRoot) -> None:
    ruled(root, {1: [PIN]})
    make_slim(root)
    target = "/nns?category_id=1&product_id=100&limit=2&distances=true"
    assert (
        client_of(root).get(target).body.startswith(b'{"product_ids":[100,155],"distances":[0.0,')
    )
    with pytest.raises(RulesError, match="is a slim copy; add rules where releases are built"):
        ruled(root, {})


def test_a_store_opened_again_is_the_same(root: ReleaseRoot, tmp_path: Path) -> None:
    """A nightly build of what is there leaves a release with rules current."""
    store = write_store(tmp_path / "again", integer_catalogue())
    index(store, root, IndexSettings(), allowed=ANY)
    ruled(root, {1: [PIN, BAN]})
    name = root.chosen()
    index(FeatureStore.open(tmp_path / "again"), root, IndexSettings(), allowed=ANY)
    assert root.chosen() == name
