"""Adopting another installation's files: what they become, and what is refused by name."""

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annoy import AnnoyIndex

from lookalike.release.manifest import METRIC, Model
from lookalike.release.root import ReleaseRoot
from lookalike.release.vectors import node_dtype
from lookalike_build.features import annoy_file
from lookalike_build.features.adopted import AdoptedFeatures, export
from lookalike_build.features.store import FeatureError
from lookalike_build.indexing.build import IndexSettings, index
from support import (
    N_DIMS,
    Features,
    brute_force,
    client_of,
    integer_catalogue,
    random_features,
    string_catalogue,
    write_store,
)

LAYOUTS = {"float32": ("<f4", 12), "float64 packed": ("<f8", 12), "float64 aligned": ("<f8", 16)}


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is small in a test is read a piece at a time all the same."""
    monkeypatch.setattr(annoy_file, "_BLOCK_BYTES", 1000)


def save_annoy(
    path: Path,
    features: Features,
    items: Iterable[int] | None = None,
    metric: Any = METRIC,
    n_trees: int = 3,
) -> Path:
    annoy = AnnoyIndex(features.shape[1], metric)
    annoy.set_seed(1)
    for item, vector in zip(items or range(len(features)), features, strict=True):
        annoy.add_item(item, vector.tolist())
    annoy.build(n_trees, n_jobs=1)
    path.parent.mkdir(exist_ok=True)
    annoy.save(str(path))
    return path


def rewrite(path: Path, layout: str, n_dims: int = N_DIMS, norm: bool = False) -> None:
    """The same nodes as a binding with other numbers writes them; before 2018 without the norm."""
    nodes = np.fromfile(path, node_dtype(n_dims))
    numbers, start = LAYOUTS[layout]
    wide = np.zeros(
        len(nodes),
        {
            "names": ["n_descendants", "norm", "vector"],
            "formats": ["<i4", numbers, (numbers, (n_dims,))],
            "offsets": [0, start - 8, start],
            "itemsize": start + n_dims * np.dtype(numbers).itemsize,
        },
    )
    for name in ("n_descendants", "vector", *(["norm"] if norm else [])):
        wide[name] = nodes[name]
    wide.tofile(path)


def adopted(folder: Path, n_dims: int = N_DIMS) -> AdoptedFeatures:
    return AdoptedFeatures.open(folder, n_dims, "adopted")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n_items", [1, 2, N_DIMS + 2, N_DIMS + 3, 3000])
@pytest.mark.parametrize("norm", [False, True])
def test_vectors_of_any_width_are_read_as_they_are(
    tmp_path: Path, layout: str, n_items: int, norm: bool
) -> None:
    features = random_features(n_items, 1)
    rewrite(save_annoy(tmp_path / "category_7.ann", features), layout, norm=norm)
    source = adopted(tmp_path)
    assert source.categories == {7: n_items}
    assert source.id_types == ("integer", "integer")
    assert source.model == Model("adopted", "unknown")
    category = source.read(7)
    assert list(category.product_ids) == list(range(n_items))
    np.testing.assert_array_equal(category.features, features)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_numbers_that_no_item_was_added_under_are_no_products(tmp_path: Path, layout: str) -> None:
    features = random_features(5, 1)
    features[3] = 0
    items = [3, 7, 2000, 2001, 2500]
    rewrite(save_annoy(tmp_path / "category_1.ann", features, items), layout)
    source = adopted(tmp_path)
    category = source.read(1)
    assert list(category.product_ids) == [3, 7, 2000, 2500]
    np.testing.assert_array_equal(category.features, features[[0, 1, 2, 4]])
    assert source.without_vector == {1: 2497}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_answers_of_an_adopted_release_are_exact(tmp_path: Path, layout: str) -> None:
    features = random_features(300, 1)
    features[17] = 0
    rewrite(save_annoy(tmp_path / "old" / "category_1.ann", features), layout)
    save_annoy(tmp_path / "old" / "category_2.ann", random_features(2, 2))
    root = ReleaseRoot(tmp_path / "root")
    published = index(adopted(tmp_path / "old"), root, IndexSettings())
    assert [entry.n_items for entry in root.check(published.release)] == [299, 2]
    client = client_of(root)
    products = np.delete(np.arange(300), 17)
    for item in (0, 17, 298):
        order, _ = brute_force(features[products], item)
        answer = client.get(f"/nns?category_id=1&product_id={products[item]}&limit=12")
        expected = products[[item, *order[:11]]]
        assert answer.body == b"[%s]" % b",".join(b"%d" % product for product in expected)
    assert client.get("/nns?category_id=1&product_id=17").status == "404 Not Found"
    assert client.get("/nns?category_id=2&product_id=1").body == b"[1,0]"


def test_a_list_of_product_ids_names_the_items(tmp_path: Path) -> None:
    features = random_features(4, 1)
    features[1] = 0
    save_annoy(tmp_path / "category_1.ann", features)
    save_annoy(tmp_path / "category_2.ann", features[:1])
    (tmp_path / "product_ids_1.csv").write_text("234\n9\n7\r\n2000")
    (tmp_path / "product_ids_2.csv").write_text("5\n")
    source = adopted(tmp_path)
    category = source.read(1)
    assert list(category.product_ids) == [7, 234, 2000]
    np.testing.assert_array_equal(category.features, features[[2, 0, 3]])
    (tmp_path / "product_ids_2.csv").write_text('"A,5"\n')
    source = adopted(tmp_path)
    assert source.id_types == ("integer", "string")
    assert source.read(1).product_ids == ["2000", "234", "7"]
    assert source.read(2).product_ids == ["A,5"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"product_ids_1\.csv: holds no products"),
        ("1\n2\n", r"product_ids_1\.csv: has 2 product ids, category_1\.ann has 3 items"),
        ("1\n2\n3\n4\n", r"product_ids_1\.csv: has 4 product ids, category_1\.ann has 3 items"),
        ("1\n\n3\n", "line 2: has 0 fields, expected one product id"),
        ("1,8\n2,9\n3,7\n", "line 1: has 2 fields, expected one product id"),
        ("1\n" + "x" * 65 + "\n3\n", "line 2: product_id must be 1 to 64 bytes of UTF-8, not 65"),
    ],
)
def test_an_unfit_list_of_product_ids_is_refused(tmp_path: Path, text: str, said: str) -> None:
    save_annoy(tmp_path / "category_1.ann", random_features(3, 1))
    (tmp_path / "product_ids_1.csv").write_text(text)
    with pytest.raises(FeatureError, match=said):
        adopted(tmp_path)


def test_it_is_of_an_hour_before_the_oldest_file(tmp_path: Path) -> None:
    for place, name in enumerate(["category_1.ann", "category_2.ann"]):
        os.utime(save_annoy(tmp_path / name, random_features(3, 1)), (2e9, 1.5e9 - place))
    assert adopted(tmp_path).as_of == 1.5e9 - 1 - 3600
    os.utime(tmp_path / "category_1.ann", (2e9, time.time() + 60))
    assert adopted(tmp_path).as_of is None


def test_a_repeated_product_id_is_refused(tmp_path: Path) -> None:
    save_annoy(tmp_path / "category_1.ann", random_features(3, 1))
    (tmp_path / "product_ids_1.csv").write_text("5\n6\n5\n")
    with pytest.raises(FeatureError, match=r"category_1\.ann: product 5 is there more than once"):
        adopted(tmp_path).read(1)


@pytest.mark.parametrize("kept", ["category_2.ann", "product_ids_2.csv"])
def test_lists_of_product_ids_are_for_every_category_or_none(tmp_path: Path, kept: str) -> None:
    for name in ("1", "2"):
        save_annoy(tmp_path / f"category_{name}.ann", random_features(1, 1))
        (tmp_path / f"product_ids_{name}.csv").write_text("5\n")
    for lost in {"category_2.ann", "product_ids_2.csv"} - {kept}:
        (tmp_path / lost).unlink()
        said = f"category 2 has a {kept[:8]}.* and no {lost[:8]}"
    with pytest.raises(FeatureError, match=said):
        adopted(tmp_path)


@pytest.mark.parametrize(
    ("names", "category_ids"),
    [
        (["10", "9"], [9, 10]),
        (["10", "09"], ["09", "10"]),
        (["shoes", "hats %26 caps"], ["hats & caps", "shoes"]),
    ],
)
def test_category_ids_are_typed_as_in_a_catalogue(
    tmp_path: Path, names: list[str], category_ids: list[Any]
) -> None:
    for name in names:
        save_annoy(tmp_path / f"category_{name}.ann", random_features(1, 1))
    (tmp_path / "category_11.ann.bak").write_text("of no concern")
    assert list(adopted(tmp_path).categories) == category_ids


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "holds neither category_<id>.ann nor features_<id>.csv"),
        (["category_1.ann", "features_1.csv"], "holds both category_<id>.ann and features_<id>"),
        (["category_.ann"], r"category_\.ann: the category id in its name must be 1 to 64 bytes"),
        (["category_a.ann", "category_%61.ann"], r"category_a\.ann: is of category a, and so is"),
        (["category_%FF.ann"], "category id in its name must be valid Unicode"),
    ],
)
def test_a_folder_with_unfit_names_is_refused(tmp_path: Path, names: list[str], said: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(FeatureError, match=said):
        adopted(tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n_dims", [N_DIMS // 2, N_DIMS - 1, N_DIMS + 1, 2 * N_DIMS])
def test_another_dimension_is_refused_and_both_are_named(
    tmp_path: Path, layout: str, n_dims: int
) -> None:
    """Even where a node is as large: of float64, or of twice as many float32."""
    rewrite(save_annoy(tmp_path / "category_1.ann", random_features(100, 1)), layout)
    said = (
        rf"category_1\.ann: is an index .*of {N_DIMS} dimensions, expected {n_dims}( \(--dims\))?$"
    )
    with pytest.raises(FeatureError, match=said):
        adopted(tmp_path, n_dims)


@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "dot"])
@pytest.mark.parametrize("n_items", [2, 100])
def test_another_metric_is_refused(tmp_path: Path, metric: str, n_items: int) -> None:
    save_annoy(tmp_path / "category_1.ann", random_features(n_items, 1), metric=metric)
    with pytest.raises(FeatureError, match=r"category_1\.ann: is an index of another metric"):
        adopted(tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n_items", [1, 2, 50])
def test_a_truncated_file_is_refused(tmp_path: Path, layout: str, n_items: int) -> None:
    path = save_annoy(tmp_path / "category_1.ann", random_features(n_items, 1), n_trees=1)
    rewrite(path, layout)
    numbers, start = LAYOUTS[layout]
    node = start + N_DIMS * np.dtype(numbers).itemsize
    whole = path.read_bytes()
    cuts = [0, 1, len(whole) - 1, len(whole) - node + 1, *range(node, len(whole) - node, node)]
    if n_items > 1:
        cuts.append(len(whole) - node)  # the copy of the root
    for cut in cuts:
        path.write_bytes(whole[:cut])
        said = rf"category_1\.ann: is no complete Annoy index of 16 dimensions.* \({cut} bytes"
        with pytest.raises(FeatureError, match=said):
            adopted(tmp_path)


@pytest.mark.parametrize("byte", [b"\0", b"\1", b"\x7f", b"\xff", b"a", None])
def test_what_is_no_annoy_file_is_refused(tmp_path: Path, byte: bytes | None) -> None:
    n_bytes = 100 * 76 * 36
    data = byte * n_bytes if byte else np.random.default_rng(0).bytes(n_bytes)
    (tmp_path / "category_1.ann").write_bytes(data)
    with pytest.raises(FeatureError, match=r"category_1\.ann: is no complete Annoy index"):
        adopted(tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.nan, "has a NaN or infinite feature"),
        (-np.inf, "has a NaN or infinite feature"),
        (1e30, "has a length that float32 cannot square"),
    ],
)
def test_an_unfit_vector_is_refused_by_product(
    tmp_path: Path, layout: str, value: float, said: str
) -> None:
    features = random_features(30, 1)
    features[20, 3] = value
    rewrite(save_annoy(tmp_path / "category_1.ann", features, range(100, 130)), layout)
    with pytest.raises(FeatureError, match=rf"category_1\.ann: product 120 {said}"):
        adopted(tmp_path).read(1)


def test_a_float64_beyond_float32_is_refused_by_product(tmp_path: Path) -> None:
    path = save_annoy(tmp_path / "category_1.ann", random_features(5, 1))
    rewrite(path, "float64 packed")
    data = bytearray(path.read_bytes())
    data[3 * 140 + 12 : 3 * 140 + 20] = np.float64(1e300).tobytes()
    path.write_bytes(data)
    with pytest.raises(FeatureError, match="product 3 has a NaN or infinite feature"):
        adopted(tmp_path).read(1)


@pytest.mark.parametrize("kind", ["annoy", "csv"])
def test_a_file_that_changes_under_the_work_is_refused(tmp_path: Path, kind: str) -> None:
    features = random_features(3000, 1)
    if kind == "annoy":
        path = save_annoy(tmp_path / "category_1.ann", features)
    else:
        export(write_store(tmp_path / "f", {1: (list(range(3000)), features)}), tmp_path)
        path = tmp_path / "features_1.csv"
    source = adopted(tmp_path)
    whole = path.read_bytes()
    os.truncate(
        path, len(whole) // 2 if kind == "annoy" else whole.index(b"\n", len(whole) // 2) + 1
    )
    with pytest.raises(FeatureError, match=r"1\.(ann|csv): was (cut short|changed) while it was"):
        source.read(1)
    path.write_bytes(whole + whole)
    if kind == "csv":
        with pytest.raises(FeatureError, match="was changed while it was read"):
            source.read(1)


@pytest.mark.parametrize("catalogue", [integer_catalogue(), string_catalogue()])
def test_what_is_exported_is_adopted_as_it_was(tmp_path: Path, catalogue: Any) -> None:
    store = write_store(tmp_path / "features", catalogue)
    export(store, tmp_path / "csv")
    source = adopted(tmp_path / "csv")
    assert (source.categories, source.id_types) == (store.categories, store.id_types)
    for category_id in store.categories:
        before, after = store.read(category_id), source.read(category_id)
        assert list(after.product_ids) == list(before.product_ids)
        np.testing.assert_array_equal(after.features, before.features)
    assert len(list((tmp_path / "csv").iterdir())) == len(store.categories)
