"""The feature store: a folder with one Parquet file a category and ``store.json``.

    DIR/store.json                     model, n_dims, the types of the ids and the product count of
                                       each category; written last
    DIR/categories/<category>.parquet  a row a product, in the catalogue's order
    DIR/rejected.csv                   product_id, category_id, image, reason: what could not be
                                       extracted

Columns of a category's file: `product_id`, `category_id` (int64 or string), `photo_sha256` (string,
hexadecimal), `model` (string, ``name digest``) and `features` (fixed_size_list<float32>[n_dims]).
``<category>`` is the category id as `lookalike.release.category_folder` encodes it. A store without
``store.json`` is one whose extraction has not ended.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.manifest import Id, IdType, Model, category_folder

STORE = "store.json"
REJECTED = "rejected.csv"
CATEGORIES = "categories"
FORMAT = 1
_ROW_GROUP = 1024

Features = npt.NDArray[np.float32]


class FeatureError(Exception):
    """A feature store that no release may be made from; the text names file and product."""


@dataclass(frozen=True)
class CategoryFeatures:
    """One category: product ids (n_items,) int64 or str, ascending, and features (n_items, n_dims)."""

    category_id: Id
    product_ids: npt.NDArray[np.int64] | list[str]
    features: Features


class FeatureWriter:
    """Writes a store; a category's rows come together. Use as a context manager, then `finish`."""

    def __init__(
        self, folder: Path, model: Model, n_dims: int, id_types: tuple[pa.DataType, pa.DataType]
    ) -> None:
        product_id_type, category_id_type = id_types
        self._folder = folder
        self._model = model
        self._n_dims = n_dims
        self._schema = pa.schema(
            {
                "product_id": product_id_type,
                "category_id": category_id_type,
                "photo_sha256": pa.string(),
                "model": pa.string(),
                "features": pa.list_(pa.float32(), n_dims),
            }
        )
        self._counts: dict[Id, int] = {}
        self._category: Id | None = None
        self._file: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        # A folder that is ours alone: what is stale in it is removed.
        (folder / CATEGORIES).mkdir(parents=True, exist_ok=True)
        # From here until `finish` the store is not to be indexed.
        (folder / STORE).unlink(missing_ok=True)

    def __enter__(self) -> "FeatureWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._close_file()

    def write(
        self, category_id: Id, product_ids: Sequence[Id], digests: Sequence[str], features: Features
    ) -> None:
        """Append products of one category: features (n, n_dims), the others n long."""
        if category_id != self._category:
            self._next_category(category_id)
        n = len(product_ids)
        columns = {
            "product_id": pa.array(product_ids, self._schema.field("product_id").type),
            "category_id": pa.array([category_id] * n, self._schema.field("category_id").type),
            "photo_sha256": pa.array(digests, pa.string()),
            "model": pa.array([model_text(self._model)] * n, pa.string()),
            "features": pa.FixedSizeListArray.from_arrays(
                pa.array(np.ascontiguousarray(features, np.float32).reshape(-1)), self._n_dims
            ),
        }
        self._waiting.append(pa.table(columns, self._schema))
        self._counts[category_id] += n
        if sum(table.num_rows for table in self._waiting) >= _ROW_GROUP:
            self._write_waiting()

    def finish(self) -> None:
        """Complete the store: categories of an earlier run go, ``store.json`` comes last."""
        self._close_file()
        written = {self._path(category_id) for category_id in self._counts}
        for stale in set((self._folder / CATEGORIES).iterdir()) - written:
            stale.unlink()
        document = {
            "format": FORMAT,
            "model": {"name": self._model.name, "digest": self._model.digest},
            "n_dims": self._n_dims,
            "category_id_type": _id_type(self._schema.field("category_id").type),
            "product_id_type": _id_type(self._schema.field("product_id").type),
            "categories": [
                {"category_id": category_id, "n_products": n}
                for category_id, n in self._counts.items()
            ],
        }
        temporary = self._folder / f".{STORE}"
        temporary.write_text(json.dumps(document, indent=1) + "\n")
        temporary.replace(self._folder / STORE)

    def _next_category(self, category_id: Id) -> None:
        self._close_file()
        self._category = category_id
        self._counts[category_id] = 0
        self._file = pq.ParquetWriter(
            self._temporary(category_id),
            self._schema,
            compression="none",  # features do not compress
            use_dictionary=["category_id", "model"],
            write_statistics=["product_id"],
        )

    def _write_waiting(self) -> None:
        if self._file is not None and self._waiting:
            self._file.write_table(pa.concat_tables(self._waiting), _ROW_GROUP)
        self._waiting = []

    def _close_file(self) -> None:
        if self._file is None or self._category is None:
            return
        self._write_waiting()
        self._file.close()
        self._file = None
        self._temporary(self._category).replace(self._path(self._category))

    def _path(self, category_id: Id) -> Path:
        return _category_path(self._folder, category_id)

    def _temporary(self, category_id: Id) -> Path:
        path = self._path(category_id)
        return path.with_name(f".{path.name}.part")


@dataclass(frozen=True)
class FeatureStore:
    """A complete store.

    `id_types` are those of the category and the product ids; `categories` is category id → number
    of products.
    """

    folder: Path
    model: Model
    n_dims: int
    id_types: tuple[IdType, IdType]
    categories: dict[Id, int]

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
            return cls(
                folder,
                Model(str(document["model"]["name"]), str(document["model"]["digest"])),
                int(document["n_dims"]),
                (document["category_id_type"], document["product_id_type"]),
                {entry["category_id"]: entry["n_products"] for entry in document["categories"]},
            )
        except FileNotFoundError:
            raise FeatureError(
                f"{folder} is no complete feature store (no {STORE}); run `lookalike-build extract`"
                " on it to its end"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise FeatureError(f"{path}: cannot be read: {error!r}") from error

    def read(self, category_id: Id, into: Features | None = None) -> CategoryFeatures:
        """One category, sorted by product id; FeatureError names the product that is unfit.

        `into` is an array (n_items, n_dims) for the features; without it they get one in memory.
        """
        shape = (self.categories[category_id], self.n_dims)
        features = np.empty(shape, np.float32) if into is None else into
        path = _category_path(self.folder, category_id)
        try:
            with pq.ParquetFile(path) as file:
                return self._read(path, file, category_id, features)
        except FileNotFoundError:
            raise FeatureError(f"{path}: is missing, {STORE} lists it") from None
        except pa.ArrowException as error:
            raise FeatureError(f"{path}: cannot be read: {error}".splitlines()[0]) from None

    def _read(
        self, path: Path, file: pq.ParquetFile, category_id: Id, features: Features
    ) -> CategoryFeatures:
        expected = self.categories[category_id]
        if file.metadata.num_rows != expected:
            found = file.metadata.num_rows
            raise FeatureError(f"{path}: has {found} products, {STORE} says {expected}")
        found_type = _id_type(file.schema_arrow.field("product_id").type)
        if found_type != self.id_types[1]:
            raise FeatureError(
                f"{path}: product ids are of type {found_type}, {STORE} says otherwise"
            )
        ids = file.read(["product_id"])["product_id"].to_pylist()
        # Strings in the order of their bytes, as the release keeps them.
        order = sorted(range(len(ids)), key=lambda row: _sort_key(ids[row]))
        ids = [ids[row] for row in order]
        for one, next_one in pairwise(ids):
            if one == next_one:
                raise FeatureError(f"{path}: product {one} is there more than once")
        item_of_row = np.empty(len(ids), np.int64)
        item_of_row[order] = np.arange(len(ids))
        start = 0
        columns = ["product_id", "category_id", "model", "features"]
        for group in range(file.num_row_groups):
            # One at a time: asked for all, pyarrow keeps them until the last.
            for batch in file.iter_batches(_ROW_GROUP, [group], columns):
                rows = item_of_row[start : start + batch.num_rows]
                features[rows] = self._check(path, batch, category_id)
                start += batch.num_rows
        integers = self.id_types[1] == "integer"
        return CategoryFeatures(category_id, np.array(ids, np.int64) if integers else ids, features)

    def _check(self, path: Path, batch: pa.RecordBatch, category_id: Id) -> Features:
        """The batch's features (rows, n_dims) after every check that can name a product."""

        def refuse(unfit: npt.ArrayLike, reason: str) -> None:
            rows = np.flatnonzero(np.asarray(unfit))
            if rows.size:
                product_id = batch.column("product_id")[int(rows[0])].as_py()
                raise FeatureError(f"{path}: product {product_id} {reason}")

        model = model_text(self.model)
        categories, models = (batch.column(name).to_pylist() for name in ("category_id", "model"))
        refuse([value != category_id for value in categories], f"is not of category {category_id}")
        refuse([value != model for value in models], f"is of another model than {model}")
        column = batch.column("features")
        widths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        refuse(
            widths != self.n_dims,
            f"has another number of features than {self.n_dims}",
        )
        values = column.flatten().cast(pa.float32()).to_numpy(zero_copy_only=False)
        features: Features = values.reshape(len(widths), self.n_dims)
        refuse(~np.all(np.isfinite(features), axis=1), "has a NaN or infinite feature")
        refuse(~np.any(features, axis=1), "has features that are all zero")
        # Annoy keeps the squared length in float32.
        with np.errstate(over="ignore", under="ignore"):
            squared = np.einsum("ij,ij->i", features, features)
        tiny = np.finfo(np.float32).tiny
        refuse(~np.isfinite(squared) | (squared < tiny), "has a length that float32 cannot square")
        return features


def _category_path(folder: Path, category_id: Id) -> Path:
    return folder / CATEGORIES / f"{category_folder(category_id)}.parquet"


def model_text(model: Model) -> str:
    """The text of the `model` column."""
    return f"{model.name} {model.digest}"


def _id_type(column: pa.DataType) -> IdType:
    return "integer" if pa.types.is_integer(column) else "string"


def _sort_key(product_id: Id) -> int | bytes:
    return product_id if isinstance(product_id, int) else product_id.encode()
