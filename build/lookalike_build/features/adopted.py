"""Features from another system's files, one a category, from which a release can be made.

    category_<id>.ann       an Annoy index; `lookalike_build.features.annoy_file` reads it
    product_ids_<id>.csv    the product id of each of its items, one a line, item 0 first, no header;
                            without such files an item's number is its product id
    features_<id>.csv       product ids with their features; `lookalike_build.features.csv` reads it

A folder holds indexes or feature files, not both. ``<id>`` is the category id, percent-encoded where a
file name requires it. As in a catalogue, category ids are integers if all are whole numbers without
leading zeros, otherwise strings; product ids likewise over all categories.
"""

import csv
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa

from lookalike.release.ids import Id, category_folder, id_problem
from lookalike.release.manifest import Model
from lookalike_build.catalogue.ids import typed_ids
from lookalike_build.catalogue.moment import moment_of
from lookalike_build.features.annoy_file import AnnoyFile
from lookalike_build.features.csv import FeatureCsv, checked_ids, write_feature_csv
from lookalike_build.features.store import Contents, FeatureError, FeatureSource, id_type
from lookalike_build.files.array import scratch_array

UNKNOWN_DIGEST = "unknown"
"""The model's digest: nothing in the files shows which weights made them."""
_INDEX = ("category_", ".ann")
_ID_LIST = ("product_ids_", ".csv")
_FEATURES = ("features_", ".csv")


@dataclass(frozen=True)
class AdoptedFeatures(FeatureSource):
    """The features in a folder of such files; `as_of` is the moment of the oldest file.

    By category, `files` and `product_ids` (int64 or string, in the file's order) hold its products, and
    `without_vector` counts the items of an Annoy index that have no vector and so are no products.
    """

    files: Mapping[Id, AnnoyFile | FeatureCsv]
    product_ids: Mapping[Id, pa.Array]
    without_vector: Mapping[Id, int]

    @classmethod
    def open(cls, folder: Path, n_dims: int, model_name: str) -> "AdoptedFeatures":
        """Read all but the features, of `n_dims` numbers; FeatureError names an invalid file."""
        indexes, feature_files = _named(folder, _INDEX), _named(folder, _FEATURES)
        if bool(indexes) == bool(feature_files):
            raise FeatureError(
                f"{folder} holds {'both' if indexes else 'neither'} category_<id>.ann "
                f"{'and' if indexes else 'nor'} features_<id>.csv files; give a folder with one kind"
            )
        as_of = moment_of((indexes or feature_files).values())
        names = sorted(indexes or feature_files)
        category_ids = typed_ids(pa.array(names, pa.string()))
        files: dict[Id, AnnoyFile | FeatureCsv] = {}
        product_ids, without_vector = {}, {}
        id_lists = _id_lists(folder, indexes)
        for category_id, name in sorted(zip(category_ids.to_pylist(), names, strict=True)):
            if name in indexes:
                files[category_id] = index = AnnoyFile.open(indexes[name], n_dims)
                product_ids[category_id] = _ids_of_items(index, id_lists.get(name))
                without_vector[category_id] = index.n_items - len(index.items)
            else:
                files[category_id] = file = FeatureCsv.open(feature_files[name], n_dims)
                product_ids[category_id] = file.product_ids
        if not all(pa.types.is_integer(ids.type) for ids in product_ids.values()):
            product_ids = {one: ids.cast(pa.string()) for one, ids in product_ids.items()}
        return cls(
            folder,
            Model(model_name, UNKNOWN_DIGEST),
            n_dims,
            (id_type(category_ids.type), id_type(next(iter(product_ids.values())).type)),
            as_of,
            {category_id: len(ids) for category_id, ids in product_ids.items()},
            files,
            product_ids,
            without_vector,
        )

    def _open(self, category_id: Id) -> AbstractContextManager[Contents]:
        file = self.files[category_id]
        return nullcontext((file.path, self.product_ids[category_id].to_pylist(), file.blocks()))


def export(
    source: FeatureSource, folder: Path, done: Callable[[int], object] = lambda _: None
) -> None:
    """Write ``features_<id>.csv`` of every category into `folder`, each whole or not at all.

    `done` is called with how many more products are written. FeatureError if a product is invalid.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for category_id, n_products in source.categories.items():
        features = scratch_array(folder, (n_products, source.n_dims))
        path = folder / category_folder(category_id).join(_FEATURES)
        write_feature_csv(path, source.read(category_id, features))
        done(n_products)


def _named(folder: Path, ends: tuple[str, str]) -> dict[str, Path]:
    """The folder's files with such a name, by the text of the category id in it."""
    start, end = ends
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(start) or not path.name.endswith(end):
            continue
        name = unquote(path.name[len(start) : -len(end)], errors="surrogateescape")
        problem = id_problem(name)
        if problem:
            raise FeatureError(f"{path}: the category id in its name {problem}")
        if name in found:
            raise FeatureError(f"{path}: is of category {name}, and so is {found[name].name}")
        found[name] = path
    return found


def _id_lists(folder: Path, indexes: Mapping[str, Path]) -> dict[str, Path]:
    """The lists of product ids; FeatureError if only some indexes have one."""
    lists = _named(folder, _ID_LIST) if indexes else {}
    unmatched = sorted(lists.keys() ^ indexes.keys()) if lists else []
    if unmatched:
        kinds = ["category_<id>.ann", "product_ids_<id>.csv"]
        has, lacks = kinds if unmatched[0] in indexes else reversed(kinds)
        raise FeatureError(
            f"{folder}: category {unmatched[0]} has a {has} and no {lacks}; each needs both, or none"
            " has product ids of its own"
        )
    return lists


def _ids_of_items(index: AnnoyFile, id_list: Path | None) -> pa.Array:
    """The product ids of the items that have a vector."""
    items = pa.array(index.items, pa.int64())
    if id_list is None:
        return items
    ids = checked_ids(id_list, _only_fields(id_list))
    if len(ids) != index.n_items:
        raise FeatureError(
            f"{id_list}: has {len(ids)} product ids, {index.path.name} has {index.n_items} items"
        )
    return ids.take(items)


def _only_fields(path: Path) -> Iterator[tuple[int, str]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file)
        for fields in rows:
            if len(fields) != 1:
                raise FeatureError(
                    f"{path}: line {rows.line_num}: has {len(fields)} fields, expected one product id"
                )
            yield rows.line_num, fields[0]
