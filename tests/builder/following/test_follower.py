"""A follower: what becomes of each change, and that nothing it meets with loses one."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import pytest

import lookalike_build.following.follower
import lookalike_build.following.update
from following import BAD, IN_NO_FORMAT, AtOnce, Later, Numbers, Shelf, follower_of
from lookalike.journal import DELETE, PUT, Change, Journal, JournalError
from lookalike.release.files import FILES, INDEX, ReleaseError
from lookalike.release.ids import Id
from lookalike.release.manifest import Applied, CategoryEntry, Model
from lookalike.release.root import UPDATE_SUFFIX, ReleaseRoot, RootError
from lookalike.serving.source import ReleaseSource
from lookalike_build.extraction.local_engine import LocalEngine
from lookalike_build.extraction.pipeline import PhotoPipeline
from lookalike_build.following.background import Background
from lookalike_build.following.follower import Follower, FollowError, follow
from lookalike_build.following.seal import NOT_OF_THE_FEED, FeedSeal
from lookalike_build.indexing.category import IndexSettings
from lookalike_build.indexing.live import LiveCategory
from lookalike_build.photos.decoding import HostError
from lookalike_build.publishing.staging import Staging
from support import (
    MODEL,
    Catalogue,
    Client,
    Features,
    brute_force,
    client_of,
    files_of_at_most,
    make_slim,
    post,
    publish,
    random_features,
)

N_DIMS = 8
NEW = random_features(400, 77, N_DIMS)
"""Features of which the release has none."""

# Makes a follower of the test's root and journal, given its background and other arguments.
Made = Callable[..., Follower]


def old_catalogue() -> dict[Id, tuple[list[int], Features]]:
    return {
        1: (list(range(100, 160)), random_features(60, 1, N_DIMS)),
        2: ([7], random_features(1, 2, N_DIMS)),
    }


@pytest.fixture
def root(tmp_path: Path) -> ReleaseRoot:
    """A root with one release: category 1 of 60 products, from 100 on, and 2 of one, 7."""
    settings = {"n_trees": 2, "neighbours": 5}
    return publish(tmp_path / "root", old_catalogue(), tmp_path / "features", **settings)


@pytest.fixture
def journal(root: ReleaseRoot) -> Iterator[Journal]:
    journal = Journal(root.journal)
    yield journal
    journal.close()


@pytest.fixture
def followed(root: ReleaseRoot, journal: Journal) -> Made:
    def make(background: Background | None = None, **others: Any) -> Follower:
        return follower_of(root, journal, N_DIMS, background, **others)

    return make


def put(product_id: Id, photo: int, category_id: Id = 1) -> Change:
    return Change(PUT, category_id, product_id, photo=NEW[photo].tobytes())


def delete(product_id: Id, category_id: Id = 1) -> Change:
    return Change(DELETE, category_id, product_id)


def entry_of(root: ReleaseRoot, category_id: Id = 1) -> CategoryEntry:
    entries = root.manifest(str(root.current())).categories
    (entry,) = (entry for entry in entries if entry.category_id == category_id)
    return entry


def ask(client: Client, product_id: Id, category_id: Id = 1, limit: int = 6) -> Any:
    target = f"/nns?category_id={category_id}&product_id={product_id}&limit={limit}"
    answer = client.get(target)
    return json.loads(answer.body) if answer.status == "200 OK" else None


def ask_vector(root: ReleaseRoot, vector: Features, limit: int = 5) -> tuple[list[int], Features]:
    question = {"category_id": 1, "vector": vector.tolist(), "limit": limit, "distances": True}
    answer = json.loads(post(client_of(root), question).body)
    return answer["product_ids"], np.array(answer["distances"], np.float32)


def assert_vectors_are_right(root: ReleaseRoot, products: dict[int, Features]) -> None:
    """So few are all compared: by the formula."""
    ids = sorted(products)
    for vector in (NEW[300], products[ids[0]], products[ids[-1]]):
        features = np.stack([*(products[one] for one in ids), vector])
        order, distances = brute_force(features, len(ids))
        found, found_distances = ask_vector(root, vector)
        assert found == [ids[item] for item in order[:5]]
        np.testing.assert_allclose(found_distances, distances[:5], atol=1e-6)


# What becomes of a change


@pytest.mark.parametrize("image", ["/photos/x", f"{'0' * 64} /photos/x", "", " /photos/x", "é x"])
def test_an_image_that_another_writer_of_the_journal_names_is_not_opened(
    image: str, journal: Journal, followed: Made
) -> None:
    photos = dict.fromkeys(("/photos/x", "", "x", image), NEW[3].tobytes())
    follower = followed(photos=photos)
    (number,) = journal.add([Change(PUT, 1, 503, image=image)])
    assert follower.step()
    outcome = journal.outcome(number)
    assert outcome
    assert outcome.state == "rejected"
    assert outcome.reason in (NOT_OF_THE_FEED, "its photo is not in the journal")


def test_each_change_comes_to_what_it_ought_to(
    root: ReleaseRoot, journal: Journal, followed: Made
) -> None:
    follower = followed(photos={"/photos/x": NEW[3].tobytes()})
    nothing = np.zeros(N_DIMS, np.float32).tobytes()
    seal = FeedSeal(root.feed_key).seal
    numbers = journal.add(
        [
            put(500, 0),
            Change(PUT, 1, 501, photo=BAD),
            delete(100),
            Change(PUT, 1, 502, image=seal("/photos/none")),
            Change(PUT, 1, 503, image=seal("/photos/x")),
            Change(PUT, "shoes", 504, photo=NEW[1].tobytes()),
            Change(DELETE, 1, "A 1"),
            Change(PUT, 1, -1, photo=NEW[1].tobytes()),
            Change(PUT, 1, 505, photo=nothing),
            Change(PUT, 1, 506),
            put(507, 1, category_id=3),
        ]
    )
    assert follower.step()
    assert not follower.step()
    whole = "a whole number as in the release"
    reasons = {
        1: IN_NO_FORMAT,
        3: "is missing",
        5: f"category_id must be {whole}, not 'shoes'",
        6: f"product_id must be {whole}, not 'A 1'",
        7: "product_id must be a whole number from 0 to 9223372036854775807, not -1",
        8: "the network gives no features for it",
        9: "its photo is not in the journal",
    }
    for place, number in enumerate(numbers):
        outcome = journal.outcome(number)
        assert outcome
        assert outcome.reason == reasons.get(place)
        assert outcome.release == (None if place in reasons else root.current())
    status = journal.status()
    assert (status.n_pending, status.n_live, status.n_rejected) == (0, 4, 7)
    assert (status.n_batches, status.last_batch_changes) == (1, 11)
    client = client_of(root)
    assert ask(client, 500)[0] == 500
    assert ask(client, 503)[0] == 503
    assert ask(client, 507, category_id=3) == [507]
    assert [ask(client, one) for one in (100, 501, 502, 505, 506)] == [None] * 5
    applied = root.manifest(str(root.current())).applied
    assert applied == Applied(journal.id, numbers[-1])


def test_ids_that_are_text_are_asked_for_where_the_release_has_text(tmp_path: Path) -> None:
    shoes: Catalogue = {"shoes": (["a", "b"], random_features(2, 1, N_DIMS))}
    root = publish(tmp_path / "root", shoes, tmp_path / "features")
    journal = Journal(root.journal)
    follower = follower_of(root, journal, N_DIMS)
    changes = [put("c" * 64, 0, "shoes"), put(3, 0, "shoes"), put("\n", 0, "shoes")]
    numbers = journal.add(changes)
    follower.step()
    reasons = [outcome and outcome.reason for outcome in map(journal.outcome, numbers)]
    unlike = "product_id must be text as in the release, not 3"
    assert reasons == [None, unlike, "product_id must not hold control characters"]
    assert ask(client_of(root), "a", "shoes")[1:] != []
    journal.close()


@pytest.mark.parametrize(
    "changes",
    [
        [],
        [delete(999), delete(1, category_id=77)],
        [put(200, 0), delete(200)],
        [Change(PUT, 1, 100, photo=old_catalogue()[1][1][0].tobytes())],
        [delete(100), Change(PUT, 1, 100, photo=old_catalogue()[1][1][0].tobytes())],
        [Change(PUT, 1, 100, photo=BAD), Change(DELETE, "x", 5)],
    ],
)
def test_what_makes_no_difference_publishes_nothing_and_is_settled(
    root: ReleaseRoot, journal: Journal, followed: Made, changes: list[Change]
) -> None:
    before = root.current()
    numbers = journal.add(changes)
    follower = followed()
    assert follower.step() is bool(changes)
    assert not follower.step()
    assert root.names() == [before]
    for number in numbers:
        outcome = journal.outcome(number)
        assert outcome
        assert outcome.reason or outcome.release == before


@pytest.mark.parametrize(
    ("changes", "photo"),
    [
        ([put(500, 0), delete(500), put(500, 1)], 1),
        ([put(500, 0), put(500, 1), put(500, 2)], 2),
        ([put(500, 0), delete(500)], None),
        ([put(500, 0), Change(PUT, 1, 500, photo=BAD)], 0),
    ],
)
def test_of_one_product_the_last_change_counts(
    root: ReleaseRoot, journal: Journal, followed: Made, changes: list[Change], photo: int | None
) -> None:
    journal.add(changes)
    followed().step()
    if photo is None:
        assert ask(client_of(root), 500) is None
        return
    (product_id, *_), distances = ask_vector(root, NEW[photo])
    assert product_id == 500
    assert distances[0] == pytest.approx(0, abs=1e-6)


def test_a_batch_has_no_more_changes_than_said(
    root: ReleaseRoot, journal: Journal, followed: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookalike_build.following.follower, "BATCH", 3)
    numbers = journal.add(put(500 + one, one) for one in range(7))
    follower = followed(Later())
    releases = []
    for n_pending in (4, 1, 0):
        assert follower.step()
        assert journal.status().n_pending == n_pending
        releases.append(root.current())
    assert not follower.step()
    outcomes = [journal.outcome(number) for number in numbers]
    first, second, third = releases
    assert [outcome and outcome.release for outcome in outcomes] == [
        *[first] * 3,
        *[second] * 3,
        third,
    ]


def test_a_category_has_the_releases_settings_from_its_first_product_on(
    root: ReleaseRoot, journal: Journal, followed: Made
) -> None:
    journal.add(put(500 + one, one, category_id=9) for one in range(20))
    followed().step()
    one, other = (IndexSettings.of(entry_of(root, each).made_with) for each in (9, 1))
    assert one == other
    assert entry_of(root, 9).k == 5
    journal.add(delete(500 + one, category_id=9) for one in range(20))
    journal.add([delete(7, category_id=2)])
    followed().step()
    manifest = root.manifest(str(root.current()))
    assert [entry.category_id for entry in manifest.categories] == [1]


def test_all_products_may_go_and_come_again(
    root: ReleaseRoot, journal: Journal, followed: Made
) -> None:
    journal.add([*(delete(one) for one in range(100, 160)), delete(7, category_id=2)])
    follower = followed()
    follower.step()
    client = client_of(root)
    assert ask(client, 100) is None
    assert client.get("/readyz").status == "200 OK"
    assert not root.open(str(root.current())).slim
    journal.add([put(100, 0), put(7, 1, category_id=2)])
    follower.step()
    assert ask(client_of(root), 100) == [100]
    assert ask(client_of(root), 7, category_id=2) == [7]


def test_a_feed_waits_while_much_is_pending(
    root: ReleaseRoot, journal: Journal, followed: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookalike_build.following.follower, "MOST_FED", 10)
    monkeypatch.setattr(lookalike_build.following.follower, "BATCH", 4)
    pending = []

    class Feeding:
        left = 40

        @property
        def ended(self) -> bool:
            return not self.left

        def poll(self) -> int:
            pending.append(journal.status().n_pending)
            n = min(8, self.left)
            journal.add(put(500 + self.left - one, one) for one in range(n))
            self.left -= n
            return n

        def close(self) -> None:
            pass

    follow(followed(Later()), Feeding(), threading.Event())
    assert max(pending) < 10
    assert journal.status()[:3:2] == (0, 40)


# What it does not follow


def test_without_a_release_there_is_nothing_to_follow(tmp_path: Path) -> None:
    root = ReleaseRoot(tmp_path)
    root.create()
    with pytest.raises(RootError, match=r"no release in .* yet; `lookalike-build index` makes one"):
        follower_of(root, Journal(root.journal), N_DIMS)


@pytest.mark.parametrize(
    ("model", "n_dims"), [(Model("test", "sha256:1"), N_DIMS), (MODEL, N_DIMS + 1)]
)
def test_features_of_another_model_are_refused_in_one_line(
    root: ReleaseRoot, journal: Journal, model: Model, n_dims: int
) -> None:
    photos = PhotoPipeline(Shelf({}), LocalEngine(Numbers(n_dims)), model, n_dims)
    follower = Follower(root, journal, photos, AtOnce())
    journal.add([put(500, 0)])
    for work in (follower.begin, follower.step):
        with pytest.raises(FollowError, match=f"release {root.current()} has features of") as error:
            work()
        assert "\n" not in str(error.value)
    assert journal.status().n_pending == 1


def test_a_slim_copy_is_refused_in_one_line(
    root: ReleaseRoot, journal: Journal, followed: Made
) -> None:
    follower = followed()
    make_slim(root)
    journal.add([put(500, 0)])
    with pytest.raises(FollowError, match=f"release {root.current()} is a slim copy, without"):
        follower.step()
    with pytest.raises(FollowError, match="is a slim copy"):
        followed()
    assert journal.status().n_pending == 1
    assert len(root.names()) == 1


def test_ids_are_not_taken_for_those_of_a_release_that_comes_meanwhile(
    root: ReleaseRoot, journal: Journal, tmp_path: Path
) -> None:
    """A product 5 must not become the product "5"."""
    text: Catalogue = {1: (["5", "6"], random_features(2, 1, N_DIMS))}

    class Late(Numbers):
        def stage(self, prepared: Sequence[Features]) -> Features:
            publish(root.path, text, tmp_path / "text", n_trees=2, neighbours=5)
            return super().stage(prepared)

    pipeline = PhotoPipeline(Shelf({}), LocalEngine(Late(N_DIMS)), MODEL, N_DIMS)
    follower = Follower(root, journal, pipeline, AtOnce())
    numbers = journal.add([put(5, 0)])
    with pytest.raises(FollowError, match="became current, and its ids have other types"):
        follower.step()
    assert journal.status().n_pending == 1
    assert follower.step()
    (outcome,) = map(journal.outcome, numbers)
    assert outcome
    assert outcome.reason == "product_id must be text as in the release, not 5"


# What goes wrong


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
@pytest.mark.parametrize("file", [file for file in FILES if file != INDEX])
def test_damage_is_found_before_it_comes_to_look_sound(
    root: ReleaseRoot, journal: Journal, followed: Made, file: str, damage: str
) -> None:
    before = str(root.current())
    path = root.folder(before) / "1" / file
    sound = path.read_bytes()
    middle = len(sound) // 2
    path.unlink()
    if damage == "cut":
        path.write_bytes(sound[:-4])
    elif damage == "flipped":
        path.write_bytes(sound[:middle] + bytes([sound[middle] ^ 64]) + sound[middle + 1 :])
    journal.add([put(500, 0)])
    follower = followed()
    # Named by a ReleaseError, or by one of the system's.
    with pytest.raises((ReleaseError, OSError), match=file):
        follower.step()
    assert (root.names(), root.current()) == ([before], before)
    assert not root.updating.exists()
    assert journal.status().n_pending == 1
    path.write_bytes(sound)
    assert follower.step()
    assert journal.status().n_pending == 0
    list(root.check(str(root.current())))


@pytest.mark.parametrize("largest_bytes", [0, 100, 500, 1000, 2000, 4000, 6000])
def test_a_disk_that_fills_up_leaves_the_current_release_and_what_is_pending(
    root: ReleaseRoot, journal: Journal, followed: Made, largest_bytes: int
) -> None:
    before = str(root.current())
    (number,) = journal.add([put(500, 0)])
    follower = followed()
    with files_of_at_most(largest_bytes), pytest.raises(OSError, match=r"too large|written|write"):
        follower.step()
    assert (root.names(), root.current()) == ([before], before)
    assert not root.updating.exists()
    outcome = journal.outcome(number)
    assert outcome
    assert outcome.state == "pending"
    assert follower.step()
    assert ask(client_of(root), 500)[0] == 500


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    "error",
    [HostError("/x: input/output error"), MemoryError(), OSError(24, "Too many open files")],
)
def test_what_the_machine_lacks_has_nothing_rejected_and_holds_up_only_what_comes_after(
    root: ReleaseRoot, journal: Journal, followed: Made, error: Exception, restarted: bool
) -> None:
    photos: dict[str, bytes] = {}

    class Failing(Shelf):
        def read(self, image: str) -> bytes:
            if image not in photos:
                raise error
            return super().read(image)

    engine = LocalEngine(Numbers(N_DIMS))

    def begun() -> Follower:
        pipeline = PhotoPipeline(Failing(photos), engine, MODEL, N_DIMS)
        follower = Follower(root, journal, pipeline, Later())
        follower.begin()
        return follower

    follower = begun()
    changes = [
        put(500, 0),
        Change(PUT, 1, 501, image=FeedSeal(root.feed_key).seal("/x")),
        put(502, 2),
        delete(100),
    ]
    numbers = journal.add(changes)
    for n_pending in (4, 3, 3, 3, 3):
        with pytest.raises(type(error)):
            follower.step()
        assert journal.status().n_pending == n_pending
        if restarted:
            follower = begun()
    assert ask(client_of(root), 500)[0] == 500
    photos["/x"] = NEW[1].tobytes()
    assert follower.step()
    assert not follower.step()
    for number in numbers:
        outcome = journal.outcome(number)
        assert outcome
        assert outcome.state == "live"


@pytest.mark.parametrize("restarted", [False, True])
def test_a_release_whose_changes_could_not_be_settled_is_found_to_hold_them(
    root: ReleaseRoot, journal: Journal, followed: Made, restarted: bool
) -> None:
    (number,) = journal.add([put(500, 0)])
    follower = followed()
    log = root.journal.with_name("journal.sqlite-wal").stat().st_size
    with files_of_at_most(log), pytest.raises(JournalError):
        follower.step()
    assert ask(client_of(root), 500)[0] == 500
    release = root.current()
    outcome = journal.outcome(number)
    assert outcome
    assert outcome.state == "pending"
    if restarted:
        follower = followed()
        assert journal.status().n_pending == 0
    assert follower.step() is not restarted
    outcome = journal.outcome(number)
    assert outcome
    assert (outcome.release, root.current()) == (release, release)
    assert journal.status().n_live == 1


def test_what_another_journal_numbered_is_not_taken_for_settled(
    root: ReleaseRoot, journal: Journal, followed: Made
) -> None:
    journal.add(put(500 + one, one) for one in range(5))
    followed().step()
    journal.close()
    rmtree(root.journal.parent)
    other = Journal(root.journal)
    (number,) = other.add([put(600, 9)])
    follower = follower_of(root, other, N_DIMS)
    assert other.status().n_pending == 1
    follower.step()
    outcome = other.outcome(number)
    assert outcome
    assert outcome.release == root.current()
    assert ask(client_of(root), 600)[0] == 600
    other.close()


# Old releases


@pytest.mark.parametrize("keep", [1, 3])
def test_so_many_releases_of_its_own_are_kept_and_as_many_others(
    root: ReleaseRoot, journal: Journal, followed: Made, keep: int, tmp_path: Path
) -> None:
    settings = {"n_trees": 2, "neighbours": 5}
    for seed in range(3):
        changed = old_catalogue() | {2: ([8], random_features(1, 10 + seed, N_DIMS))}
        publish(root.path, changed, tmp_path / "again", **settings)
    others = root.names()
    follower = followed(Later(), keep=keep)
    for one in range(5):
        journal.add([put(500, one)])
        follower.step()
    updates = [name for name in root.names() if name.endswith(UPDATE_SUFFIX)]
    assert len(updates) == keep
    assert root.names() == [*others[-keep:], *updates]
    assert root.current() == updates[-1]
    assert not list(root.releases.glob(".removed-*"))


# Indexes rebuilt


def test_a_worn_index_is_made_anew_and_vectors_are_right_all_along(
    root: ReleaseRoot, journal: Journal, followed: Made
) -> None:
    products = dict(zip(*old_catalogue()[1], strict=True))
    background = Later()
    follower = followed(background)

    def change(*changes: tuple[int, int | None]) -> None:
        for product_id, photo in changes:
            products.pop(product_id, None)
            if photo is not None:
                products[product_id] = NEW[photo]
            journal.add([delete(product_id) if photo is None else put(product_id, photo)])
        follower.step()
        assert_vectors_are_right(root, products)

    change((500, 0), (100, None), (101, None))
    assert (entry_of(root).n_base, entry_of(root).n_added) == (60, 1)
    assert not root.rebasing.exists()  # 3 of 60 are not much
    change((102, 1))
    assert (entry_of(root).n_base, entry_of(root).n_added) == (60, 2)
    change((501, 2), (500, None))  # while it is being made
    background.work()
    change((502, 3), (102, None))  # with the release in which it comes
    assert (entry_of(root).n_base, entry_of(root).n_added) == (59, 2)
    assert entry_of(root).n_items == 59
    list(root.check(str(root.current())))
    background.work()
    assert follower.step()  # it was worn again
    assert not follower.step()
    assert (entry_of(root).n_base, entry_of(root).n_added) == (59, 0)
    assert_vectors_are_right(root, products)
    assert list(root.rebasing.iterdir()) == []


@pytest.mark.slow
def test_vectors_are_found_by_trees_among_what_is_left_and_what_is_new(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    groups = np.abs(random.normal(size=(100, 20)))
    spread = 0.1 * np.abs(random.normal(size=(2500, 20)))
    features = (groups[random.integers(0, 100, 2500)] + spread).astype(np.float32)
    catalogue: Catalogue = {1: (list(range(2000)), features[:2000])}
    root = publish(tmp_path / "root", catalogue, tmp_path / "features", neighbours=5)
    assert entry_of(root).search_k < 2000
    journal = Journal(root.journal)
    follower = follower_of(root, journal, 20, Later())
    journal.add([delete(one) for one in range(0, 120, 2)])
    journal.add(Change(PUT, 1, one, photo=features[one].tobytes()) for one in range(2000, 2060))
    follower.step()
    ids = np.array([*range(1, 120, 2), *range(120, 2060)])
    left = features[ids]
    found_share = []
    for vector in [*features[0:100:10], *features[2000:2060:6], *features[2400:]]:
        order, _ = brute_force(np.vstack([left, vector]), len(left))
        found, _ = ask_vector(root, vector)
        assert set(found) <= set(ids.tolist())
        found_share.append(np.isin(found, ids[order[:5]]).mean())
    assert np.mean(found_share) > 0.95
    journal.close()


@pytest.mark.parametrize("how", ["rollback", "index"])
def test_an_index_made_of_a_release_that_was_left_is_not_used(
    root: ReleaseRoot, journal: Journal, followed: Made, how: str, tmp_path: Path
) -> None:
    first = str(root.current())
    background = Later()
    follower = followed(background)
    journal.add(put(500 + one, one) for one in range(6))
    follower.step()
    background.work()
    products = dict(zip(*old_catalogue()[1], strict=True))
    if how == "rollback":
        with root.lock():
            root.switch(first)
    else:
        products = {one: NEW[one] for one in range(300)}
        settings = {"n_trees": 2, "neighbours": 5}
        catalogue: Catalogue = {1: (list(products), np.stack(list(products.values())))}
        publish(root.path, catalogue, tmp_path / "again", **settings)
        products |= {500 + one: NEW[one] for one in range(6)}
    current = root.current()
    assert follower.step()
    assert not follower.step()
    assert root.current() == current
    journal.add([put(600, 9)])
    follower.step()
    assert_vectors_are_right(root, products | {600: NEW[9]})
    assert entry_of(root).n_base == (60 if how == "rollback" else 300)
    assert not list(root.rebasing.iterdir())


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets so many seconds pass for what waits before it tries again."""
    now = 0.0

    def wait(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(lookalike_build.following.update, "monotonic", lambda: now)
    return wait


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "out of memory"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ReleaseError("1/features.npy", "is missing"), "1/features.npy: is missing"),
        (ZeroDivisionError(), "ZeroDivisionError"),
    ],
)
def test_an_index_that_cannot_be_made_stops_nothing_and_is_tried_again_with_patience(
    root: ReleaseRoot,
    journal: Journal,
    followed: Made,
    wait: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    reason: str,
) -> None:
    def fail(*_: object) -> None:
        raise error

    lines: list[str] = []
    background = Later()
    follower = followed(background, log=lines.append)
    journal.add(put(500 + one, one) for one in range(6))
    follower.step()
    told = f"category 1: it could not be rebuilt in the background: {reason}; next try in"
    with monkeypatch.context() as patch:
        patch.setattr(LiveCategory, "rebased", fail)
        background.work()
        journal.add([put(600, 6)])
        assert follower.step()
        assert ask(client_of(root), 600)[0] == 600
        assert lines[-2] == f"{told} 60 s"
        wait(59)
        assert not follower.step()
        journal.add([put(601, 7)])
        assert follower.step()
        background.work()  # nothing, though the category is worn
        assert not follower.step()
        for seconds in (120, 240, 480):
            wait(240)
            assert follower.step()  # begins it again
            assert not follower.step()
            background.work()
            assert follower.step()
            assert lines[-1] == f"{told} {seconds} s"
    wait(480)
    assert follower.step()
    background.work()
    assert follower.step()
    assert not follower.step()
    assert (entry_of(root).n_base, entry_of(root).n_added) == (68, 0)
    assert len(lines) == 7


def test_an_index_that_no_longer_has_to_be_made_is_not_tried_again(
    root: ReleaseRoot,
    journal: Journal,
    followed: Made,
    wait: Callable[[float], None],
    tmp_path: Path,
) -> None:
    background = Later()
    follower = followed(background)
    journal.add([*(put(500 + one, one) for one in range(6)), put(8, 9, category_id=2)])
    follower.step()
    with files_of_at_most(1000):
        background.work()
        background.work()
    assert follower.step()
    journal.add(delete(one, category_id=2) for one in (7, 8))
    assert follower.step()
    fresh: Catalogue = {1: (list(range(300)), NEW[:300])}
    publish(root.path, fresh, tmp_path / "again", n_trees=2, neighbours=5)
    wait(60)
    assert follower.step()
    assert not follower.step()
    assert not root.rebasing.exists() or not list(root.rebasing.iterdir())


def test_an_index_that_cannot_be_taken_up_is_left_out_and_tried_again(
    root: ReleaseRoot, journal: Journal, followed: Made, wait: Callable[[float], None]
) -> None:
    lines: list[str] = []
    background = Later()
    follower = followed(background, log=lines.append)
    journal.add(put(500 + one, one) for one in range(6))
    follower.step()
    background.work()
    (root.rebasing / "1" / INDEX).unlink()
    journal.add([put(600, 6)])
    assert follower.step()
    assert journal.status().n_pending == 0
    assert (entry_of(root).n_base, entry_of(root).n_added) == (60, 7)
    assert lines[-2].startswith("category 1: it could not be rebuilt in the background: ")
    wait(60)
    assert follower.step()
    background.work()
    assert follower.step()
    assert (entry_of(root).n_base, entry_of(root).n_added) == (67, 0)


def test_an_index_at_work_when_the_follower_ended_is_tried_again_later(
    root: ReleaseRoot, journal: Journal, followed: Made, wait: Callable[[float], None]
) -> None:
    """It may have been what the follower was killed for."""
    (root.rebasing / "1").mkdir(parents=True)
    lines: list[str] = []
    follower = followed(log=lines.append)
    assert lines == [
        "category 1: it could not be rebuilt in the background: the follower ended during the "
        "rebuild; next try in 600 s"
    ]
    assert not root.rebasing.exists()
    journal.add(put(500 + one, one) for one in range(6))
    assert follower.step()
    assert not follower.step()
    assert entry_of(root).n_added == 6
    wait(600)
    assert follower.step()
    assert follower.step()
    assert not follower.step()
    assert entry_of(root).n_added == 0


def test_a_follower_that_stops_leaves_no_index_that_looks_failed(
    root: ReleaseRoot, journal: Journal, followed: Made
) -> None:
    class Begun(Later):
        def __call__(self, job: Callable[[], Any]) -> Future[Any]:
            (root.rebasing / "1").mkdir(parents=True)
            return super().__call__(job)

    journal.add(put(500 + one, one) for one in range(6))
    follow(followed(Begun()), None, threading.Event(), once=True)
    assert entry_of(root).n_added == 6
    lines: list[str] = []
    follow(followed(log=lines.append), None, threading.Event(), once=True)
    assert lines == []


def test_old_releases_that_cannot_be_removed_are_told_of_and_stop_nothing(
    root: ReleaseRoot, journal: Journal, followed: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    lines: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(ReleaseRoot, "prune", refuse)
        follower = followed(Later(), log=lines.append, keep=1)
        for one in range(3):
            journal.add([put(500, one)])
            assert follower.step()
    assert journal.status().n_pending == 0
    told = [line for line in lines if "old releases" in line]
    assert told == [
        "old releases could not be removed: [Errno 5] Input/output error; "
        "tried again with the next changes"
    ]
    journal.add([put(500, 3)])
    follower.step()
    assert len(root.names()) == 2


def test_a_batch_that_cannot_be_counted_is_live(
    root: ReleaseRoot, journal: Journal, followed: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise JournalError("full")

    lines: list[str] = []
    monkeypatch.setattr(Journal, "batch_done", full)
    follower = followed(log=lines.append)
    (number,) = journal.add([put(500, 0)])
    assert follower.step()
    assert lines == [
        "the batch could not be counted: full; tried again with the next changes",
        f"changes up to {number}: 1 live in {root.current()}, in {lines[-1].split()[-2]} s",
    ]


def test_without_hard_links_indexes_are_made_anew_too(
    root: ReleaseRoot, journal: Journal, followed: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("os.link", refuse)
    follower = followed()
    journal.add(put(500 + one, one) for one in range(6))
    assert follower.step()
    assert follower.step()
    assert not follower.step()
    assert (entry_of(root).n_base, entry_of(root).n_added) == (66, 0)


def test_an_index_that_is_done_while_a_release_is_written_comes_with_the_next(
    root: ReleaseRoot, journal: Journal, followed: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    background = Later()
    follower = followed(background)
    journal.add(put(500 + one, one) for one in range(6))
    follower.step()
    publish = Staging.publish

    def work_and_publish(*rest: Any) -> Any:
        background.work()
        return publish(*rest)

    monkeypatch.setattr(Staging, "publish", work_and_publish)
    journal.add([put(600, 9)])
    assert follower.step()
    assert follower.step()
    assert (entry_of(root).n_base, entry_of(root).n_added) == (66, 1)


# What is served meanwhile


@pytest.mark.slow
def test_a_product_that_changes_is_known_at_every_moment(
    root: ReleaseRoot, journal: Journal, followed: Made
) -> None:
    follower = followed(keep=2)
    source = ReleaseSource(root)
    source.look()
    client = client_of(root, source=source)
    stop = threading.Event()
    wrong: list[object] = []
    releases = set()

    def serve() -> None:
        while not stop.is_set():
            source.look()
            for category_id, product_id in ((1, 100), (1, 101), (2, 7)):
                answer = ask(client, product_id, category_id)
                if source.problem or not answer or answer[0] != product_id:
                    wrong.append((product_id, answer, source.problem))
            time.sleep(0.002)  # or the follower hardly gets to run
            if source.release:
                releases.add(source.release.manifest.release)

    server = threading.Thread(target=serve)
    server.start()
    try:
        for one in range(0, 40, 2):
            journal.add([put(100, one), put(7, one, category_id=2), delete(101), put(101, one + 1)])
            while follower.step():
                pass
    finally:
        stop.set()
        server.join()
    assert wrong == []
    assert len(releases) > 5


# A build beside it


@pytest.mark.parametrize("followed_before", [False, True])
def test_a_removal_of_what_only_the_catalogue_has_yet_outlasts_its_build(
    root: ReleaseRoot, journal: Journal, followed: Made, tmp_path: Path, followed_before: bool
) -> None:
    """It changes nothing when it comes, and so is in no release's `applied`."""
    follower = followed(Later())
    if followed_before:
        journal.add([put(500, 0)])
        follower.step()
    journal.add([delete(700)])
    follower.step()
    product_ids, features = old_catalogue()[1]
    catalogue: Catalogue = {1: ([*product_ids, 700], np.concatenate([features, NEW[9:10]]))}
    publish(root.path, catalogue, tmp_path / "again", n_trees=2, neighbours=5)
    client = client_of(root)
    assert ask(client, 700) is None
    assert ask(client, 159)[0] == 159
    assert (ask(client, 500) is not None) is followed_before
