"""Extraction: every product is extracted or rejected with its reason, and the rest goes on."""

import csv
import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lookalike.manifest import Model
from lookalike_build.catalogue import read_catalogue
from lookalike_build.extract import BATCH, Outcome, Product, extract
from lookalike_build.features import REJECTED, FeatureStore


class MeanColour:
    """Stands in for the network: a photo's mean red, green and blue, and a one."""

    model = Model("mean-colour", "sha256:1")

    def __init__(self) -> None:
        self.batches: list[int] = []

    def features(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self.batches.append(len(photos))
        means = photos.mean(axis=(1, 2))
        features = np.ones((len(photos), 4), np.float32)
        features[:, :3] = means
        return features


def write_catalogue(folder: Path, rows: list[tuple[object, object, str]]) -> Path:
    path = folder / "catalogue.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("product_id", "category_id", "image"), *rows])
    return path


def paint(folder: Path, name: str, colour: tuple[int, int, int]) -> str:
    Image.new("RGB", (4, 4), colour).save(folder / name)
    return name


def run(folder: Path, rows: list[tuple[object, object, str]]) -> tuple[Outcome, MeanColour]:
    network = MeanColour()
    catalogue = read_catalogue(write_catalogue(folder, rows))
    return extract(catalogue, network, 4, folder / "features"), network


@pytest.mark.parametrize("n", [1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH + 5])
def test_every_photo_gets_its_own_features(tmp_path: Path, n: int) -> None:
    rows = [(i, i % 2, paint(tmp_path, f"{i}.png", (i, 2 * i, 255 - i))) for i in range(n)]
    outcome, network = run(tmp_path, list(rows))
    assert (outcome.n_products, outcome.n_extracted, outcome.n_rejected) == (n, n, 0)
    rest = [n % BATCH] if n % BATCH else []
    assert network.batches == [BATCH] * (n // BATCH) + rest  # whatever the categories
    store = FeatureStore.open(tmp_path / "features")
    for category_id in store.categories:
        category = store.read(category_id)
        for product_id, feature in zip(category.product_ids, category.features, strict=True):
            assert product_id % 2 == category_id
            assert feature.tolist() == [product_id, 2 * product_id, 255 - product_id, 1]


def test_the_photos_digest_is_recorded(tmp_path: Path) -> None:
    run(tmp_path, [(1, 1, paint(tmp_path, "a.png", (1, 2, 3)))])
    (row,) = pq.read_table(tmp_path / "features" / "categories" / "1.parquet").to_pylist()
    assert row["photo_sha256"] == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()


def test_what_cannot_be_used_is_rejected_with_id_and_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no photo")
    good = paint(tmp_path, "good.png", (9, 9, 9))
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-500])
    images = [good, "missing.jpg", "empty.jpg", "text.jpg", "cut.jpg", str(tmp_path / good), "."]
    outcome, _ = run(tmp_path, [(i, 1, image) for i, image in enumerate(images)])
    assert (outcome.n_products, outcome.n_extracted, outcome.n_rejected) == (7, 2, 5)
    with (tmp_path / "features" / REJECTED).open(newline="") as file:
        rejected = {int(row["product_id"]): row for row in csv.DictReader(file)}
    assert sorted(rejected) == [1, 2, 3, 4, 6]
    assert rejected[1] == {
        "product_id": "1",
        "category_id": "1",
        "image": "missing.jpg",
        "reason": "no such file",
    }
    assert rejected[2]["reason"] == "file is empty"
    assert all(row["reason"] for row in rejected.values())
    assert FeatureStore.open(tmp_path / "features").read(1).product_ids.tolist() == [0, 5]  # type: ignore[union-attr]


def test_a_category_of_which_all_is_rejected_is_not_in_the_store(tmp_path: Path) -> None:
    outcome, _ = run(tmp_path, [(1, 1, "no.jpg"), (2, 2, paint(tmp_path, "a.png", (1, 1, 1)))])
    assert (outcome.n_extracted, outcome.n_rejected) == (1, 1)
    assert list(FeatureStore.open(tmp_path / "features").categories) == [2]


class Blind(MeanColour):
    """A network that gives nothing for photos that are black, and NaN for white ones."""

    def features(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        features: npt.NDArray[np.float32] = photos.mean(axis=(1, 2)).astype(np.float32)
        features[features[:, 0] == 255] = np.nan
        return features


def test_a_photo_that_gives_no_features_is_rejected(tmp_path: Path) -> None:
    colours = {1: (0, 0, 0), 2: (5, 5, 5), 3: (255, 255, 255)}
    rows: list[tuple[object, object, str]] = [
        (i, 1, paint(tmp_path, f"{i}.png", colour)) for i, colour in colours.items()
    ]
    rejected: list[tuple[Product, str]] = []
    catalogue = read_catalogue(write_catalogue(tmp_path, rows))
    outcome = extract(
        catalogue, Blind(), 3, tmp_path / "f", reject=lambda *photo: rejected.append(photo)
    )
    assert (outcome.n_extracted, outcome.n_rejected) == (1, 2)
    assert [product.product_id for product, _ in rejected] == [1, 3]


def test_extraction_again_replaces_the_store(tmp_path: Path) -> None:
    image = paint(tmp_path, "a.png", (1, 1, 1))
    run(tmp_path, [(1, 1, image), (2, 2, image)])
    run(tmp_path, [(3, 2, image)])
    store = FeatureStore.open(tmp_path / "features")
    assert store.categories == {2: 1}
    assert list(store.read(2).product_ids) == [3]
