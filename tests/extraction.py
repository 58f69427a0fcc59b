"""What tests of extraction share: a stand-in for the network, drawn photos, and one call to extract."""

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from lookalike.release.manifest import Model
from lookalike_build.catalogue.reader import read_catalogue
from lookalike_build.extraction.local_engine import LocalEngine
from lookalike_build.extraction.pipeline import PhotoPipeline, Summary, extract
from lookalike_build.photos.decoding import decode_photo
from lookalike_build.photos.reader import PhotoReader

BATCH = 8
Row = tuple[object, object, str]


class MeanColour:
    """Stands in for the network: a photo's mean red, green and blue, and a one."""

    model = Model("mean-colour", "sha256:1")
    n_dims = 4
    batch = BATCH

    def __init__(self) -> None:
        self.batches: list[int] = []

    def prepare(self, data: bytes) -> npt.NDArray[np.uint8]:
        return decode_photo(data)

    def stage(self, photos: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
        return np.stack(photos)

    def features(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self.batches.append(len(photos))
        means = photos.mean(axis=(1, 2))
        features = np.ones((len(photos), 4), np.float32)
        features[:, :3] = means
        return features


def write_catalogue(folder: Path, rows: list[Row]) -> Path:
    path = folder / "catalogue.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("product_id", "category_id", "image"), *rows])
    return path


def paint(folder: Path, name: str, colour: tuple[int, int, int]) -> str:
    Image.new("RGB", (4, 4), colour).save(folder / name)
    return name


def run(
    folder: Path, rows: list[Row], network: MeanColour | None = None, **others: Any
) -> tuple[Summary, MeanColour]:
    """Write the catalogue of `rows` and extract it into the store ``features`` beside it."""
    network = network or MeanColour()
    catalogue = write_catalogue(folder, rows)
    return run_again(catalogue, folder / "features", network, **others), network


def run_again(
    catalogue: Path,
    store: Path,
    network: MeanColour,
    engine: LocalEngine | None = None,
    **others: Any,
) -> Summary:
    return extract(
        read_catalogue(catalogue),
        PhotoPipeline(
            PhotoReader(catalogue.parent),
            engine or LocalEngine(network),
            network.model,
            network.n_dims,
        ),
        store,
        **others,
    )


class Journal(MeanColour):
    """Takes its time, and notes every batch whose features it gives."""

    def __init__(self, journal: Path) -> None:
        super().__init__()
        self._journal = journal

    def features(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        time.sleep(0.02)
        features = super().features(photos)
        with self._journal.open("a") as file:
            file.write(f"{len(photos)}\n")
        return features

    @staticmethod
    def photos(journal: Path) -> int:
        return sum(map(int, journal.read_text().split())) if journal.exists() else 0


def extract_in_process(folder: Path, store: str) -> None:
    """Extract the folder's catalogue, as a process that may be killed; to be found by name."""
    run_again(folder / "catalogue.csv", folder / store, Journal(folder / f"{store}.journal"))
