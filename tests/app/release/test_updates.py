"""Updates beside a table: what they change is what is answered, and damage to them is refused."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pytest

from lookalike.release.category import lists_dtype
from lookalike.release.files import (
    FEATURES,
    LATER_IDS,
    LEFT,
    NEIGHBOURS,
    SLIM_FILES,
    FileEntry,
    ReleaseError,
    later_file,
    lists_file,
)
from lookalike.release.ids import Id
from lookalike.release.manifest import (
    CategoryEntry,
    UpdateEntry,
    Updates,
)
from lookalike.release.root import ReleaseRoot
from lookalike.serving.source import ReleaseSource
from support import (
    Catalogue,
    Features,
    change,
    client_of,
    make_slim,
    post,
    publish,
    random_features,
    updates_beside,
)

N_ITEMS, K = 90, 8
UPDATED: Final = (LATER_IDS, LEFT, lists_file(1), lists_file(3), later_file(1), later_file(3))
Array = npt.NDArray[Any]
Products = dict[Id, Features]


def as_integer(number: int) -> Id:
    return 3 * number


def as_text(number: int) -> Id:
    return f"{number:03}{'é' * (number % 5)}"


@pytest.fixture(scope="module", params=[as_integer, as_text], ids=["integers", "text"])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ReleaseRoot, Products]:
    """A root whose current release has three updates beside the table, and the products in it."""
    product_id: Callable[[int], Id] = request.param
    # Between others and after all.
    new: tuple[Id, Id] = ("0315", "zz") if product_id is as_text else (94, 1500)
    features, more = random_features(N_ITEMS, 1), random_features(10, 2)
    products: Products = {product_id(number): features[number] for number in range(N_ITEMS)}
    folder = tmp_path_factory.mktemp("updates")
    catalogue: Catalogue = {
        1: (list(products), features),
        2: ([product_id(1)], random_features(1, 3)),
    }
    root = publish(folder / "root", catalogue, folder / "features", neighbours=K)
    steps: list[dict[Id, Features | None]] = [
        # One has another photo, one leaves, two come.
        {product_id(7): more[0], product_id(20): None, new[0]: more[1], new[1]: more[2]},
        # One that came leaves again, and so does the one that has another photo.
        {new[1]: None, product_id(7): None},
        # One comes back, one has a third photo.
        {product_id(20): more[3], product_id(33): more[4], product_id(34): None},
    ]
    with updates_beside():
        for step in steps:
            change(root, {1: step})
            for one, feature in step.items():
                if feature is None:
                    del products[one]
                else:
                    products[one] = feature
    return root, products


@pytest.fixture
def root(made: tuple[ReleaseRoot, Products], tmp_path: Path) -> ReleaseRoot:
    shutil.copytree(made[0].path, tmp_path / "root", symlinks=True)
    return ReleaseRoot(tmp_path / "root")


def entry_of(root: ReleaseRoot) -> CategoryEntry:
    return root.manifest(root.chosen()).categories[0]


def updates_of(root: ReleaseRoot) -> Updates:
    updates = entry_of(root).updates
    assert updates
    return updates


def targets(products: Products) -> Iterator[str]:
    for product_id in products:
        asked = f"category_id=1&product_id={quote(str(product_id), safe='')}"
        for limit in ("", f"&limit={K + 1}", "&limit=3&distances=true", f"&limit={K + 20}"):
            yield f"/nns?{asked}{limit}"


def test_each_update_is_written_beside_what_there_is(made: tuple[ReleaseRoot, Products]) -> None:
    root, products = made
    entry, updates = entry_of(root), updates_of(root)
    assert (entry.n_items, entry.n_table, entry.n_base) == (len(products), N_ITEMS, N_ITEMS)
    assert [one.number for one in updates.each] == [1, 2, 3]
    assert [one.n_later for one in updates.each] == [3, 0, 2]
    assert (updates.n_later, updates.n_left) == (5, 6)
    first, *_, last = (root.folder(name) / "1" for name in root.names())
    for path in first.iterdir():
        assert path.samefile(last / path.name)
    assert "updates" not in (first.parent / "manifest.json").read_text()
    assert len(list(root.check(root.chosen()))) == 2


def test_answers_are_those_of_a_release_made_from_nothing(
    made: tuple[ReleaseRoot, Products], tmp_path: Path
) -> None:
    root, products = made
    catalogue: Catalogue = {
        1: (list(products), np.stack(list(products.values()))),
        2: (list(products)[:1], random_features(1, 3)),
    }
    nothing = publish(tmp_path / "nothing", catalogue, tmp_path / "features", neighbours=K)
    clients = client_of(root), client_of(nothing)
    for target in targets(products):
        one, other = (client.get(target) for client in clients)
        assert (one.status, one.body) == (other.status, other.body)
    both = [
        post(client, {"category_id": 1, "product_ids": list(products)}).body for client in clients
    ]
    assert both[0] == both[1]
    for vector in random_features(5, 8):
        question = {"category_id": 1, "vector": vector.tolist(), "limit": 20, "distances": True}
        one, other = (json.loads(post(client, question).body) for client in clients)
        assert one["product_ids"] == other["product_ids"]
        np.testing.assert_allclose(one["distances"], other["distances"], atol=1e-6)
    release, names = root.open(root.chosen()), {*products}
    assert set(release.categories[1].ids(release.categories[1].items())) == names


def test_who_has_left_is_unknown(made: tuple[ReleaseRoot, Products]) -> None:
    root, products = made
    client = client_of(root)
    text = isinstance(next(iter(products)), str)
    for gone in ("zz", as_text(7), as_text(34)) if text else (1500, 21, 102, 10**9):
        assert gone not in products
        target = f"/nns?category_id=1&product_id={quote(str(gone), safe='')}"
        assert client.get(target).status == "404 Not Found"


def test_a_slim_copy_answers_as_the_full_release(root: ReleaseRoot, made: Any) -> None:
    full = client_of(root)
    asked = [one for one in targets(made[1]) if "limit=9" in one or "limit=3" in one]
    expected = [full.get(target).body for target in asked]
    entry = entry_of(root)
    for path in (root.folder(root.chosen()) / "1").iterdir():
        if path.name not in entry.file_names(slim=True):
            path.unlink()
    make_slim(root)
    slim = client_of(root)
    assert [slim.get(target).body for target in asked] == expected
    assert len(list(root.check(root.chosen()))) == 2
    assert {*SLIM_FILES, *UPDATED[:4]} < set(entry.file_names(slim=True))


def test_taking_up_an_update_checks_only_what_is_new(
    root: ReleaseRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ReleaseSource(root)
    source.look()
    checked: list[str] = []
    check_ends = FileEntry.check_ends

    def spy(entry: FileEntry, path: Path, file: str) -> None:
        checked.append(file)
        check_ends(entry, path, file)

    product_id = client_ids(root)[3]
    with updates_beside():
        release = change(root, {1: {product_id: None}})
    monkeypatch.setattr(FileEntry, "check_ends", spy)
    source.look()
    assert source.release
    assert source.release.manifest.release == release
    new = (LATER_IDS, LEFT, lists_file(4), later_file(4))
    assert sorted(checked) == sorted(f"1/{file}" for file in new)


DAMAGES: Final[dict[str, Callable[[Path], object]]] = {
    "missing": lambda path: path.unlink(),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "empty": lambda path: path.write_bytes(b""),
    "flipped": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x55"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", UPDATED)
def test_a_damaged_file_is_refused_and_the_old_release_goes_on(
    root: ReleaseRoot, file: str, damage: str
) -> None:
    name, before = root.chosen(), root.names()[0]
    root.make_current(before)
    source = ReleaseSource(root)
    source.look()
    DAMAGES[damage](root.folder(name) / "1" / file)
    root.make_current(name)
    source.look()
    assert source.release
    assert source.release.manifest.release == before
    assert (source.problem or "").startswith(f"1/{file}: ")
    with pytest.raises(ReleaseError, match=f"^1/{file}: "):
        list(root.check(name))


def agreeing(root: ReleaseRoot, file: str, array: Array, **counts: Any) -> str:
    """The current release with another array in a file of category 1, and a manifest that agrees."""
    name = root.chosen()
    folder = root.folder(name)
    path = folder / "1" / file
    path.unlink()
    np.save(path, array)
    return said(root, name, {file: FileEntry.of(path)}, **counts)


def said(root: ReleaseRoot, name: str, files: dict[str, FileEntry], **counts: Any) -> str:
    manifest = root.manifest(name)
    first, *others = manifest.categories
    first = replace(first, files={**first.files, **files}, **counts)
    manifest = replace(manifest, categories=(first, *others))
    new = f"99990101T000000.000Z-{manifest.content_digest()[:12]}"
    folder = root.folder(name).rename(root.releases / new)
    (folder / "manifest.json").write_text(replace(manifest, release=new).to_json())
    root.make_current(new)
    return new


def _set(column: str | None, place: int, value: int) -> Callable[[Array], Array]:
    def change(array: Array) -> Array:
        (array if column is None else array[column]).flat[place] = value
        return array

    return change


ARRAYS: Final[dict[str, tuple[str, Callable[[Array], Array]]]] = {
    "one left past the last": (LEFT, _set(None, -1, N_ITEMS + 5)),
    "left in another order": (LEFT, lambda array: array[::-1].copy()),
    "one left twice": (LEFT, lambda array: array[[0, 0, *range(2, len(array))]]),
    "left of int64": (LEFT, lambda array: array.astype("<i8")),
    "fewer left": (LEFT, lambda array: array[1:]),
    "fewer later ids": (LATER_IDS, lambda array: array[1:]),
    "later ids of another type": (LATER_IDS, lambda array: np.arange(len(array), dtype="<f8")),
    "a list of an item past the last": (lists_file(1), _set("item", 0, N_ITEMS + 3)),
    "a list that names an item past the last": (lists_file(1), _set("items", 5, N_ITEMS + 3)),
    "lists of another width": (lists_file(1), lambda array: np.zeros(array.size, lists_dtype(9))),
    "fewer lists": (lists_file(3), lambda array: array[1:]),
    "later features of float64": (later_file(1), lambda array: array.astype("<f8")),
    "later features of other dimensions": (later_file(3), lambda array: array[:, 1:].copy()),
}


@pytest.mark.parametrize("how", ARRAYS)
def test_an_array_that_is_not_what_the_format_says_is_refused(root: ReleaseRoot, how: str) -> None:
    file, changed = ARRAYS[how]
    array = changed(np.load(root.folder(root.chosen()) / "1" / file))
    with pytest.raises(ReleaseError, match=f"^1/{file}: "):
        root.open(agreeing(root, file, array))


def test_a_later_product_without_a_list_is_refused(root: ReleaseRoot) -> None:
    file = lists_file(3)
    lists = np.load(root.folder(root.chosen()) / "1" / file)
    lists["item"][lists["item"] >= N_ITEMS] = 0
    with pytest.raises(ReleaseError, match=f"^1/{LATER_IDS}: has a product without a list$"):
        root.open(agreeing(root, file, lists))


@pytest.mark.parametrize(
    "updates",
    [
        lambda old: replace(old, n_left=old.n_left + 1),
        lambda old: replace(old, n_table=old.n_table - 1),
        lambda old: replace(old, each=()),
        lambda old: replace(old, each=old.each[1:]),
        lambda old: replace(old, each=old.each[::-1]),
        lambda old: replace(old, each=(*old.each, UpdateEntry(4, 0, 0))),
        lambda old: replace(old, each=(replace(old.each[0], n_later=-1), *old.each[1:])),
        lambda old: None,
    ],
)
def test_a_manifest_that_does_not_add_up_is_refused(
    root: ReleaseRoot, updates: Callable[[Updates], Updates | None]
) -> None:
    with pytest.raises(ReleaseError, match=r"^manifest\.json: "):
        root.open(said(root, root.chosen(), {}, updates=updates(updates_of(root))))


@pytest.mark.parametrize("file", [NEIGHBOURS, LATER_IDS, lists_file(1), later_file(3), FEATURES])
def test_an_update_finds_damage_in_what_it_reads(root: ReleaseRoot, file: str) -> None:
    before = root.chosen()
    path = root.folder(before) / "1" / file
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    product_id = client_ids(root)[0]
    with pytest.raises(ReleaseError, match=f"^1/{file}: "):
        change(root, {1: {product_id: None}})
    assert root.chosen() == before


def client_ids(root: ReleaseRoot) -> list[Id]:
    ids: list[Any] = np.load(root.folder(root.chosen()) / "1" / "product_ids.npy").tolist()
    return [one.decode() if isinstance(one, bytes) else one for one in ids]


@pytest.mark.slow
def test_once_they_are_many_a_table_is_written_that_has_them(
    root: ReleaseRoot, made: tuple[ReleaseRoot, Products]
) -> None:
    _, products = made
    expected = [client_of(root).get(target).body for target in targets(products)]
    # One of these changes more of the lists than it is worth to have beside the table.
    gone = next(iter(products))
    change(root, {1: {gone: None}})
    change(root, {1: {gone: products[gone]}})
    entry = entry_of(root)
    assert (entry.updates, entry.n_items) == (None, len(products))
    assert [client_of(root).get(target).body for target in targets(products)] == expected
