"""A category between two releases: read from one, changed, written into the next."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.release.arrays import Features, Items
from lookalike.release.files import (
    ADDED,
    DISTANCES,
    FEATURES,
    NEIGHBOURS,
    PRODUCT_IDS,
    ROWS,
    SPARES,
    ReleaseError,
    reason_of,
)
from lookalike.release.ids import Id, category_folder
from lookalike.release.manifest import CategoryEntry, Manifest
from lookalike.release.root import ReleaseRoot, sync
from lookalike_build.features.store import sort_key
from lookalike_build.indexing.category import IndexSettings, index_features
from lookalike_build.indexing.rows import Comparison, FeatureRows, FeatureStatistics
from lookalike_build.indexing.table import changed
from lookalike_build.publishing.category import CategoryWriter, NeighbourTable, Written
from lookalike_build.publishing.ids import Ids, id_array, positions_of

FeatureChanges = Mapping[Id, Features | None]
"""Products by id and their features (n_dims,), or None for one that is removed."""
ChangesByCategory = Mapping[Id, FeatureChanges]
"""Changes by category id."""

_WORN_SHARE = 0.05
_WORN_ROWS = 4096
_CHUNK = 1024


@dataclass(frozen=True)
class LiveCategory:
    """The category whose index and features are those in `folder`, described by `entry`.

    `table` is its exact table now, `features` what its rows name: those the index is of, and those
    added since. A search by vector ranks all that were added, so from time to time `rebased` builds a
    new index.
    """

    folder: Path
    entry: CategoryEntry
    table: NeighbourTable
    features: FeatureRows

    @classmethod
    def read(cls, folder: Path, entry: CategoryEntry) -> "LiveCategory":
        """Read a published category.

        ReleaseError where a file cannot be read or is not what `entry` says: what is read here is
        written again with a new digest, and damage would look sound. The base's files are linked as
        they are, so a full check finds damage there.
        """

        def read(file: str, how: Any = None) -> Any:
            name = f"{folder.name}/{file}"
            if file != FEATURES:
                entry.files[file].check_all(folder / file, name)
            try:
                return np.load(folder / file, how)
            except (OSError, ValueError) as error:
                raise ReleaseError(name, reason_of(error)) from error

        neighbours, spares = read(NEIGHBOURS), read(SPARES)
        if spares.size and int(spares.max()) >= entry.n_items:
            reason = f"names an item past the last of {entry.n_items}"
            raise ReleaseError(f"{folder.name}/{SPARES}", reason)
        items = np.concatenate([neighbours, spares], axis=1)
        table = NeighbourTable(read(PRODUCT_IDS), read(ROWS), items, read(DISTANCES), entry.k)
        return cls(folder, entry, table, FeatureRows(read(FEATURES, "r"), read(ADDED)))

    @classmethod
    def find(
        cls, root: ReleaseRoot, manifest: Manifest, category_id: Id | None
    ) -> "LiveCategory | None":
        """Read the category of that id in a published release; None if it has none."""
        for entry in manifest.categories:
            if entry.category_id == category_id:
                folder = root.folder(manifest.release) / category_folder(entry.category_id)
                return cls.read(folder, entry)
        return None

    def is_made_with(self, settings: IndexSettings) -> bool:
        """Whether it was made by this version's method, with `settings`."""
        return f"{self.entry.made_with}, ".startswith(f"{settings.made_with}, ")

    @property
    def base_digest(self) -> str:
        """The SHA-256 of the file of the features that its index is of."""
        return self.entry.files[FEATURES].sha256

    def with_changes(
        self, changes: FeatureChanges, statistics: Callable[[], FeatureStatistics]
    ) -> "LiveCategory | None":
        """The category after `changes`: itself where nothing differs, None where no product is left.

        `statistics` gives those of the features that the index is of.
        """
        gone, new, features = self._differences(changes)
        if not new and len(gone) == self.table.rows.size:
            return None
        if not gone and not new:
            return self
        n_rows = self.features.shape[0]
        more = self.features._replace(added=np.concatenate([self.features.added, *features]))
        table = changed(
            self.table,
            np.array(gone, np.intp),
            self.ids(new),
            np.arange(n_rows, n_rows + len(new), dtype=np.uint32),
            Comparison(more, statistics()),
            IndexSettings.of(self.entry.made_with).neighbours,
        )
        return replace(self, table=table, features=more)

    def _differences(self, changes: FeatureChanges) -> tuple[list[int], list[Id], list[Features]]:
        """The items that go; the ids that come, ascending, and their features, (1, n_dims) each.

        A product whose feature is another one goes and comes.
        """
        ids = sorted(changes, key=sort_key)
        items, known = positions_of(self.table.product_ids, self.ids(ids))
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

    def feature_of(self, product_id: Id) -> Features | None:
        """A product's feature (n_dims,); None where there is no such product."""
        (item,), (known,) = positions_of(self.table.product_ids, self.ids([product_id]))
        return self._feature(item) if known else None

    @property
    def is_worn(self) -> bool:
        """Whether so much has changed that the index is to be rebuilt."""
        n_base = len(self.features.base)
        gone = n_base - int(np.count_nonzero(self.table.rows < n_base))
        n_changed = len(self.features.added) + gone
        return n_changed > min(_WORN_SHARE * n_base, _WORN_ROWS)

    def rebased(self, writer: CategoryWriter) -> Written:
        """Write the category with an index of all its features; its table is as it was."""
        features = writer.begin(self.table.rows.size, self.features.shape[1])
        for first in range(0, len(features), _CHUNK):
            items = np.arange(first, min(first + _CHUNK, len(features)))
            features[items] = self.features.of(self.table.rows[items].astype(np.intp))
            # Little by little: an update that syncs would wait for all that is not on the disk yet.
            sync(writer.folder / FEATURES)
        writer.add_ids(self.table.product_ids)
        settings = IndexSettings.of(self.entry.made_with)
        table = self.table.items, self.table.distances
        return index_features(features, settings, writer, table=table)

    def onto(self, rebased: "LiveCategory", rows: Items) -> "LiveCategory":
        """The category as it is, on the index of `rebased`, made when the items' rows were `rows`.

        That index has in its row i the feature that was in row rows[i]; those of products that came
        later follow as added ones. Example: `rows` were [0 3 2]; then the product in row 3 left and
        one in row 4 came, so the rows are [0 2 4] now. The index has rows 0 and 2 in its rows 0 and 2,
        and row 4 comes after its three: the rows become [0 2 3].
        """
        row_in_index = np.full(self.features.shape[0], -1)
        row_in_index[rows] = np.arange(rows.size)
        new_rows = row_in_index[self.table.rows]
        later = np.flatnonzero(new_rows < 0)
        new_rows[later] = rows.size + np.arange(later.size)
        added = self.features.of(self.table.rows[later].astype(np.intp))
        return replace(
            rebased,
            table=self.table._replace(rows=new_rows.astype(np.uint32)),
            features=rebased.features._replace(added=added),
        )

    def write(self, writer: CategoryWriter) -> Written:
        """Write the category into the next release."""
        # It is no more of the features that its base was made of.
        made_with = IndexSettings.of(self.entry.made_with).made_with
        base = self.folder, replace(self.entry, made_with=made_with)
        return writer.add_update(self.table, self.features.added, base)

    def _feature(self, item: int) -> Features:
        (feature,) = self.features.of(self.table.rows[[item]].astype(np.intp))
        return np.asarray(feature)

    def ids(self, product_ids: Sequence[Id]) -> Ids:
        """Product ids (n,) as the table has them."""
        if self.table.product_ids.dtype.kind == "S":
            return id_array([str(one) for one in product_ids])
        return np.array(product_ids, np.int64)


def settings_of(entries: Iterable[CategoryEntry]) -> IndexSettings:
    """The settings that entries were indexed with, or the defaults; ReleaseError for another method."""
    for entry in entries:
        return IndexSettings.of(entry.made_with)
    return IndexSettings()


def index_new(products: FeatureChanges, settings: IndexSettings, writer: CategoryWriter) -> Written:
    """Index a category of products that all have features."""
    ids = sorted(products, key=sort_key)
    features = np.stack([np.asarray(products[product_id]) for product_id in ids])
    writer.begin(*features.shape)[:] = features
    writer.add_ids([str(one) for one in ids] if isinstance(ids[0], str) else np.array(ids))
    return index_features(features, settings, writer)
