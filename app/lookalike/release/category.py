"""One category's index: checks its files, maps them and looks up neighbours."""

import math
from bisect import bisect_left
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from annoy import AnnoyIndex

from lookalike.release import files
from lookalike.release.arrays import Distances, Items
from lookalike.release.files import ReleaseError, reason_of
from lookalike.release.ids import Id, IdType
from lookalike.release.manifest import METRIC, CategoryEntry, Manifest
from lookalike.release.memory import map_bytes, read_in
from lookalike.release.vectors import Changed, VectorIndex, map_projections, node_dtype

Identity = tuple[tuple[int, ...], ...]

_PIECE = 1024


def identity_of(folder: Path, names: tuple[str, ...]) -> Identity:
    """Equal for two folders exactly if the files of these names are the same on disk, unchanged.

    One of the two must be kept open: the system could give its inode number to another file otherwise.
    """
    found = ((folder / file).stat() for file in names)
    return tuple((at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns) for at in found)


def slots_of(ids: npt.NDArray[np.int64]) -> "tuple[int, int, memoryview[int]]":
    """`first`, `shift` and `starts` of `IntegerTable` for ids (n,): about one slot for four ids.

    A binary search in all ids of a large category would cost as much as the rest of a look-up.
    """
    first, span = int(ids[0]), int(ids[-1]) - int(ids[0])
    shift = max(0, span.bit_length() - (ids.size // 4).bit_length())
    edges = np.arange((span >> shift) + 2, dtype=np.uint64) << np.uint64(shift)
    starts = np.searchsorted(ids.view(np.uint64), edges + np.uint64(first)).astype(np.uint32)
    return first, shift, memoryview(starts.data)


class IntegerTable(NamedTuple):
    """One category with integer ids, in a form that is fast to look up.

    `ids` (n_items,) are ascending. Slot s is for ids from `first` + (s << `shift`) to the next slot's;
    its items are `starts`[s] up to `starts`[s + 1]. `neighbours` is flat, (n_items * k,).
    """

    ids: "memoryview[int]"
    first: int
    shift: int
    starts: "memoryview[int]"
    neighbours: "memoryview[int]"
    n_items: int
    k: int

    @classmethod
    def of(cls, ids: npt.NDArray[np.int64], neighbours: Items) -> "IntegerTable":
        """The table of ids (n_items,) and neighbours (n_items, k)."""
        # A memoryview returns plain ints, several times as fast as an ndarray returns scalars.
        flat = memoryview(neighbours.reshape(-1).data)
        return cls(memoryview(ids.data), *slots_of(ids), flat, *neighbours.shape)

    def neighbours_of(self, product_id: int, n: int) -> list[int] | None:
        """The ids of the `n` products nearest to `product_id`, without itself.

        None if the table cannot answer: the product is unknown, or the category has neighbours beyond
        the table's k and n asks for them.
        """
        ids, first, shift, starts, neighbours, n_items, k = self
        if n > k:
            if k != n_items - 1:
                return None
            n = k
        slot = (product_id - first) >> shift
        if not 0 <= slot < len(starts) - 1:
            return None
        item = bisect_left(ids, product_id, starts[slot], starts[slot + 1])
        if item == n_items or ids[item] != product_id:
            return None
        return [ids[other] for other in neighbours[item * k : item * k + n]]


class Category:
    """One category's index, memory-mapped and read-only.

    Attributes: `entry`; `etag`, the ETag of its answers, of which a slim copy gives others; `identity`,
    see `identity_of`; `product_ids` (n_items,); `neighbours` uint32 (n_items, k); `distances` float32
    (n_items, k); `integers`, the same table for integer ids, None for string ids; `vectors`, the index
    that is searched by vector, None in a slim copy.
    """

    def __init__(
        self, folder: Path, entry: CategoryEntry, manifest: Manifest, names: tuple[str, ...]
    ) -> None:
        """Check the files of these names against `entry` and map them; ReleaseError if invalid."""
        name = folder.name
        for file in names:
            entry.files[file].check_ends(folder / file, f"{name}/{file}")
        for file in files.HOT_FILES:
            read_in(folder / file)
        table = (entry.n_items, entry.k)
        self.entry = entry
        self.etag = f'"{entry.digest}{"" if files.INDEX in names else "-slim"}"'
        self.identity = identity_of(folder, names)
        self.product_ids = map_array(folder / files.PRODUCT_IDS, (entry.n_items,))
        self.neighbours = map_array(folder / files.NEIGHBOURS, table, "<u4")
        distances = map_array(
            folder / files.DISTANCES, (entry.n_items, entry.k + entry.n_spare), "<f4"
        )
        self.distances = distances[:, : entry.k]
        self.vectors = None
        if files.INDEX in names:
            self.vectors = _open_vectors(folder, entry, manifest.n_dims)
            # Only the builder reads them, and it trusts what a published release holds.
            map_array(folder / files.SPARES, (entry.n_items, entry.n_spare), "<u4")
        check_product_ids(self.product_ids, f"{name}/{files.PRODUCT_IDS}", manifest.product_id_type)
        # This also reads in and maps the whole table before it serves; NumPy releases the GIL.
        if self.neighbours.size and int(self.neighbours.max()) >= entry.n_items:
            reason = f"names an item past the last of {entry.n_items}"
            raise ReleaseError(f"{name}/{files.NEIGHBOURS}", reason)
        integers = manifest.product_id_type == "integer"
        self.integers = IntegerTable.of(self.product_ids, self.neighbours) if integers else None

    def item_of(self, product_id: Id) -> int | None:
        """The item of a product id, which must have the release's type; None if it is unknown."""
        if self.integers is not None:
            ids = self.integers.ids
            item = bisect_left(ids, product_id)
            known = item < len(ids) and ids[item] == product_id
            return item if known else None
        return item_of(self.product_ids, str(product_id))

    def is_beyond(self, n: int) -> bool:
        """Whether `n` neighbours are more than the table holds, and take a search."""
        k = self.entry.k
        return n > k and k != self.entry.n_items - 1 and self.vectors is not None

    def nearest(self, item: int, n: int) -> tuple[Items, Distances]:
        """The `n` items nearest to `item`, without itself, and their distances, nearest first.

        The table's k are exact. A search finds the rest, perhaps not all of them; a slim copy has only
        the table.
        """
        exact, distances = self.neighbours[item, :n], self.distances[item, :n]
        if self.vectors is None or not self.is_beyond(n):
            return exact, distances
        found, found_distances = self.vectors.search(self.vectors.unit_vector(item), n + 1)
        new = ~np.isin(found, exact) & (found != item)
        return (
            np.concatenate([exact, found[new]])[:n],
            # Copies of the last exact one may be rounded to less; distances must not decrease.
            np.concatenate([distances, np.maximum(found_distances[new], distances[-1:])])[:n],
        )

    def ids(self, items: Items) -> list[Id]:
        """The product ids of `items`, in the same order."""
        return ids_of(self.product_ids, items)


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


def check_product_ids(ids: npt.NDArray[Any], file: str, id_type: IdType) -> None:
    """Check that ids (n,) are ascending and of the type; ReleaseError for `file` if they are not."""
    kind = "i" if id_type == "integer" else "S"
    if ids.dtype.kind != kind or (kind == "i" and ids.dtype != np.dtype("<i8")):
        raise ReleaseError(file, f"holds {ids.dtype.str}, the manifest says otherwise")
    if not np.all(ids[1:] > ids[:-1]):
        raise ReleaseError(file, "product ids are not in ascending order, each once")
    try:
        # In pieces, so that requests in other threads can run in between.
        for first in range(0, ids.size if kind == "S" else 0, _PIECE):
            b"\n".join(ids[first : first + _PIECE].tolist()).decode()
    except UnicodeDecodeError as error:
        raise ReleaseError(file, "holds a product id that is not UTF-8") from error


def map_array(path: Path, shape: tuple[int, ...], dtype: str | None = None) -> npt.NDArray[Any]:
    """Map a ``.npy`` file as a plain ndarray (numpy.memmap costs microseconds at every look-up)."""
    name = f"{path.parent.name}/{path.name}"
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ReleaseError(name, "is not a .npy file of version 1.0")
            found_shape, fortran, found = np.lib.format.read_array_header_1_0(file)
            offset = file.tell()
            mapped = map_bytes(file.fileno())
    except ReleaseError:
        raise
    except Exception as error:  # NumPy raises tokenize's errors, too, for an invalid header
        raise ReleaseError(name, reason_of(error)) from error
    wrong_type = found.hasobject if dtype is None else found != np.dtype(dtype)
    if found_shape != shape or fortran or wrong_type:
        reason = f"holds {found.str} {found_shape}, the manifest says {dtype or 'ids'} {shape}"
        raise ReleaseError(name, reason)
    if len(mapped) != offset + found.itemsize * math.prod(shape):
        raise ReleaseError(name, f"has {len(mapped)} bytes, which is not what its header says")
    return np.ndarray(shape, found, buffer=mapped, offset=offset)


def _open_vectors(folder: Path, entry: CategoryEntry, n_dims: int) -> VectorIndex:
    n_index_dims = entry.n_index_dims
    annoy = _load_index(folder / files.INDEX, entry)
    return VectorIndex(
        map_array(folder / files.FEATURES, (entry.n_base, n_dims), "<f4"),
        map_array(folder / files.PROJECTION, (n_dims, n_index_dims), "<f4"),
        annoy
        if entry.search_k < entry.n_base
        else map_projections(folder / files.INDEX, entry.n_base, n_index_dims),
        entry.candidates,
        entry.search_k,
        entry.k,
        _open_changed(folder, entry, n_dims),
    )


def _open_changed(folder: Path, entry: CategoryEntry, n_dims: int) -> Changed | None:
    """What has changed since the index was built; None if nothing has."""
    name = f"{folder.name}/{files.ROWS}"
    rows = map_array(folder / files.ROWS, (entry.n_items,), "<u4")
    added = map_array(folder / files.ADDED, (entry.n_added, n_dims), "<f4")
    if int(rows.max()) >= entry.n_base + entry.n_added:
        raise ReleaseError(name, f"names a row past the last of {entry.n_base + entry.n_added}")
    changed = Changed.of(rows, added, entry.n_base)
    items = np.arange(entry.n_items)
    if not np.array_equal(changed.items[rows], items):
        raise ReleaseError(name, "names a row twice")
    unchanged = entry.n_added == 0 and np.array_equal(rows, items)
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
