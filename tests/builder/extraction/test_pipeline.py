"""Extraction: every product is extracted or rejected with its reason, and the rest goes on."""

import csv
import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from PIL import Image

from extraction import BATCH, MeanColour, Row, paint, run, run_again, write_catalogue
from lookalike.release.ids import Id
from lookalike.release.manifest import Model
from lookalike_build.catalogue.reader import read_catalogue
from lookalike_build.extraction import local_engine
from lookalike_build.extraction.local_engine import LocalEngine
from lookalike_build.extraction.pipeline import (
    MAX_SAME_PHOTO,
    PhotoPipeline,
    Product,
    Sharing,
    Summary,
    extract,
)
from lookalike_build.extraction.unfinished import Unfinished
from lookalike_build.features.store import REJECTED, FeatureError, FeatureStore
from lookalike_build.photos.decoding import HostError, decode_photo
from lookalike_build.photos.reader import PhotoReader
from waiting import HUNG_S


@pytest.mark.parametrize("n", [1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH + 5])
def test_every_photo_gets_its_own_features(tmp_path: Path, n: int) -> None:
    rows = [(i, i % 2, paint(tmp_path, f"{i}.png", (i, 2 * i, 255 - i))) for i in range(n)]
    summary, network = run(tmp_path, list(rows))
    assert (summary.n_products, summary.n_extracted, summary.n_rejected) == (n, n, 0)
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
    (row,) = pq.read_table(FeatureStore.open(tmp_path / "features").path(1)).to_pylist()
    assert row["photo_sha256"] == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()


def test_what_cannot_be_used_is_rejected_with_id_and_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no photo")
    good = paint(tmp_path, "good.png", (9, 9, 9))
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-500])
    images = [good, "missing.jpg", "empty.jpg", "text.jpg", "cut.jpg", str(tmp_path / good), "."]
    summary, _ = run(tmp_path, [(i, 1, image) for i, image in enumerate(images)])
    assert summary == Summary(
        n_products=7,
        n_extracted=1,
        n_known=1,
        n_rejected=5,
        sharing=Sharing(2, 2, Product(0, 1, good)),
        complete=True,
    )
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


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ('=HYPERLINK("//evil")', '\'=HYPERLINK("//evil")'),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(1)", "'@SUM(1)"),
        ("＝1", "'＝1"),
        ("a=1,-2", "a=1,-2"),
        ("\u202ea\u200bb", r"\u202ea\u200bb"),
    ],
)
def test_the_rejected_are_named_without_formulas(value: str, cell: str, tmp_path: Path) -> None:
    rows: list[Row] = [(value, value, f"{value}.jpg"), ("b", value, f"{value}\t\x1b\n.jpg")]
    run(tmp_path, rows)
    with (tmp_path / "features" / REJECTED).open(newline="") as file:
        _, first, second = csv.reader(file)
    expected = [[cell, cell, f"{cell}.jpg"], ["b", cell, rf"{cell}\t\u001b\n.jpg"]]
    assert sorted([first[:3], second[:3]]) == sorted(expected)


def test_a_category_of_which_all_is_rejected_is_not_in_the_store(tmp_path: Path) -> None:
    summary, _ = run(tmp_path, [(1, 1, "no.jpg"), (2, 2, paint(tmp_path, "a.png", (1, 1, 1)))])
    assert (summary.n_extracted, summary.n_rejected) == (1, 1)
    assert list(FeatureStore.open(tmp_path / "features").categories) == [2]


class Blind(MeanColour):
    """A network that gives nothing for photos that are black, and NaN for white ones."""

    n_dims = 3

    def features(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        features: npt.NDArray[np.float32] = photos.mean(axis=(1, 2)).astype(np.float32)
        features[features[:, 0] == 255] = np.nan
        return features


def test_a_photo_that_gives_no_features_is_rejected(tmp_path: Path) -> None:
    colours = {1: (0, 0, 0), 2: (5, 5, 5), 3: (255, 255, 255)}
    rows: list[Row] = [(i, 1, paint(tmp_path, f"{i}.png", colour)) for i, colour in colours.items()]
    rejected: list[tuple[Product, str]] = []
    summary, _ = run(tmp_path, rows, Blind(), reject=lambda *photo: rejected.append(photo))
    assert (summary.n_extracted, summary.n_rejected) == (1, 2)
    assert sorted(product.product_id for product, _ in rejected) == [1, 3]


def features_in(folder: Path) -> dict[tuple[Id, Id], list[float]]:
    """Category and product id → features, of the store that `run` makes in a folder."""
    store = FeatureStore.open(folder / "features")
    return {
        (category_id, product_id): feature.tolist()
        for category_id in store.categories
        for category in [store.read(category_id)]
        for product_id, feature in zip(category.product_ids, category.features, strict=True)
    }


def test_extraction_again_replaces_the_store(tmp_path: Path) -> None:
    image = paint(tmp_path, "a.png", (1, 1, 1))
    run(tmp_path, [(1, 1, image), (2, 2, image)])
    summary, network = run(tmp_path, [(3, 2, image)])
    assert features_in(tmp_path) == {(2, 3): [1, 1, 1, 1]}
    assert summary == Summary(n_products=1, n_known=1, complete=True)
    assert network.batches == []


def test_only_a_new_or_changed_photo_is_extracted(tmp_path: Path) -> None:
    rows = [(i, i % 3, paint(tmp_path, f"{i}.png", (i, 0, 0))) for i in range(60)]
    run(tmp_path, list(rows))
    paint(tmp_path, "7.png", (7, 7, 7))
    rows[20] = (20, 0, rows[20][2])  # moved to another category
    rows[30:31] = []
    rows.append((60, 0, paint(tmp_path, "60.png", (60, 0, 0))))
    rows.append((61, 5, rows[0][2]))  # another product's photo, in a new category
    summary, network = run(tmp_path, list(rows))
    assert summary == Summary(n_products=61, n_extracted=2, n_known=59, complete=True)
    assert network.batches == [2]
    found = features_in(tmp_path)
    assert sorted(found) == sorted((category_id, product_id) for product_id, category_id, _ in rows)
    for (_, product_id), feature in found.items():
        expected = {7: [7, 7, 7, 1], 61: [0, 0, 0, 1]}.get(int(product_id), [product_id, 0, 0, 1])
        assert feature == expected


@pytest.mark.parametrize("n_recent", [1, 2 * BATCH, 65_536])
def test_a_photo_of_many_products_is_extracted_once(
    n_recent: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_engine, "_RECENT", n_recent)
    placeholder = paint(tmp_path, "placeholder.png", (5, 6, 7))
    rows = [(i, i // 20, placeholder) for i in range(100)]
    rows += [(100 + i, 9, paint(tmp_path, f"{i}.png", (i, 0, 0))) for i in range(3 * BATCH)]
    summary, network = run(tmp_path, list(rows))
    assert summary == Summary(
        n_products=len(rows),
        n_extracted=3 * BATCH + 1,
        n_known=99,
        sharing=Sharing(100, 20, Product(0, 0, placeholder)),
        complete=True,
    )
    assert sum(network.batches) == 3 * BATCH + 1
    found = features_in(tmp_path)
    assert all(found[category_id, i] == [5, 6, 7, 1] for i, category_id, _ in rows[:100])


def test_a_photo_of_many_products_that_gives_no_features_rejects_them_all(tmp_path: Path) -> None:
    black = paint(tmp_path, "black.png", (0, 0, 0))
    rows = [(i, 1, black) for i in range(3 * BATCH)]
    rows += [(100 + i, 1, paint(tmp_path, f"{i}.png", (i, 9, 9))) for i in range(3 * BATCH)]
    summary, _ = run(tmp_path, list(rows), Blind())
    assert summary == Summary(
        n_products=6 * BATCH, n_extracted=3 * BATCH, n_known=0, n_rejected=3 * BATCH, complete=True
    )
    assert all(int(product_id) >= 100 for _, product_id in features_in(tmp_path))


def test_products_of_a_category_with_one_photo_are_rejected_where_they_are_many(
    tmp_path: Path,
) -> None:
    """They would be each other's neighbours; fewer are variants. Another category has its own many."""
    placeholder, shirt = (paint(tmp_path, name, (5, 6, 7)) for name in ("none.png", "none2.png"))
    paint(tmp_path, "shirt.png", (8, 8, 8))
    rows: list[Row] = [(i, 1, (placeholder, shirt)[i % 2]) for i in range(30)]
    rows += [(100 + i, 1, paint(tmp_path, f"{i}.png", (i, 9, 9))) for i in range(20)]
    rows += [(200 + i, 1, "shirt.png") for i in range(3)]
    rows += [(i, 2, placeholder) for i in range(MAX_SAME_PHOTO)]
    rejected: dict[Product, str] = {}
    summary, _ = run(tmp_path, rows, reject=rejected.__setitem__)
    assert (summary.n_products, summary.n_rejected, summary.complete) == (73, 30, True)
    assert summary.n_extracted + summary.n_known == 43
    assert summary.n_extracted in (21, 22)  # the placeholder came with a rejected product or not
    assert summary.sharing == Sharing(23, 20, Product(0, 2, placeholder))
    assert {product[:2] for product in rejected} == {(i, 1) for i in range(30)}
    assert set(rejected.values()) == {
        '30 products of its category have this photo, more than --max-same-photo 20: a "no photo" '
        "picture? give each its own"
    }
    with (tmp_path / "features" / REJECTED).open(newline="") as file:
        assert [row["product_id"] for row in csv.DictReader(file)] == [str(i) for i in range(30)]
    assert len(features_in(tmp_path)) == 43
    store = FeatureStore.open(tmp_path / "features")
    before = [store.path(category_id) for category_id in store.categories]
    again, network = run(tmp_path, rows)
    assert (again.n_extracted, again.n_known, again.n_rejected) == (0, 43, 30)
    assert network.batches == []
    store = FeatureStore.open(tmp_path / "features")
    assert [store.path(category_id) for category_id in store.categories] == before
    wider, _ = run(tmp_path, rows, max_same_photo=30)
    assert (wider.n_rejected, wider.sharing) == (0, Sharing(53, 30, Product(0, 1, placeholder)))


@pytest.mark.parametrize("cut_at", [1, 3])
def test_one_photo_of_many_is_found_over_runs_that_were_cut(tmp_path: Path, cut_at: int) -> None:
    rows: list[Row] = [(i, 1, paint(tmp_path, f"{i}.png", (i, 9, 9))) for i in range(4 * BATCH)]
    rows += [(100 + i, 1, paint(tmp_path, "none.png", (5, 5, 5))) for i in range(21)]
    rows += [(i, 2, "none.png") for i in range(21)]
    with pytest.raises(Cut):
        run(tmp_path, rows, FailsAt(cut_at))
    summary, _ = run(tmp_path, rows)
    assert (summary.n_rejected, summary.sharing) == (42, None)
    assert sorted(features_in(tmp_path)) == [(1, i) for i in range(4 * BATCH)]
    summary, network = run(tmp_path, rows)
    assert (summary.n_extracted, summary.n_known, summary.n_rejected) == (0, 4 * BATCH, 42)
    assert network.batches == [1]  # it is in no category's file


def test_products_that_come_to_have_one_photo_are_rejected_and_return(tmp_path: Path) -> None:
    images = [paint(tmp_path, f"{i}.png", (i, 9, 9)) for i in range(50)]
    rows: list[Row] = [(i, 1, image) for i, image in enumerate(images)]
    run(tmp_path, rows)
    before = features_in(tmp_path)
    for image in images[:30]:
        paint(tmp_path, image, (5, 6, 7))
    summary, _ = run(tmp_path, rows, most_rejected=0.5)
    assert (summary.n_rejected, summary.complete) == (30, False)
    assert features_in(tmp_path) == before
    summary, _ = run(tmp_path, rows)
    assert (summary.n_rejected, summary.complete) == (30, True)
    assert sorted(features_in(tmp_path)) == [(1, i) for i in range(30, 50)]
    for i, image in enumerate(images[:30]):
        paint(tmp_path, image, (i, 9, 9))
    run(tmp_path, rows)
    assert features_in(tmp_path) == before


class Newer(MeanColour):
    """Another model."""

    model = Model("mean-colour", "sha256:2")


def test_another_model_extracts_all_again(tmp_path: Path) -> None:
    rows = [(i, 1, paint(tmp_path, f"{i}.png", (i, 0, 0))) for i in range(BATCH)]
    run(tmp_path, list(rows))
    summary, _ = run(tmp_path, list(rows), Newer())
    assert summary.n_extracted == BATCH
    assert FeatureStore.open(tmp_path / "features").model == Newer.model


class Cut(Exception):  # noqa: N818
    """Ends an extraction where a kill could."""


class FailsAt(MeanColour):
    """Ends the run at its nth batch."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self._n = n

    def features(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        if len(self.batches) == self._n:
            raise Cut
        return super().features(photos)


def test_what_a_run_that_failed_had_extracted_is_kept(tmp_path: Path) -> None:
    rows = [(i, i % 3, paint(tmp_path, f"{i}.png", (i, 0, 0))) for i in range(10 * BATCH)]
    for _ in range(2):
        with pytest.raises(Cut):
            run(tmp_path, list(rows), FailsAt(4))
    summary, network = run(tmp_path, list(rows))
    assert (summary.n_extracted, network.batches) == (2 * BATCH, [BATCH, BATCH])
    assert len(features_in(tmp_path)) == 10 * BATCH
    left = {path.name for path in (tmp_path / "features").iterdir()}
    assert left == {"categories", "rejected.csv", "store.json"}


def test_a_photo_of_two_categories_is_found_when_one_was_complete_before_a_kill(
    tmp_path: Path,
) -> None:
    """The kill comes between the file of a category and the removal of what is in it."""
    rows: list[Row] = [(1, 1, paint(tmp_path, "a.png", (1, 1, 1))), (2, 2, "a.png")]
    rows += [(10 + i, 2, paint(tmp_path, f"{i}.png", (i, 0, 0))) for i in range(BATCH)]
    with pytest.raises(Cut), mock.patch.object(Unfinished, "remove", side_effect=Cut):
        run(tmp_path, list(rows))
    summary, _ = run(tmp_path, list(rows))
    assert summary.n_products == summary.n_extracted + summary.n_known
    assert features_in(tmp_path)[1, 1] == features_in(tmp_path)[2, 2] == [1, 1, 1, 1]


def test_the_store_before_stands_until_the_new_one_is_complete(tmp_path: Path) -> None:
    rows = [(i, i % 3, paint(tmp_path, f"{i}.png", (i, 0, 0))) for i in range(3 * BATCH)]
    run(tmp_path, list(rows))
    before = features_in(tmp_path)
    for i in range(3 * BATCH):
        paint(tmp_path, f"{i}.png", (i, 1, 0))
    with pytest.raises(Cut):
        run(tmp_path, list(rows), FailsAt(2))
    assert features_in(tmp_path) == before


def test_where_too_many_are_rejected_the_store_before_stands(tmp_path: Path) -> None:
    rows: list[Row] = [(i, i % 3, paint(tmp_path, f"{i}.png", (i, 0, 0))) for i in range(4 * BATCH)]
    run(tmp_path, rows)
    before = features_in(tmp_path)
    hidden = [(tmp_path / f"{i}.png").rename(tmp_path / f"{i}.hidden") for i in range(1, 20)]
    rows.append((999, 1, paint(tmp_path, "new.png", (9, 9, 9))))
    summary, _ = run(tmp_path, rows, most_rejected=0.5)
    assert summary == Summary(4 * BATCH + 1, n_extracted=1, n_known=13, n_rejected=19)
    assert features_in(tmp_path) == before
    with (tmp_path / "features" / REJECTED).open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 19
    for path in hidden:
        path.rename(path.with_suffix(".png"))
    summary, network = run(tmp_path, rows, most_rejected=0.5)
    assert summary == Summary(4 * BATCH + 1, n_known=4 * BATCH + 1, complete=True)
    assert network.batches == []
    assert features_in(tmp_path) == {**before, (1, 999): [9, 9, 9, 1]}


def test_where_this_machine_fails_nothing_is_rejected_and_all_before_is_kept(
    tmp_path: Path,
) -> None:
    rows = [(i, i % 3, paint(tmp_path, f"{i}.png", (i, 0, 0))) for i in range(6 * BATCH)]
    run(tmp_path, list(rows[:3]))
    before = features_in(tmp_path)

    class NoDescriptors(PhotoReader):
        n_read = 0

        def read(self, image: str) -> bytes:
            if image == rows[-1][2]:
                raise HostError("too many open files")
            return super().read(image)

    catalogue = write_catalogue(tmp_path, list(rows))
    network, store, reader = MeanColour(), tmp_path / "features", NoDescriptors(tmp_path)
    photos = PhotoPipeline(reader, LocalEngine(network), network.model, 4)
    with pytest.raises(HostError, match="too many open files"):
        extract(read_catalogue(catalogue), photos, store)
    assert features_in(tmp_path) == before
    summary, _ = run(tmp_path, list(rows))
    assert summary.n_known >= len(before) + sum(network.batches) > 3
    assert summary.n_rejected == 0


def test_two_extractions_into_one_store_at_a_time_are_refused(tmp_path: Path) -> None:
    rows: list[Row] = [(1, 1, paint(tmp_path, "a.png", (1, 1, 1)))]

    class Other(MeanColour):
        def features(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            with pytest.raises(FeatureError, match=r"another extraction is at work on .*features"):
                run(tmp_path, list(rows))
            return super().features(photos)

    summary, _ = run(tmp_path, list(rows), Other())
    assert summary.n_extracted == 1


def test_a_slow_photo_does_not_hold_up_the_others(tmp_path: Path) -> None:
    rows = [(i, 1, paint(tmp_path, f"{i}.png", (i, 0, 0))) for i in range(6 * BATCH)]
    others_are_done = threading.Event()

    class Slow(PhotoReader):
        def read(self, image: str) -> bytes:
            if image == "0.png":
                assert others_are_done.wait(HUNG_S)
            return super().read(image)

    heard: list[int] = []

    def done(n: int) -> None:
        heard.append(n)
        if sum(heard) >= 4 * BATCH:
            others_are_done.set()

    network = MeanColour()
    catalogue = read_catalogue(write_catalogue(tmp_path, list(rows)))
    engine, reader = LocalEngine(network), Slow(tmp_path)
    photos = PhotoPipeline(reader, engine, network.model, 4)
    extract(catalogue, photos, tmp_path / "features", done=done)
    assert features_in(tmp_path)[1, 0] == [0, 0, 0, 1]
    assert sum(heard) == len(rows)


def test_a_batch_is_staged_while_the_network_works_on_the_one_before(tmp_path: Path) -> None:
    rows = [(i, 1, paint(tmp_path, f"{i}.png", (i, 0, 0))) for i in range(3 * BATCH)]
    n_staged = threading.Semaphore(0)

    class Overlapped(MeanColour):
        def stage(self, photos: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
            n_staged.release()
            return np.stack(photos)

        def features(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            if len(self.batches) == 0:
                for _ in range(2):  # this batch, and the next
                    assert n_staged.acquire(timeout=HUNG_S)
            return super().features(photos)

    summary, network = run(tmp_path, list(rows), Overlapped())
    assert (summary.n_extracted, network.batches) == (3 * BATCH, [BATCH] * 3)


def test_no_more_photos_are_decoded_at_a_time_than_there_are_cpus(tmp_path: Path) -> None:
    rows = [(i, 1, paint(tmp_path, f"{i}.png", (i, 0, 0))) for i in range(8 * BATCH)]
    at_work: list[int] = []
    most: list[int] = []

    class Counted(MeanColour):
        def prepare(self, data: bytes) -> npt.NDArray[np.uint8]:
            at_work.append(1)
            most.append(len(at_work))
            pixels = decode_photo(data)
            at_work.pop()
            return pixels

    network = Counted()
    catalogue = write_catalogue(tmp_path, list(rows))
    engine = LocalEngine(network, n_readers=32, n_cpus=3)
    summary = run_again(catalogue, tmp_path / "features", network, engine)
    assert summary.n_extracted == len(rows)
    assert max(most) <= 3


def test_a_damaged_file_of_the_store_is_named(tmp_path: Path) -> None:
    rows = [(i, 1, paint(tmp_path, f"{i}.png", (i, 0, 0))) for i in range(3)]
    run(tmp_path, list(rows))
    path = FeatureStore.open(tmp_path / "features").path(1)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FeatureError, match=f"{path.name}: cannot be read: .*; remove it and extr"):
        run(tmp_path, list(rows))
    path.unlink()
    summary, _ = run(tmp_path, list(rows))
    assert summary.n_extracted == 3


def test_a_damaged_file_of_unfinished_work_is_named(tmp_path: Path) -> None:
    rows: list[Row] = [(1, 1, paint(tmp_path, "a.png", (1, 1, 1)))]
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "unfinished.sqlite").write_bytes(b"not SQLite" * 1000)
    with pytest.raises(
        FeatureError, match=r"unfinished\.sqlite: file is not a database; remove it"
    ):
        run(tmp_path, rows)
