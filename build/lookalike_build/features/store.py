"""The feature store: a folder with one Parquet file a category and ``store.json``.

    DIR/store.json                     model, n_dims, the catalogue's moment, the types of the ids
                                       and, for each category, its id, n_products and file; written last
    DIR/categories/<file>              a row a product, in the catalogue's order
    DIR/rejected.csv                   product_id, category_id, image, reason of rejected products;
                                       for people: no cell is a formula
    DIR/unfinished.sqlite              features of an extraction that has not finished
    DIR/photos/                        photos from URLs, see `lookalike_build.photos.cache`

Columns of a category's file: `product_id`, `category_id` (int64 or string), `photo_sha256` (string,
hexadecimal), `model` (string, ``name digest``) and `features` (fixed_size_list<float32>[n_dims]).
If ``store.json`` names no file for a category, it is ``<category>.parquet``, with the id encoded as by
`lookalike.release.ids.category_folder`.

A file's name contains a hash of its content. So a new store grows beside the existing one, shares the
files of unchanged categories with it and replaces it in one step.
"""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.errors import LookalikeError
from lookalike.release.arrays import Features
from lookalike.release.ids import Id, IdType, category_folder
from lookalike.release.manifest import Model
from lookalike_build.files.whole import whole_file

STORE = "store.json"
REJECTED = "rejected.csv"
CATEGORIES = "categories"
PHOTOS = "photos"
FORMAT = 1
ROW_GROUP = 1024
"""Rows that are written and read together."""
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{16})\.parquet$")


class FeatureError(LookalikeError):
    """Features that no release can be made from; the text names file and product."""


@dataclass(frozen=True)
class CategoryFeatures:
    """One category: product ids (n_items,) int64 or str, ascending, and features (n_items, n_dims)."""

    category_id: Id
    product_ids: npt.NDArray[np.int64] | list[str]
    features: Features


Contents = tuple[Path, Sequence[Id], Iterable[Features]]
"""Where a category's features come from, its product ids in the order there, and blocks of features."""


@dataclass(frozen=True)
class FeatureSource(ABC):
    """Features from which a release is made; `folder` is where they come from, for messages.

    `id_types` are those of the category and the product ids; `as_of` is the catalogue's moment, see
    `catalogue.moment`; `categories` is category id → number of products.
    """

    folder: Path
    model: Model
    n_dims: int
    id_types: tuple[IdType, IdType]
    as_of: float | None
    categories: Mapping[Id, int]

    @abstractmethod
    def _open(self, category_id: Id) -> AbstractContextManager[Contents]:
        """Open a category to be read; FeatureError, also while it is read, if that fails."""

    def digest_of(self, category_id: Id) -> str | None:
        """A word for the category's products and their features; None where reading them all is the
        only way to tell them from others."""
        return None

    def ids_of(self, category_id: Id) -> pa.Array:
        """The product ids of a category, int64 or string, in any order; FeatureError as `read`."""
        with self._open(category_id) as (_, ids, _):
            return pa.array(ids)

    def read(self, category_id: Id, into: Features | None = None) -> CategoryFeatures:
        """One category, sorted by product id, its features in `into` (n_items, n_dims) if given.

        FeatureError names the first invalid product.
        """
        shape = (self.categories[category_id], self.n_dims)
        features = np.empty(shape, np.float32) if into is None else into
        with self._open(category_id) as (path, ids, blocks):
            product_ids, item_of_row = _ascending(path, ids, self.id_types[1])
            for rows, block in _checked(path, ids, blocks):
                features[item_of_row[rows]] = block
        return CategoryFeatures(category_id, product_ids, features)

    def blocks(self, category_id: Id) -> Iterator[tuple[Sequence[Id], Features]]:
        """One category little by little: product ids and their features (n, n_dims), in any order.

        FeatureError as `read`.
        """
        with self._open(category_id) as (path, ids, blocks):
            _ascending(path, ids, self.id_types[1])
            for rows, block in _checked(path, ids, blocks):
                yield ids[rows], block


class FeatureWriter:
    """Writes a store category by category; `finish` replaces the existing store.

    `id_types` are those of the product and the category ids; `as_of` is the catalogue's moment, see
    `catalogue.moment`.
    """

    def __init__(
        self,
        folder: Path,
        model: Model,
        n_dims: int,
        id_types: tuple[pa.DataType, pa.DataType],
        as_of: float | None,
    ) -> None:
        product_id_type, category_id_type = id_types
        self._folder = folder
        self._model = model_text(model)
        self._schema = pa.schema(
            {
                "product_id": product_id_type,
                "category_id": category_id_type,
                "photo_sha256": pa.string(),
                "model": pa.string(),
                "features": pa.list_(pa.float32(), n_dims),
            }
        )
        self._entries: list[dict[str, Id]] = []
        self._store = {
            "format": FORMAT,
            "model": {"name": model.name, "digest": model.digest},
            "n_dims": n_dims,
            "as_of": as_of,
            "category_id_type": id_type(category_id_type),
            "product_id_type": id_type(product_id_type),
            "categories": self._entries,
        }
        # A folder for this store alone: `finish` removes all other files.
        (folder / CATEGORIES).mkdir(parents=True, exist_ok=True)

    def add_category(
        self,
        category_id: Id,
        product_ids: Sequence[Id],
        digests: Sequence[str],
        features: Iterable[Features],
    ) -> Path:
        """Write a category to the disk; return its file.

        `digests` are the photos' SHA-256; `features` yields pieces (n, n_dims) in the products' order.
        It is not read if a file of the same model, products and photos exists.
        """
        file = self._file_name(category_id, product_ids, digests)
        path = self._folder / CATEGORIES / file
        if not path.exists():
            with whole_file(path) as part:
                self._write(part, category_id, product_ids, digests, features)
        entry = {"category_id": category_id, "n_products": len(product_ids), "file": file}
        self._entries.append(entry)
        return path

    def finish(self) -> None:
        """Replace the existing store and remove the files that only it had."""
        self._entries.sort(key=lambda entry: sort_key(entry["category_id"]))
        with whole_file(self._folder / STORE) as part:
            part.write_text(json.dumps(self._store, indent=1) + "\n", encoding="utf-8")
        written = {entry["file"] for entry in self._entries}
        for path in (self._folder / CATEGORIES).iterdir():
            if path.name not in written:
                path.unlink()

    def _file_name(self, category_id: Id, product_ids: Sequence[Id], digests: Sequence[str]) -> str:
        content = hashlib.sha256(f"{self._model}\n{self._schema}\n".encode())
        for product_id, digest in zip(product_ids, digests, strict=True):
            content.update(f"{product_id}\n{digest}\n".encode())
        return f"{category_folder(category_id)}-{content.hexdigest()[:16]}.parquet"

    def _write(
        self,
        path: Path,
        category_id: Id,
        product_ids: Sequence[Id],
        digests: Sequence[str],
        features: Iterable[Features],
    ) -> None:
        first = 0
        with pq.ParquetWriter(
            path,
            self._schema,
            compression="none",  # features do not compress
            use_dictionary=["category_id", "model"],
            write_statistics=["product_id"],
            write_page_checksum=True,
        ) as file:
            for piece in features:
                n = len(piece)
                columns = [
                    product_ids[first : first + n],
                    [category_id] * n,
                    digests[first : first + n],
                    [self._model] * n,
                    pa.FixedSizeListArray.from_arrays(
                        pa.array(np.ascontiguousarray(piece, np.float32).reshape(-1)),
                        type=self._schema.field("features").type,
                    ),
                ]
                file.write_table(pa.table(columns, self._schema), ROW_GROUP)
                first += n
        if first != len(product_ids):
            raise ValueError(f"features of {first} products, expected {len(product_ids)}")


@dataclass(frozen=True)
class FeatureStore(FeatureSource):
    """A complete store; `files` is category id → file name."""

    files: Mapping[Id, str]

    @classmethod
    def open(cls, folder: Path) -> "FeatureStore":
        """Read ``store.json``; FeatureError if the store is missing, unfinished or unreadable."""
        path = folder / STORE
        try:
            document = json.loads(path.read_bytes())
            if document["format"] != FORMAT:
                raise FeatureError(
                    f"{path}: format {document['format']}, this version reads {FORMAT}"
                )
            entries = document["categories"]
            return cls(
                folder,
                Model(str(document["model"]["name"]), str(document["model"]["digest"])),
                int(document["n_dims"]),
                (document["category_id_type"], document["product_id_type"]),
                None if (as_of := document.get("as_of")) is None else float(as_of),
                {entry["category_id"]: entry["n_products"] for entry in entries},
                {entry["category_id"]: _file_of(entry) for entry in entries},
            )
        except FileNotFoundError:
            raise FeatureError(
                f"{folder} is no complete feature store (no {STORE}); run `lookalike-build extract`"
                " on it to its end"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise FeatureError(f"{path}: cannot be read: {error!r}") from error

    def digest_of(self, category_id: Id) -> str | None:
        """The hash in the name of the category's file, of its model, products and photos."""
        named = _HASH_IN_NAME.search(self.files[category_id])
        return named and named[1]

    def path(self, category_id: Id) -> Path:
        """The file of a category."""
        return self.folder / CATEGORIES / self.files[category_id]

    @contextmanager
    def _open(self, category_id: Id) -> Iterator[Contents]:
        path = self.path(category_id)
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                self._check_file(path, file, self.categories[category_id])
                ids = file.read(["product_id"])["product_id"].to_pylist()
                yield path, ids, self._blocks(path, file, category_id)
        except FileNotFoundError:
            raise FeatureError(f"{path}: is missing, {STORE} lists it") from None
        except (pa.ArrowException, OSError) as error:
            raise FeatureError(f"{path}: cannot be read: {error}".splitlines()[0]) from None

    def _check_file(self, path: Path, file: pq.ParquetFile, expected: int) -> None:
        found = file.metadata.num_rows
        if found != expected:
            raise FeatureError(f"{path}: has {found} products, {STORE} says {expected}")
        found_type = id_type(file.schema_arrow.field("product_id").type)
        if found_type != self.id_types[1]:
            raise FeatureError(
                f"{path}: product ids are of type {found_type}, {STORE} says otherwise"
            )

    def _blocks(self, path: Path, file: pq.ParquetFile, category_id: Id) -> Iterator[Features]:
        columns = ["product_id", "category_id", "model", "features"]
        for group in range(file.num_row_groups):
            # One at a time: otherwise pyarrow keeps all groups in memory until the last.
            for batch in file.iter_batches(ROW_GROUP, [group], columns):
                self._check(path, batch, category_id)
                yield column_features(batch.column("features"), self.n_dims)

    def _check(self, path: Path, batch: pa.RecordBatch, category_id: Id) -> None:
        """FeatureError names the first product of another category, model or width."""
        product_ids = batch.column("product_id").to_pylist()
        model = model_text(self.model)
        categories, models = (batch.column(name).to_pylist() for name in ("category_id", "model"))
        widths = pc.list_value_length(batch.column("features")).fill_null(0).to_numpy()
        for invalid, reason in (
            ([value != category_id for value in categories], f"is not of category {category_id}"),
            ([value != model for value in models], f"is of another model than {model}"),
            (widths != self.n_dims, f"has another number of features than {self.n_dims}"),
        ):
            _refuse(path, product_ids, invalid, reason)


def _ascending(
    path: Path, product_ids: Sequence[Id], id_type: IdType
) -> tuple[npt.NDArray[np.int64] | list[str], npt.NDArray[np.int64]]:
    """Product ids in a release's order, and the item (position in it) of each given id.

    FeatureError, naming `path`, if an id occurs more than once.
    """
    given = pa.array(product_ids)
    order = pc.sort_indices(given)  # text by its UTF-8 bytes
    ids = given.take(order)
    repeated = ids[1:].filter(pc.equal(ids[1:], ids[:-1]))
    if len(repeated):
        raise FeatureError(f"{path}: product {repeated[0]} is there more than once")
    item_of_row = np.empty(len(ids), np.int64)
    item_of_row[order] = np.arange(len(ids))
    return ids.to_numpy() if id_type == "integer" else ids.to_pylist(), item_of_row


def _checked(
    path: Path, product_ids: Sequence[Id], blocks: Iterable[Features]
) -> Iterator[tuple[slice, Features]]:
    """The blocks of the products' features, each with its rows; FeatureError if one is invalid."""
    first = 0
    for block in blocks:
        rows = slice(first, first + len(block))
        first = rows.stop
        if first > len(product_ids):
            break
        _refuse_invalid(path, product_ids[rows], block)
        yield rows, block
    if first != len(product_ids):
        raise FeatureError(f"{path}: was changed while it was read")


def _refuse_invalid(path: Path, product_ids: Sequence[Id], features: Features) -> None:
    """Raise FeatureError for the first product whose features (n, n_dims) no release may hold."""
    # Annoy keeps the squared length in float32.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squared = np.einsum("ij,ij->i", features, features)
    invalid = ~(np.isfinite(squared) & (squared >= np.finfo(np.float32).tiny))
    if not invalid.any():
        return
    not_finite = ~np.all(np.isfinite(features), axis=1)
    _refuse(path, product_ids, not_finite, "has a NaN or infinite feature")
    _refuse(path, product_ids, ~np.any(features, axis=1), "has features that are all zero")
    _refuse(path, product_ids, invalid, "has a length that float32 cannot square")


def _refuse(path: Path, product_ids: Sequence[Id], invalid: npt.ArrayLike, reason: str) -> None:
    rows = np.flatnonzero(np.asarray(invalid))
    if rows.size:
        raise FeatureError(f"{path}: product {product_ids[rows[0]]} {reason}")


def _file_of(entry: Mapping[str, Id]) -> str:
    """A category's file name; never a path, so that nothing outside the store is read."""
    file = str(entry.get("file", f"{category_folder(entry['category_id'])}.parquet"))
    if Path(file).name != file:
        raise ValueError(f"file {file!r} is not the name of a file in {CATEGORIES}/")
    return file


def column_features(column: pa.Array, n_dims: int) -> Features:
    """The features (n, n_dims) in a column of lists, all n_dims long."""
    values = column.flatten().cast(pa.float32()).to_numpy(zero_copy_only=False)
    features: Features = values.reshape(len(column), n_dims)
    return features


def model_text(model: Model) -> str:
    """The text of the `model` column."""
    return f"{model.name} {model.digest}"


def id_type(column: pa.DataType) -> IdType:
    """The type of the ids in a column."""
    return "integer" if pa.types.is_integer(column) else "string"


def sort_key(product_id: Id) -> int | bytes:
    """The key that orders ids: integers by value, strings by their UTF-8 bytes, as in a release."""
    return product_id if isinstance(product_id, int) else product_id.encode()
