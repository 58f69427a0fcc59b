"""A damaged release is refused with the file named, whatever the damage, and the old one goes on.

The quick check is `ReleaseRoot.open`, which the app makes; the full check is `ReleaseRoot.check`.
"""

import gc
import json
import math
import os
import re
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pytest
from annoy import AnnoyIndex
from hypothesis import given, settings
from hypothesis import strategies as st

import lookalike.serving.source
from lookalike.release.attributes import Values
from lookalike.release.files import (
    ADDED,
    BEHAVIOUR,
    BEHAVIOUR_FILES,
    BEHAVIOUR_HOT_FILES,
    DISTANCES,
    FEATURES,
    FILES,
    GONE,
    INDEX,
    LENGTHS,
    LISTED,
    MANIFEST,
    NEIGHBOURS,
    PRODUCT_IDS,
    PROJECTED,
    PROJECTION,
    RELATED,
    ROWS,
    SAME_PHOTO,
    SLIM_FILES,
    SPARES,
    STARTS,
    FileEntry,
    ReleaseError,
    columns_file,
    texts_file,
)
from lookalike.release.ids import Id, category_folder
from lookalike.release.manifest import (
    FORMAT,
    OLD_FORMATS,
    Applied,
    Manifest,
)
from lookalike.release.root import CURRENT, RELEASES, STAGING, ReleaseRoot, RootError
from lookalike.release.vectors import node_dtype
from lookalike.serving.application import Application
from lookalike.serving.source import ReleaseSource
from support import (
    RANDOM_CASES,
    Catalogue,
    Client,
    Features,
    Rating,
    brute_force,
    change,
    client_of,
    give,
    publish,
    random_features,
    rate,
)

pytestmark = pytest.mark.slow

N_ITEMS: Final = 130
"""Just enough for files of product ids with a middle that is not at one of their ends."""
N_ADDED: Final = 2
N_BASE: Final = N_ITEMS - 1
"""One product has left since the index was made, and two are new."""
N_DIMS: Final = 128
"""At least n_base - 2: then Annoy makes one leaf of all items, and equal catalogues equal sizes; and
at most as many as an index has."""
K: Final = 20
N_SPARE: Final = 24
N_TREES: Final = 2
CATEGORIES: Final = (1, 2)
TABLES: Final = (PRODUCT_IDS, NEIGHBOURS, DISTANCES)
COLUMN_FILES: Final = (columns_file(0), texts_file(0))
CATEGORY_FILES: Final = (*FILES, *COLUMN_FILES)
ALL_FILES: Final = (
    MANIFEST,
    *(f"{folder}/{file}" for folder in CATEGORIES for file in CATEGORY_FILES),
    *(f"{BEHAVIOUR}/{file}" for file in BEHAVIOUR_FILES),
)
N_USERS: Final = 4
LEFT: Final = [f"left {number}" for number in range(100)]
"""Products rated that are in no category any more."""

STAMP: Final = "99990101T000000.000Z"
"""Of a release newer than the published one; what follows it in a name is its content's digest."""

Array = npt.NDArray[Any]
Steps = tuple[str | int, ...]
"""The way from a JSON document's root to one of its values."""


def _product_ids(category_id: int) -> list[str]:
    """Of the greatest length, so that the middle of their file is not at one of its ends."""
    return [f"{category_id}.{item:03}{'é' * 29}x" for item in range(N_ITEMS)]


CATALOGUE: Final[Catalogue] = {
    category_id: (_product_ids(category_id), random_features(N_ITEMS, category_id, N_DIMS))
    for category_id in CATEGORIES
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> ReleaseRoot:
    """A root with one release, of `CATALOGUE` and behaviour, by changes; tests must not change it."""
    folder = tmp_path_factory.mktemp("published")
    base: dict[Id, tuple[list[str], Features]] = {}
    changes: dict[Id, dict[Id, Features | None]] = {}
    for category_id in CATEGORIES:
        product_ids, features = CATALOGUE[category_id]
        new = [10 * category_id, 77]  # other items in each, so that no two files are the same
        leaves = f"{category_id}.gone"
        kept = np.delete(np.arange(N_ITEMS), new)
        base[category_id] = (
            [*(product_ids[item] for item in kept), leaves],
            np.concatenate([features[kept], random_features(1, 9, N_DIMS)]),
        )
        changes[category_id] = {leaves: None, **{product_ids[item]: features[item] for item in new}}
    sizes = {"n_trees": N_TREES, "neighbours": K}
    root = publish(folder / "root", base, folder / "features", **sizes)
    change(root, {3: dict(zip(LEFT, random_features(len(LEFT), 3, N_DIMS), strict=True))})
    rate(root, _ratings(), neighbours=K, user_ratings=1000)
    changes[3] = dict.fromkeys(LEFT)
    change(root, changes, Applied("journal", 7))
    give(root, {category_id: _values(category_id) for category_id in CATEGORIES})
    root.prune(keep=0)
    return root


def _values(category_id: int) -> dict[Id, Values]:
    """Some are missing."""
    return {
        product_id: {"price": 10.0 * item + category_id, "in_stock": item % 3 == category_id}
        | ({"title": f"No. {category_id}.{item:03}"} if item % 5 else {})
        for item, product_id in enumerate(_product_ids(category_id))
    }


def _ratings() -> Iterator[Rating]:
    """Each user rates all products of a category and those that leave, some earlier, some later."""
    for user in range(N_USERS):
        product_ids = [*CATALOGUE[1 + user % 2][0], *LEFT, "1.gone"]
        for place, product_id in enumerate(product_ids):
            days = user * place * 37 % len(product_ids)
            yield f"user {user}", product_id, 1_700_000_000 - 86_400 * days


@pytest.fixture
def root(published: ReleaseRoot, tmp_path: Path) -> ReleaseRoot:
    """A root like `published`, the test's own but for the files: they are links."""
    return _linked(published, tmp_path / "root")


@pytest.fixture(scope="module")
def workbench(published: ReleaseRoot, tmp_path_factory: pytest.TempPathFactory) -> ReleaseRoot:
    """As `root`, for tests that make many releases in it and leave none."""
    return _linked(published, tmp_path_factory.mktemp("workbench") / "root")


def _linked(published: ReleaseRoot, path: Path) -> ReleaseRoot:
    shutil.copytree(published.path, path, symlinks=True, copy_function=os.link)
    return ReleaseRoot(path)


def _current(root: ReleaseRoot) -> str:
    name = root.current()
    assert name
    return name


def _place(root: ReleaseRoot, stamp: str) -> str:
    """A release like the current one, newer and sound; its files are links, but for the manifest."""
    old = root.manifest(_current(root))
    name = f"{stamp}-{old.content_digest()[:12]}"
    shutil.copytree(root.folder(old.release), root.releases / name, copy_function=os.link)
    _overwrite(root.releases / name / MANIFEST, replace(old, release=name).to_json().encode())
    return name


def _place_agreeing(
    root: ReleaseRoot,
    change: Callable[[Path], object],
    of_behaviour: bool = False,
    **entry: Any,
) -> str:
    """A release that `change` is made to and whose manifest says what is then there.

    `change` gets the release's folder, `entry` is for the manifest's second category or behaviour.
    """
    name = _place(root, STAMP)
    folder = root.folder(name)
    change(folder)
    manifest = Manifest.read(folder)
    first, second = (
        replace(
            category,
            files={file: FileEntry.of(folder / str(number) / file) for file in CATEGORY_FILES},
        )
        for number, category in enumerate(manifest.categories, 1)
    )
    assert manifest.behaviour
    files = {file: FileEntry.of(folder / BEHAVIOUR / file) for file in BEHAVIOUR_FILES}
    behaviour = replace(manifest.behaviour, files=files)
    if of_behaviour:
        behaviour, entry = replace(behaviour, **entry), {}
    manifest = replace(manifest, categories=(first, replace(second, **entry)), behaviour=behaviour)
    _overwrite(folder / MANIFEST, manifest.to_json().encode())
    return _rename_to_content(root, name)


def _rename_to_content(root: ReleaseRoot, name: str) -> str:
    """Rename a release as its manifest now wants it; the new name. ReleaseError if that is unfit."""
    folder = root.folder(name)
    new = f"{STAMP}-{Manifest.read(folder).content_digest()[:12]}"
    document = _document(root, name) | {"release": new}
    _overwrite(folder / MANIFEST, json.dumps(document).encode())
    folder.rename(root.releases / new)
    return new


def _overwrite(path: Path, data: bytes) -> None:
    """Give the name `path` to a new file: the old one may have other names."""
    path.unlink()
    path.write_bytes(data)


def _full_check(root: ReleaseRoot, name: str) -> None:
    deque(root.check(name), maxlen=0)


def _reason(root: ReleaseRoot, name: str, file: str) -> str:
    """Why both checks refuse the release `name`, naming `file`; the quick one's words."""
    with pytest.raises(ReleaseError) as full:
        _full_check(root, name)
    with pytest.raises(ReleaseError) as quick:
        root.open(name)
    assert (quick.value.file, full.value.file) == (file, file)
    return quick.value.reason


def _assert_never_served(root: ReleaseRoot, name: str, file: str) -> None:
    """Nobody takes up the release `name`: for its `file`, the old one goes on."""
    _reason(root, name, file)
    good, newer = _current(root), _place(root, "99991231T000000.000Z")
    with pytest.raises(ReleaseError):
        root.switch(name)
    assert root.current() == good

    source = ReleaseSource(root)
    client = Client(Application(source))
    source.look()
    root.make_current(name)
    source.look()
    _assert_still_served(source, client, good)
    assert str(source.problem).startswith(f"{file}: ")

    started_on_it = client_of(root)
    for path in ("/readyz", "/nns?category_id=1&product_id=1"):
        assert started_on_it.get(path).status == "503 Service Unavailable"
    detail = json.loads(started_on_it.get("/readyz").body)["detail"]
    assert detail == source.problem

    root.make_current(newer)
    source.look()
    assert source.release
    assert (source.release.manifest.release, source.problem) == (newer, None)


def _assert_still_served(source: ReleaseSource, client: Client, name: str) -> None:
    assert source.release
    assert source.release.manifest.release == name
    assert client.get("/readyz").status == "200 OK"
    release = json.loads(client.get("/release").body)
    assert (release["release"], release["problem"]) == (name, source.problem)
    assert source.problem
    for category_id, (product_ids, features) in CATALOGUE.items():
        order, _ = brute_force(features, item=7)
        answer = json.loads(client.get(_target(category_id, product_ids[7])).body)
        assert answer["product_ids"] == [product_ids[item] for item in (7, *order[:K])]


def _target(category_id: object, product_id: object) -> str:
    product = quote(str(product_id))
    return f"/nns?category_id={category_id}&product_id={product}&limit={K + 1}&distances=true"


# One file damaged, the manifest as it was


def _cut(n_bytes: int) -> Callable[[Path], None]:
    return lambda path: _overwrite(path, path.read_bytes()[:-n_bytes])


def _half(path: Path) -> None:
    _overwrite(path, path.read_bytes()[: path.stat().st_size // 2])


def _extend(more: bytes) -> Callable[[Path], None]:
    return lambda path: _overwrite(path, path.read_bytes() + more)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _other(path: Path) -> Path:
    """The same file of the other category or, of a manifest, of the other release; else any other."""
    if path.name == MANIFEST:
        return min(path.parents[1].iterdir()) / MANIFEST
    if path.parent.name == BEHAVIOUR:
        return path.parents[1] / "1" / PRODUCT_IDS
    if path.name == SAME_PHOTO:  # the other category's counts are the same
        return path.with_name(ROWS)
    return path.parents[1] / {"1": "2", "2": "1"}[path.parent.name] / path.name


def _copy_of_other(path: Path) -> None:
    _overwrite(path, _other(path).read_bytes())


DAMAGES: Final = {
    "cut": _cut(2),  # a manifest has lost nothing with its last line feed
    "half": _half,
    "empty": lambda path: _overwrite(path, b""),
    "a byte longer": _extend(b"\0"),
    "a page longer": _extend(bytes(4096)),
    "missing": Path.unlink,
    "folder": _folder,
    "dangling link": _dangling_link,
    "of another": _copy_of_other,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", ALL_FILES)
def test_a_release_with_one_file_damaged_is_never_served(
    root: ReleaseRoot, file: str, damage: str
) -> None:
    name = _place(root, STAMP)
    DAMAGES[damage](root.folder(name) / file)
    _assert_never_served(root, name, file)


# Of `SAME_PHOTO`, both categories' files are the same.
@pytest.mark.parametrize("file", [file for file in CATEGORY_FILES if file != SAME_PHOTO])
def test_files_swapped_between_categories_of_one_size_are_refused(
    root: ReleaseRoot, file: str
) -> None:
    name = _place(root, STAMP)
    one, two = (root.folder(name) / str(category_id) / file for category_id in CATEGORIES)
    assert one.stat().st_size == two.stat().st_size
    one.rename(one.with_name("kept"))
    two.rename(one)
    one.with_name("kept").rename(two)
    _assert_never_served(root, name, f"1/{file}")


def test_categories_swapped_whole_are_refused(root: ReleaseRoot) -> None:
    name = _place(root, STAMP)
    one, two = (root.folder(name) / str(category_id) for category_id in CATEGORIES)
    one.rename(one.with_name("kept"))
    two.rename(one)
    one.with_name("kept").rename(two)
    _assert_never_served(root, name, f"1/{PRODUCT_IDS}")


def test_a_missing_category_is_refused(root: ReleaseRoot) -> None:
    name = _place(root, STAMP)
    shutil.rmtree(root.folder(name) / "2")
    _assert_never_served(root, name, f"2/{PRODUCT_IDS}")


def test_missing_behaviour_is_refused(root: ReleaseRoot) -> None:
    name = _place(root, STAMP)
    shutil.rmtree(root.folder(name) / BEHAVIOUR)
    _assert_never_served(root, name, f"{BEHAVIOUR}/{PRODUCT_IDS}")


def test_behaviour_that_the_manifest_does_not_list_is_not_opened(root: ReleaseRoot) -> None:
    name = _place(root, STAMP)
    document = _document(root, name)
    del document["behaviour"]
    _overwrite(root.folder(name) / MANIFEST, json.dumps(document).encode())
    name = _rename_to_content(root, name)
    _full_check(root, name)
    assert root.open(name).behaviour is None


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(root: ReleaseRoot) -> None:
    name = _place(root, STAMP)
    path = root.folder(name) / "2" / INDEX
    path.unlink()
    os.mkfifo(path)
    _assert_never_served(root, name, f"2/{INDEX}")


def test_a_mended_release_is_taken_up_though_current_is_the_same(
    root: ReleaseRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookalike.serving.source, "RETRY_S", 0.0)
    good, name = _current(root), _place(root, STAMP)
    path = root.folder(name) / "2" / NEIGHBOURS
    path.unlink()
    source = ReleaseSource(root)
    source.look()
    root.make_current(name)
    for _ in range(3):
        source.look()
        assert source.problem == f"2/{NEIGHBOURS}: is missing"
    os.link(root.folder(good) / "2" / NEIGHBOURS, path)
    source.look()
    assert source.release
    assert (source.release.manifest.release, source.problem) == (name, None)


# Bits


def _flips(size: int) -> Iterator[tuple[int, int]]:
    """Bits of a file to flip: byte and mask, at both ends, in the middle and between."""
    for start in (0, 1, size // 4, size // 3, size // 2, 2 * size // 3, 3 * size // 4, size - 2):
        yield start, 1
        yield start, 128


def _flipped(data: bytes, start: int, mask: int) -> bytes:
    return data[:start] + bytes([data[start] ^ mask]) + data[start + 1 :]


@pytest.mark.parametrize("file", ALL_FILES)
def test_a_flipped_bit_is_found_by_the_full_check_and_never_switched_to(
    root: ReleaseRoot, file: str
) -> None:
    good, name = _current(root), _place(root, STAMP)
    path = root.folder(name) / file
    sound = path.read_bytes()
    for start, mask in _flips(len(sound)):
        _overwrite(path, _flipped(sound, start, mask))
        with pytest.raises(ReleaseError) as error:
            _full_check(root, name)
        assert error.value.file == file
        with pytest.raises(ReleaseError):
            root.switch(name)
        assert root.current() == good


def test_a_flipped_bit_anywhere_in_the_manifest_is_found(root: ReleaseRoot) -> None:
    name = _place(root, STAMP)
    path = root.folder(name) / MANIFEST
    sound = path.read_bytes()
    overlooked = []
    for start in range(len(sound)):
        damaged = _flipped(sound, start, 1 << start % 7)
        _overwrite(path, damaged)
        with suppress(ReleaseError):
            _full_check(root, name)
            overlooked.append(damaged[max(0, start - 30) : start + 10])
    assert overlooked == []


@pytest.mark.parametrize("file", TABLES)
def test_a_flipped_bit_that_the_quick_check_misses_costs_no_answer_but_its_own(
    root: ReleaseRoot, file: str
) -> None:
    name = _place(root, STAMP)
    path = root.folder(name) / "1" / file
    sound = path.read_bytes()
    root.make_current(name)
    for start, mask in _flips(len(sound)):
        _overwrite(path, _flipped(sound, start, mask))
        _assert_answers(client_of(root))


def _assert_answers(client: Client) -> None:
    """Where a release is open it answers; what it was not opened for it may not know."""
    if client.get("/readyz").status != "200 OK":
        return
    assert client.get("/release").status == "200 OK"
    for category_id, (product_ids, _) in CATALOGUE.items():
        for product_id in product_ids:
            answer = client.get(_target(category_id, product_id))
            assert answer.status in ("200 OK", "404 Not Found")
            json.loads(answer.body)


# One file of another make, the manifest in agreement with it


def _save_annoy(
    path: Path, metric: Any, n_dims: int, n_trees: int = N_TREES, n_items: int = N_BASE
) -> None:
    """An Annoy file of the second category's features, cut or repeated to fill other sizes."""
    features = np.resize(CATALOGUE[2][1], (n_items, n_dims))
    if metric == "hamming":
        features = (features > np.median(features)).astype(np.float32)
    index = AnnoyIndex(n_dims, metric)
    index.set_seed(1)
    for item, feature in enumerate(features):
        index.add_item(item, feature.tolist())
    index.build(n_trees, n_jobs=1)
    index.save(str(path))


@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "dot", "hamming"])
def test_an_index_of_another_metric_is_refused(root: ReleaseRoot, metric: str) -> None:
    name = _place_agreeing(root, lambda folder: _save_annoy(folder / "2" / INDEX, metric, N_DIMS))
    _assert_never_served(root, name, f"2/{INDEX}")


@pytest.mark.parametrize("n_dims", [1, N_DIMS // 2, N_DIMS - 1, N_DIMS + 1, 2 * N_DIMS, 2048])
def test_an_index_of_other_dimensions_is_refused(root: ReleaseRoot, n_dims: int) -> None:
    def change(folder: Path) -> None:
        _save_annoy(folder / "2" / INDEX, "angular", n_dims)

    _assert_never_served(root, _place_agreeing(root, change), f"2/{INDEX}")


@pytest.mark.parametrize(
    ("metric", "n_dims", "n_trees"),
    [
        ("angular", 2 * N_DIMS + 3, N_TREES),  # a node of exactly twice the bytes
        ("euclidean", N_DIMS, 132),  # 393 nodes of 528 bytes are 396 of 524
        ("dot", N_DIMS, 132),
    ],
)
def test_an_index_is_refused_though_its_size_would_fit(
    root: ReleaseRoot, metric: str, n_dims: int, n_trees: int
) -> None:
    def change(folder: Path) -> None:
        _save_annoy(folder / "2" / INDEX, metric, n_dims, n_trees)
        assert (folder / "2" / INDEX).stat().st_size % node_dtype(N_DIMS).itemsize == 0

    _assert_never_served(root, _place_agreeing(root, change, n_trees=n_trees), f"2/{INDEX}")


@pytest.mark.parametrize(
    ("n_items", "n_trees"), [(N_BASE - 1, 2), (N_BASE + 1, 2), (N_BASE, 1), (N_BASE, 3)]
)
def test_an_index_of_other_items_or_trees_is_refused(
    root: ReleaseRoot, n_items: int, n_trees: int
) -> None:
    def change(folder: Path) -> None:
        _save_annoy(folder / "2" / INDEX, "angular", N_DIMS, n_trees, n_items)

    _assert_never_served(root, _place_agreeing(root, change), f"2/{INDEX}")


def test_an_index_of_float64_as_mruby_annoy_writes_it_is_refused(root: ReleaseRoot) -> None:
    features = CATALOGUE[2][1][:N_BASE].astype(np.float64)
    node = np.dtype(
        {
            "names": ["n_descendants", "norm", "vector"],
            "formats": ["<i4", "<f8", ("<f8", N_DIMS)],
            "offsets": [0, 8, 16],
            "itemsize": 16 + 8 * N_DIMS,
        }
    )
    nodes = np.zeros(N_BASE, node)
    nodes["n_descendants"] = 1
    nodes["norm"] = np.einsum("ij,ij->i", features, features)
    nodes["vector"] = features
    name = _place_agreeing(root, lambda folder: _overwrite(folder / "2" / INDEX, nodes.tobytes()))
    _assert_never_served(root, name, f"2/{INDEX}")


@pytest.mark.parametrize("norm", [1.0, math.inf, math.nan])
@pytest.mark.parametrize("number", [1e30, math.inf, math.nan])
def test_an_index_of_a_vector_without_length_is_refused(
    root: ReleaseRoot, number: float, norm: float
) -> None:
    def change(folder: Path) -> None:
        path = folder / "2" / INDEX
        nodes = np.frombuffer(bytearray(path.read_bytes()), node_dtype(N_DIMS))
        nodes[0]["vector"][5] = number
        nodes[0]["norm"] = norm
        _overwrite(path, nodes.tobytes())

    _assert_never_served(root, _place_agreeing(root, change), f"2/{INDEX}")


def _set(place: int, value: object) -> Callable[[Array], Array]:
    def change(array: Array) -> Array:
        array.reshape(-1)[place] = value
        return array

    return change


ARRAYS: Final[dict[str, tuple[str, Callable[[Array], Array]]]] = {
    "an item past the last": (NEIGHBOURS, _set(1234, N_ITEMS)),
    "an item far past the last": (NEIGHBOURS, _set(-1, 2**32 - 1)),
    "neighbours of int64": (NEIGHBOURS, lambda array: array.astype("<i8")),
    "neighbours of int32": (NEIGHBOURS, lambda array: array.astype("<i4")),
    "neighbours big-endian": (NEIGHBOURS, lambda array: array.astype(">u4")),
    "neighbours by columns": (NEIGHBOURS, np.asfortranarray),
    "neighbours in a row": (NEIGHBOURS, np.ravel),
    "neighbours turned": (NEIGHBOURS, lambda array: np.ascontiguousarray(array.T)),
    "neighbours of fewer items": (NEIGHBOURS, lambda array: array[:-1]),
    "fewer neighbours": (NEIGHBOURS, lambda array: np.ascontiguousarray(array[:, :-1])),
    "no neighbours": (NEIGHBOURS, lambda array: array[:0]),
    "distances of float64": (DISTANCES, lambda array: array.astype("<f8")),
    "distances of whole numbers": (DISTANCES, lambda array: array.view("<u4")),
    "distances of more items": (DISTANCES, lambda array: np.concatenate([array, array[:1]])),
    "distances of the served only": (DISTANCES, lambda array: array[:, :K].copy()),
    "spares of int64": (SPARES, lambda array: array.astype("<i8")),
    "spares big-endian": (SPARES, lambda array: array.astype(">u4")),
    "spares by columns": (SPARES, np.asfortranarray),
    "spares of fewer items": (SPARES, lambda array: array[1:]),
    "fewer spares": (SPARES, lambda array: array[:, 1:].copy()),
    "no spares": (SPARES, lambda array: array[:, :0].copy()),
    "a row past the last": (ROWS, _set(17, N_BASE + N_ADDED)),
    "a row far past the last": (ROWS, _set(-1, 2**32 - 1)),
    "a row of the index twice": (ROWS, lambda rows: rows[[*range(5), 6, *range(6, N_ITEMS)]]),
    "an added row twice": (ROWS, lambda rows: np.where(rows == N_BASE, rows + 1, rows)),
    "rows of int64": (ROWS, lambda rows: rows.astype("<i8")),
    "rows of int32": (ROWS, lambda rows: rows.astype("<i4")),
    "rows big-endian": (ROWS, lambda rows: rows.astype(">u4")),
    "rows in a column": (ROWS, lambda rows: rows[:, None]),
    "rows of fewer items": (ROWS, lambda rows: rows[:-1]),
    "rows of all features": (ROWS, lambda _: np.arange(N_BASE + N_ADDED, dtype="<u4")),
    "same photos of uint32": (SAME_PHOTO, lambda array: array.astype("<u4")),
    "same photos of fewer items": (SAME_PHOTO, lambda array: array[1:]),
    "more same photos than neighbours": (SAME_PHOTO, lambda array: array + np.uint16(K + 1)),
    "added features of float64": (ADDED, lambda array: array.astype("<f8")),
    "added features of whole numbers": (ADDED, lambda array: array.astype("<u4")),
    "added features by columns": (ADDED, np.asfortranarray),
    "added features of other dimensions": (ADDED, lambda array: array[:, 1:].copy()),
    "fewer added features": (ADDED, lambda array: array[1:]),
    "more added features": (ADDED, lambda array: np.concatenate([array, array])),
    "no added features": (ADDED, lambda array: array[:0]),
    "features of float64": (FEATURES, lambda array: array.astype("<f8")),
    "features of other dimensions": (FEATURES, lambda array: np.ascontiguousarray(array[:, 1:])),
    "features of fewer items": (FEATURES, lambda array: array[1:]),
    "lengths of float32": (LENGTHS, lambda array: array.astype("<f4")),
    "lengths of fewer items": (LENGTHS, lambda array: array[1:]),
    "projected features of float64": (PROJECTED, lambda array: array.astype("<f8")),
    "projected features by item": (PROJECTED, lambda array: np.ascontiguousarray(array.T)),
    "projected features of fewer items": (PROJECTED, lambda array: array[:, 1:].copy()),
    "a projection of other dimensions": (PROJECTION, lambda array: array[1:]),
    "a projection on fewer dimensions": (PROJECTION, lambda array: array[:, 1:].copy()),
    "a projection turned": (PROJECTION, np.asfortranarray),
    "product ids repeated": (PRODUCT_IDS, lambda ids: ids[np.maximum(np.arange(len(ids)), 1)]),
    "product ids the other way": (PRODUCT_IDS, lambda ids: np.ascontiguousarray(ids[::-1])),
    "two product ids swapped": (
        PRODUCT_IDS,
        lambda ids: ids[[*range(N_ITEMS - 2), N_ITEMS - 1, N_ITEMS - 2]],
    ),
    "product ids that are numbers": (PRODUCT_IDS, lambda ids: np.arange(len(ids))),
    "product ids of wide text": (PRODUCT_IDS, lambda ids: np.char.decode(ids, "utf-8")),
    "product ids of no bytes": (PRODUCT_IDS, lambda ids: np.zeros(len(ids), "V0")),
    "product ids that are not UTF-8": (PRODUCT_IDS, _set(64, b"2.064\xff")),
    "more product ids": (PRODUCT_IDS, lambda ids: np.append(ids, b"3")),
}


@pytest.mark.parametrize("change", ARRAYS)
def test_an_array_that_is_not_what_the_format_says_is_refused(
    root: ReleaseRoot, change: str
) -> None:
    file, changed = ARRAYS[change]

    def write(folder: Path) -> None:
        path = folder / "2" / file
        array = changed(np.load(path))
        path.unlink()
        with path.open("wb") as opened:
            np.lib.format.write_array(opened, array, version=(1, 0))

    _assert_never_served(root, _place_agreeing(root, write), f"2/{file}")


N_ROWS: Final = 2 * N_ITEMS + len(LEFT) + 1
"""Products rated: not a multiple of 8."""
BEHAVIOUR_ARRAYS: Final[dict[str, tuple[str, Callable[[Array], Array]]]] = {
    "product ids repeated": (PRODUCT_IDS, lambda ids: ids[np.maximum(np.arange(len(ids)), 1)]),
    "product ids the other way": (PRODUCT_IDS, lambda ids: np.ascontiguousarray(ids[::-1])),
    "product ids that are numbers": (PRODUCT_IDS, lambda ids: np.arange(len(ids))),
    "product ids that are not UTF-8": (PRODUCT_IDS, _set(-1, b"\xff")),
    "more product ids": (PRODUCT_IDS, lambda ids: np.append(ids, b"\xc3\xbf")),
    "fewer product ids": (PRODUCT_IDS, lambda ids: ids[1:]),
    "starts not from the first": (STARTS, _set(0, 1)),
    "starts past the last": (STARTS, lambda starts: starts + (starts == starts[-1])),
    "starts to before the last": (STARTS, _set(-1, 7)),
    "starts far past the last": (STARTS, _set(5, 2**63)),
    "starts that go back": (
        STARTS,
        lambda starts: np.concatenate([starts[1:2], starts[:1], starts[2:]]),
    ),
    "starts of int64": (STARTS, lambda starts: starts.astype("<i8")),
    "starts of fewer bytes": (STARTS, lambda starts: starts.astype("<u4")),
    "starts big-endian": (STARTS, lambda starts: starts.astype(">u8")),
    "starts of fewer products": (STARTS, lambda starts: np.delete(starts, 5)),
    "starts of more products": (STARTS, lambda starts: np.append(starts, starts[-1:])),
    "a row past the last": (RELATED, _set(17, N_ROWS)),
    "a row far past the last": (RELATED, _set(-1, 2**32 - 1)),
    "related of int32": (RELATED, lambda related: related.astype("<i4")),
    "related of int64": (RELATED, lambda related: related.astype("<i8")),
    "related big-endian": (RELATED, lambda related: related.astype(">u4")),
    "related in a column": (RELATED, lambda related: related[:, None]),
    "fewer related": (RELATED, lambda related: related[:-1]),
    "more related": (RELATED, lambda related: np.append(related, related[:1])),
    "no related": (RELATED, lambda related: related[:0]),
    "listed by flags": (LISTED, np.unpackbits),
    "listed of booleans": (LISTED, lambda bits: bits.view(np.bool_)),
    "fewer listed": (LISTED, lambda bits: bits[:-1]),
    "more listed": (LISTED, lambda bits: np.append(bits, bits[:1])),
    "gone of int32": (GONE, lambda rows: rows.astype("<i4")),
    "gone big-endian": (GONE, lambda rows: rows.astype(">u4")),
    "fewer gone": (GONE, lambda rows: rows[:-1]),
    "more gone": (GONE, lambda rows: np.append(rows, rows[-1:] + 1)),
    "one gone twice": (GONE, lambda rows: rows[[0, 0, *range(2, len(rows))]]),
    "gone the other way": (GONE, lambda rows: rows[::-1].copy()),
    "one gone past the last": (GONE, _set(-1, N_ROWS)),
}


@pytest.mark.parametrize("change", BEHAVIOUR_ARRAYS)
def test_an_array_of_behaviour_that_is_not_what_the_format_says_is_refused(
    root: ReleaseRoot, change: str
) -> None:
    file, changed = BEHAVIOUR_ARRAYS[change]

    def write(folder: Path) -> None:
        path = folder / BEHAVIOUR / file
        array = changed(np.load(path))
        path.unlink()
        with path.open("wb") as opened:
            np.lib.format.write_array(opened, array, version=(1, 0))

    _assert_never_served(root, _place_agreeing(root, write), f"{BEHAVIOUR}/{file}")


@pytest.mark.parametrize(
    ("entry", "file"),
    [
        ({"n_products": N_ROWS + 1}, PRODUCT_IDS),
        ({"n_products": N_ROWS - 1}, PRODUCT_IDS),
        ({"n_products": 2**32 - 1}, PRODUCT_IDS),
        ({"n_related": 0}, STARTS),
        ({"n_related": 10**30}, STARTS),
        ({"n_gone": 0}, GONE),
        ({"n_gone": N_ROWS}, GONE),
    ],
)
def test_counts_of_behaviour_that_are_not_those_of_the_files_are_refused(
    root: ReleaseRoot, entry: dict[str, Any], file: str
) -> None:
    name = _place_agreeing(root, lambda _: None, of_behaviour=True, **entry)
    _assert_never_served(root, name, f"{BEHAVIOUR}/{file}")


@pytest.mark.parametrize("file", BEHAVIOUR_FILES)
def test_a_slim_copy_with_a_file_of_behaviour_damaged_is_refused(
    root: ReleaseRoot, file: str
) -> None:
    name = _place(root, STAMP)
    for category_id in CATEGORIES:
        (root.folder(name) / str(category_id) / INDEX).unlink()
    _cut(1)(root.folder(name) / BEHAVIOUR / file)
    _assert_never_served(root, name, f"{BEHAVIOUR}/{file}")


@pytest.mark.parametrize(
    ("entry", "file"),
    [
        ({"n_base": N_BASE + 1}, INDEX),
        ({"n_base": N_BASE - 1}, INDEX),
        ({"n_base": 2**40}, INDEX),
        ({"n_added": N_ADDED + 1}, ADDED),
        ({"n_added": N_ADDED - 1}, ADDED),
        ({"n_added": 10**30}, ADDED),
        ({"n_spare": N_SPARE + 1}, DISTANCES),
        ({"n_spare": N_SPARE - 1}, DISTANCES),
        ({"n_spare": N_SPARE - 1, "k": K + 1}, NEIGHBOURS),
        ({"n_items": N_ITEMS - 1}, PRODUCT_IDS),
        ({"n_items": N_ITEMS + 1}, PRODUCT_IDS),
    ],
)
def test_counts_that_are_not_those_of_the_files_are_refused(
    root: ReleaseRoot, entry: dict[str, Any], file: str
) -> None:
    name = _place_agreeing(root, lambda _: None, **entry)
    _assert_never_served(root, name, f"2/{file}")


def test_spares_past_the_last_item_are_refused_by_who_reads_them(root: ReleaseRoot) -> None:
    def write(folder: Path) -> None:
        path = folder / "2" / SPARES
        spares = np.load(path)
        spares[3, 4] = N_ITEMS
        path.unlink()
        np.save(path, spares)

    root.make_current(_place_agreeing(root, write))
    before = root.current()
    with pytest.raises(ReleaseError, match=rf"^2/{SPARES}: names an item past the last of 130$"):
        change(root, {2: {CATALOGUE[2][0][5]: None}})
    assert root.current() == before


def test_a_slim_copy_needs_only_what_products_are_looked_up_in(root: ReleaseRoot) -> None:
    name = _place(root, STAMP)
    for path in root.folder(name).glob("*/*"):
        if path.name not in (*SLIM_FILES, *COLUMN_FILES) and path.parent.name != BEHAVIOUR:
            path.unlink()
    assert root.open(name).slim
    root.switch(name)
    client = client_of(root)
    for category_id, (product_ids, features) in CATALOGUE.items():
        for item in (7, 10, 20, 77):
            order, _ = brute_force(features, item)
            answer = json.loads(client.get(_target(category_id, product_ids[item])).body)
            assert answer["product_ids"] == [product_ids[one] for one in (item, *order[:K])]


@pytest.mark.parametrize("file", [*SLIM_FILES, *COLUMN_FILES])
def test_a_slim_copy_with_a_file_damaged_is_refused(root: ReleaseRoot, file: str) -> None:
    name = _place(root, STAMP)
    for category_id in CATEGORIES:
        (root.folder(name) / str(category_id) / INDEX).unlink()
    _cut(1)(root.folder(name) / "2" / file)
    _assert_never_served(root, name, f"2/{file}")


HEADERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "of no array file": lambda data: b"PK" + data[2:],
    "of version 2": lambda data: data[:6] + b"\2\0" + data[8:],
    "cut": lambda data: data[:40],
    "missing": lambda data: data[:8],
    "longer than the file": lambda data: data[:8] + b"\xff\xff" + data[10:256],
    "of no literal": lambda data: data.replace(b"{'descr'", b"{)descr'"),
    "of no dictionary": lambda data: data.replace(b"{'descr': ", b"['descr', "),
    "with a call": lambda data: data.replace(b"'<u4', ", b"open() "),
    "with an open quote": lambda data: data.replace(b"'<u4', ", b'"""<u4,'),
    "with an open bracket": lambda data: data.replace(b"'<u4', ", b"((((((("),
    "of bytes that are no text": lambda data: data.replace(b"'<u4', ", b"\x00\x01\xfe\xff\r\n\t"),
    "of long numbers": lambda data: data.replace(b"(130, 20), }", b"(20" + b"0" * 9),
    "of objects": lambda data: data.replace(b"<u4", b"|O8"),
    "of fewer bytes": lambda data: data + bytes(4),
}


@pytest.mark.parametrize("change", HEADERS)
def test_an_array_with_an_unfit_header_is_refused(root: ReleaseRoot, change: str) -> None:
    def write(folder: Path) -> None:
        path = folder / "2" / NEIGHBOURS
        changed = HEADERS[change](path.read_bytes())
        assert changed != path.read_bytes()
        _overwrite(path, changed)

    _assert_never_served(root, _place_agreeing(root, write), f"2/{NEIGHBOURS}")


# Manifests

MISSING: Final = object()
SECOND: Final = ("categories", 1)
OF_FILE: Final = (*SECOND, "files", INDEX)
OF_BEHAVIOUR: Final = ("behaviour",)
NUMBERS: Final[list[Steps]] = [
    ("format",),
    ("n_dims",),
    *((*SECOND, name) for name in ("category_id", "n_items", "k", "n_trees", "search_k")),
    *((*SECOND, name) for name in ("recall", "recall_sample", "n_spare", "n_base", "n_added")),
    *((*SECOND, name) for name in ("n_index_dims", "candidates")),
    ("applied", "number"),
    (*OF_FILE, "n_bytes"),
    *((*OF_BEHAVIOUR, name) for name in ("n_products", "n_related", "n_gone", "newest_rating")),
    (*OF_BEHAVIOUR, "files", GONE, "n_bytes"),
]
TEXTS: Final[list[Steps]] = [
    *((name,) for name in ("metric", "release", "category_id_type", "product_id_type")),
    ("model", "name"),
    ("model", "digest"),
    ("applied", "journal"),
    (*SECOND, "made_with"),
    (*OF_FILE, "sha256"),
    (*OF_FILE, "ends_sha256"),
    (*OF_BEHAVIOUR, "made_with"),
    (*OF_BEHAVIOUR, "files", RELATED, "sha256"),
]
NO_NUMBERS: Final[list[Any]] = ["1", True, -1, 1.5, math.nan, [], {}]
NO_TEXTS: Final[list[Any]] = [None, 7, True, 1.5, [], {}]
HOLDERS: Final[list[Steps]] = [
    *(("model",), ("categories",), SECOND, (*SECOND, "files"), OF_FILE),
    *(OF_BEHAVIOUR, (*OF_BEHAVIOUR, "files"), (*OF_BEHAVIOUR, "files", GONE)),
]
OPTIONAL: Final = (SECOND, OF_BEHAVIOUR)
UNFIT: Final[list[tuple[Steps, Any]]] = [
    *((steps, value) for steps in NUMBERS for value in NO_NUMBERS),
    *((steps, None) for steps in NUMBERS if steps[-1] != "recall"),
    *((steps, value) for steps in TEXTS for value in NO_TEXTS),
    *((steps, value) for steps in HOLDERS for value in (7, True, "x")),
    *((steps, None) for steps in HOLDERS if steps != OF_BEHAVIOUR),
    *((steps, MISSING) for steps in (*NUMBERS, *TEXTS, *HOLDERS) if steps not in OPTIONAL),
    (("format",), 0),
    (("format",), 1),
    (("format",), 2),
    (("format",), 3),
    *((("format",), format_) for format_ in OLD_FORMATS),
    (("format",), FORMAT + 1),
    ((*OF_BEHAVIOUR, "n_products"), 0),
    ((*OF_BEHAVIOUR, "n_products"), 2**32),
    ((*OF_BEHAVIOUR, "n_gone"), N_ROWS + 1),
    ((*OF_BEHAVIOUR, "newest_rating"), 253_402_300_800),
    ((*OF_BEHAVIOUR, "files", INDEX), {}),
    *((("applied",), value) for value in (7, True, "x", [], {}, MISSING)),
    (("applied", "journal"), "\ud800"),
    (("applied", "journal"), "a\nb"),
    ((*SECOND, "n_spare"), N_ITEMS - K),
    ((*SECOND, "n_spare"), 10**30),
    *(((*SECOND, "n_hidden"), value) for value in (*NO_NUMBERS, None)),
    ((*SECOND, "n_hidden"), N_ITEMS - K - N_SPARE),
    ((*SECOND, "n_hidden"), N_ITEMS - K),
    ((*SECOND, "n_hidden"), N_ITEMS + 1),
    *(((*SECOND, "n_rules"), value) for value in (*NO_NUMBERS, None)),
    ((*SECOND, "n_rules"), 1),  # without a file
    ((*SECOND, "n_base"), 0),
    ((*SECOND, "n_base"), N_ITEMS - N_ADDED - 1),
    ((*SECOND, "n_added"), 0),
    ((*SECOND, "n_index_dims"), 65_537),
    ((*SECOND, "candidates"), 0),
    ((*SECOND, "candidates"), 2**31),
    (("metric",), "euclidean"),
    (("release",), "../x"),
    (("release",), ""),
    (("n_dims",), 0),
    (("n_dims",), 65_537),
    (("n_dims",), 10**30),
    (("category_id_type",), "string"),
    (("category_id_type",), "float"),
    (("product_id_type",), "float"),
    (("model",), []),
    (("model", "name"), "\ud800"),
    (("model", "digest"), "\ud800"),
    (("categories",), {}),
    (SECOND, []),
    ((*SECOND, "category_id"), 1),
    ((*SECOND, "category_id"), 2**63),
    ((*SECOND, "n_items"), 0),
    ((*SECOND, "n_items"), K),
    ((*SECOND, "k"), 0),
    ((*SECOND, "k"), N_ITEMS),
    ((*SECOND, "k"), 10**30),
    ((*SECOND, "n_trees"), 0),
    ((*SECOND, "search_k"), 0),
    ((*SECOND, "search_k"), 2**31),
    ((*SECOND, "search_k"), 10**30),
    ((*SECOND, "recall"), 1.1),
    ((*SECOND, "recall"), math.inf),
    ((*SECOND, "recall"), 10**400),
    ((*SECOND, "made_with"), "\ud800"),
    ((*SECOND, "files"), []),
    ((*OF_FILE, "n_bytes"), 0),
]


def _name_of(case: tuple[Steps, Any]) -> str:
    steps, value = case
    return f"{'.'.join(map(str, steps))}={'missing' if value is MISSING else ascii(value):.20}"


def _document(root: ReleaseRoot, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((root.folder(name) / MANIFEST).read_bytes())
    return document


def _put(document: dict[str, Any], steps: Steps, value: object) -> None:
    parent: Any = document
    for step in steps[:-1]:
        parent = parent[step]
    if value is MISSING:
        del parent[steps[-1]]
    else:
        parent[steps[-1]] = value


def _assert_unfit(root: ReleaseRoot, name: str, data: bytes) -> None:
    """A manifest of `data` is refused for what it says, not only for what is beside it."""
    _overwrite(root.folder(name) / MANIFEST, data)
    with pytest.raises(ReleaseError) as error:
        Manifest.read(root.folder(name))
    assert error.value.file == MANIFEST
    assert "\n" not in str(error.value)
    _reason(root, name, MANIFEST)


@pytest.mark.parametrize("case", UNFIT, ids=_name_of)
def test_a_manifest_with_an_unfit_field_is_refused(
    root: ReleaseRoot, case: tuple[Steps, Any]
) -> None:
    name = _place(root, STAMP)
    document = _document(root, name)
    _put(document, *case)
    _assert_unfit(root, name, json.dumps(document).encode())


@pytest.mark.parametrize(
    ("steps", "value", "message"),
    [
        (("n_dims",), "16", "Expected `int`, got `str` - at `$.n_dims`, not '16'"),
        ((*SECOND, "n_trees"), 0, "Expected `int` >= 1 - at `$.categories[1].n_trees`, not 0"),
        ((*SECOND, "n_trees"), MISSING, "missing required field `n_trees` - at `$.categories[1]`"),
        ((*SECOND, "n_spare"), 10**6, "category 2: n_spare is 1000000, expected at most "),
        (
            (*SECOND, "n_hidden"),
            N_ITEMS + 1,
            f"n_hidden is {N_ITEMS + 1}, expected at most {N_ITEMS}",
        ),
        ((*SECOND, "n_hidden"), N_ITEMS - K, f"category 2: k is {K} of {K} visible items"),
        (("product_id_type",), "float", "'float' - at `$.product_id_type`, expected one of ("),
        (("metric",), "euclidean", "metric is 'euclidean', this version serves 'angular'"),
    ],
)
def test_a_refused_manifest_is_named_with_field_value_and_what_is_expected(
    root: ReleaseRoot, steps: Steps, value: object, message: str
) -> None:
    name = _place(root, STAMP)
    document = _document(root, name)
    _put(document, steps, value)
    _overwrite(root.folder(name) / MANIFEST, json.dumps(document).encode())
    with pytest.raises(ReleaseError, match=re.escape(message)):
        Manifest.read(root.folder(name))


def test_hidden_products_are_in_a_manifest_only_where_there_are_some(root: ReleaseRoot) -> None:
    name = _place(root, STAMP)
    path = root.folder(name) / MANIFEST
    assert Manifest.read(root.folder(name)).to_json() == path.read_text()
    assert "n_hidden" not in path.read_text()
    document = _document(root, name)
    document["categories"][1]["n_hidden"] = N_ITEMS - K - N_SPARE - 1  # the lists hold all others
    _overwrite(path, json.dumps(document).encode())
    manifest = Manifest.read(root.folder(name))
    assert json.loads(manifest.to_json()) == document
    assert [entry.n_visible for entry in manifest.categories][1] == K + N_SPARE + 1


@pytest.mark.parametrize(
    "category_id", ["", "x" * 65, "é" * 33, "a\nb", "a\0b", "\x7f", "\ud800", 2, None]
)
def test_a_manifest_with_an_unfit_text_id_is_refused(
    root: ReleaseRoot, category_id: object
) -> None:
    name = _place(root, STAMP)
    document = _document(root, name) | {"category_id_type": "string"}
    for category, value in zip(document["categories"], ("1", category_id), strict=True):
        category["category_id"] = value
    _assert_unfit(root, name, json.dumps(document).encode())


@pytest.mark.parametrize("category_id", [".", "..", "../1", "/", "1/../1"])
def test_a_category_id_that_looks_like_a_path_leads_nowhere(
    root: ReleaseRoot, category_id: str
) -> None:
    name = _place(root, STAMP)
    for file in CATEGORY_FILES:  # what would be found if the id were a path
        os.link(root.folder(name) / "1" / file, root.folder(name) / file)
        os.link(root.folder(name) / "1" / file, root.releases / file)
    document = _document(root, name) | {"category_id_type": "string"}
    for category, value in zip(document["categories"], (category_id, "2"), strict=True):
        category["category_id"] = value
    _overwrite(root.folder(name) / MANIFEST, json.dumps(document).encode())
    name = _rename_to_content(root, name)
    folder = category_folder(category_id)
    assert "/" not in folder
    assert "." not in folder
    assert _reason(root, name, f"{folder}/{PRODUCT_IDS}") == "is missing"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"1e999",
        b"NaN",
        b"{}{}",
        b"\xff\xfe",
        b'{"format": "\xff"}',
        b'{"format": 4, "metric": "angular\x00"}',
        b"9" * 10_000,
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"model":' * 100_000,
        bytes(1000),
    ],
    ids=lambda data: ascii(data)[1:25],
)
def test_a_manifest_that_is_no_manifest_is_refused(root: ReleaseRoot, data: bytes) -> None:
    _assert_unfit(root, _place(root, STAMP), data)


@pytest.mark.parametrize("depth", [10, 100, *range(900, 1000, 9), 10_000])
def test_a_manifest_with_a_deep_field_is_refused(root: ReleaseRoot, depth: int) -> None:
    name = _place(root, STAMP)
    sound = (root.folder(name) / MANIFEST).read_text()
    deep = sound.replace(f'"n_dims": {N_DIMS}', f'"n_dims": {"[" * depth}{"]" * depth}')
    assert deep != sound
    _assert_unfit(root, name, deep.encode())


def test_a_manifest_of_a_release_of_another_name_is_refused(root: ReleaseRoot) -> None:
    name = _place(root, STAMP)
    other = f"99990102{name.removeprefix('99990101')}"
    root.folder(name).rename(root.releases / other)
    assert name in _reason(root, other, MANIFEST)


def test_a_manifest_that_says_other_dimensions_is_refused_by_the_features(
    root: ReleaseRoot,
) -> None:
    for n_dims in (1, N_DIMS - 1, N_DIMS + 1, 2 * N_DIMS + 3, 65_536):
        name = _place(root, STAMP)
        document = _document(root, name) | {"n_dims": n_dims}
        _overwrite(root.folder(name) / MANIFEST, json.dumps(document).encode())
        _reason(root, _rename_to_content(root, name), f"1/{FEATURES}")


# Random damage

JSON_VALUES: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 300)
    | st.sampled_from([2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**400])
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=5)
    | st.sampled_from(["1", "2", "..", "integer", "string", "angular"]),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values),
    max_leaves=5,
)


def _all_steps(value: Any, steps: Steps = ()) -> Iterator[Steps]:
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for step, part in parts:
        yield (*steps, step)
        if isinstance(part, dict | list):
            yield from _all_steps(part, (*steps, step))


def _open_or_refuse(root: ReleaseRoot, name: str) -> bool:
    """Whether the release `name` can be opened; nothing but ReleaseError may be raised."""
    with suppress(ReleaseError):
        if behaviour := root.open(name).behaviour:
            for product_id in CATALOGUE[1][0]:
                behaviour.related(product_id, 9)
        return True
    return False


@contextmanager
def _cleared(root: ReleaseRoot) -> Iterator[None]:
    """Remove all releases but the current one in the end."""
    try:
        yield
    finally:
        for name in set(root.names()) - {_current(root)}:
            shutil.rmtree(root.folder(name))


@settings(max_examples=200 * RANDOM_CASES)
@given(data=st.data())
def test_a_random_manifest_is_refused_or_served(
    workbench: ReleaseRoot, data: st.DataObject
) -> None:
    with _cleared(workbench), suppress(ReleaseError):
        name = _place(workbench, STAMP)
        document = _document(workbench, name)
        for _ in range(data.draw(st.integers(1, 3))):
            steps = data.draw(st.sampled_from(list(_all_steps(document))))
            _put(document, steps, data.draw(st.just(MISSING) | JSON_VALUES))
        _overwrite(workbench.folder(name) / MANIFEST, json.dumps(document).encode())
        _open_or_refuse(workbench, name)
        name = _rename_to_content(workbench, name)
        if _open_or_refuse(workbench, name):
            _assert_answers(_client_of_release(workbench, name))


@settings(max_examples=200 * RANDOM_CASES)
@given(
    file=st.sampled_from(ALL_FILES),
    edits=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=4)), min_size=1, max_size=4),
    kept=st.just(1.0) | st.floats(0, 1),
    agreeing=st.booleans(),
)
def test_random_bytes_are_refused_or_served(
    workbench: ReleaseRoot,
    file: str,
    edits: list[tuple[float, bytes]],
    kept: float,
    agreeing: bool,
) -> None:
    def change(folder: Path) -> None:
        data = bytearray((folder / file).read_bytes())
        for where, new in edits:
            # The nearer to the start the likelier: there the headers are.
            start = int(where**4 * len(data))
            data[start : start + len(new)] = new
        _overwrite(folder / file, bytes(data[: math.ceil(kept * len(data))]))

    with _cleared(workbench), suppress(ReleaseError):
        if agreeing and file != MANIFEST:
            name = _place_agreeing(workbench, change)
        else:
            name = _place(workbench, STAMP)
            change(workbench.folder(name))
        # Annoy may not survive random bytes that the manifest vouches for; nobody asks it here.
        if _open_or_refuse(workbench, name):
            _assert_answers(_client_of_release(workbench, name))


def _client_of_release(root: ReleaseRoot, name: str) -> Client:
    source = ReleaseSource(root)
    source.release = root.open(name)
    return Client(Application(source))


# A root without a current release


def _put_current(target: str | Path) -> Callable[[ReleaseRoot, Path], None]:
    def change(root: ReleaseRoot, outside: Path) -> None:
        (root.path / CURRENT).unlink()
        (root.path / CURRENT).symlink_to(str(target).format(name=root.names()[0], outside=outside))

    return change


def _current_missing(root: ReleaseRoot, outside: Path) -> None:
    (root.path / CURRENT).unlink()


def _current_a_file(root: ReleaseRoot, outside: Path) -> None:
    name = _current(root)
    (root.path / CURRENT).unlink()
    (root.path / CURRENT).write_text(f"{RELEASES}/{name}\n")


def _current_a_folder(root: ReleaseRoot, outside: Path) -> None:
    name = _current(root)
    (root.path / CURRENT).unlink()
    shutil.copytree(root.folder(name), root.path / CURRENT)


def _release_a_loop(root: ReleaseRoot, outside: Path) -> None:
    (root.releases / "loop").symlink_to("loop")
    root.make_current("loop")


def _release_a_file(root: ReleaseRoot, outside: Path) -> None:
    (root.releases / "file").write_text("")
    root.make_current("file")


def _release_empty(root: ReleaseRoot, outside: Path) -> None:
    (root.releases / "empty").mkdir()
    root.make_current("empty")


def _releases_missing(root: ReleaseRoot, outside: Path) -> None:
    root.releases.rename(outside / "kept")


def _releases_a_file(root: ReleaseRoot, outside: Path) -> None:
    root.releases.rename(outside / "kept")
    root.releases.write_text("")


def _root_missing(root: ReleaseRoot, outside: Path) -> None:
    root.path.rename(outside / "kept")


def _root_a_file(root: ReleaseRoot, outside: Path) -> None:
    root.path.rename(outside / "kept")
    root.path.write_text("")


def _root_empty(root: ReleaseRoot, outside: Path) -> None:
    root.path.rename(outside / "kept")
    root.path.mkdir()


BROKEN_ROOTS: Final[dict[str, Callable[[ReleaseRoot, Path], None]]] = {
    "current is missing": _current_missing,
    "current is a file": _current_a_file,
    "current is a folder": _current_a_folder,
    "current points to no release": _put_current("releases/20200101T000000.000Z-0123456789ab"),
    "current points to all releases": _put_current("releases"),
    "current points to the root": _put_current("."),
    "current points to itself": _put_current(CURRENT),
    "current points to staging": _put_current(f"releases/{STAGING}"),
    "current points above": _put_current("releases/.."),
    "current points outside": _put_current("{outside}/releases/elsewhere"),
    "current points to a namesake outside": _put_current("{outside}/releases/{name}"),
    "current points to a namesake beside": _put_current("../releases/{name}"),
    "release is a loop of links": _release_a_loop,
    "release is a file": _release_a_file,
    "release is empty": _release_empty,
    "releases are missing": _releases_missing,
    "releases are a file": _releases_a_file,
    "root is missing": _root_missing,
    "root is a file": _root_a_file,
    "root is empty": _root_empty,
}


@pytest.mark.parametrize("breakage", BROKEN_ROOTS)
def test_a_broken_root_is_reported_and_outlived(
    published: ReleaseRoot, root: ReleaseRoot, tmp_path: Path, breakage: str
) -> None:
    good = _current(root)
    outside = tmp_path / "outside"
    for name in (good, "elsewhere"):
        shutil.copytree(root.folder(good), outside / RELEASES / name, copy_function=os.link)
    source, late = ReleaseSource(root), ReleaseSource(root)
    client, late_client = (Client(Application(each)) for each in (source, late))
    source.look()

    BROKEN_ROOTS[breakage](root, outside)
    for each in (source, late):
        each.look()
    _assert_still_served(source, client, good)
    assert late.release is None
    ready = late_client.get("/readyz")
    assert ready.status == "503 Service Unavailable"
    assert json.loads(ready.body) == {"error": "not_ready", "detail": late.problem}

    if root.path.is_dir():
        shutil.rmtree(root.path)
    root.path.unlink(missing_ok=True)
    _linked(published, root.path)
    for each in (source, late):
        each.look()
        assert each.release
        assert (each.release.manifest.release, each.problem) == (good, None)


@pytest.mark.parametrize("stray", ["loop", "file", "link"])
def test_what_lies_about_among_the_releases_is_none_of_them(root: ReleaseRoot, stray: str) -> None:
    path = root.releases / "stray"
    if stray == "file":
        path.write_text("")
    else:
        path.symlink_to({"loop": "stray", "link": "nowhere"}[stray])
    assert root.names() == [_current(root)]
    with pytest.raises(RootError, match="no release 'stray'"):
        root.folder("stray")


# What stays open


def _open_files() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def _mapped(folder: Path) -> int:
    return Path("/proc/self/maps").read_text().count(f"{folder}/")


linux_only = pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="/proc/self/maps is Linux's"
)


@linux_only
def test_changes_of_release_leave_nothing_of_the_old_one_open(root: ReleaseRoot) -> None:
    names = [_current(root), _place(root, STAMP)]
    source = ReleaseSource(root)
    client = Client(Application(source))
    source.look()
    files = _open_files()
    for turn in range(1, 31):
        root.make_current(names[turn % 2])
        source.look()
        assert client.get(_target(1, CATALOGUE[1][0][0])).status == "200 OK"
        assert source.release
        assert source.release.manifest.release == names[turn % 2]
    assert _open_files() == files
    assert _mapped(root.folder(names[1])) == 0
    # Nobody who serves reads the spares, Annoy's trees where all projections are compared, nor what is
    # gone more than once.
    assert _mapped(root.folder(names[0])) == len(CATEGORIES) * (len(CATEGORY_FILES) - 2) + len(
        BEHAVIOUR_HOT_FILES
    )


@linux_only
@pytest.mark.parametrize("agreeing", [True, False])
@pytest.mark.parametrize("file", ALL_FILES[1 + len(CATEGORY_FILES) :])
def test_a_refused_release_leaves_nothing_open(
    root: ReleaseRoot, file: str, agreeing: bool
) -> None:
    def cut(folder: Path) -> None:
        path = folder / file
        _overwrite(path, path.read_bytes()[:-1])

    good = _current(root)
    if agreeing:
        name = _place_agreeing(root, cut)
    else:
        name = _place(root, STAMP)
        cut(root.folder(name))
    source = ReleaseSource(root)
    source.look()
    files = _open_files()
    for _ in range(30):
        for current in (name, good):
            root.make_current(current)
            source.look()
            assert (source.problem is None) == (current == good)
    assert _open_files() == files
    assert _mapped(root.folder(name)) == 0
