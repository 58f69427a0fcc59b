"""Behaviour in releases: made beside the current categories, and right in whatever comes after."""

import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.release.attributes import HIDDEN, Values
from lookalike.release.behaviour import open_gone
from lookalike.release.category import ids_of
from lookalike.release.files import (
    BEHAVIOUR,
    BEHAVIOUR_FILES,
    BEHAVIOUR_TABLE,
    GONE,
    MANIFEST,
    PRODUCT_IDS,
    ReleaseError,
)
from lookalike.release.ids import Id, IdType
from lookalike.release.manifest import BehaviourEntry
from lookalike.release.opened import Release
from lookalike.release.root import ReleaseRoot, RootError
from lookalike_build.behaviour.build import add_behaviour
from lookalike_build.behaviour.files import Take
from lookalike_build.behaviour.ratings import Ratings, RatingsError, RatingSettings
from lookalike_build.features.adopted import AdoptedFeatures
from lookalike_build.features.csv import write_feature_csv
from lookalike_build.features.store import FeatureError
from lookalike_build.indexing.build import index
from lookalike_build.indexing.category import IndexSettings
from lookalike_build.publishing.ids import Ids
from lookalike_build.publishing.removal import ANY
from support import (
    RANDOM_CASES,
    Catalogue,
    Features,
    Rating,
    change,
    client_of,
    make_slim,
    publish,
    random_features,
    rate,
    write_store,
)

T = 1_700_000_000
SETTINGS = IndexSettings(n_trees=2, neighbours=5)
N_DIMS = 4
POOL = random_features(60, 1, N_DIMS)
CATALOGUE: Catalogue = {
    1: (list(range(10)), POOL[:10]),
    2: (list(range(8, 20)), POOL[20:32]),
}
"""Products 8 and 9 are in both."""
RATED = [*range(0, 20, 2), 9, 50]
"""Of both categories; 50 is of none."""


def ratings(product_ids: Sequence[Id] = RATED) -> list[Rating]:
    """Every user rates a few of the products, and one all of them, long ago."""
    random = np.random.default_rng(5)
    some = [
        (f"user {user}", product_ids[place], T - 86_400 * int(random.integers(90)))
        for user in range(9)
        for place in random.integers(0, len(product_ids), 4)
    ]
    return [*some, *(("all", product_id, T - 10**8) for product_id in product_ids)]


@pytest.fixture
def root(tmp_path: Path) -> ReleaseRoot:
    return publish(tmp_path / "root", CATALOGUE, tmp_path / "f", n_trees=2, neighbours=5)


def opened(root: ReleaseRoot) -> Release:
    return root.open(str(root.current()))


def lists(root: ReleaseRoot) -> dict[Id, list[Id]]:
    """What the current release answers to each product rated."""
    behaviour = opened(root).behaviour
    assert behaviour
    return {product_id: behaviour.related(product_id, 99) for product_id in RATED}


def entry_of(root: ReleaseRoot) -> BehaviourEntry:
    entry = root.manifest(str(root.current())).behaviour
    assert entry
    return entry


def numbers(root: ReleaseRoot, files: Sequence[str] = BEHAVIOUR_TABLE) -> list[int]:
    """Which files on disk those of the current release are."""
    folder = root.folder(str(root.current())) / BEHAVIOUR
    return [(folder / file).stat().st_ino for file in files]


def there(root: ReleaseRoot) -> set[Id]:
    """The products of the current release, read from its categories."""
    categories = opened(root).categories.values()
    return {one for category in categories for one in category.ids(category.items())}


def without(found: dict[Id, list[Id]], gone: set[Id]) -> dict[Id, list[Id]]:
    return {one: [other for other in others if other not in gone] for one, others in found.items()}


def test_behaviour_comes_with_a_complete_release(root: ReleaseRoot) -> None:
    before = str(root.current())
    made = rate(root, ratings())
    newest = max(rating[2] for rating in ratings())
    assert made.published[:4] == (root.current(), True, 2, ())
    assert made.counts == (48, len({rating[:2] for rating in ratings()}), newest * 1_000_000)
    assert len(list(root.check(str(root.current())))) == 2
    old, new = root.manifest(before), root.manifest(str(root.current()))
    assert (old.behaviour, new.behaviour) == (None, made.entry)
    assert old.categories == new.categories
    for path in root.folder(before).glob("*/*"):
        same = root.folder(new.release) / path.relative_to(root.folder(before))
        assert path.samefile(same)
    found = lists(root)
    assert all(found.values())
    assert not any(product_id in others or 50 in others for product_id, others in found.items())
    assert client_of(root).get("/nns?category_id=1&product_id=3").status == "200 OK"


def test_the_same_ratings_change_nothing_and_others_the_table_alone(root: ReleaseRoot) -> None:
    rate(root, ratings())
    name, product_ids = root.current(), numbers(root, [PRODUCT_IDS])
    assert rate(root, reversed(ratings())).published[:4] == (name, False, 2, ())
    assert rate(root, ratings(), neighbours=1).published[:4] == (root.current(), True, 2, ())
    assert numbers(root, [PRODUCT_IDS]) == product_ids
    assert all(len(others) == 1 for others in lists(root).values())


def test_other_roots_get_the_same_bytes(root: ReleaseRoot, tmp_path: Path) -> None:
    rate(root, ratings())
    other = publish(tmp_path / "other", CATALOGUE, tmp_path / "g", n_trees=2, neighbours=5)
    rate(other, reversed(ratings()))
    assert entry_of(root) == entry_of(other)


def test_an_update_links_the_table_and_says_anew_what_is_gone(root: ReleaseRoot) -> None:
    rate(root, ratings())
    files, before = numbers(root), lists(root)
    change(root, {1: {4: None}})
    assert numbers(root) == files
    assert lists(root) == without(before, {4})
    assert before != lists(root)
    change(root, {2: {4: POOL[50]}})  # back, in another category
    assert lists(root) == before
    change(root, {1: {8: None}})  # it still is in the other
    assert lists(root) == before
    change(root, {2: {8: None}})
    assert lists(root) == without(before, {8})
    assert numbers(root) == files
    list(root.check(str(root.current())))


def test_an_update_of_what_nobody_rated_links_all_of_it(root: ReleaseRoot) -> None:
    rate(root, ratings())
    files = numbers(root, BEHAVIOUR_FILES)
    change(root, {1: {1: None, 777: POOL[40]}})
    assert numbers(root, BEHAVIOUR_FILES) == files


def test_a_category_that_leaves_takes_its_products(root: ReleaseRoot) -> None:
    rate(root, ratings())
    before = lists(root)
    change(root, {1: dict.fromkeys(range(10))})
    assert lists(root) == without(before, {0, 2, 4, 6})
    assert entry_of(root).n_gone == 4
    change(root, {3: {2: POOL[3]}})
    assert lists(root) == without(before, {0, 4, 6})


def test_a_product_is_in_lists_while_a_category_shows_it(root: ReleaseRoot, tmp_path: Path) -> None:
    """Product 8 is in two categories, 4 in one; all of category 2 may be hidden."""
    rate(root, ratings())
    before = lists(root)

    def set_hidden(hidden: bool | None, products: Iterable[Id], *categories: int) -> None:
        values: Values = {HIDDEN: hidden}
        change(root, {}, None, {each: dict.fromkeys(products, values) for each in categories})

    set_hidden(True, [4, 8], 1)
    assert lists(root) == without(before, {4})
    set_hidden(True, [8], 2)
    assert lists(root) == without(before, {4, 8})
    index(write_store(tmp_path / "g", CATALOGUE), root, SETTINGS, allowed=ANY, rebuild=True)
    assert lists(root) == without(before, {4, 8})
    set_hidden(None, [8], 2)
    change(root, {1: {4: None}})
    change(root, {1: {4: POOL[4]}})
    assert lists(root) == before
    set_hidden(True, range(8, 20), 2)
    assert entry_of(root).n_gone == 6  # 8, and 10 to 18
    rate(root, ratings())
    assert entry_of(root).n_gone == 6  # 8, and 10 to 18


def test_indexing_keeps_it_and_looks_for_every_product(root: ReleaseRoot, tmp_path: Path) -> None:
    rate(root, ratings())
    files, before, name = numbers(root), lists(root), root.current()
    assert (
        index(write_store(tmp_path / "g", CATALOGUE), root, SETTINGS, allowed=ANY).release == name
    )
    other: Catalogue = {7: ([*range(5), 50], POOL[:6])}
    index(write_store(tmp_path / "h", other), root, SETTINGS, allowed=ANY)
    assert numbers(root) == files
    assert lists(root) == without(before, set(RATED) - {0, 2, 4})
    index(write_store(tmp_path / "i", CATALOGUE), root, SETTINGS, allowed=ANY)
    assert numbers(root) == files
    assert lists(root) == before


def test_adopting_keeps_it(root: ReleaseRoot, tmp_path: Path) -> None:
    rate(root, ratings())
    before = lists(root)
    store = write_store(tmp_path / "g", {1: (list(range(0, 20, 4)), POOL[:5])})
    (tmp_path / "csv").mkdir()
    write_feature_csv(tmp_path / "csv" / "features_1.csv", store.read(1))
    index(AdoptedFeatures.open(tmp_path / "csv", N_DIMS, "adopted"), root, SETTINGS, allowed=ANY)
    assert lists(root) == without(before, {2, 6, 9, 10, 14, 18})


def test_what_becomes_current_meanwhile_is_taken(root: ReleaseRoot) -> None:
    def read(_: IdType, take: Take) -> None:
        change(root, {1: {4: None}, 2: {777: POOL[40]}})
        with mock.patch("support.add_behaviour", lambda root, read, *_: read("integer", take)):
            rate(root, ratings())

    add_behaviour(root, read, RatingSettings(), 2**29, lambda _: nullcontext(lambda _: None))
    assert there(root) == {*range(20), 777} - {4}
    assert 4 not in {other for others in lists(root).values() for other in others}
    change(root, {1: {4: POOL[4]}})
    assert 4 in lists(root)[0]


def test_a_follower_beside_it_may_remove_the_release_that_it_began_with(root: ReleaseRoot) -> None:
    began_with = root.folder(change(root, {1: {1: None}}))

    def follow(ratings: Ratings, product_ids: Ids) -> None:
        if began_with.exists():
            change(root, {1: {0: None}})
            with root.lock():
                root.prune(keep=1)
        add_released(ratings, product_ids)

    add_released = Ratings.add_released
    with mock.patch.object(Ratings, "add_released", follow):
        rate(root, ratings())
    assert not began_with.exists()
    assert there(root) == set(range(2, 20))
    assert 4 in lists(root)[2]
    assert 0 not in lists(root)[2]
    list(root.check(str(root.current())))
    assert not root.before.exists()


def test_every_release_has_its_own(root: ReleaseRoot) -> None:
    rate(root, ratings())
    before = lists(root)
    change(root, {1: {4: None}})
    rate(root, ratings(list(range(0, 20, 2))))
    with root.lock():
        root.switch(root.names()[1])
    assert lists(root) == before
    with root.lock():
        root.switch(root.previous())
    assert opened(root).behaviour is None
    change(root, {1: {5: None}})
    assert opened(root).behaviour is None


def test_a_slim_copy_has_it_and_none_is_made_there(root: ReleaseRoot) -> None:
    rate(root, ratings())
    before = lists(root)
    make_slim(root)
    assert opened(root).slim
    assert lists(root) == before
    with pytest.raises(
        RatingsError, match="is a slim copy; add behaviour where releases are built"
    ):
        rate(root, ratings())


def test_a_build_beside_a_slim_copy_keeps_it(root: ReleaseRoot, tmp_path: Path) -> None:
    rate(root, ratings())
    before = lists(root)
    make_slim(root)
    index(write_store(tmp_path / "g", CATALOGUE), root, SETTINGS, allowed=ANY)
    assert not opened(root).slim
    assert lists(root) == before


def test_without_a_release_none_is_made(tmp_path: Path) -> None:
    root = ReleaseRoot(tmp_path)
    with pytest.raises(RootError, match=r"no release in .* yet"):
        rate(root, ratings())


def test_beside_a_builder_none_is_made(root: ReleaseRoot) -> None:
    with root.build_lock(), pytest.raises(RootError, match="another builder is at work"):
        rate(root, ratings())


def test_products_of_another_shop_are_refused_and_nothing_is_left(root: ReleaseRoot) -> None:
    before = root.current()
    with pytest.raises(RatingsError, match="none of the 3 rated products is related to one of the"):
        rate(root, ratings([701, 702, 703]))
    assert root.current() == before
    assert [path.name for path in root.releases.iterdir()] == [before]


def test_a_reader_that_fails_leaves_nothing(root: ReleaseRoot) -> None:
    before = root.current()

    def read(_: IdType, take: Take) -> None:
        raise FeatureError("unreadable")

    with pytest.raises(FeatureError):
        add_behaviour(root, read, RatingSettings(), 2**29, lambda _: nullcontext(lambda _: None))
    assert [path.name for path in root.releases.iterdir()] == [before]


def test_with_ids_of_another_type_it_is_left_out(root: ReleaseRoot, tmp_path: Path) -> None:
    rate(root, ratings())
    other: Catalogue = {1: (["a", "b"], POOL[:2])}
    published = index(write_store(tmp_path / "g", other), root, SETTINGS, allowed=ANY)
    assert published.left_out == (
        "behaviour is left out: its product ids are integers, the release's strings; run "
        "`lookalike-build behaviour`",
    )
    assert opened(root).behaviour is None


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("how", [damage, Path.unlink])
@pytest.mark.parametrize("file", BEHAVIOUR_TABLE)
def test_a_damaged_table_is_left_out_by_a_build_and_made_anew_by_the_command(
    root: ReleaseRoot, tmp_path: Path, file: str, how: Callable[[Path], None]
) -> None:
    rate(root, ratings())
    before = lists(root)
    how(root.folder(str(root.current())) / BEHAVIOUR / file)
    published = index(write_store(tmp_path / "g", CATALOGUE), root, SETTINGS, allowed=ANY)
    assert published[:3] == (root.current(), True, 2)
    (left_out,) = published.left_out
    assert left_out.startswith(f"behaviour is left out: {BEHAVIOUR}/{file}: ")
    assert opened(root).behaviour is None
    list(root.check(str(root.current())))
    rate(root, ratings())
    assert lists(root) == before


@pytest.mark.parametrize("file", BEHAVIOUR_FILES)
def test_a_damaged_file_is_made_anew_of_the_same_ratings(root: ReleaseRoot, file: str) -> None:
    rate(root, ratings())
    name, before = str(root.current()), lists(root)
    damage(root.folder(name) / BEHAVIOUR / file)
    rate(root, ratings())
    assert root.current() != name
    assert lists(root) == before
    list(root.check(str(root.current())))


def test_a_build_says_that_it_leaves_out_that_of_an_older_version(
    root: ReleaseRoot, tmp_path: Path
) -> None:
    rate(root, ratings())
    manifest = root.folder(str(root.current())) / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 1}))
    published = index(write_store(tmp_path / "f", CATALOGUE), root, SETTINGS, allowed=ANY)
    (left_out,) = published.left_out
    assert left_out.startswith("behaviour is left out: the current release cannot be read: ")
    assert opened(root).behaviour is None


def test_a_build_does_not_read_what_was_gone(root: ReleaseRoot, tmp_path: Path) -> None:
    rate(root, ratings())
    before = lists(root)
    (root.folder(str(root.current())) / BEHAVIOUR / GONE).unlink()
    other: Catalogue = {1: (list(range(8)), POOL[:8])}
    assert index(write_store(tmp_path / "g", other), root, SETTINGS, allowed=ANY).left_out == ()
    assert lists(root) == without(before, set(range(8, 20)))
    damage(root.folder(str(root.current())) / BEHAVIOUR / GONE)
    index(write_store(tmp_path / "h", other), root, SETTINGS, allowed=ANY)
    assert lists(root) == without(before, set(range(8, 20)))
    list(root.check(str(root.current())))


@pytest.mark.parametrize("file", BEHAVIOUR_FILES)
def test_an_update_of_a_release_with_a_file_missing_is_refused(
    root: ReleaseRoot, file: str
) -> None:
    rate(root, ratings())
    name = str(root.current())
    (root.folder(name) / BEHAVIOUR / file).unlink()
    with pytest.raises(ReleaseError) as error:
        change(root, {1: {4: None}})
    assert str(error.value) == f"{BEHAVIOUR}/{file}: is missing"
    assert root.current() == name


def test_an_update_does_not_take_what_is_gone_from_a_damaged_file(root: ReleaseRoot) -> None:
    rate(root, ratings())
    damage(root.folder(str(root.current())) / BEHAVIOUR / GONE)
    with pytest.raises(ReleaseError, match=GONE):
        change(root, {1: {4: None}})


PRODUCTS: dict[str, list[Any]] = {
    "integer": list(range(9)),
    "string": ["a", "b2", "é", "x", "日本", "z" * 64, "9", "10", "+"],
}
CATEGORIES: dict[str, list[Any]] = {"integer": [1, 2, 10], "string": ["shoes", "../x", BEHAVIOUR]}
products = st.integers(0, 8)
states = st.dictionaries(st.integers(0, 2), st.sets(products, min_size=1), min_size=1)
changes = st.dictionaries(
    st.integers(0, 2), st.dictionaries(products, st.booleans(), min_size=1), min_size=1
)
steps = st.lists(st.one_of(changes, states, st.just("rate")), min_size=1, max_size=5)


@settings(max_examples=25 * RANDOM_CASES)
@given(
    kind=st.sampled_from(["integer", "string"]),
    begin=states,
    given_steps=steps,
    rated=st.lists(st.tuples(st.integers(0, 3), products), min_size=9, max_size=40),
)
@pytest.mark.slow
def test_no_product_is_in_an_answer_while_it_is_in_no_category(
    kind: str, begin: dict[int, set[int]], given_steps: list[Any], rated: list[tuple[int, int]]
) -> None:
    """Whatever is added, removed, indexed anew or rated anew, in whatever order."""
    ids, category_ids = PRODUCTS[kind], CATEGORIES[kind]
    given_ratings: list[Rating] = [(f"user {user}", ids[product], T) for user, product in rated]

    def catalogue(state: dict[int, set[int]]) -> Catalogue:
        return {
            category_ids[category]: ([ids[one] for one in members], POOL[sorted(members)])
            for category, members in sorted(state.items())
        }

    with tempfile.TemporaryDirectory() as name, mock.patch("os.fsync"):
        folder = Path(name)
        root = publish(folder / "root", catalogue(begin), folder / "f", n_trees=2, neighbours=3)
        listed: dict[Id, list[Id]] = {}
        for number, step in enumerate(["rate", *given_steps]):
            if step == "rate":
                try:
                    rate(root, given_ratings)
                except RatingsError:  # none of the products left is related to another
                    if not listed:
                        return
                    continue
                listed = _unfiltered(root, ids)
            elif all(isinstance(products, set) for products in step.values()):
                index(
                    write_store(folder / str(number), catalogue(step)), root, SETTINGS, allowed=ANY
                )
            else:
                features: dict[Id, dict[Id, Features | None]] = {
                    category_ids[category]: {
                        ids[product]: POOL[product] if put else None
                        for product, put in products.items()
                    }
                    for category, products in step.items()
                }
                change(root, features)
            _hold(root, ids, listed)


def _unfiltered(root: ReleaseRoot, ids: list[Any]) -> dict[Id, list[Id]]:
    """The lists as they were just made: all in them are there."""
    behaviour = opened(root).behaviour
    assert behaviour
    found = {one: behaviour.related(one, 99) for one in ids}
    present = _present(root)
    assert all(other in present for others in found.values() for other in others)
    return found


def _present(root: ReleaseRoot) -> set[Id]:
    categories = opened(root).categories.values()
    return {
        one
        for category in categories
        for one in category.ids(np.arange(category.entry.n_items, dtype=np.uint32))
    }


def _hold(root: ReleaseRoot, ids: list[Any], listed: dict[Id, list[Id]]) -> None:
    release, present = opened(root), _present(root)
    assert release.behaviour
    for product_id in ids:
        expected = [other for other in listed[product_id] if other in present]
        assert release.behaviour.related(product_id, 99) == expected
    entry = entry_of(root)
    gone = ids_of(release.behaviour.table.product_ids, open_gone(release.folder / BEHAVIOUR, entry))
    in_lists = {other for others in listed.values() for other in others}
    assert set(gone) == in_lists - present
    list(root.check(release.manifest.release))
