"""One category's index: checks its files, maps them and looks up neighbours."""

import math
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from annoy import AnnoyIndex

from lookalike.release import files
from lookalike.release.arrays import Distances, Flags, Items
from lookalike.release.columns import open_columns
from lookalike.release.files import ReleaseError, reason_of
from lookalike.release.ids import Id, IdType
from lookalike.release.manifest import METRIC, CategoryEntry, Manifest, Updates
from lookalike.release.memory import map_array, read_in
from lookalike.release.rules import Rules, read_rules
from lookalike.release.vectors import (
    NO_ITEM,
    Changed,
    VectorIndex,
    map_projections,
    node_dtype,
)

Identity = dict[str, tuple[int, ...]]

_PIECE = 1024


def identity_of(folder: Path, names: Iterable[str]) -> Identity:
    """By file, what is equal in two folders exactly if it is the same on disk, unchanged.

    One of the two must be kept open: the system could give its inode number to another file otherwise.
    """
    found = ((file, (folder / file).stat()) for file in names)
    return {
        file: (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        for file, status in found
    }


def same_files(
    one: tuple[CategoryEntry, Identity], other: tuple[CategoryEntry, Identity]
) -> set[str]:
    """The files that two categories share: what is known of one's is true of the other's."""
    (entry, identity), (other_entry, other_identity) = one, other
    return {
        file
        for file in identity.keys() & other_identity.keys()
        if identity[file] == other_identity[file] and entry.files[file] == other_entry.files[file]
    }


def slots_of(ids: npt.NDArray[np.int64]) -> "tuple[int, int, memoryview[int]]":
    """`first`, `shift` and `starts` of `IntegerTable` for ids (n,): about one slot for four ids.

    A binary search in all ids of a large category would cost as much as the rest of a look-up.
    """
    first, span = int(ids[0]), int(ids[-1]) - int(ids[0])
    shift = max(0, span.bit_length() - (ids.size // 4).bit_length())
    edges = np.arange((span >> shift) + 2, dtype=np.uint64) << np.uint64(shift)
    starts = np.searchsorted(ids.view(np.uint64), edges + np.uint64(first)).astype(np.uint32)
    return first, shift, memoryview(starts.data)


class Updated(NamedTuple):
    """What updates have changed beside a category's table, whose items are the first n_table.

    `ids` (n,) are the product ids of all items, also of those that came later. `places` is uint32 (n,):
    where an item's list is, in the table if below n_table, else in `neighbours` uint32 (n_lists, k) and
    `distances` float32 (n_lists, k) after it; `NO_ITEM` if the product has left. The place of an item
    whose product came again, as another item, is that one's. `later` has the items of products that
    came later, and `left` (n_left,) are the items that have left.
    """

    ids: npt.NDArray[Any]
    places: Items
    neighbours: Items
    distances: Distances
    later: dict[Id, int]
    left: Items


class IntegerUpdates(NamedTuple):
    """The same for integer ids, in a form that is fast to look up; `neighbours` is flat."""

    places: "memoryview[int]"
    neighbours: "memoryview[int]"
    later: dict[Id, int]


class IntegerTable(NamedTuple):
    """One category with integer ids, in a form that is fast to look up.

    The first n_table of the `ids` are ascending. Slot s is for ids from `first` + (s << `shift`) to the
    next slot's; its items are `starts`[s] up to `starts`[s + 1]. `neighbours` is flat, (n_table * k,).
    """

    ids: "memoryview[int]"
    first: int
    shift: int
    starts: "memoryview[int]"
    neighbours: "memoryview[int]"
    n_table: int
    k: int
    is_all: bool
    updates: IntegerUpdates | None

    @classmethod
    def of(
        cls,
        ids: npt.NDArray[np.int64],
        neighbours: Items,
        is_all: bool = True,
        updated: Updated | None = None,
    ) -> "IntegerTable":
        """The table of ids (n_table,) and neighbours (n_table, k): all there are, if it `is_all`."""
        # A memoryview returns plain ints, several times as fast as an ndarray returns scalars.
        updates = updated and IntegerUpdates(
            memoryview(updated.places.data),
            memoryview(updated.neighbours.reshape(-1).data),
            updated.later,
        )
        return cls(
            memoryview((updated.ids if updated else ids).data),
            *slots_of(ids),
            neighbours=memoryview(neighbours.reshape(-1).data),
            n_table=ids.size,
            k=neighbours.shape[1],
            is_all=is_all,
            updates=updates,
        )

    def neighbours_of(self, product_id: int, n: int) -> list[int] | None:
        """The ids of the `n` products nearest to `product_id`, without itself.

        None if the table cannot answer: the product is unknown, or the category has neighbours beyond
        the table's k and n asks for them.
        """
        ids, first, shift, starts, neighbours, n_table, k, is_all, updates = self
        if n > k:
            if not is_all:
                return None
            n = k
        slot = (product_id - first) >> shift
        item = n_table
        if 0 <= slot < len(starts) - 1:
            item = bisect_left(ids, product_id, starts[slot], starts[slot + 1])
        if item == n_table or ids[item] != product_id:
            if updates is None or product_id not in updates.later:
                return None
            item = updates.later[product_id]
        if updates is not None:
            item = updates.places[item]
            if item == NO_ITEM:
                return None
            if item >= n_table:
                item -= n_table
                neighbours = updates.neighbours
        return [ids[other] for other in neighbours[item * k : item * k + n]]


class Category:
    """One category's index, memory-mapped and read-only.

    Attributes: `entry`; `etag`, the ETag of its answers, of which a slim copy gives others; `identity`,
    by file, see `identity_of`; `product_ids` (n_table,), `neighbours` uint32 (n_table, k) and
    `distances` float32 (n_table, k), its table; `updated`, what has changed beside the table, if
    anything; `columns`, the values of its attributes; `same_photo` uint16, how many of an item's first
    neighbours show its photo, by the place of its list (see `Updated`), None if it is not known;
    `rules`, its pins and bans, None if it has none; `integers`, the table and what has changed, for
    integer ids, None for string ids; `vectors`, the index that is searched by vector, None in a slim
    copy.
    """

    def __init__(
        self,
        folder: Path,
        entry: CategoryEntry,
        manifest: Manifest,
        slim: bool,
        sound: Collection[str] = (),
    ) -> None:
        """Check the files against `entry` and map them; ReleaseError if invalid.

        What is in the files `sound` has been checked already.
        """
        name = folder.name
        names = entry.file_names(slim)
        new = [file for file in names if file not in sound]
        for file in new:
            entry.files[file].check_ends(folder / file, f"{name}/{file}")
            if file in files.HOT_FILES:
                read_in(folder / file)
        self.entry = entry
        self._slim = "-slim" if slim else ""
        self.etag = f'"{entry.digest}{self._slim}"'
        self.identity = identity_of(folder, names)
        self.product_ids = map_array(folder / files.PRODUCT_IDS, (entry.n_table,))
        self.neighbours = map_array(folder / files.NEIGHBOURS, (entry.n_table, entry.k), "<u4")
        distances = map_array(
            folder / files.DISTANCES, (entry.n_table, entry.k + entry.n_spare), "<f4"
        )
        self.distances = distances[:, : entry.k]
        if files.PRODUCT_IDS in new:
            file = f"{name}/{files.PRODUCT_IDS}"
            check_product_ids(self.product_ids, file, manifest.product_id_type)
        # This also reads in and maps the whole table before it serves; NumPy releases the GIL.
        if files.NEIGHBOURS in new:
            check_items(self.neighbours, entry.n_table, f"{name}/{files.NEIGHBOURS}")
        self.updated = None
        if entry.updates:
            self.updated = _open_updates(
                folder, entry, entry.updates, self.product_ids, manifest.product_id_type
            )
        self.columns = open_columns(folder, entry.attributes, entry.n_all, sound)
        hidden = self.columns.hidden
        if self.updated:
            hidden = np.setdiff1d(hidden, self.updated.left)
        if hidden.size != entry.n_hidden:
            reason = f"hides {hidden.size} products, the manifest says {entry.n_hidden}"
            raise ReleaseError(f"{name}/{files.columns_file(0)}", reason)
        self.same_photo = _open_same_photo(folder, entry, self.updated)
        self.rules = _open_rules(folder, entry, manifest.product_id_type)
        self.vectors = None
        if not slim:
            self.vectors = _open_vectors(folder, entry, manifest.n_dims, self.updated, hidden)
            # Only the builder reads them, and it trusts what a published release holds.
            map_array(folder / files.SPARES, (entry.n_table, entry.n_spare), "<u4")
        self.integers = None
        if manifest.product_id_type == "integer":
            is_all = entry.k == entry.most_neighbours
            self.integers = IntegerTable.of(self.product_ids, self.neighbours, is_all, self.updated)

    def etag_of(self, selection: str) -> str:
        """The ETag of answers by a selection of that digest; plain answers have `etag`."""
        return f'"{self.entry.digest}-{self.entry.columns_digest}-{selection}{self._slim}"'

    def hot_arrays(self) -> "list[npt.NDArray[Any]]":
        """What every look-up may read of the table."""
        arrays = [self.product_ids, self.neighbours]
        # With updates it is a copy, not of the file.
        return arrays if self.same_photo is None or self.updated else [*arrays, self.same_photo]

    def item_of(self, product_id: Id) -> int | None:
        """The item of a product id, which must have the release's type; None if it is unknown."""
        if self.updated and (later := self.updated.later.get(product_id)) is not None:
            return later
        if self.integers is not None:
            ids, n_table = self.integers.ids, self.integers.n_table
            at = bisect_left(ids, product_id, 0, n_table)
            item = at if at != n_table and ids[at] == product_id else None
        else:
            item = item_of(self.product_ids, str(product_id))
        if item is not None and self.updated and self.updated.places[item] == NO_ITEM:
            return None
        return item

    def is_beyond(self, n: int) -> bool:
        """Whether `n` neighbours are more than the table holds, and take a search."""
        k = self.entry.k
        return n > k and k != self.entry.most_neighbours and self.vectors is not None

    def nearest(self, item: int, n: int, max_distance: float = math.inf) -> tuple[Items, Distances]:
        """The `n` items nearest to `item`, without itself, and their distances, nearest first.

        None is further away than `max_distance`. The table's k are exact. A search finds the rest,
        perhaps not all of them; a slim copy has only the table.
        """
        exact, distances = self.listed(item, n)
        near = within(exact, distances, max_distance)
        if self.vectors is None or not self.is_beyond(n) or len(near[0]) < len(exact):
            return near
        found, found_distances = self.vectors.search(self.vectors.unit_vector(item), n + 1)
        new = ~np.isin(found, exact) & (found != item)
        return within(
            np.concatenate([exact, found[new]])[:n],
            # Copies of the last exact one may be rounded to less; distances must not decrease.
            np.concatenate([distances, np.maximum(found_distances[new], distances[-1:])])[:n],
            max_distance,
        )

    def listed_items(self, item: int) -> Items:
        """The k items of an item's list in the table."""
        table, row = self._list(item)
        return np.asarray(table.neighbours[row])

    def listed(self, item: int, n: int) -> tuple[Items, Distances]:
        """The first `n` of an item's list in the table, and their distances."""
        table, row = self._list(item)
        return table.neighbours[row, :n], table.distances[row, :n]

    def _list(self, item: int) -> "tuple[Category | Updated, int]":
        """What has an item's list, the table or the updates, and in which row."""
        place = self._place(item)
        if self.updated is not None and place >= self.entry.n_table:
            return self.updated, place - self.entry.n_table
        return self, place

    @cached_property
    def _same_photo_counts(self) -> "memoryview[int]":
        # It returns plain ints, several times as fast as an ndarray returns scalars.
        counts = np.empty(0, np.uint16) if self.same_photo is None else self.same_photo
        return memoryview(counts.data)

    def n_same_photo(self, item: int) -> int:
        """How many of an item's first neighbours in the table show its photo."""
        return self._same_photo_counts[self._place(item)]

    def same_photos(self, item: int, others: Items) -> set[int]:
        """The neighbours in an item's list that show its photo and, of others, those that may not be in
        the list, as all of that do.

        These are compared by their features or, in a slim copy, by the photos that both are like.
        """
        n, k, most = self.n_same_photo(item), self.entry.k, self.entry.same_photo
        near = set(self.listed(item, n)[0].tolist())
        if n < k or k == self.entry.most_neighbours or most is None:
            return near
        others = others[[one not in near for one in others.tolist()]]
        if self.vectors:
            apart = self.vectors.distances(item, others)
            return near | set(others[apart <= np.float32(most)].tolist())
        near.add(item)
        lists = ((one, self.listed(one, self.n_same_photo(one))[0]) for one in others.tolist())
        return near | {one for one, theirs in lists if not near.isdisjoint(theirs.tolist())}

    def visible(self) -> Flags:
        """Which of all items (n_all,) may be in lists: those that have neither left nor are hidden."""
        visible = np.ones(self.entry.n_all, np.bool_)
        visible[self.columns.hidden] = False
        if self.updated:
            visible[self.updated.left] = False
        return visible

    def _place(self, item: int) -> int:
        """Where an item's list is, see `Updated`."""
        return item if self.updated is None else int(self.updated.places[item])

    def ids(self, items: Items) -> list[Id]:
        """The product ids of `items`, in the same order."""
        return ids_of(self.updated.ids if self.updated else self.product_ids, items)

    def items(self) -> Items:
        """All items, in no particular order: of products that have not left."""
        if self.updated is None:
            return np.arange(self.entry.n_table, dtype=np.uint32)
        return np.delete(np.arange(self.updated.ids.size, dtype=np.uint32), self.updated.left)


def within(items: Items, distances: Distances, max_distance: float) -> tuple[Items, Distances]:
    """Those of items, nearest first, that are no further away than `max_distance`, as a float32."""
    n = int(distances.searchsorted(np.float32(max_distance), side="right"))
    return items[:n], distances[:n]


def read_product_ids(
    folder: Path, entry: CategoryEntry, hidden: Items | None = None
) -> npt.NDArray[Any]:
    """The product ids of a category in a release's folder, ascending, but those of the items `hidden`;
    ReleaseError if unreadable."""
    ids = map_array(folder / files.PRODUCT_IDS, (entry.n_table,))
    but = np.empty(0, np.uint32) if hidden is None else hidden
    if entry.updates is None:
        return np.delete(ids, but) if but.size else ids
    later = map_array(folder / files.LATER_IDS, (entry.updates.n_later,))
    left = map_array(folder / files.LEFT, (entry.updates.n_left,), "<u4")
    check_items(left, ids.size + later.size, f"{folder.name}/{files.LEFT}")
    there = np.delete(np.concatenate([ids, later]), np.concatenate([left, but]))
    there.sort()
    return there


def ids_of(product_ids: npt.NDArray[Any], items: Items) -> list[Id]:
    """The product ids of `items`, in the same order, from the ids (n,) of all items."""
    ids: list[Any] = product_ids[items].tolist()
    return ids if product_ids.dtype.kind == "i" else [text.decode() for text in ids]


def item_of(product_ids: npt.NDArray[np.bytes_], product_id: str) -> int | None:
    """The item of `product_id` among ascending ids (n,); None if it is unknown."""
    key = product_id.encode()
    # A longer key would make searchsorted copy all ids to the key's width.
    if len(key) > product_ids.itemsize:
        return None
    item = int(product_ids.searchsorted(key))
    known = item < product_ids.size and product_ids[item] == key
    return item if known else None


def check_product_ids(
    ids: npt.NDArray[Any], file: str, id_type: IdType, ascending: bool = True
) -> None:
    """Check that ids (n,) are ascending and of the type; ReleaseError for `file` if they are not."""
    kind = "i" if id_type == "integer" else "S"
    if ids.dtype.kind != kind or (kind == "i" and ids.dtype != np.dtype("<i8")):
        raise ReleaseError(file, f"holds {ids.dtype.str}, the manifest says otherwise")
    if ascending and not np.all(ids[1:] > ids[:-1]):
        raise ReleaseError(file, "product ids are not in ascending order, each once")
    try:
        # In pieces, so that requests in other threads can run in between.
        for first in range(0, ids.size if kind == "S" else 0, _PIECE):
            b"\n".join(ids[first : first + _PIECE].tolist()).decode()
    except UnicodeDecodeError as error:
        raise ReleaseError(file, "holds a product id that is not UTF-8") from error


def check_items(items: Items, n_items: int, file: str) -> None:
    """Check that all are items of so many; ReleaseError for `file` if they are not."""
    if items.size and int(items.max()) >= n_items:
        raise ReleaseError(file, f"names an item past the last of {n_items}")


def lists_dtype(width: int) -> "np.dtype[Any]":
    """What an update's file of lists has of each: its item, whom it lists, and their distances."""
    return np.dtype([("item", "<u4"), ("items", "<u4", (width,)), ("distances", "<f4", (width,))])


def _open_updates(
    folder: Path,
    entry: CategoryEntry,
    updates: Updates,
    product_ids: npt.NDArray[Any],
    id_type: IdType,
) -> Updated:
    """Read what updates have changed; of one item the newest list counts."""
    n_table, n_all = updates.n_table, updates.n_table + updates.n_later
    later_ids = map_array(folder / files.LATER_IDS, (updates.n_later,))
    check_product_ids(later_ids, f"{folder.name}/{files.LATER_IDS}", id_type, ascending=False)
    ids = np.concatenate([product_ids, later_ids])
    # A copy: a mapping for each category's few would be many.
    left = map_array(folder / files.LEFT, (updates.n_left,), "<u4").copy()
    name = f"{folder.name}/{files.LEFT}"
    check_items(left, n_all, name)
    if not np.all(left[1:] > left[:-1]):
        raise ReleaseError(name, "items are not in ascending order, each once")
    places = np.arange(n_all, dtype=np.uint32)
    places[n_table:] = NO_ITEM
    neighbours = np.empty((updates.n_lists, entry.k), np.uint32)
    distances = np.empty((updates.n_lists, entry.k), np.float32)
    first, n_items = 0, n_table
    for update in updates.each:
        n_items += update.n_later
        file = files.lists_file(update.number)
        lists = map_array(folder / file, (update.n_lists,), lists_dtype(entry.k + entry.n_spare))
        check_items(lists["item"], n_items, f"{folder.name}/{file}")
        check_items(lists["items"], n_items, f"{folder.name}/{file}")
        rows = slice(first, first + update.n_lists)
        neighbours[rows], distances[rows] = (
            lists[of][:, : entry.k] for of in ("items", "distances")
        )
        places[lists["item"]] = np.arange(n_table + rows.start, n_table + rows.stop)
        first = rows.stop
    places[left] = NO_ITEM
    there = np.setdiff1d(np.arange(n_table, n_all), left)
    if np.any(places[there] == NO_ITEM):
        raise ReleaseError(f"{folder.name}/{files.LATER_IDS}", "has a product without a list")
    later = dict(zip(ids_of(ids, there.astype(np.uint32)), there.tolist(), strict=True))
    _send_on(product_ids, later, places)
    return Updated(ids, places, neighbours, distances, later, left)


def _send_on(product_ids: npt.NDArray[Any], later: Mapping[Id, int], places: Items) -> None:
    """Give items of the table whose products came again, as later items, the places of these."""
    if not later:
        return
    given = [one.encode() if isinstance(one, str) else one for one in later]
    again = np.array(given, np.int64 if product_ids.dtype.kind == "i" else np.bytes_)
    items = product_ids.searchsorted(again)
    known = product_ids[np.minimum(items, product_ids.size - 1)] == again
    places[items[known]] = places[np.array(list(later.values()), np.intp)[known]]


def _open_same_photo(
    folder: Path, entry: CategoryEntry, updated: Updated | None
) -> "npt.NDArray[np.uint16] | None":
    """How many neighbours show an item's photo, (n_table + n_lists,); None if it is not known."""
    if entry.same_photo is None:
        return None
    counts = map_array(folder / files.SAME_PHOTO, (entry.n_table,), "<u2")
    if int(counts.max()) > entry.k:
        name = f"{folder.name}/{files.SAME_PHOTO}"
        raise ReleaseError(name, f"counts more neighbours than the {entry.k} there are")
    if updated is None:
        return counts
    later = count_same_photo(updated.distances, entry.same_photo)
    return np.asarray(np.concatenate([counts, later]), np.uint16)


def count_same_photo(distances: Distances, same_photo: float) -> "npt.NDArray[np.uint16]":
    """How many of the distances (n, k), ascending, are no larger: (n,), at most 65,535."""
    counts = np.count_nonzero(distances <= np.float32(same_photo), axis=1)
    return np.asarray(np.minimum(counts, 65_535), np.uint16)


def _open_rules(folder: Path, entry: CategoryEntry, id_type: IdType) -> Rules | None:
    if not entry.n_rules:
        return None
    name = f"{folder.name}/{files.RULES}"
    rules = read_rules(folder / files.RULES, name, id_type)
    if len(rules) != entry.n_rules:
        raise ReleaseError(name, f"has {len(rules)} rules, the manifest says {entry.n_rules}")
    return Rules.of(rules)


def _open_vectors(
    folder: Path, entry: CategoryEntry, n_dims: int, updated: Updated | None, hidden: Items
) -> VectorIndex:
    n_base, n_index_dims = entry.n_base, entry.n_index_dims
    annoy = _load_index(folder / files.INDEX, entry)
    if entry.is_old:
        lengths, projected = None, map_projections(folder / files.INDEX, n_base, n_index_dims)
    else:
        lengths = map_array(folder / files.LENGTHS, (n_base,), "<f8")
        projected = map_array(folder / files.PROJECTED, (n_index_dims, n_base), "<f4")
    return VectorIndex(
        map_array(folder / files.FEATURES, (n_base, n_dims), "<f4"),
        lengths,
        map_array(folder / files.PROJECTION, (n_dims, n_index_dims), "<f4"),
        annoy if entry.search_k < n_base else projected,
        entry.candidates,
        entry.search_k,
        entry.k,
        _open_changed(folder, entry, n_dims, updated, hidden),
        projected,
    )


def _open_changed(
    folder: Path, entry: CategoryEntry, n_dims: int, updated: Updated | None, hidden: Items
) -> Changed | None:
    """What has changed since the index was built; None if nothing has. No search finds the `hidden`."""
    name = f"{folder.name}/{files.ROWS}"
    n_rows = entry.n_base + entry.n_added
    rows = map_array(folder / files.ROWS, (entry.n_table,), "<u4")
    added = [map_array(folder / files.ADDED, (entry.n_added, n_dims), "<f4")]
    if int(rows.max()) >= n_rows:
        raise ReleaseError(name, f"names a row past the last of {n_rows}")
    left = np.empty(0, np.uint32)
    if entry.updates and updated:
        later = np.arange(n_rows, n_rows + entry.updates.n_later, dtype=np.uint32)
        rows, left = np.concatenate([rows, later]), updated.left
        # Few, until the table is rewritten: a copy, so that they need not be looked for.
        features = [
            map_array(folder / files.later_file(update.number), (update.n_later, n_dims), "<f4")
            for update in entry.updates.each
        ]
        added.append(np.concatenate(features))
    unfound = np.union1d(left, hidden).astype(np.uint32)
    changed = Changed.of(rows, unfound, entry.n_base, *added)
    items = np.arange(rows.size, dtype=np.uint32)
    items[unfound] = NO_ITEM
    if not np.array_equal(changed.items[rows], items):
        raise ReleaseError(name, "names a row twice")
    unchanged = entry.updates is None and entry.n_added == 0 and np.array_equal(rows, items)
    return None if unchanged and entry.n_items == entry.n_base else changed


def _load_index(path: Path, entry: CategoryEntry) -> AnnoyIndex:
    name = f"{path.parent.name}/{path.name}"
    _check_nodes(path, name, entry)
    index = AnnoyIndex(entry.n_index_dims, METRIC)
    try:
        index.load(str(path))
    except OSError as error:
        raise ReleaseError(name, reason_of(error)) from error
    n_roots = _n_roots(entry)
    for what, found, expected in (
        ("items", index.get_n_items(), entry.n_base),
        ("roots", index.get_n_trees(), n_roots),
    ):
        if found != expected:
            raise ReleaseError(name, f"has {found} {what}, the manifest says {expected}")
    return index


def _n_roots(entry: CategoryEntry) -> int:
    """How many trees Annoy reports after a load: it counts what looks like a root, from the end.

    A file ends with the trees' roots and a copy of each. If one leaf holds all items, nothing separates
    the two. A single item looks like a root itself.
    """
    if entry.n_base == 1:
        return 2 * entry.n_trees + 1
    return 2 * entry.n_trees - 1 if entry.n_base <= entry.n_index_dims + 2 else entry.n_trees


def _check_nodes(path: Path, name: str, entry: CategoryEntry) -> None:
    """Refuse a file of another dimension or metric: Annoy would load it and answer from it."""
    n_dims = entry.n_index_dims
    dtype = node_dtype(n_dims)
    size = entry.files[files.INDEX].n_bytes
    if size % dtype.itemsize or size < entry.n_base * dtype.itemsize:
        reason = f"has {size} bytes, not {entry.n_base} items and trees of {n_dims} dimensions"
        raise ReleaseError(name, reason)
    with path.open("rb") as file:
        for item in (0, entry.n_base - 1):
            file.seek(item * dtype.itemsize)
            node = np.frombuffer(file.read(dtype.itemsize), dtype)[0]
            with np.errstate(all="ignore"):
                norm = float(np.dot(node["vector"], node["vector"]))
            is_norm = math.isfinite(norm) and math.isclose(node["norm"], norm, rel_tol=1e-3)
            if node["n_descendants"] != 1 or not is_norm:
                reason = f"item {item} is no vector of {n_dims} dimensions, metric {METRIC}"
                raise ReleaseError(name, reason)
