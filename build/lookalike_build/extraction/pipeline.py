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
import numpy.typing as npt

from lookalike.release.arrays import Features
from lookalike.release.ids import Id
from lookalike.release.manifest import Model
from lookalike.terminal.output import printable
from lookalike_build.catalogue.reader import COLUMNS, Catalogue
from lookalike_build.extraction.known_photos import KnownPhotos
from lookalike_build.extraction.photo_features import PhotoFeatures
from lookalike_build.extraction.unfinished import Unfinished
from lookalike_build.features.store import REJECTED, FeatureWriter, model_text
from lookalike_build.files.whole import whole_file

MAX_SAME_PHOTO = 20
"""More products of a category than this with one and the same photo have a "no photo" picture."""

_FORMULA = tuple("=+-@＝＋－＠")
"""A cell that begins with one of these is a formula to a spreadsheet: OWASP's page on CSV injection."""


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


ImageRows = Iterable[tuple[int, str]]
"""Rows of the catalogue and their images."""


Engine = Callable[[ImageRows, Reader, KnownPhotos], Generator[list[Result]]]
"""Turns photos into features: yields one result for each row, in any order, in lists.

Each list is saved before the next one is asked for. Known photos get no features.
"""


@dataclass(frozen=True)
class PhotoPipeline:
    """Turns a photo's path or URL into features (n_dims,) of `model`: `reader`, then `engine`."""

    reader: Reader
    engine: Engine
    model: Model
    n_dims: int


class Sharing(NamedTuple):
    """How many products have the photo of another of their category, and the most that share one.

    `product` is one of those, the first in the catalogue.
    """

    n_products: int
    most: int
    product: Product


@dataclass
class Summary:
    """What an extraction did: n_products = n_extracted + n_known + n_rejected.

    `n_known` products have a photo whose features existed: it is unchanged, or other products have it
    too. `n_stand_ins` of both have a cached photo, as their origin does not give one now; `sharing` is
    about both, None if no two share a photo. `complete` is False if too many were rejected, so that the
    existing store was kept.
    """

    n_products: int
    n_extracted: int = 0
    n_known: int = 0
    n_rejected: int = 0
    n_stand_ins: int = 0
    sharing: Sharing | None = None
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
    max_same_photo: int = MAX_SAME_PHOTO,
    done: Callable[[int], object] = lambda _: None,
    reject: Callable[[Product, str], object] = lambda *_: None,
) -> Summary:
    """Write the store of `catalogue` in `folder`; the existing store is kept until it is complete.

    Features of the same model that the store has are reused. Unusable photos are listed in
    ``rejected.csv`` and given to `reject`; extraction continues. If more than the share `most_rejected`
    (0 to 1) are rejected, the existing store is kept: a server may be down for an hour, and its
    products should not lose their features. More products of a category than `max_same_photo` with one
    photo are rejected: they would be each other's neighbours, at distance 0. `done` is called with how
    many more products are finished.

    Raises FeatureError, and HostError if this machine fails to read or decode. However it ends, the
    next run finds what was extracted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model, n_dims = photos.model, photos.n_dims
    text = model_text(model)
    with closing(Unfinished(folder, text)) as unfinished:
        features = PhotoFeatures(folder, unfinished, text, n_dims)
        types = tuple(catalogue.rows.schema.field(name).type for name in COLUMNS[:2])
        writer = FeatureWriter(folder, model, n_dims, (types[0], types[1]), catalogue.as_of)
        extraction = _Extraction(catalogue, features, writer, max_same_photo)
        rows = ((row, image.as_py()) for row, image in enumerate(catalogue.rows["image"]))
        with closing(photos.engine(rows, photos.reader, features.known)) as batches:
            for results in filter(None, batches):
                for result in extraction.take(results):
                    reject(extraction.product(result.row), result.reason)
                done(len(results))
        extraction.report(folder / REJECTED)
        summary = extraction.summary()
        if summary.rejected_share <= most_rejected:
            writer.finish()
            unfinished.discard()
            summary.complete = True
    return summary


def _cell(value: object) -> str:
    """A value for ``rejected.csv``, which people open in a spreadsheet: never a formula."""
    text = printable(str(value))
    return f"'{text}" if text.startswith(_FORMULA) else text


class _Extraction:
    """The state of an extraction: the result of each row, and which categories are complete."""

    def __init__(
        self,
        catalogue: Catalogue,
        features: PhotoFeatures,
        writer: FeatureWriter,
        max_same_photo: int,
    ) -> None:
        self._rows = catalogue.rows
        self._features = features
        self._writer = writer
        self._max_same_photo = max_same_photo
        self._photos = np.zeros(self._rows.num_rows, "S32")
        self._extracted = np.zeros(self._rows.num_rows, bool)
        self._stand_ins: set[int] = set()
        self._reasons: dict[int, str] = {}
        self._n_sharing = 0
        self._most_shared = 0, 0  # how many share one photo, and the first of their rows, negative
        # The catalogue is sorted by category: each has the rows from one start to the next.
        codes = self._rows["category_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        self._starts = np.flatnonzero(np.diff(codes, prepend=-1, append=-1))
        self._n_pending = np.diff(self._starts)

    def take(self, results: list[Result]) -> list[Result]:
        """Save results and write the categories that they complete; return all rejected with them."""
        self._features.unfinished.save(
            (result.photo_sha256, result.features)
            for result in results
            if result.features is not None
        )
        rejected = [result for result in results if result.reason]
        for result in results:
            if result.reason:
                self._reasons[result.row] = result.reason
            else:
                self._photos[result.row] = bytes.fromhex(result.photo_sha256)
                self._extracted[result.row] = result.features is not None
                if result.is_stand_in:
                    self._stand_ins.add(result.row)
            category = int(self._starts.searchsorted(result.row, "right")) - 1
            self._n_pending[category] -= 1
            if self._n_pending[category] == 0:
                rejected += self._write(range(*self._starts[category : category + 2].tolist()))
        return rejected

    def summary(self) -> Summary:
        """What was done, once all rows have their result."""
        accepted = np.ones(self._rows.num_rows, bool)
        accepted[list(self._reasons)] = False
        n_accepted = int(accepted.sum())
        most, first = self._most_shared
        n_extracted = int(self._extracted[accepted].sum())
        return Summary(
            len(accepted),
            n_extracted,
            n_accepted - n_extracted,
            len(accepted) - n_accepted,
            len(self._stand_ins - self._reasons.keys()),
            Sharing(self._n_sharing, most, self.product(-first)) if self._n_sharing else None,
        )

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

    def _write(self, rows: range) -> list[Result]:
        """Write the category in `rows`; return those rejected for the photo that they share.

        Nothing is written if all of its products are rejected.
        """
        readable = np.array([row for row in rows if row not in self._reasons], np.intp)
        rejected = self._reject_shared(readable)
        accepted = [row for row in readable.tolist() if row not in self._reasons]
        if not accepted:
            return rejected
        product_ids = self._rows["product_id"].take(accepted).to_pylist()
        digests = [photo.hex() for photo in self._photos[accepted].view("V32").tolist()]
        category_id = self._rows["category_id"][rows.start].as_py()
        path = self._writer.add_category(
            category_id, product_ids, digests, self._features.pieces(digests)
        )
        self._features.complete(path, digests)
        return rejected

    def _reject_shared(self, rows: npt.NDArray[np.intp]) -> list[Result]:
        """Reject those of a category's products in `rows` that have one photo and are too many."""
        _, photo, n_products = np.unique(
            self._photos[rows], return_inverse=True, return_counts=True
        )
        n_sharing = n_products[photo]
        kept = n_sharing * ((n_sharing > 1) & (n_sharing <= self._max_same_photo))
        if np.any(kept):
            self._n_sharing += int(np.count_nonzero(kept))
            most = int(kept.max()), -int(rows[kept.argmax()])
            self._most_shared = max(self._most_shared, most)
        rejected = [
            Result(
                row,
                "",
                None,
                f"{n} products of its category have this photo, more than --max-same-photo "
                f'{self._max_same_photo}: a "no photo" picture? give each its own',
            )
            for row, n in zip(rows.tolist(), n_sharing.tolist(), strict=True)
            if n > self._max_same_photo
        ]
        self._reasons |= {result.row: result.reason for result in rejected}
        return rejected
