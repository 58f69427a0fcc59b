"""The feature store: what is written is read back, and what is unfit is refused by product."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike_build.features.store import (
    ROW_GROUP,
    STORE,
    FeatureError,
    FeatureStore,
    FeatureWriter,
)
from support import MODEL, N_DIMS, integer_catalogue, random_features, string_catalogue, write_store


@pytest.mark.parametrize("catalogue", [integer_catalogue(), string_catalogue()])
def test_a_store_is_read_back_sorted_by_product_id(tmp_path: Path, catalogue: dict) -> None:  # type: ignore[type-arg]
    store = write_store(tmp_path, catalogue)
    assert store.model == MODEL
    assert store.categories == {key: len(ids) for key, (ids, _) in catalogue.items()}
    for category_id, (product_ids, features) in catalogue.items():
        category = store.read(category_id)
        order = sorted(range(len(product_ids)), key=lambda row: _bytes_order(product_ids[row]))
        assert list(category.product_ids) == [product_ids[row] for row in order]
        np.testing.assert_array_equal(category.features, features[order])


def _bytes_order(product_id: int | str) -> int | bytes:
    return product_id.encode() if isinstance(product_id, str) else product_id


def test_the_file_records_digest_and_model(tmp_path: Path) -> None:
    features = random_features(1, 0)
    store = write_store(tmp_path, {1: ([4], features)})
    (row,) = pq.read_table(store.path(1)).to_pylist()
    digest = hashlib.sha256(features.tobytes()).hexdigest()
    assert (row["photo_sha256"], row["model"]) == (digest, "test sha256:0")


def begin(folder: Path, n_dims: int = 16) -> FeatureWriter:
    return FeatureWriter(folder, MODEL, n_dims, (pa.int64(), pa.int64()), 0)


@pytest.mark.parametrize("as_of", [1.5e9, 0, None])
def test_the_store_says_of_when_its_catalogue_is(tmp_path: Path, as_of: float | None) -> None:
    writer = FeatureWriter(tmp_path, MODEL, N_DIMS, (pa.int64(), pa.int64()), as_of)
    writer.finish()
    assert FeatureStore.open(tmp_path).as_of == as_of


def test_of_a_store_that_does_not_say_it_is_not_known(tmp_path: Path) -> None:
    """When that was written says how long the extraction took, and no more."""
    write_store(tmp_path, integer_catalogue())
    document = json.loads((tmp_path / STORE).read_text())
    del document["as_of"]
    (tmp_path / STORE).write_text(json.dumps(document))
    assert FeatureStore.open(tmp_path).as_of is None


def test_a_store_that_was_not_finished_is_refused(tmp_path: Path) -> None:
    begin(tmp_path).add_category(1, [4], ["0" * 64], [random_features(1, 0)])
    with pytest.raises(FeatureError, match=r"no complete feature store .*run `lookalike-build"):
        FeatureStore.open(tmp_path)


def test_until_a_store_is_finished_the_one_before_it_stands(tmp_path: Path) -> None:
    write_store(tmp_path, integer_catalogue())
    writer = begin(tmp_path)
    writer.add_category(1, [4], ["0" * 64], [random_features(1, 0)])
    before = FeatureStore.open(tmp_path)
    for category_id, (product_ids, _) in integer_catalogue().items():
        assert len(before.read(category_id).product_ids) == len(product_ids)
    writer.finish()
    assert FeatureStore.open(tmp_path).categories == {1: 1}


def test_categories_of_an_earlier_run_go(tmp_path: Path) -> None:
    write_store(tmp_path, integer_catalogue())
    store = write_store(tmp_path, {2: integer_catalogue()[2]})
    assert list((tmp_path / "categories").iterdir()) == [store.path(2)]


def test_the_file_of_a_category_that_is_the_same_is_kept(tmp_path: Path) -> None:
    store = write_store(tmp_path, integer_catalogue())
    before = {category_id: store.path(category_id).stat() for category_id in store.categories}
    product_ids, features = integer_catalogue()[2]
    again = write_store(tmp_path, {**integer_catalogue(), 2: (product_ids, features + 1)})
    for category_id, status in before.items():
        same = again.path(category_id).stat().st_ino == status.st_ino
        assert same == (category_id != 2)


def test_features_of_fewer_products_than_ids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="features of 1 products, expected 2"):
        begin(tmp_path).add_category(1, [4, 5], ["0" * 64] * 2, [random_features(1, 0)])


@pytest.mark.parametrize("file", ["../1.parquet", "/etc/passwd", "a/b.parquet"])
def test_a_file_outside_the_store_is_refused(tmp_path: Path, file: str) -> None:
    write_store(tmp_path, {1: ([4], random_features(1, 0))})
    document = json.loads((tmp_path / STORE).read_text())
    document["categories"][0]["file"] = file
    (tmp_path / STORE).write_text(json.dumps(document))
    with pytest.raises(FeatureError, match="is not the name of a file in categories/"):
        FeatureStore.open(tmp_path)


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "2.parquet"
    other.write_text("not ours")
    write_store(tmp_path, integer_catalogue())
    write_store(tmp_path, {7: integer_catalogue()[2]})
    assert other.read_text() == "not ours"


@pytest.mark.parametrize("n", [1, 1023, 1024, 1025, 3000])
def test_pieces_come_back_in_large_groups(tmp_path: Path, n: int) -> None:
    features = random_features(n, 0)
    pieces = (features[start : start + ROW_GROUP] for start in range(0, n, ROW_GROUP))
    writer = begin(tmp_path)
    path = writer.add_category(1, range(n), ["0" * 64] * n, pieces)
    writer.finish()
    np.testing.assert_array_equal(FeatureStore.open(tmp_path).read(1).features, features)
    assert pq.read_metadata(path).num_row_groups == -(-n // ROW_GROUP)


def replace_column(folder: Path, name: str, values: pa.Array) -> FeatureStore:
    store = FeatureStore.open(folder)
    table = pq.read_table(store.path(1))
    place = table.schema.get_field_index(name)
    pq.write_table(table.set_column(place, name, values), store.path(1))
    return store


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([np.nan, 1, 1], "has a NaN or infinite feature"),
        ([np.inf, 1, 1], "has a NaN or infinite feature"),
        ([None, 1, 1], "has a NaN or infinite feature"),
        ([0, 0, 0], "has features that are all zero"),
        ([1e30, 1, 1], "has a length that float32 cannot square"),
        ([1e-30, 0, 0], "has a length that float32 cannot square"),
        ([1, 1], "has another number of features than 3"),
        ([1, 1, 1, 1], "has another number of features than 3"),
        (None, "has another number of features than 3"),
    ],
)
def test_unfit_features_are_refused_and_the_product_named(
    tmp_path: Path, row: list[float] | None, reason: str
) -> None:
    write_store(tmp_path, {1: ([30, 20, 10], random_features(3, 0, n_dims=3))})
    rows = [[1.0, 2.0, 3.0], row, [3.0, 2.0, 1.0]]
    store = replace_column(tmp_path, "features", pa.array(rows, pa.list_(pa.float32())))
    with pytest.raises(FeatureError, match=rf"1-\w+\.parquet: product 20 {reason}"):
        store.read(1)


def test_two_models_in_one_store_are_refused_and_the_product_named(tmp_path: Path) -> None:
    write_store(tmp_path, {1: ([1, 2, 3], random_features(3, 0))})
    models = pa.array(["test sha256:0", "test sha256:0", "other sha256:1"])
    with pytest.raises(FeatureError, match="product 3 is of another model than test sha256:0"):
        replace_column(tmp_path, "model", models).read(1)


def test_a_product_twice_or_of_another_category_is_refused(tmp_path: Path) -> None:
    write_store(tmp_path, {1: ([1, 2, 3], random_features(3, 0))})
    with pytest.raises(FeatureError, match="product 2 is not of category 1"):
        replace_column(tmp_path, "category_id", pa.array([1, 2, 1])).read(1)
    with pytest.raises(FeatureError, match="product 2 is there more than once"):
        replace_column(tmp_path, "product_id", pa.array([2, 1, 2])).read(1)


def test_a_file_that_is_missing_short_or_damaged_is_refused(tmp_path: Path) -> None:
    store = write_store(tmp_path, {1: ([1, 2, 3], random_features(3, 0))})
    path = store.path(1)
    pq.write_table(pq.read_table(path).slice(0, 2), path)
    with pytest.raises(FeatureError, match=r"has 2 products, store\.json says 3"):
        store.read(1)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(FeatureError, match="cannot be read"):
        store.read(1)
    store = write_store(tmp_path / "other", {1: ([1, 2, 3], random_features(3, 0))})
    path = store.path(1)
    data = bytearray(path.read_bytes())
    data[data.index(random_features(3, 0)[1].tobytes()) + 7] ^= 1
    path.write_bytes(data)
    with pytest.raises(FeatureError, match="cannot be read"):
        store.read(1)
    path.unlink()
    with pytest.raises(FeatureError, match="is missing"):
        store.read(1)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 9}', '{"format": 1, "model": 3}'])
def test_an_unfit_store_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / STORE).write_text(text)
    with pytest.raises(FeatureError, match=r"store\.json"):
        FeatureStore.open(tmp_path)


def test_features_of_other_makers_are_read(tmp_path: Path) -> None:
    """The format is open: float64 lists of any width and no more columns than these will do."""
    columns = {
        "product_id": ["b", "a"],
        "category_id": ["c", "c"],
        "model": ["clip v1", "clip v1"],
        "features": [[1.0, 2.0], [3.0, 4.0]],
    }
    (tmp_path / "categories").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "categories" / "c.parquet")
    document = {
        "format": 1,
        "model": {"name": "clip", "digest": "v1"},
        "n_dims": 2,
        "category_id_type": "string",
        "product_id_type": "string",
        "categories": [{"category_id": "c", "n_products": 2}],
    }
    (tmp_path / STORE).write_text(json.dumps(document))
    category = FeatureStore.open(tmp_path).read("c")
    assert category.product_ids == ["a", "b"]
    assert category.features.tolist() == [[3, 4], [1, 2]]


@pytest.mark.slow
def test_a_category_is_read_a_piece_at_a_time(tmp_path: Path) -> None:
    features = random_features(20_000, 0, n_dims=64)
    write_store(tmp_path, {1: (list(range(len(features))), features)})
    program = f"""
from pathlib import Path
import pyarrow
from lookalike_build.features.store import FeatureStore
FeatureStore.open(Path({str(tmp_path)!r})).read(1)
print(pyarrow.default_memory_pool().max_memory())
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert int(run.stdout) < features.nbytes / 2
