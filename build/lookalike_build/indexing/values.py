"""Values in a build: its products have those of the current release, when it is published.

When a category is indexed it takes the values that are current then, so that its table is made without
what is hidden. While other categories are built values may be set, so in the end those are replaced
that may have changed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lookalike.release.attributes import AttributeTypes
from lookalike.release.columns import Columns
from lookalike.release.files import ReleaseError, columns_file
from lookalike.release.ids import Id, category_folder
from lookalike.release.manifest import CategoryEntry
from lookalike.release.root import ReleaseRoot, RootError
from lookalike_build.features.store import FeatureSource
from lookalike_build.indexing.live import write_with_columns
from lookalike_build.publishing.category import Written, values_digest
from lookalike_build.publishing.columns import (
    no_columns,
    read_columns,
    reordered,
    same_columns,
)
from lookalike_build.publishing.ids import ItemIds
from lookalike_build.publishing.staging import Staging


class CarriedValues(NamedTuple):
    """The categories with their products' values, the attributes of the release, and of what values
    are left out, and why."""

    written: list[Written]
    attributes: AttributeTypes
    left_out: list[str]


def values_of(source: tuple[Path, CategoryEntry] | None, items: ItemIds) -> Columns:
    """The columns that items have by the values of their products in a published category.

    `source` is its folder and entry. ReleaseError if a file that is needed is damaged.
    """
    if source is None or not source[1].attributes:
        return no_columns(items.ids.size)
    columns, theirs = read_columns(*source), ItemIds.read(*source)
    there = np.flatnonzero(~theirs.left).astype(np.intp)
    rows = items.rows_of(theirs.ids[there])
    return reordered(columns, np.where(rows >= 0, there[rows], -1))


def carry_values(
    store: FeatureSource, root: ReleaseRoot, staging: Staging, written: Sequence[Written]
) -> CarriedValues:
    """The categories `written` of `store` with the values that products have in the current release.

    The root's lock is held. Only a category of which other values or products are current than it was
    written with is read. Raises ReleaseError, OSError.
    """
    sources, attributes, left_out = _sources(store, root)
    carried = []
    for one in written:
        category_id = one.entry.category_id
        source = sources.get(category_id)
        if one.values_digest == values_digest(source):
            carried.append(one)
            continue
        writer = staging.category(category_id)
        items = ItemIds.read(writer.folder, one.entry)
        try:
            columns = values_of(source, items)
        except ReleaseError as error:
            left_out.append(f"category {category_id}: {error}")
            columns = no_columns(items.ids.size)
        if not same_columns(columns, read_columns(writer.folder, one.entry)):
            base = writer.folder, one.entry
            entry = writer.replace(lambda new: write_with_columns(columns, new, base)).entry  # noqa: B023
            one = one._replace(entry=entry, unchanged=False)
        carried.append(one)
    return CarriedValues(carried, attributes, left_out)


_Sources = dict[Id, tuple[Path, CategoryEntry]]


def _sources(store: FeatureSource, root: ReleaseRoot) -> tuple[_Sources, AttributeTypes, list[str]]:
    """The categories of the current release, and its attributes; or why they are left out."""
    name = None
    try:
        name = root.current()
        if name is None:
            return {}, {}, []
        manifest, folder = root.manifest(name), root.folder(name)
    except (ReleaseError, RootError) as error:
        had_any = name and any((root.releases / name).glob(f"*/{columns_file(0)}"))
        return {}, {}, [f"the current release cannot be read: {error}"] if had_any else []
    if manifest.id_types != store.id_types:
        ids = " and ".join(f"{one}s" for one in manifest.id_types)
        reason = (
            f"category and product ids of release {name} are {ids}, those of this store are not"
        )
        return {}, {}, [reason] if manifest.attributes else []
    each = {
        entry.category_id: (folder / category_folder(entry.category_id), entry)
        for entry in manifest.categories
    }
    return each, manifest.attributes, []
