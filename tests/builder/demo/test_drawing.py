import csv
import inspect
from collections import Counter
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from lookalike_build.demo import drawing
from lookalike_build.demo.drawing import draw_catalogue

pytestmark = pytest.mark.slow

PRODUCTS_PER_FAMILY = 2


def rows_of(catalogue: Path) -> list[dict[str, str]]:
    with catalogue.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def digests_of(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_catalogue(
        tmp_path_factory.mktemp("catalogue"), products_per_family=PRODUCTS_PER_FAMILY
    )


@pytest.fixture
def one_family_a_category(monkeypatch: pytest.MonkeyPatch) -> None:
    families = {family.category_id: family for family in drawing.FAMILIES}
    monkeypatch.setattr(drawing, "FAMILIES", tuple(families.values()))


def test_ids_are_unique_integers(catalogue: Path) -> None:
    product_ids = [int(row["product_id"]) for row in rows_of(catalogue)]
    assert product_ids == list(range(1001, 1001 + len(product_ids)))
    assert {int(row["category_id"]) for row in rows_of(catalogue)} == set(range(1, 7))


def test_every_picture_opens_and_shows_something(catalogue: Path) -> None:
    images = [row["image"] for row in rows_of(catalogue)]
    assert len(set(images)) == len(images)
    for image in images:
        with Image.open(catalogue.parent / image) as picture:
            assert picture.size == (drawing.SIZE, drawing.SIZE)
            assert np.ptp(np.asarray(picture.convert("L"), dtype=int)) > 20, image


def test_every_category_has_families_to_count(catalogue: Path) -> None:
    products = Counter((row["category"], row["family"]) for row in rows_of(catalogue))
    families = Counter(category for category, _ in products)
    assert len(families) == 6
    assert min(families.values()) >= 6
    assert set(products.values()) == {PRODUCTS_PER_FAMILY}
    assert inspect.signature(draw_catalogue).parameters["products_per_family"].default >= 8


def test_id_order_does_not_tell_the_family(catalogue: Path) -> None:
    families = [row["family"] for row in rows_of(catalogue)]
    alike = sum(one == next_one for one, next_one in pairwise(families))
    assert alike <= len(families) * 0.05


@pytest.mark.usefixtures("one_family_a_category")
def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        draw_catalogue(tmp_path / folder, seed=5, products_per_family=8)
    assert digests_of(tmp_path / "one") == digests_of(tmp_path / "two")


@pytest.mark.usefixtures("one_family_a_category")
def test_photos_are_of_the_formats_that_shops_have(tmp_path: Path) -> None:
    catalogue = draw_catalogue(tmp_path, products_per_family=8)
    formats = set()
    for row in rows_of(catalogue):
        with Image.open(tmp_path / row["image"]) as picture:
            formats.add(picture.format)
    assert formats == {"JPEG", "PNG", "WEBP"}


@pytest.mark.usefixtures("one_family_a_category")
def test_other_seed_other_bytes(tmp_path: Path) -> None:
    for seed in (0, 1):
        draw_catalogue(tmp_path / str(seed), seed=seed, products_per_family=4)
    one, other = (set(digests_of(tmp_path / str(seed)).values()) for seed in (0, 1))
    assert not one & other


def test_every_family_is_drawn_from_known_parts() -> None:
    for family in drawing.FAMILIES:
        assert family.shape in drawing.CATEGORIES[family.category_id].shapes
        assert family.pattern in drawing.PATTERNS
        assert {family.colour, family.second} <= set(ImageColor.colormap)
    assert len({family.name for family in drawing.FAMILIES}) == len(drawing.FAMILIES)
