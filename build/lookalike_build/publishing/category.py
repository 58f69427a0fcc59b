"""A category of the release being written: its arrays, and the writer of its files."""

import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from annoy import AnnoyIndex

from lookalike.release.arrays import Distances, Features, Flags, Float32, Float64, Items
from lookalike.release.category import count_same_photo
from lookalike.release.columns import Columns
from lookalike.release.files import (
    ADDED,
    BASE_FILES,
    DISTANCES,
    FEATURES,
    FILES,
    ID_FILES,
    INDEX,
    LATER_IDS,
    LEFT,
    LENGTHS,
    NEIGHBOURS,
    PRODUCT_IDS,
    PROJECTED,
    PROJECTION,
    ROWS,
    SAME_PHOTO,
    SPARES,
    FileEntry,
    ReleaseError,
    later_file,
    lists_file,
)
from lookalike.release.ids import Id
from lookalike.release.manifest import CategoryEntry, UpdateEntry, Updates
from lookalike.release.root import named, sync
from lookalike_build.files.array import create_array
from lookalike_build.files.whole import whole_file
from lookalike_build.publishing.columns import write_columns
from lookalike_build.publishing.files import link, link_if_same, write_array
from lookalike_build.publishing.ids import Ids, id_array


class Projected(NamedTuple):
    """`projection` float32 (n_dims, n_index_dims), columns of length 1 at right angles; the `items`
    float32 (n_items, n_index_dims), which are their features, scaled to length 1, times the projection;
    the `lengths` float64 (n_items,) that their features had."""

    projection: Float32
    items: Float32
    lengths: Float64


class NeighbourTable(NamedTuple):
    """`product_ids` (n_items,), ascending; `rows` uint32 (n_items,): the row of an item's feature;
    `items` uint32 and `distances` float32 (n_items, width): its list, then its own number and
    infinite distances.

    Of the width, the first `k` are served. Lists never end before. `hidden` (n_items,) are in none.
    """

    product_ids: Ids
    rows: Items
    items: Items
    distances: Distances
    k: int
    hidden: Flags


class Update(NamedTuple):
    """What has changed in a category of now `n_items`.

    `later_ids` (n_later,) are the product ids of all items beside the table, `left` uint32 (n_left,)
    the items that have left, ascending; `hidden` (n_table + n_later,) says which of the others are in
    no list. With this update came `lists` (n_lists,), of `lists_dtype`, and the `features` (n, n_dims)
    of the last n of the later items.
    """

    n_items: int
    later_ids: Ids
    left: Items
    hidden: Flags
    lists: npt.NDArray[np.void]
    features: Features


class Tuned(NamedTuple):
    """How a category is searched by vector, and the recall measured so; see `CategoryEntry`."""

    n_trees: int
    candidates: int
    search_k: int
    recall: float | None
    recall_sample: int


class Counts(NamedTuple):
    """Of the products of a build and of the release before it: how many are new, have another feature,
    are gone, or are as they were."""

    new: int = 0
    changed: int = 0
    gone: int = 0
    unchanged: int = 0


class Written(NamedTuple):
    """A complete category: whether it was taken over from the current release, or else rebuilt from
    its features, and how many of its products differ, if that was counted. `values_digest` is that of
    the published category whose products' values it has, None if it may have others."""

    entry: CategoryEntry
    unchanged: bool
    rebuilt: bool = False
    counts: Counts = Counts()
    values_digest: str | None = None


def values_digest(source: tuple[Path, CategoryEntry] | None) -> str:
    """What is equal for published categories whose products have the same values."""
    if source is None or not source[1].attributes:
        return ""
    entry = source[1]
    ids = [entry.files[file].sha256 for file in ID_FILES if file in entry.files]
    return ",".join([entry.columns_digest, *ids])


@dataclass(frozen=True)
class CategoryWriter:
    """Writes one category into `folder`; picklable, so that another process may do it.

    `current` is the category in the current release, its folder and entry, if it has that one, and
    `values` the same, of which only the values of products are to be taken over. `note` is where
    `finish` notes that the category is finished.

    Call `begin`, then `add_ids`, then `add_index`; `begin` again starts over. Or call `add_table`,
    `add_update`, `add_linked` or `keep`, which write all of it, but for rules: those come when the
    release is published.
    """

    category_id: Id
    folder: Path
    current: tuple[Path, CategoryEntry] | None
    note: Path | None = None
    values: tuple[Path, CategoryEntry] | None = None

    def finish(self, written: Written) -> Written:
        """Note that the category is finished as `written`, for a builder that goes on after a kill."""
        if self.note:
            self.note.parent.mkdir(exist_ok=True)
            with whole_file(self.note) as part:
                part.write_bytes(msgspec.json.encode(written))
        return written

    def finished(self, made_with: str) -> Written | None:
        """The category that a killed builder had finished here, if it was made so."""
        with suppress(OSError, msgspec.DecodeError, ReleaseError):
            written = msgspec.json.decode(
                self.note.read_bytes() if self.note else b"", type=Written
            )
            for file, described in written.entry.files.items():
                described.check_ends(self.folder / file, file)
            if written.entry.made_with == made_with:
                return written
        return None

    def begin(self, n_items: int, n_dims: int) -> Features:
        """The features (n_items, n_dims), to be filled in, in the file."""
        self._begin()
        return create_array(self.folder / FEATURES, (n_items, n_dims))

    def _begin(self) -> None:
        if self.note and self.note.exists():
            self.note.unlink()
            sync(self.note.parent)
        if self.folder.exists():
            shutil.rmtree(self.folder)  # of a writer that died on the way
        self.folder.mkdir()

    def add_ids(self, product_ids: Ids | list[str]) -> None:
        """Write the items' product ids, ascending."""
        write_array(self.folder / PRODUCT_IDS, id_array(product_ids))

    def add_index(
        self,
        table: tuple[Items, Distances],
        k: int,
        projected: Projected,
        annoy: AnnoyIndex,
        tuned: Tuned,
        made_with: str,
        columns: Columns,
        same_photo: float,
        random_distances: tuple[float, ...],
    ) -> Written:
        """Write the rest: the exact table, of whose width k are served, and `annoy`, the index.

        Items that `columns` hide are in no list of the table. For the others see `CategoryEntry`.
        """
        sync(self.folder / FEATURES)
        n_items, n_dims = len(table[0]), len(projected.projection)
        rows, added = np.arange(n_items, dtype=np.uint32), np.empty((0, n_dims), np.float32)
        self._write_table(*table, k, rows, added, same_photo)
        projection = projected.projection.astype("<f4", copy=False)
        write_array(self.folder / PROJECTION, projection)
        by_axis = np.ascontiguousarray(projected.items.T, "<f4")
        write_array(self.folder / PROJECTED, by_axis)
        write_array(self.folder / LENGTHS, projected.lengths.astype("<f8", copy=False))
        with named(self.folder / INDEX):
            annoy.save(str(self.folder / INDEX))
        sync(self.folder / INDEX)
        files = {file: FileEntry.of(self.folder / file) for file in FILES}
        entry = CategoryEntry(
            category_id=self.category_id,
            n_items=n_items,
            k=k,
            n_spare=table[0].shape[1] - k,
            n_base=n_items,
            n_added=0,
            n_index_dims=projection.shape[1],
            **tuned._asdict(),
            made_with=made_with,
            same_photo=same_photo,
            random_distances=random_distances,
            files=files | write_columns(self.folder, columns),
            n_hidden=columns.hidden.size,
            attributes=columns.types,
        )
        if self.current:
            folder, old = self.current
            link_if_same((folder, old.files), (self.folder, entry.files))
        sync(self.folder)
        return Written(entry, unchanged=False, rebuilt=True)

    def add_table(
        self,
        table: NeighbourTable,
        added: Features,
        columns: Columns,
        base: tuple[Path, CategoryEntry],
    ) -> Written:
        """Write a whole category: the index and its features are those of `base`, its folder and entry.

        `added` (n_added, n_dims) are the features that the table's rows name besides; `columns` are of
        the table's items.
        """
        self._begin()
        self.add_ids(table.product_ids)
        folder, entry = base
        same_photo = entry.same_photo or 0.0
        self._write_table(table.items, table.distances, table.k, table.rows, added, same_photo)
        for file in BASE_FILES:
            link(folder / file, self.folder / file)
        files = {
            file: entry.files[file] if file in BASE_FILES else FileEntry.of(self.folder / file)
            for file in FILES
        }
        files |= write_columns(self.folder, columns)
        sync(self.folder)
        n_items, width = table.items.shape
        counts = {"n_items": n_items, "k": table.k, "n_spare": width - table.k}
        counts |= {"n_hidden": int(table.hidden.sum()), "n_rules": 0}
        entry = replace(entry, **counts, n_added=len(added), updates=None)
        entry = replace(entry, files=files, attributes=columns.types)
        return Written(entry, unchanged=False)

    def add_update(
        self, update: Update, columns: Columns, base: tuple[Path, CategoryEntry]
    ) -> Written:
        """Write a whole category: that of `base`, its folder and entry, an update of it, and the
        columns of now all items."""
        _, entry = base
        self._begin()
        each = entry.updates.each if entry.updates else ()
        number = each[-1].number + 1 if each else 1
        arrays = {
            LATER_IDS: id_array(update.later_ids),
            LEFT: update.left,
            lists_file(number): update.lists,
            later_file(number): update.features.astype("<f4", copy=False),
        }
        for file, array in arrays.items():
            write_array(self.folder / file, array)
        known = {**entry.files, **write_columns(self.folder, columns, base)}
        self._link_but({*arrays, *entry.column_files}, base)
        new = UpdateEntry(number, len(update.lists), len(update.features))
        updates = Updates(entry.n_table, update.left.size, (*each, new))
        n_hidden = int(update.hidden.sum())
        known |= {file: FileEntry.of(self.folder / file) for file in arrays}
        entry = replace(entry, n_items=update.n_items, n_hidden=n_hidden, updates=updates)
        return self._with_columns(entry, columns, known)

    def add_linked(self, columns: Columns, base: tuple[Path, CategoryEntry]) -> Written:
        """Write a whole category: that of `base`, its folder and entry, with these columns.

        They hide the same items.
        """
        self._begin()
        _, entry = base
        known = {**entry.files, **write_columns(self.folder, columns, base)}
        self._link_but(set(entry.column_files), base)
        return self._with_columns(entry, columns, known)

    def _with_columns(
        self, entry: CategoryEntry, columns: Columns, known: Mapping[str, FileEntry]
    ) -> Written:
        entry = replace(entry, attributes=columns.types)
        files = {file: known[file] for file in entry.file_names()}
        return Written(replace(entry, files=files), unchanged=False)

    def replace(self, write: Callable[["CategoryWriter"], Written]) -> Written:
        """Have `write` write the category again; it may read what is here until it is done."""
        new = CategoryWriter(self.category_id, self.folder.with_name(".anew"), None)
        if self.note:
            self.note.unlink(missing_ok=True)
        written = write(new)
        self.remove()
        new.folder.rename(self.folder)
        return written

    def remove(self) -> None:
        """Remove the category: none of its products are left."""
        shutil.rmtree(self.folder)

    def keep(self) -> Written:
        """The current release's category as it is, unread."""
        if self.current is None:
            raise ValueError(f"category {self.category_id} is not in the current release")
        self._begin()
        self._link_but((), self.current)
        return Written(self.current[1], unchanged=True)

    def _link_but(self, others: Collection[str], base: tuple[Path, CategoryEntry]) -> None:
        folder, entry = base
        for file in entry.files:
            if file not in others:
                link(folder / file, self.folder / file)
        sync(self.folder)

    def _write_table(
        self,
        items: Items,
        distances: Distances,
        k: int,
        rows: Items,
        added: Features,
        same_photo: float,
    ) -> None:
        write_array(self.folder / NEIGHBOURS, items[:, :k].astype("<u4", copy=False))
        write_array(self.folder / SPARES, items[:, k:].astype("<u4", copy=False))
        write_array(self.folder / DISTANCES, distances.astype("<f4", copy=False))
        counts = count_same_photo(distances[:, :k], same_photo)
        write_array(self.folder / SAME_PHOTO, counts.astype("<u2", copy=False))
        write_array(self.folder / ROWS, rows.astype("<u4", copy=False))
        write_array(self.folder / ADDED, added.astype("<f4", copy=False))
