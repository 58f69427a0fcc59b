"""Attributes in bulk: the current release with whole columns replaced, and everything else linked."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lookalike.errors import LookalikeError
from lookalike.journal import ForgottenError, Journal
from lookalike.release.attributes import MAX_ATTRIBUTES, AttributeTypes, Values
from lookalike.release.columns import Columns
from lookalike.release.ids import Id, category_folder
from lookalike.release.manifest import CategoryEntry, Manifest
from lookalike.release.root import LOCK_WAIT_S, UPDATE_SUFFIX, ReleaseRoot
from lookalike_build.catalogue.moment import as_text
from lookalike_build.indexing.live import ValueChanges, write_with_columns
from lookalike_build.publishing.columns import (
    ARROW_TYPES,
    arrays_of,
    columns_of,
    read_columns,
    same_columns,
    with_values,
)
from lookalike_build.publishing.ids import ItemIds, id_array
from lookalike_build.publishing.staging import Published, Staging, current_manifest


class AttributesError(LookalikeError):
    """The current release cannot be given the attributes; the text says what to do."""


class ProductValues(NamedTuple):
    """Values of products of one category.

    `product_ids` (n,) are integers or text as in the release, each once, in any order. `columns` has
    by attribute an array (n,) of bool, float64 or string, null where the value is missing.
    """

    product_ids: pa.Array
    columns: Mapping[str, pa.Array]


class PublishedAttributes(NamedTuple):
    """The release, and how many of the given products are in no category of it."""

    published: Published
    n_unknown: int


def publish_attributes(
    root: ReleaseRoot,
    types: AttributeTypes,
    values: Mapping[Id, ProductValues],
    dropped: Collection[str] = (),
    as_of: float | None = None,
) -> PublishedAttributes:
    """Publish the current release with the attributes of `types` replaced and those `dropped` removed.

    `values` has, by category id, the products' values of all attributes of `types`. A product without
    values has none of these attributes any more; other attributes stay. What was set live at `as_of`
    (Unix time, seconds), when the values were read from the shop, or later stays too. Where nothing
    differs the current release stays. Raises AttributesError, JournalError, ReleaseError, RootError,
    OSError; the current release then stays.
    """
    with root.lock(LOCK_WAIT_S):
        manifest = _current(root, values)
        live = _set_since(root, manifest, types, as_of)
        known = {**manifest.known_attributes, **types}
        known = {name: one for name, one in known.items() if name not in dropped}
        declared = {
            name: one for name, one in known.items() if name in {*manifest.attributes, *types}
        }
        if len(declared) > MAX_ATTRIBUTES:
            raise AttributesError(
                f"release {manifest.release} would have {len(declared)} attributes, at most "
                f"{MAX_ATTRIBUTES} are possible; drop some of {', '.join(manifest.attributes)}"
            )
        new = _NewColumns(types, known)
        staging = Staging(root, root.updating)
        written, n_unknown = [], 0
        try:
            for entry in manifest.categories:
                category_id = entry.category_id
                base = root.folder(manifest.release) / category_folder(category_id), entry
                before, given = read_columns(*base), values.get(category_id)
                columns, n_lost = new.of(base, before, given, live.get(category_id, {}))
                n_unknown += n_lost
                writer, same = staging.category(category_id), same_columns(columns, before)
                written.append(writer.keep() if same else write_with_columns(columns, writer, base))
            draft = replace(manifest, behaviour=None, attributes=declared)
            published = staging.publish(draft, written, UPDATE_SUFFIX)
        finally:
            staging.discard()
    there = {entry.category_id for entry in manifest.categories}
    n_unknown += sum(len(one.product_ids) for each, one in values.items() if each not in there)
    return PublishedAttributes(published, n_unknown)


class _NewColumns(NamedTuple):
    """Replaces the attributes `replaced`; `known` are all attributes from now on."""

    replaced: AttributeTypes
    known: AttributeTypes

    def of(
        self,
        base: tuple[Path, CategoryEntry],
        before: Columns,
        given: ProductValues | None,
        live: ValueChanges,
    ) -> tuple[Columns, int]:
        """The columns of a published category, and how many of the products given it does not have."""
        if not (before.types or given or live):
            return before, 0
        items = ItemIds.read(*base)
        arrays = {
            name: array for name, array in arrays_of(before).items() if name not in self.replaced
        }
        n_lost = 0
        if given:
            rows = items.rows_of(id_array(_ids(given.product_ids)))
            taken = pa.array(rows, mask=rows < 0)
            for name, one in self.replaced.items():
                arrays[name] = given.columns[name].cast(ARROW_TYPES[one]).take(taken)
            n_lost = len(given.product_ids) - int(np.count_nonzero(rows >= 0))
        columns = columns_of(self.known, arrays, before.n_items)
        rows = items.rows_of(id_array(_ids(pa.array([*live])))) if live else np.empty(0, np.intp)
        each = [*live.values()]
        by_item = {item: each[rows[item]] for item in np.flatnonzero(rows >= 0).tolist()}
        return with_values(columns, before.n_items, by_item, self.known), n_lost


def _current(root: ReleaseRoot, values: Mapping[Id, ProductValues]) -> Manifest:
    """The current release's manifest; AttributesError if it cannot be given these values."""
    manifest = current_manifest(root, "attributes", AttributesError)
    for category_id, each in values.items():
        given = isinstance(category_id, int), pa.types.is_integer(each.product_ids.type)
        if given != tuple(one == "integer" for one in manifest.id_types):
            raise AttributesError(
                f"release {manifest.release} has {manifest.category_id_type} category ids and "
                f"{manifest.product_id_type} product ids, the attributes of category {category_id} are "
                "of others; run this again if another release became current meanwhile"
            )
    return manifest


def _set_since(
    root: ReleaseRoot, manifest: Manifest, types: AttributeTypes, as_of: float | None
) -> Mapping[Id, ValueChanges]:
    """What was set live since of attributes that keep their types, by category and product."""
    if as_of is None or not root.journal.exists():
        return {}
    with closing(Journal(root.journal)) as journal:
        applied = manifest.applied
        if applied and applied.journal == journal.id:  # a follower may have died before it could
            journal.settle(applied.number, manifest.release)
        try:
            since = journal.values_since(as_of)
        except ForgottenError as error:
            raise AttributesError(
                f"the attributes are of {as_text(as_of)}, and of those set live up to "
                f"{as_text(error.until)} the journal knows no more what they were: this would undo "
                "them; export the attributes again"
            ) from None
    kept = {name for name, one in types.items() if manifest.known_attributes.get(name) == one}
    changes: dict[Id, dict[Id, Values]] = defaultdict(dict)
    for (category_id, product_id), values in since.items():
        if named := {name: value for name, value in values.items() if name in kept}:
            changes[category_id][product_id] = named
    return changes


def _ids(product_ids: pa.Array) -> "np.ndarray[tuple[int], np.dtype[np.int64]] | list[str]":
    if pa.types.is_integer(product_ids.type):
        return np.asarray(product_ids, np.int64)
    texts: list[str] = product_ids.to_pylist()
    return texts
