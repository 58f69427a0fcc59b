"""Behaviour: what is related to a product, and that it stays open when a new release has the same."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lookalike.release.opened
from lookalike.release.behaviour import Behaviour
from lookalike.release.files import (
    BEHAVIOUR,
    BEHAVIOUR_HOT_FILES,
    BEHAVIOUR_TABLE,
    GONE,
    LISTED,
    PRODUCT_IDS,
    RELATED,
    STARTS,
    FileEntry,
)
from lookalike.release.ids import Id, category_folder
from lookalike.release.manifest import BehaviourEntry
from lookalike.release.opened import hot_files_of
from lookalike.release.root import ReleaseRoot
from support import (
    RANDOM_CASES,
    Catalogue,
    change,
    integer_catalogue,
    publish,
    random_features,
    rate,
    string_catalogue,
)

T = 1_700_000_000


def write(folder: Path, lists: dict[Id, list[Id]], gone: set[Id]) -> Behaviour:
    """Behaviour with just these lists, of products that all have one."""
    ids = sorted(lists, key=lambda one: one if isinstance(one, int) else one.encode())
    integers = isinstance(ids[0], int)
    rows = {product_id: row for row, product_id in enumerate(ids)}
    related = [rows[other] for product_id in ids for other in lists[product_id]]
    lengths = [len(lists[product_id]) for product_id in ids]
    kinds: Any = np.array(ids, "<i8") if integers else np.array([str(one).encode() for one in ids])
    np.save(folder / PRODUCT_IDS, kinds)
    np.save(folder / STARTS, np.cumsum([0, *lengths], dtype="<u8"))
    wide = integers and int(ids[-1]) >= 2**32
    shown = [ids[row] for row in related] if integers else related
    np.save(folder / RELATED, np.array(shown, "<i8" if wide else "<u4"))
    listed = np.zeros(len(ids), np.bool_)
    listed[related] = True
    np.save(folder / LISTED, np.packbits(listed))
    gone_rows = [row for row in set(related) if ids[row] in gone]
    np.save(folder / GONE, np.sort(np.array(gone_rows, "<u4")))
    files = {file: FileEntry.of(folder / file) for file in (*BEHAVIOUR_TABLE, GONE)}
    entry = BehaviourEntry(len(ids), len(related), len(gone_rows), T, "by hand", files)
    return Behaviour(folder, entry, "integer" if integers else "string")


SMALL: list[Id] = [0, 5, 6, 1000, 2**31 + 1, 2**32 - 1]
INTEGERS: list[Id] = [0, 5, 6, 1000, 2**53 + 1, 2**63 - 1]
STRINGS: list[Id] = ["10", "9", "a", "é", "日本", "z" * 64]


@st.composite
def given_lists(draw: st.DrawFn) -> tuple[dict[Id, list[Id]], set[Id], list[Id]]:
    products = draw(st.sampled_from([SMALL, INTEGERS, STRINGS]))
    known = draw(st.lists(st.sampled_from(products), unique=True, min_size=1))
    lists = {
        product_id: draw(st.permutations([one for one in known if one != product_id]))
        for product_id in known
    }
    cut = {one: others[: draw(st.integers(0, 6))] for one, others in lists.items()}
    return cut, draw(st.sets(st.sampled_from(known))), products


@settings(max_examples=300 * RANDOM_CASES)
@given(given=given_lists(), n=st.integers(0, 7), data=st.data())
@pytest.mark.slow
def test_the_best_that_are_there_are_related(
    given: tuple[dict[Id, list[Id]], set[Id], list[Id]], n: int, data: st.DataObject
) -> None:
    lists, gone, products = given
    exclude = data.draw(st.sets(st.sampled_from(products)))
    with tempfile.TemporaryDirectory() as folder:
        behaviour = write(Path(folder), lists, gone)
        for product_id in products:
            there = [one for one in lists.get(product_id, []) if one not in gone]
            assert behaviour.related(product_id, n) == there[:n]
            expected = [one for one in there if one not in exclude][:n]
            assert behaviour.related(product_id, n, exclude) == expected


@pytest.mark.parametrize("product_id", [-1, 1, 999, 1001, 2**62, 2**64, -(2**70)])
def test_nothing_is_related_to_an_unknown_number(tmp_path: Path, product_id: int) -> None:
    behaviour = write(tmp_path, {one: [0] if one else [5] for one in INTEGERS}, set())
    assert behaviour.related(product_id, 12) == []
    assert behaviour.related(product_id, 12, {5}) == []


@pytest.mark.parametrize("product_id", ["", "1", "100", "zz", "z" * 63, "z" * 65, "é" * 40])
def test_nothing_is_related_to_an_unknown_text(tmp_path: Path, product_id: str) -> None:
    behaviour = write(tmp_path, {one: ["a"] if one != "a" else ["9"] for one in STRINGS}, set())
    assert behaviour.related(product_id, 12) == []


def ratings(product_ids: list[Any]) -> Iterator[tuple[str, Any, int]]:
    """Each user rates three in a row, and all users the first."""
    for number, product_id in enumerate(product_ids):
        yield f"user {number}", product_ids[0], T
        for other in (product_id, *product_ids[number + 1 : number + 3]):
            yield f"user {number}", other, T


@pytest.fixture
def root(tmp_path: Path) -> ReleaseRoot:
    root = publish(tmp_path / "root", integer_catalogue(), tmp_path / "features")
    rate(root, ratings(list(range(100, 130))))
    return root


def test_a_release_has_its_behaviour_open_and_one_without_has_none(root: ReleaseRoot) -> None:
    without, name = root.names()
    assert root.open(without).behaviour is None
    behaviour = root.open(name).behaviour
    assert behaviour
    assert behaviour.related(110, 3) == [100, 109, 111]
    assert set(behaviour.related(100, 99)) == set(range(101, 130))


def test_its_lists_are_hot_and_locked(root: ReleaseRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    release = root.open(str(root.current()))
    hot = list(hot_files_of(release.folder, release.manifest))
    lists = [path.name for path in hot if path.parent.name == BEHAVIOUR]
    assert lists == list(BEHAVIOUR_HOT_FILES)
    assert all(path.is_file() for path in hot)
    locked: list[Any] = []
    monkeypatch.setattr(lookalike.release.opened, "lock", locked.append)
    release.lock()
    sizes = [np.load(path).nbytes for path in hot]
    assert [array.nbytes for array in locked] == sizes


def test_the_table_stays_open_in_the_next_release_and_what_is_gone_is_read(
    root: ReleaseRoot,
) -> None:
    before = root.open(str(root.current()))
    change(root, {1: {109: None}})
    after = root.open(str(root.current()), before)
    assert before.behaviour
    assert after.behaviour
    assert after.behaviour.table is before.behaviour.table
    assert before.behaviour.related(110, 3) == [100, 109, 111]
    assert after.behaviour.related(110, 3) == [100, 111, 108]
    afresh = root.open(str(root.current())).behaviour
    assert afresh
    assert afresh.table is not before.behaviour.table
    assert afresh.related(110, 99) == after.behaviour.related(110, 99)


def test_another_table_is_opened(root: ReleaseRoot) -> None:
    before = root.open(str(root.current()))
    rate(root, ratings(list(range(130, 160))))
    after = root.open(str(root.current()), before)
    assert before.behaviour
    assert after.behaviour
    assert after.behaviour.related(100, 9) == []
    assert after.behaviour.related(140, 3) == [130, 139, 141]


def test_no_category_can_have_its_folder(tmp_path: Path) -> None:
    """Nor can it be taken for one, whatever the category is called."""
    assert category_folder(BEHAVIOUR) != BEHAVIOUR
    catalogue: Catalogue = {
        name: ([f"{name} {i}" for i in range(4)], random_features(4, seed))
        for seed, name in enumerate((BEHAVIOUR, "behaviour", "behaviour%2Ed", "shoes"))
    }
    root = publish(tmp_path / "root", catalogue, tmp_path / "features")
    rate(root, ratings([f"shoes {i}" for i in range(4)]))
    assert len(list(root.check(str(root.current())))) == 4
    release = root.open(str(root.current()))
    assert set(release.categories) == set(catalogue)
    assert release.behaviour
    assert release.behaviour.related("shoes 3", 2) == ["shoes 0", "shoes 2"]


def test_awkward_text_ids_are_related(tmp_path: Path) -> None:
    catalogue = string_catalogue()
    root = publish(tmp_path / "root", catalogue, tmp_path / "features")
    product_ids = list(catalogue["shoes"][0])
    rate(root, [("one", product_id, T) for product_id in product_ids])
    behaviour = root.open(str(root.current())).behaviour
    assert behaviour
    for product_id in product_ids:
        others = sorted(set(product_ids) - {product_id}, key=str.encode)
        assert behaviour.related(product_id, 99) == others
