"""Extraction: a catalogue's photos through the network into a feature store.

An engine takes photos to features; the rest, here, is the same for all engines. Of a photo whose
features are in the store only the bytes are read. What an engine gives is saved at once, and a category
becomes a file when its last product is done, so a run that is killed goes on where it was.
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
"""With these a cell begins that a spreadsheet calculates, or sends elsewhere."""


class Product(NamedTuple):
    """One row of the catalogue."""

    product_id: Id
    category_id: Id
    image: str


class Result(NamedTuple):
    """What became of the product in one row of the catalogue.

    `photo_sha256` is hexadecimal, empty where `reason` says why the product is rejected. `features`
    (n_dims,) is None where it is rejected, or where the photo's features are known already or come
    with another row.
    """

    row: int
    photo_sha256: str
    features: Features | None
    reason: str


class Reader(Protocol):
    """Reads photos; `lookalike_build.photos.reader.PhotoReader` is the one."""

    def read(self, image: str) -> bytes:
        """The bytes of the photo at `image`, a path or a URL. For many threads.

        PhotoError where the photo is to be rejected, HostError where this machine fails.
        """
        ...


ImageRows = Iterable[tuple[int, str]]
"""Rows of the catalogue and their images."""


class Engine(Protocol):
    """Takes photos to features.

    Gives a result for each of `rows` once, in any order, a list at a time: what is in one is saved
    before the next is asked for. Of photos in `known` it gives no features.
    """

    def __call__(  # noqa: D102
        self, rows: ImageRows, reader: Reader, known: KnownPhotos
    ) -> Generator[list[Result], None, None]: ...


@dataclass(frozen=True)
class PhotoPipeline:
    """From a photo's path or URL to its features (n_dims,) of `model`: `reader`, then `engine`."""

    reader: Reader
    engine: Engine
    model: Model
    n_dims: int


@dataclass
class Outcome:
    """How an extraction went: n_products = n_extracted + n_known + n_rejected.

    `n_known` are products whose photo's features were there: unchanged, or another product's too.
    `complete` says whether the store is now the catalogue's: not where too many were rejected.
    """

    n_products: int
    n_extracted: int = 0
    n_known: int = 0
    n_rejected: int = 0
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
) -> Outcome:
    """Make the store in `folder` that of `catalogue`; the existing one is kept until that is complete.

    Features of the same model that the store has already are reused. A photo that cannot be used is
    listed in ``rejected.csv`` and given to `reject`; the rest goes on. If more than the share
    `most_rejected` are, the existing store is kept: a server may be down for an hour, and its
    products' features must not be lost. `done` hears how many more products are finished. Raises
    FeatureError, and HostError where this machine fails to read or decode. The next run reuses what
    was extracted, however this one ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model, n_dims = photos.model, photos.n_dims
    with closing(PhotoFeatures(folder, model_text(model), n_dims)) as had:
        types = tuple(catalogue.rows.schema.field(name).type for name in COLUMNS[:2])
        writer = FeatureWriter(folder, model, n_dims, (types[0], types[1]), catalogue.as_of)
        extraction = _Extraction(catalogue, had, writer)
        images = catalogue.rows["image"]
        rows = ((row, image.as_py()) for row, image in enumerate(images))
        with closing(photos.engine(rows, photos.reader, had.known)) as given:
            for results in filter(None, given):
                for result in extraction.take(results):
                    reject(extraction.product(result.row), result.reason)
                done(len(results))
        extraction.report(folder / REJECTED)
        if extraction.outcome.rejected_share <= most_rejected:
            writer.finish()
            had.discard_unfinished()
            extraction.outcome.complete = True
    return extraction.outcome


def _cell(value: object) -> str:
    """A value as ``rejected.csv`` has it, which people open in a spreadsheet: never a formula.

    See OWASP's page on CSV injection for the characters.
    """
    text = printable(str(value))
    return f"'{text}" if text.startswith(_FORMULA) else text


class _Extraction:
    """Where an extraction stands: what has become of each row, and which categories are done."""

    def __init__(self, catalogue: Catalogue, had: PhotoFeatures, writer: FeatureWriter) -> None:
        self.outcome = Outcome(catalogue.rows.num_rows)
        self._rows = catalogue.rows
        self._had = had
        self._writer = writer
        self._photos = np.zeros(self._rows.num_rows, "S32")
        self._reasons: dict[int, str] = {}
        # Rows are sorted by category: a category is the rows from one start to the next.
        codes = self._rows["category_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        self._starts = np.flatnonzero(np.diff(codes, prepend=-1, append=-1))
        self._left = np.diff(self._starts)

    def take(self, results: list[Result]) -> list[Result]:
        """Save results and write the categories that they complete; those that are rejected."""
        self._had.save(
            (result.photo_sha256, result.features)
            for result in results
            if result.features is not None
        )
        rejected = [result for result in results if result.reason]
        extracted = sum(result.features is not None for result in results)
        self.outcome.n_rejected += len(rejected)
        self.outcome.n_extracted += extracted
        self.outcome.n_known += len(results) - len(rejected) - extracted
        for result in results:
            if result.reason:
                self._reasons[result.row] = result.reason
            else:
                self._photos[result.row] = bytes.fromhex(result.photo_sha256)
            category = int(self._starts.searchsorted(result.row, "right")) - 1
            self._left[category] -= 1
            if self._left[category] == 0:
                self._write(range(*self._starts[category : category + 2].tolist()))
        return rejected

    def product(self, row: int) -> Product:
        """The product in a row."""
        return Product(*(self._rows[name][row].as_py() for name in COLUMNS))

    def report(self, path: Path) -> None:
        """Write who is rejected and why, in the catalogue's order."""
        with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            report = csv.writer(file)
            report.writerow([*COLUMNS, "reason"])
            for row, reason in sorted(self._reasons.items()):
                report.writerow(map(_cell, [*self.product(row), reason]))

    def _write(self, rows: range) -> None:
        """Write the category in `rows`, unless all of it is rejected."""
        valid = [row for row in rows if row not in self._reasons]
        if not valid:
            return
        product_ids = self._rows["product_id"].take(valid).to_pylist()
        photos = self._photos[valid]
        digests = [photo.hex() for photo in photos.view("V32").tolist()]
        category_id = self._rows["category_id"][rows.start].as_py()
        path = self._writer.add_category(
            category_id, product_ids, digests, self._had.pieces(digests)
        )
        self._had.complete(path, digests)
