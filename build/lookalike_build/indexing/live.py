"""A category between two releases: read from one, changed, written into the next."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from lookalike.release.arrays import Distances, Features, Items, Positions
from lookalike.release.attributes import TYPES, AttributeTypes, Values
from lookalike.release.category import (
    Identity,
    check_items,
    identity_of,
    ids_of,
    lists_dtype,
)
from lookalike.release.columns import Columns, open_columns
from lookalike.release.files import (
    ADDED,
    BASE_FILES,
    DISTANCES,
    FEATURES,
    LATER_IDS,
    LEFT,
    LENGTHS,
    NEIGHBOURS,
    PRODUCT_IDS,
    PROJECTED,
    PROJECTION,
    ROWS,
    SPARES,
    ReleaseError,
    later_file,
    lists_file,
    reason_of,
)
from lookalike.release.ids import Id, category_folder
from lookalike.release.manifest import CategoryEntry, Manifest
from lookalike.release.memory import map_array
from lookalike.release.root import ReleaseRoot, sync
from lookalike_build.features.store import sort_key
from lookalike_build.indexing.category import IndexSettings, index_features
from lookalike_build.indexing.rows import Comparison, FeatureRows, FeatureStatistics
from lookalike_build.indexing.table import ListEnds, Lists, LiveTable, changed, widths
from lookalike_build.publishing.category import CategoryWriter, Update, Written
from lookalike_build.publishing.columns import (
    differences,
    is_hidden,
    no_columns,
    reordered,
    with_values,
)
from lookalike_build.publishing.ids import Ids, id_array

FeatureChanges = Mapping[Id, Features | None]
"""Products by id and their features (n_dims,), or None for one that is removed."""
ValueChanges = Mapping[Id, Values]
"""Products by id and what their attributes are from now on; those not named stay as they are."""
_NO_VALUES: ValueChanges = MappingProxyType({})


class CategoryChanges(NamedTuple):
    """The `features` of products, and then the `values` of those that are there."""

    features: FeatureChanges
    values: ValueChanges = _NO_VALUES


ChangesByCategory = Mapping[Id, CategoryChanges]
"""Changes by category id."""


class NewCategory(NamedTuple):
    """The products of a category that is indexed anew, with their features, and the columns of these in
    the order of their ids, if any has attributes."""

    products: FeatureChanges
    columns: Columns | None = None

    @classmethod
    def of(cls, changes: CategoryChanges, known: AttributeTypes) -> "NewCategory":
        """Those that `changes` make; `known` are the attributes of the release."""
        products = {
            one: feature for one, feature in changes.features.items() if feature is not None
        }
        numbers = {one: item for item, one in enumerate(sorted(products, key=sort_key))}
        values = {numbers[one]: each for one, each in changes.values.items() if one in numbers}
        return cls(products, with_values(no_columns(0), len(numbers), values, known))


_WORN_SHARE = 0.05
_WORN_ROWS = 4096
_CHANGED_SHARE, _MOST_UPDATES = 0.1, 64
"""Once updates have a larger share of a category's lists, or are more, its table is to be folded."""
_WHOLE_SHARE, _WHOLE_SIZE = 0.25, 2**17
"""An update that changes a larger share of the lists writes all of them, as it does where all of them
have no more neighbours than that, which takes 1 MB."""
_REBUILT_SHARE = 0.2
"""If a larger share of its products is hidden or shown at once, a category is rebuilt."""
_CHUNK = 1024

Checked = Identity
"""Files, by category and name, that have been compared with a manifest."""


@dataclass(frozen=True)
class LiveCategory:
    """The category whose files are those in `folder`, described by `entry`, and what has changed since.

    `table` is its exact table now, `features` what its rows name: those the index is of, and those
    added since, `columns` what attributes its items have, also those that have left. `changed` are the
    items whose lists are others than in the files, None if only columns have changed; `ends` are those
    of all lists, if they are known. From time to time the table is `folded`,
    as each update adds files; and as a search by vector ranks all features that were added, `rebased`
    builds a new index.
    """

    folder: Path
    entry: CategoryEntry
    table: LiveTable
    features: FeatureRows
    columns: Columns
    changed: Positions | None = None
    ends: ListEnds | None = None

    @classmethod
    def read(
        cls, folder: Path, entry: CategoryEntry, checked: Checked | None = None
    ) -> "LiveCategory":
        """Read a published category.

        ReleaseError where a file cannot be read or is not what `entry` says: what is read here is
        written again with a new digest, and damage would look sound. The base's files are linked as
        they are, so a full check finds damage there; of these only the ends are compared. Files that
        are `checked` are trusted, and others join them.
        """
        checked = {} if checked is None else checked
        sound = {file for file in entry.column_files if f"{folder.name}/{file}" in checked}
        for file in entry.file_names():
            name = f"{folder.name}/{file}"
            try:
                (identity,) = identity_of(folder, [file]).values()
            except OSError as error:
                raise ReleaseError(name, reason_of(error)) from error
            if checked.get(name) == identity:
                continue
            sound.discard(file)
            check_published(folder, entry, file)
            if file == SPARES:
                spares = map_array(folder / SPARES, (entry.n_table, entry.n_spare), "<u4")
                check_items(spares, entry.n_table, name)
            checked[name] = identity
        n, k, width = entry.n_table, entry.k, entry.k + entry.n_spare

        def read(file: str, shape: tuple[int, ...], dtype: Any = "<u4") -> Any:
            return map_array(folder / file, shape, dtype)

        table = (
            read(NEIGHBOURS, (n, k)),
            read(SPARES, (n, entry.n_spare)),
            read(DISTANCES, (n, width), "<f4"),
        )
        ids, rows = read(PRODUCT_IDS, (n,), None), read(ROWS, (n,))
        n_dims = _n_dims(folder)
        base = read(FEATURES, (entry.n_base, n_dims), "<f4")
        added = [read(ADDED, (entry.n_added, n_dims), "<f4")]
        lists = [np.empty(0, lists_dtype(width))]
        left = np.empty(0, np.uint32)
        if updates := entry.updates:
            n_rows = entry.n_base + entry.n_added
            ids = np.concatenate([ids, read(LATER_IDS, (updates.n_later,), None)])
            rows = np.concatenate([rows, n_rows + np.arange(updates.n_later, dtype=np.uint32)])
            left = read(LEFT, (updates.n_left,))
            for one in updates.each:
                lists.append(read(lists_file(one.number), (one.n_lists,), lists_dtype(width)))
                added.append(read(later_file(one.number), (one.n_later, n_dims), "<f4"))
        every = np.concatenate(lists)
        places = np.full(ids.size, -1)
        places[every["item"]] = np.arange(every.size)  # of one item's lists, the last one
        has_left = np.zeros(ids.size, np.bool_)
        has_left[left] = True
        columns = open_columns(folder, entry.attributes, ids.size, sound)
        live = LiveTable(
            ids,
            rows,
            has_left,
            is_hidden(columns) & ~has_left,
            table,
            places,
            Lists(every["items"], every["distances"]),
        )
        return cls(folder, entry, live, FeatureRows(base, np.concatenate(added)), columns)

    @classmethod
    def find(
        cls,
        root: ReleaseRoot,
        manifest: Manifest,
        category_id: Id | None,
        checked: Checked | None = None,
    ) -> "LiveCategory | None":
        """Read the category of that id in a published release; None if it has none."""
        for entry in manifest.categories:
            if entry.category_id == category_id:
                folder = root.folder(manifest.release) / category_folder(entry.category_id)
                return cls.read(folder, entry, checked)
        return None

    def is_made_with(self, settings: IndexSettings) -> bool:
        """Whether it was made by this version's method, with `settings`."""
        return f"{self.entry.made_with}, ".startswith(f"{settings.made_with}, ")

    @property
    def base_digest(self) -> str:
        """The SHA-256 of the file of the features that its index is of."""
        return self.entry.files[FEATURES].sha256

    def with_changes(
        self,
        changes: FeatureChanges,
        values: ValueChanges = _NO_VALUES,
        known: AttributeTypes = TYPES,
        statistics: Callable[[], FeatureStatistics] | None = None,
        ends: Callable[[], ListEnds] | None = None,
    ) -> "LiveCategory | NewCategory | None":
        """The category after `changes`: itself where nothing differs, None where no product is left.

        `values` are set of products that are there then; `known` are the attributes of the release. A
        product keeps its values with another feature, and a new one has none but these. Those hidden
        are in no list.

        A category with so few visible products that its lists come to be of another width is to be
        indexed anew. `statistics` and `ends` give those that are known already.
        """
        gone, new, features = self._differences(changes)
        columns = self._columns(gone, new, values, known)
        return self._after(gone, new, features, columns, statistics, ends)

    def with_columns(self, columns: Columns) -> "LiveCategory | NewCategory":
        """The category with other columns of all its items, also those that have left."""
        return self._after([], [], [], columns) or self

    def _after(
        self,
        gone: list[int],
        new: list[Id],
        features: list[Features],
        columns: Columns,
        statistics: Callable[[], FeatureStatistics] | None = None,
        ends: Callable[[], ListEnds] | None = None,
    ) -> "LiveCategory | NewCategory | None":
        there = np.concatenate([~self.table.left, np.ones(len(new), np.bool_)])
        there[gone] = False
        hidden = is_hidden(columns) & there
        if not gone and not new and columns is self.columns:
            return self
        neighbours = IndexSettings.of(self.entry.made_with).neighbours
        if not gone and not new and np.array_equal(hidden, self.table.hidden):
            return replace(self, columns=columns)
        if not there.any():
            return None
        n_visible = int(np.count_nonzero(there & ~hidden))
        if widths(n_visible, neighbours) != (self.table.k, self.table.width):
            stay = np.flatnonzero(there[: self.table.left.size]).astype(np.uint32)
            kept = self.features.of(self.table.rows[stay].astype(np.intp))
            ids = [*ids_of(self.table.ids, stay), *new]
            products = dict(zip(ids, [*kept, *(one[0] for one in features)], strict=True))
            order = np.flatnonzero(there)
            order = order[np.argsort(np.concatenate([self.table.ids, self.ids(new)])[order])]
            return NewCategory(products, reordered(columns, order))
        more = self.features._replace(added=np.concatenate([self.features.added, *features]))
        after = changed(
            self.table,
            np.array(gone, np.intp),
            self.ids(new),
            hidden,
            Comparison(more, (statistics or self.statistics)()),
            (ends or self.table.ends)(),
        )
        return LiveCategory(
            self.folder, self.entry, after.table, more, columns, after.items, after.ends
        )

    def statistics(self) -> FeatureStatistics:
        """Those of the features that its index is of."""
        n_base, n_index_dims = self.entry.n_base, self.entry.n_index_dims
        n_dims = self.features.shape[1]
        return FeatureStatistics.of(
            map_array(self.folder / LENGTHS, (n_base,), "<f8"),
            map_array(self.folder / PROJECTION, (n_dims, n_index_dims), "<f4"),
            map_array(self.folder / PROJECTED, (n_index_dims, n_base), "<f4"),
        )

    def _differences(self, changes: FeatureChanges) -> tuple[list[int], list[Id], list[Features]]:
        """The items that go; the ids that come, ascending, and their features, (1, n_dims) each.

        A product whose feature is another one goes and comes.
        """
        ids = sorted(changes, key=sort_key)
        items, known = self.table.items_of(self.ids(ids))
        gone, new, features = [], [], []
        for product_id, item, is_known in zip(ids, items.tolist(), known, strict=True):
            feature = changes[product_id]
            if is_known:
                if feature is not None and np.array_equal(self._feature(item), feature):
                    continue
                gone.append(item)
            if feature is not None:
                new.append(product_id)
                features.append(feature[None])
        return gone, new, features

    def _columns(
        self, gone: list[int], new: list[Id], values: ValueChanges, known: AttributeTypes
    ) -> Columns:
        """The columns of all items and then of the products that come."""
        n_items, coming = self.table.left.size, set(new)
        items, there = self.table.items_of(self.ids(new))
        by_item: dict[int, Values] = {}
        before = zip(new, items.tolist(), there.tolist(), strict=True)
        for item, (product_id, old, is_known) in enumerate(before, n_items):
            kept = self.columns.values(old) if is_known else {}
            by_item[item] = {**kept, **values.get(product_id, {})}
        others = [one for one in values if one not in coming]
        items, there = self.table.items_of(self.ids(others))
        there &= ~np.isin(items, gone)
        for product_id, item in zip(compress(others, there), items[there].tolist(), strict=True):
            by_item[item] = values[product_id]
        return with_values(self.columns, n_items + len(new), by_item, known)

    def since(self, before: "LiveCategory") -> dict[Id, Features | None]:
        """What has changed since `before`, a state of this category that has the same base.

        A row of it is the same feature in both.
        """
        there = ~self.table.left
        ids, rows = self.table.ids[there], self.table.rows[there]
        old_ids = before.table.ids[~before.table.left]
        items, known = before.table.items_of(ids)
        new = ~(known & (before.table.rows[items] == rows))
        _, stays = self.table.items_of(old_ids)
        gone = ids_of(old_ids, np.flatnonzero(~stays).astype(np.uint32))
        came = ids_of(ids, np.flatnonzero(new).astype(np.uint32))
        features = self.features.of(rows[new].astype(np.intp))
        return dict.fromkeys(gone) | dict(zip(came, features, strict=True))

    def values_since(self, before: "LiveCategory") -> dict[Id, Values]:
        """Which values have been set since `before`; see `since`.

        One that is gone has none any more: if it comes again, it comes without.
        """
        there, were = np.flatnonzero(~self.table.left), np.flatnonzero(~before.table.left)
        ids, old_ids = self.table.ids[there], before.table.ids[were]
        items, known = before.table.items_of(ids)
        values = differences(
            reordered(before.columns, np.where(known, items, -1)), reordered(self.columns, there)
        )
        _, stays = self.table.items_of(old_ids)
        gone = ids_of(old_ids, np.flatnonzero(~stays).astype(np.uint32))
        names = ids_of(ids, np.array([*values], np.uint32))
        return dict.fromkeys(gone, dict.fromkeys(before.columns.types)) | dict(
            zip(names, values.values(), strict=True)
        )

    def feature_of(self, product_id: Id) -> Features | None:
        """A product's feature (n_dims,); None where there is no such product."""
        (item,), (known,) = self.table.items_of(self.ids([product_id]))
        return self._feature(item) if known else None

    def there(self, product_ids: Sequence[Id]) -> frozenset[Id]:
        """Which of the products it has."""
        _, known = self.table.items_of(self.ids(product_ids))
        return frozenset(compress(product_ids, known))

    @property
    def is_worn(self) -> bool:
        """Whether so much has changed that the index is to be rebuilt."""
        n_base = len(self.features.base)
        rows = self.table.rows[~self.table.left]
        gone = n_base - int(np.count_nonzero(rows < n_base))
        n_changed = len(self.features.added) + gone
        return n_changed > min(_WORN_SHARE * n_base, _WORN_ROWS)

    def upkeep(self) -> Callable[[CategoryWriter], Written] | None:
        """What is to be done to it in the background, if anything."""
        if self.is_worn:
            return self.rebased
        n_changed = np.count_nonzero(self.table.places >= 0)
        n_updates = len(self.entry.updates.each) if self.entry.updates else 0
        many = n_changed > _CHANGED_SHARE * self.table.n_items or n_updates >= _MOST_UPDATES
        return self.folded if many and not self._is_written_whole else None

    @property
    def _is_written_whole(self) -> bool:
        """Whether `write` writes all lists, as so many have changed or there are so few."""
        if self.changed is None:
            return False
        n_items = self.table.n_items
        few = n_items * self.table.width <= _WHOLE_SIZE
        return few or self.changed.size > _WHOLE_SHARE * n_items

    def rebased(self, writer: CategoryWriter) -> Written:
        """Write the category with an index of all its features; its table is as it was."""
        table = self.table.folded()
        return self._indexed(writer, (table.items, table.distances))

    def rebuilt(self, writer: CategoryWriter) -> Written:
        """Write the category with an index and a table of all its features."""
        return self._indexed(writer)

    def _indexed(
        self, writer: CategoryWriter, lists: tuple[Items, Distances] | None = None
    ) -> Written:
        order = self.table.order
        rows = self.table.rows[order].astype(np.intp)
        features = writer.begin(order.size, self.features.shape[1])
        for first in range(0, len(features), _CHUNK):
            features[first : first + _CHUNK] = self.features.of(rows[first : first + _CHUNK])
            # Little by little: an update that syncs would wait for all that is not on the disk yet.
            sync(writer.folder / FEATURES)
        writer.add_ids(self.table.ids[order])
        settings = IndexSettings.of(self.entry.made_with)
        columns = reordered(self.columns, order)
        return index_features(features, settings, writer, table=lists, columns=columns)

    def folded(self, writer: CategoryWriter) -> Written:
        """Write the category with a table that has all that updates have changed."""
        columns = reordered(self.columns, self.table.order)
        return writer.add_table(self.table.folded(), self.features.added, columns, self._base)

    def write(self, writer: CategoryWriter) -> Written:
        """Write the category into the next release: what has changed beside what there is."""
        if self.changed is None:
            return writer.add_linked(self.columns, self._base)
        if self._is_written_whole:
            return self.folded(writer)
        lists = np.empty(self.changed.size, lists_dtype(self.table.width))
        lists["item"] = self.changed
        lists["items"], lists["distances"] = self.table.lists(self.changed)
        n_before = self.entry.n_added + (self.entry.updates.n_later if self.entry.updates else 0)
        update = Update(
            self.table.n_items,
            self.table.ids[self.table.n_table :],
            np.flatnonzero(self.table.left).astype(np.uint32),
            self.table.hidden,
            lists,
            self.features.added[n_before:],
        )
        return writer.add_update(update, self.columns, self._base)

    @property
    def _base(self) -> tuple[Path, CategoryEntry]:
        """Where its files are; if products have come or left, it is no more of the features that it was
        made of."""
        n_items = self.table.left.size, self.table.n_items
        if n_items == (self.entry.n_all, self.entry.n_items):
            return self.folder, self.entry
        made_with = IndexSettings.of(self.entry.made_with).made_with
        return self.folder, replace(self.entry, made_with=made_with)

    def _feature(self, item: int) -> Features:
        (feature,) = self.features.of(self.table.rows[[item]].astype(np.intp))
        return np.asarray(feature)

    def ids(self, product_ids: Sequence[Id]) -> Ids:
        """Product ids (n,) as the table has them."""
        if self.table.ids.dtype.kind == "S":
            return id_array([str(one) for one in product_ids])
        return np.array(product_ids, np.int64)


def check_published(folder: Path, entry: CategoryEntry, file: str) -> None:
    """Compare a category's file with its entry; ReleaseError if it differs.

    Of the base's files, ten times as much as all others, only the ends are compared.
    """
    described = entry.files[file]
    check = described.check_ends if file in BASE_FILES else described.check_all
    check(folder / file, f"{folder.name}/{file}")


def _n_dims(folder: Path) -> int:
    name = f"{folder.name}/{FEATURES}"
    try:
        return int(np.load(folder / FEATURES, "r").shape[1])
    except (OSError, ValueError, IndexError) as error:
        raise ReleaseError(name, reason_of(error)) from error


def write_changed(
    after: LiveCategory | NewCategory, settings: IndexSettings, writer: CategoryWriter
) -> Written:
    """Write what `LiveCategory.with_changes` has made; `settings` are for what is indexed anew."""
    if isinstance(after, LiveCategory):
        return after.write(writer)
    return index_new(after, settings, writer)


def write_with_columns(
    columns: Columns, writer: CategoryWriter, base: tuple[Path, CategoryEntry]
) -> Written:
    """Write the category `base`, its folder and entry, with other columns of all its items, also those
    that have left.

    Only if other products are hidden, more than the columns is read.
    """
    folder, entry = base
    settings = IndexSettings.of(entry.made_with)
    hidden = is_hidden(columns) != is_hidden(open_columns(folder, entry.attributes, entry.n_all))
    if not hidden.any():
        return writer.add_linked(columns, base)
    live = LiveCategory.read(folder, entry)
    if np.count_nonzero(hidden) > _REBUILT_SHARE * entry.n_items:
        return replace(live, columns=columns).rebuilt(writer)
    return write_changed(live.with_columns(columns), settings, writer)


def settings_of(entries: Iterable[CategoryEntry]) -> IndexSettings:
    """The settings that entries were indexed with, or the defaults; ReleaseError for another method."""
    for entry in entries:
        return IndexSettings.of(entry.made_with)
    return IndexSettings()


def index_new(new: NewCategory, settings: IndexSettings, writer: CategoryWriter) -> Written:
    """Index a category of products that all have features."""
    ids = sorted(new.products, key=sort_key)
    features = np.stack([np.asarray(new.products[product_id]) for product_id in ids])
    writer.begin(*features.shape)[:] = features
    writer.add_ids([str(one) for one in ids] if isinstance(ids[0], str) else np.array(ids))
    return index_features(features, settings, writer, columns=new.columns)
