"""Extraction: a catalogue's photos through the network into a feature store."""

import csv
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from lookalike.manifest import Id, Model
from lookalike_build.catalogue import COLUMNS, Catalogue
from lookalike_build.features import REJECTED, FeatureWriter
from lookalike_build.photo import PhotoError, decode_photo, read_photo

BATCH = 32


class Extractor(Protocol):
    """What turns photos into features; `lookalike_build.network.Network` is the one."""

    model: Model

    def features(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Features (n, n_dims) of photos (n, 299, 299, 3), n at most `BATCH`."""
        ...


class Product(NamedTuple):
    """One row of the catalogue."""

    product_id: Id
    category_id: Id
    image: str


class Photo(NamedTuple):
    """A product with its decoded photo, or the reason why it is rejected."""

    product: Product
    sha256: str
    pixels: npt.NDArray[np.uint8] | None
    reason: str


@dataclass
class Outcome:
    """How an extraction went: n_products = n_extracted + n_rejected."""

    n_products: int
    n_extracted: int = 0
    n_rejected: int = 0

    @property
    def rejected_share(self) -> float:
        """0 to 1."""
        return self.n_rejected / self.n_products


def extract(
    catalogue: Catalogue,
    network: Extractor,
    n_dims: int,
    folder: Path,
    done: Callable[[int], object] = lambda _: None,
    reject: Callable[[Product, str], object] = lambda *_: None,
) -> Outcome:
    """Write the features of every product of `catalogue` to the store in `folder`.

    A photo that cannot be used is named in ``rejected.csv`` and to `reject`; the rest goes on.
    `done` hears how many more products are finished.
    """
    outcome = Outcome(catalogue.rows.num_rows)
    types = tuple(catalogue.rows.schema.field(name).type for name in COLUMNS[:2])
    folder.mkdir(parents=True, exist_ok=True)
    with (
        FeatureWriter(folder, network.model, n_dims, (types[0], types[1])) as writer,
        (folder / REJECTED).open("w", newline="") as file,
    ):
        report = csv.writer(file)
        report.writerow([*COLUMNS, "reason"])
        photos = _read_ahead(_products(catalogue), catalogue.folder)
        for batch in _batches(photos, BATCH):
            fit, unfit = _extract_batch(network, writer, batch)
            for photo in unfit:
                report.writerow([*photo.product, photo.reason])
                reject(photo.product, photo.reason)
            outcome.n_extracted += fit
            outcome.n_rejected += len(unfit)
            done(len(batch))
        writer.finish()
    return outcome


def _products(catalogue: Catalogue) -> Iterator[Product]:
    for rows in catalogue.rows.to_batches(max_chunksize=1024):
        for row in zip(*(rows.column(name).to_pylist() for name in COLUMNS), strict=True):
            yield Product(*row)


def _read_ahead(products: Iterable[Product], folder: Path) -> Iterator[Photo]:
    """Photos in the products' order, read and decoded by threads while the network works."""
    waiting: deque[Future[Photo]] = deque()
    remaining = iter(products)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while True:
            for product in islice(remaining, 4 * BATCH - len(waiting)):
                waiting.append(pool.submit(_load, product, folder))
            if not waiting:
                return
            yield waiting.popleft().result()


def _load(product: Product, folder: Path) -> Photo:
    try:
        data = read_photo(folder / product.image)
        return Photo(product, hashlib.sha256(data).hexdigest(), decode_photo(data), "")
    except PhotoError as error:
        return Photo(product, "", None, error.reason)


def _batches(photos: Iterable[Photo], size: int) -> Iterator[list[Photo]]:
    remaining = iter(photos)
    while batch := list(islice(remaining, size)):
        yield batch


def _extract_batch(
    network: Extractor, writer: FeatureWriter, batch: list[Photo]
) -> tuple[int, list[Photo]]:
    """Write a batch's features; how many there are, and the photos that gave none."""
    unfit = [photo for photo in batch if photo.pixels is None]
    decoded = [photo for photo in batch if photo.pixels is not None]
    if not decoded:
        return 0, unfit
    features = network.features(
        np.stack([photo.pixels for photo in decoded if photo.pixels is not None])
    )
    usable = np.isfinite(features).all(axis=1) & np.any(features, axis=1)
    unfit += [
        photo._replace(reason="the network gives no features for it")
        for photo, fit in zip(decoded, usable, strict=True)
        if not fit
    ]
    kept = [place for place, fit in enumerate(usable) if fit]
    # The network's batches take no notice of categories: a part-filled one costs as much as a full.
    for category_id, of_category in groupby(kept, lambda place: decoded[place].product.category_id):
        places = list(of_category)
        writer.write(
            category_id,
            [decoded[place].product.product_id for place in places],
            [decoded[place].sha256 for place in places],
            features[places],
        )
    return len(kept), unfit
