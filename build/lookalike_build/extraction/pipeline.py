"""Extraction: makes a feature store from a catalogue's photos.

An engine turns photos into features; this module does the rest for every engine. A photo whose features
are in the store is read but not extracted again. Results are saved at once, and a category becomes a
file when its last product is done, so after a kill the next run continues where this one was.
"""

import csv
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from lookalike.release.arrays import Features
from lookalike.release.ids import Id
from lookalike.release.manifest import Model
from lookalike.terminal.output import printable
from lookalike_build.catalogue.reader import COLUMNS, Catalogue
from lookalike_build.extraction.known_photos import KnownPhotos
from lookalike_build.extraction.photo_features import PhotoFeatures
from lookalike_build.features.store import REJECTED, FeatureWriter, model_text
from lookalike_build.files.whole import whole_file

_FORMULA = tuple("=+-@＝＋－＠")
"""A cell that begins with one of these is a formula to a spreadsheet."""


class Product(NamedTuple):
    """One row of the catalogue."""

    product_id: Id
    category_id: Id
    image: str


class Result(NamedTuple):
    """The result for the product in one row of the catalogue.

    `photo_sha256` is hexadecimal. It is empty if the product is rejected; `reason` then says why.
    `features` (n_dims,) is None if the product is rejected, or if the photo's features are known
    already or come with another row. `is_stand_in` is whether the photo is a cached one, read because
    its origin does not give one now.
    """

    row: int
    photo_sha256: str
    features: Features | None
    reason: str
    is_stand_in: bool = False


class Reader(Protocol):
    """Reads photos, as `lookalike_build.photos.reader.PhotoReader` does."""

    def read(self, image: str) -> bytes:
        """The bytes of the photo at `image`, a path or a URL. Called from many threads.

        Raises PhotoError to reject the photo, HostError if this machine fails.
        """
        ...


ImageRows = Iterable[tuple[int, str]]
"""Rows of the catalogue and their images."""


class Engine(Protocol):
    """Turns photos into features.

    Yields one result for each of `rows`, in any order, in lists: each list is saved before the next one
    is asked for. Photos in `known` get no features.
    """

    def __call__(  # noqa: D102
        self, rows: ImageRows, reader: Reader, known: KnownPhotos
    ) -> Generator[list[Result], None, None]: ...


@dataclass(frozen=True)
class PhotoPipeline:
    """Turns a photo's path or URL into features (n_dims,) of `model`: `reader`, then `engine`."""

    reader: Reader
    engine: Engine
    model: Model
    n_dims: int


@dataclass
class Summary:
    """What an extraction did: n_products = n_extracted + n_known + n_rejected.

    `n_known` products have a photo whose features existed: it is unchanged, or other products have it
    too. `n_stand_ins` of both have a cached photo, as their origin does not give one now. `complete` is
    False if too many were rejected, so that the existing store was kept.
    """

    n_products: int
    n_extracted: int = 0
    n_known: int = 0
    n_rejected: int = 0
    n_stand_ins: int = 0
    complete: bool = False

    @property
    def rejected_share(self) -> float:
        """0 to 1."""
        return self.n_rejected / self.n_products


def extract(
    catalogue: Catalogue,
    photos: PhotoPipeline,
    folder: Path,
    most_rejected: float = 1,
    done: Callable[[int], object] = lambda _: None,
    reject: Callable[[Product, str], object] = lambda *_: None,
) -> Summary:
    """Write the store of `catalogue` in `folder`; the existing store is kept until it is complete.

    Features of the same model that the store has are reused. Unusable photos are listed in
    ``rejected.csv`` and given to `reject`; extraction continues. If more than the share `most_rejected`
    (0 to 1) are rejected, the existing store is kept: a server may be down for an hour, and its
    products should not lose their features. `done` is called with how many more products are finished.

    Raises FeatureError, and HostError if this machine fails to read or decode. However it ends, the
    next run finds what was extracted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model, n_dims = photos.model, photos.n_dims
    with closing(PhotoFeatures(folder, model_text(model), n_dims)) as features:
        types = tuple(catalogue.rows.schema.field(name).type for name in COLUMNS[:2])
        writer = FeatureWriter(folder, model, n_dims, (types[0], types[1]), catalogue.as_of)
        extraction = _Extraction(catalogue, features, writer)
        rows = ((row, image.as_py()) for row, image in enumerate(catalogue.rows["image"]))
        with closing(photos.engine(rows, photos.reader, features.known)) as batches:
            for results in filter(None, batches):
                for result in extraction.take(results):
                    reject(extraction.product(result.row), result.reason)
                done(len(results))
        extraction.report(folder / REJECTED)
        if extraction.summary.rejected_share <= most_rejected:
            writer.finish()
            features.discard_unfinished()
            extraction.summary.complete = True
    return extraction.summary


def _cell(value: object) -> str:
    """A value for ``rejected.csv``, which people open in a spreadsheet: never a formula.

    The characters are those of OWASP's page on CSV injection.
    """
    text = printable(str(value))
    return f"'{text}" if text.startswith(_FORMULA) else text


class _Extraction:
    """The state of an extraction: the result of each row, and which categories are complete."""

    def __init__(
        self, catalogue: Catalogue, features: PhotoFeatures, writer: FeatureWriter
    ) -> None:
        self.summary = Summary(catalogue.rows.num_rows)
        self._rows = catalogue.rows
        self._features = features
        self._writer = writer
        self._photos = np.zeros(self._rows.num_rows, "S32")
        self._reasons: dict[int, str] = {}
        # The catalogue is sorted by category: each has the rows from one start to the next.
        codes = self._rows["category_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        self._starts = np.flatnonzero(np.diff(codes, prepend=-1, append=-1))
        self._n_pending = np.diff(self._starts)

    def take(self, results: list[Result]) -> list[Result]:
        """Save results and write the categories that they complete; return the rejected ones."""
        self._features.save(
            (result.photo_sha256, result.features)
            for result in results
            if result.features is not None
        )
        rejected = [result for result in results if result.reason]
        extracted = sum(result.features is not None for result in results)
        self.summary.n_stand_ins += sum(one.is_stand_in and not one.reason for one in results)
        self.summary.n_rejected += len(rejected)
        self.summary.n_extracted += extracted
        self.summary.n_known += len(results) - len(rejected) - extracted
        for result in results:
            if result.reason:
                self._reasons[result.row] = result.reason
            else:
                self._photos[result.row] = bytes.fromhex(result.photo_sha256)
            category = int(self._starts.searchsorted(result.row, "right")) - 1
            self._n_pending[category] -= 1
            if self._n_pending[category] == 0:
                self._write(range(*self._starts[category : category + 2].tolist()))
        return rejected

    def product(self, row: int) -> Product:
        """The product in a row."""
        return Product(*(self._rows[name][row].as_py() for name in COLUMNS))

    def report(self, path: Path) -> None:
        """Write the rejected products and the reasons, in the catalogue's order."""
        with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            report = csv.writer(file)
            report.writerow([*COLUMNS, "reason"])
            for row, reason in sorted(self._reasons.items()):
                report.writerow(map(_cell, [*self.product(row), reason]))

    def _write(self, rows: range) -> None:
        """Write the category in `rows`, unless all of its products are rejected."""
        accepted = [row for row in rows if row not in self._reasons]
        if not accepted:
            return
        product_ids = self._rows["product_id"].take(accepted).to_pylist()
        digests = [photo.hex() for photo in self._photos[accepted].view("V32").tolist()]
        category_id = self._rows["category_id"][rows.start].as_py()
        path = self._writer.add_category(
            category_id, product_ids, digests, self._features.pieces(digests)
        )
        self._features.complete(path, digests)
