"""A release on disk: every category's index, immutable, vouched for by one manifest.

This module is the only description of the files; the builder writes what it says, the app and the
command line read through it. A release is a folder:

===========================  ====================================================================
``manifest.json``            `Manifest`: the only entry; nothing is opened that it does not list
``<category>/product_ids.npy``  item → product id, ascending, so that it is also the look-up from
                             product id to item: ``<i8``, or ``|S<width>`` UTF-8 (n_items,)
``<category>/neighbours.npy``   ``<u4`` (n_items, k): the exact k nearest items, nearest first,
                             the item itself left out; k is at most n_items - 1
``<category>/distances.npy``    ``<f4`` (n_items, k): their angular distances, 0 to 2
``<category>/index.ann``        Annoy, angular: the vectors as `node_dtype` says, then the trees
===========================  ====================================================================

``<category>`` is the category id, percent-encoded by `category_folder`. Only the builder writes, only
into a folder that no release name points to yet.

Annoy checks nothing of what it maps (github.com/spotify/annoy issues 394 and 423), hence two levels:
`open_release` compares sizes, headers, the digest of each file's ends and the item numbers, in
milliseconds a category; `verify_digests` reads every byte.
"""

import errno
import hashlib
import json
import math
import mmap
import os
import re
import stat
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from annoy import AnnoyIndex

FORMAT: Final = 1
METRIC: Final = "angular"
MANIFEST: Final = "manifest.json"
PRODUCT_IDS: Final = "product_ids.npy"
NEIGHBOURS: Final = "neighbours.npy"
DISTANCES: Final = "distances.npy"
INDEX: Final = "index.ann"
FILES: Final = (PRODUCT_IDS, NEIGHBOURS, DISTANCES, INDEX)

MAX_INTEGER_ID: Final = 2**63 - 1
MAX_STRING_ID_BYTES: Final = 64
MAX_DIMS: Final = 65_536
MAX_ANNOY: Final = 2**31 - 1
ENDS_BYTES: Final = 4096
"""How much of each end of a file its ``ends_sha256`` covers."""

Id = int | str
IdType = Literal["integer", "string"]
Items = npt.NDArray[np.uint32]
Distances = npt.NDArray[np.float32]

_RELEASE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class ReleaseError(Exception):
    """A release that must not be served: `file` (relative to its folder) and `reason`."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason


def is_release_name(name: str) -> bool:
    """Whether `name` is fit for a folder, a URL and an HTTP header: 1 to 100 of A-Z a-z 0-9 . _ -."""
    return _RELEASE_NAME.fullmatch(name) is not None


def id_problem(value: Id) -> str | None:
    """What makes `value` unfit as a product or category id, or None if it is fit."""
    if isinstance(value, int):
        if 0 <= value <= MAX_INTEGER_ID:
            return None
        return f"must be a whole number from 0 to {MAX_INTEGER_ID}, not {value}"
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "must be valid Unicode text"
    if not 1 <= size <= MAX_STRING_ID_BYTES:
        return f"must be 1 to {MAX_STRING_ID_BYTES} bytes of UTF-8, not {size}"
    if _CONTROL.search(value):
        return "must not hold control characters"
    return None


def category_folder(category_id: Id) -> str:
    """The folder name of a category: its id percent-encoded, dots too so that no id is ``..``."""
    return quote(str(category_id), safe="").replace(".", "%2E")


def node_dtype(n_dims: int) -> np.dtype[Any]:
    """Annoy's node for the angular metric; the first n_items nodes of ``index.ann`` are the items.

    Fields: n_descendants (1 for an item), norm (squared length of an item's vector), vector
    (float32, n_dims). From AngularNode in annoylib.h, 1.17.3.
    """
    return np.dtype(
        {
            "names": ["n_descendants", "norm", "vector"],
            "formats": ["<i4", "<f4", ("<f4", (n_dims,))],
            "offsets": [0, 4, 12],
            "itemsize": 12 + 4 * n_dims,
        }
    )


@dataclass(frozen=True)
class Model:
    """The network that made the features: what it is called and the digest of its weights."""

    name: str
    digest: str


@dataclass(frozen=True)
class FileEntry:
    """What the manifest says of one file: its size and SHA-256, of all of it and of its two ends."""

    n_bytes: int
    sha256: str
    ends_sha256: str

    @classmethod
    def of(cls, path: Path) -> "FileEntry":
        """Read `path` through and describe it."""
        return cls(path.stat().st_size, sha256_of(path), ends_sha256_of(path))


@dataclass(frozen=True)
class CategoryEntry:
    """What the manifest says of one category.

    `recall` is the share of the exact k nearest that ``index.ann`` finds with `search_k`, over
    `recall_sample` items; None where there are no neighbours to find.
    """

    category_id: Id
    n_items: int
    k: int
    n_trees: int
    search_k: int
    recall: float | None
    recall_sample: int
    files: Mapping[str, FileEntry]


@dataclass(frozen=True)
class Manifest:
    """``manifest.json``: one JSON object with these fields and ``format`` and ``metric``."""

    release: str
    model: Model
    n_dims: int
    category_id_type: IdType
    product_id_type: IdType
    categories: tuple[CategoryEntry, ...]

    @property
    def n_items(self) -> int:
        """Products over all categories."""
        return sum(entry.n_items for entry in self.categories)

    def to_json(self) -> str:
        """The text of ``manifest.json``."""
        document = {"format": FORMAT, "metric": METRIC, **asdict(self)}
        return json.dumps(document, indent=1, ensure_ascii=False) + "\n"

    def content_digest(self) -> str:
        """SHA-256 of everything but the release's name: equal for equal content."""
        document = {"format": FORMAT, "metric": METRIC, **asdict(self), "release": None}
        return hashlib.sha256(json.dumps(document).encode()).hexdigest()

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read and check ``manifest.json`` of the release in `folder`; ReleaseError if unfit."""
        try:
            _regular_size(folder / MANIFEST, MANIFEST)
            document = json.loads((folder / MANIFEST).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise ReleaseError(MANIFEST, _why(error)) from error
        return _ManifestReader(document).manifest()


class _ManifestReader:
    """Turns the parsed ``manifest.json`` into a `Manifest`, naming the first field that is unfit."""

    def __init__(self, document: object) -> None:
        self.root = document

    def manifest(self) -> Manifest:
        root = self.root
        self.expect(isinstance(root, dict), "is not a JSON object")
        found = self.field(root, "format", int)
        self.expect(found == FORMAT, f"format is {found}, this version reads {FORMAT}")
        metric = self.field(root, "metric", str)
        self.expect(metric == METRIC, f"metric is {metric!r}, this version serves {METRIC!r}")
        release = self.field(root, "release", str)
        self.expect(is_release_name(release), f"release is not a release name: {release!r}")
        n_dims = self.whole(root, "n_dims", 1)
        self.expect(n_dims <= MAX_DIMS, f"n_dims is {n_dims}, expected at most {MAX_DIMS}")
        model = self.field(root, "model", dict)
        categories = tuple(
            self.category(entry, self.field(root, "category_id_type", str))
            for entry in self.field(root, "categories", list)
        )
        folders = {category_folder(entry.category_id) for entry in categories}
        self.expect(len(folders) == len(categories), "a category is listed twice")
        return Manifest(
            release=release,
            model=Model(self.text(model, "name"), self.text(model, "digest")),
            n_dims=n_dims,
            category_id_type=self.id_type(root, "category_id_type"),
            product_id_type=self.id_type(root, "product_id_type"),
            categories=categories,
        )

    def category(self, entry: object, category_id_type: str) -> CategoryEntry:
        id_type = int if category_id_type == "integer" else str
        category_id = self.field(entry, "category_id", id_type)
        self.expect(id_problem(category_id) is None, f"category_id is unfit: {category_id!r}")
        n_items, k = self.whole(entry, "n_items", 1), self.whole(entry, "k", 0)
        fit = 0 < k < n_items or k == n_items - 1
        self.expect(fit, f"category {category_id}: k is {k} of {n_items} items")
        files = self.field(entry, "files", dict)
        self.expect(set(files) == set(FILES), f"category {category_id}: files are not {FILES}")
        return CategoryEntry(
            category_id=category_id,
            n_items=n_items,
            k=k,
            n_trees=self.whole(entry, "n_trees", 1, MAX_ANNOY),
            search_k=self.whole(entry, "search_k", 1, MAX_ANNOY),
            recall=self.recall(entry),
            recall_sample=self.whole(entry, "recall_sample", 0),
            files={name: self.file(files[name]) for name in FILES},
        )

    def recall(self, entry: object) -> float | None:
        if isinstance(entry, dict) and entry.get("recall", "missing") is None:
            return None
        value: float = self.field(entry, "recall", float)
        self.expect(0 <= value <= 1, f"recall is {value}, expected 0 to 1")
        return value

    def file(self, entry: object) -> FileEntry:
        return FileEntry(
            self.whole(entry, "n_bytes", 1),
            self.field(entry, "sha256", str),
            self.field(entry, "ends_sha256", str),
        )

    def field(self, parent: object, name: str, kind: type[Any]) -> Any:
        value = parent.get(name) if isinstance(parent, dict) else None
        fit = isinstance(value, kind) and not isinstance(value, bool)
        self.expect(fit, f"{name} is {value!r:.60}, expected {kind.__name__}")
        return value

    def whole(self, parent: object, name: str, least: int, most: int | None = None) -> int:
        value: int = self.field(parent, name, int)
        self.expect(value >= least, f"{name} is {value}, expected at least {least}")
        self.expect(most is None or value <= most, f"{name} is {value}, expected at most {most}")
        return value

    def text(self, parent: object, name: str) -> str:
        value: str = self.field(parent, name, str)
        self.expect(value.isprintable(), f"{name} is {value!r:.60}, expected printable text")
        return value

    def id_type(self, parent: object, name: str) -> IdType:
        value = self.field(parent, name, str)
        self.expect(value in ("integer", "string"), f"{name} is {value!r}")
        return "integer" if value == "integer" else "string"

    def expect(self, fit: bool, reason: str) -> None:
        if not fit:
            raise ReleaseError(MANIFEST, reason)


class Category:
    """One category's index, memory-mapped and read-only.

    Attributes: `entry`; `product_ids` (n_items,); `neighbours` uint32 (n_items, k); `distances`
    float32 (n_items, k); `index`, the loaded AnnoyIndex.
    """

    __slots__ = ("_integers", "_table", "distances", "entry", "index", "neighbours", "product_ids")

    def __init__(self, folder: Path, entry: CategoryEntry, manifest: Manifest) -> None:
        """Check the category's files against `entry` and map them; ReleaseError if unfit."""
        name = folder.name
        for file in FILES:
            _check_ends(folder / file, f"{name}/{file}", entry.files[file])
        table = (entry.n_items, entry.k)
        self.entry = entry
        self.product_ids = _map_array(folder / PRODUCT_IDS, (entry.n_items,))
        self.neighbours = _map_array(folder / NEIGHBOURS, table, "<u4")
        self.distances = _map_array(folder / DISTANCES, table, "<f4")
        self.index = _load_index(folder / INDEX, entry, manifest.n_dims)
        kind = "i" if manifest.product_id_type == "integer" else "S"
        self._check_product_ids(f"{name}/{PRODUCT_IDS}", kind)
        self._check_neighbours(f"{name}/{NEIGHBOURS}")
        # Memoryviews give plain ints, several times as fast as an ndarray gives its scalars.
        self._integers = memoryview(self.product_ids.data) if kind == "i" else None
        self._table = memoryview(self.neighbours.reshape(-1).data)

    def item_of(self, product_id: Id) -> int | None:
        """The item of a product id, of the release's product id type; None if it is unknown."""
        if self._integers is not None:
            item = bisect_left(self._integers, product_id)
            known = item < len(self._integers) and self._integers[item] == product_id
            return item if known else None
        key = str(product_id).encode()
        # A longer key would make searchsorted copy all ids to the key's width.
        if len(key) > self.product_ids.itemsize:
            return None
        item = int(self.product_ids.searchsorted(key))
        known = item < self.product_ids.size and self.product_ids[item] == key
        return item if known else None

    def integer_table(self) -> "tuple[memoryview[int], memoryview[int], int, int] | None":
        """Product ids, the flat neighbour table, n_items and k; None where ids are strings."""
        if self._integers is None:
            return None
        return self._integers, self._table, self.entry.n_items, self.entry.k

    def nearest(self, item: int, n: int) -> tuple[Items, Distances]:
        """The `n` items nearest to `item`, itself left out, and their distances, nearest first.

        Exact up to the table's k; beyond it Annoy adds what it finds, so there may be fewer than n.
        """
        exact, distances = self.neighbours[item, :n], self.distances[item, :n]
        if n <= self.entry.k or self.entry.k == self.entry.n_items - 1:
            return exact, distances
        # Measured for k; in proportion for more.
        search_k = min(self.entry.search_k * (n + 1) // (self.entry.k + 1), MAX_ANNOY)
        found, found_distances = self.index.get_nns_by_item(
            item, n + 1, search_k=search_k, include_distances=True
        )
        beyond = np.array(found, dtype=np.uint32)
        new = ~np.isin(beyond, exact) & (beyond != item)
        more = np.array(found_distances, dtype=np.float32)[new]
        return (
            np.concatenate([exact, beyond[new]])[:n],
            # Annoy rounds otherwise than the table: keep the list from stepping back by a digit.
            np.concatenate([distances, np.maximum(more, distances[-1:])])[:n],
        )

    def ids(self, items: Items) -> list[Id]:
        """The product ids of `items`, in their order."""
        ids = self.product_ids[items].tolist()
        return ids if self._integers is not None else [text.decode() for text in ids]

    def _check_product_ids(self, file: str, kind: str) -> None:
        ids = self.product_ids
        if ids.dtype.kind != kind or (kind == "i" and ids.dtype != np.dtype("<i8")):
            raise ReleaseError(file, f"holds {ids.dtype.str}, the manifest says otherwise")
        if not np.all(ids[1:] > ids[:-1]):
            raise ReleaseError(file, "product ids are not in ascending order, each once")
        try:
            b"\n".join(ids.tolist() if kind == "S" else []).decode()
        except UnicodeDecodeError as error:
            raise ReleaseError(file, "holds a product id that is not UTF-8") from error

    def _check_neighbours(self, file: str) -> None:
        # This reads the whole table, which also brings its pages into memory before it serves.
        if self.neighbours.size and int(self.neighbours.max()) >= self.entry.n_items:
            raise ReleaseError(file, f"names an item past the last of {self.entry.n_items}")


class Release:
    """An open release: its manifest and its categories by id."""

    def __init__(self, manifest: Manifest, categories: Mapping[Id, Category]) -> None:
        self.manifest = manifest
        self.categories = categories
        self._tables = {
            category_id: table
            for category_id, category in categories.items()
            if isinstance(category_id, int) and (table := category.integer_table())
        }

    def integer_neighbours(self, category_id: int, product_id: int, n: int) -> list[int] | None:
        """The product ids of the `n` nearest, itself left out, straight from the table.

        None where the table cannot tell: ids are strings, one is unknown, or n is beyond k and more
        is to be had.
        """
        table = self._tables.get(category_id)
        if table is None:
            return None
        ids, neighbours, n_items, k = table
        if n > k:
            if k != n_items - 1:
                return None
            n = k
        item = bisect_left(ids, product_id)
        if item == n_items or ids[item] != product_id:
            return None
        return [ids[other] for other in neighbours[item * k : item * k + n]]


def open_release(folder: Path, manifest: Manifest) -> Release:
    """Check the release in `folder` (sizes, headers, ends; not every byte) and map it.

    Raises ReleaseError with the file named. Nothing of it stays open then.
    """
    categories: dict[Id, Category] = {}
    for entry in manifest.categories:
        category = folder / category_folder(entry.category_id)
        categories[entry.category_id] = Category(category, entry, manifest)
    return Release(manifest, categories)


def verify_digests(folder: Path, manifest: Manifest) -> Iterator[CategoryEntry]:
    """Compare every byte of every file with the manifest, yielding each category when it is done.

    Raises ReleaseError with the file named.
    """
    for entry in manifest.categories:
        category = category_folder(entry.category_id)
        for file in FILES:
            _check_ends(folder / category / file, f"{category}/{file}", entry.files[file])
            if sha256_of(folder / category / file) != entry.files[file].sha256:
                raise ReleaseError(f"{category}/{file}", "its SHA-256 is not the manifest's")
        yield entry


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def ends_sha256_of(path: Path) -> str:
    """SHA-256 of a file's first and last `ENDS_BYTES` bytes, as hexadecimal.

    Tells two categories' files of one size apart without reading them.
    """
    with path.open("rb") as file:
        head = file.read(ENDS_BYTES)
        file.seek(max(0, os.fstat(file.fileno()).st_size - ENDS_BYTES))
        return hashlib.sha256(head + file.read(ENDS_BYTES)).hexdigest()


def _check_ends(path: Path, file: str, entry: FileEntry) -> None:
    try:
        size = _regular_size(path, file)
        if size != entry.n_bytes:
            raise ReleaseError(file, f"has {size} bytes, the manifest says {entry.n_bytes}")
        if ends_sha256_of(path) != entry.ends_sha256:
            raise ReleaseError(file, "is not the file the manifest describes (its ends differ)")
    except OSError as error:
        raise ReleaseError(file, _why(error)) from error


def _regular_size(path: Path, file: str) -> int:
    """The size of a regular file, found without opening it: a pipe would block for good."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ReleaseError(file, "is not a regular file")
    return status.st_size


def _map_array(path: Path, shape: tuple[int, ...], dtype: str | None = None) -> npt.NDArray[Any]:
    """Map a ``.npy`` file as a plain ndarray (numpy.memmap costs microseconds at every look-up)."""
    name = f"{path.parent.name}/{path.name}"
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ReleaseError(name, "is not a .npy file of version 1.0")
            found_shape, fortran, found = np.lib.format.read_array_header_1_0(file)
            offset = file.tell()
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ReleaseError:
        raise
    except Exception as error:  # numpy lets tokenize's errors and others out of an unfit header
        raise ReleaseError(name, _why(error)) from error
    wrong_type = found.hasobject if dtype is None else found != np.dtype(dtype)
    if found_shape != shape or fortran or wrong_type:
        reason = f"holds {found.str} {found_shape}, the manifest says {dtype or 'ids'} {shape}"
        raise ReleaseError(name, reason)
    if len(mapped) != offset + found.itemsize * math.prod(shape):
        raise ReleaseError(name, f"has {len(mapped)} bytes, which is not what its header says")
    return np.ndarray(shape, found, buffer=mapped, offset=offset)


def _load_index(path: Path, entry: CategoryEntry, n_dims: int) -> AnnoyIndex:
    name = f"{path.parent.name}/{path.name}"
    _check_nodes(path, name, entry, n_dims)
    index = AnnoyIndex(n_dims, METRIC)
    try:
        index.load(str(path))
    except OSError as error:
        raise ReleaseError(name, _why(error)) from error
    n_roots = _n_roots(entry, n_dims)
    for what, found, expected in (
        ("items", index.get_n_items(), entry.n_items),
        ("roots", index.get_n_trees(), n_roots),
    ):
        if found != expected:
            raise ReleaseError(name, f"has {found} {what}, the manifest says {expected}")
    return index


def _n_roots(entry: CategoryEntry, n_dims: int) -> int:
    """How many trees Annoy reports after a load: it counts from the end what looks like a root.

    A file ends with the trees' roots and a copy of each. Where one leaf holds all items nothing
    stands between the two, and a lone item looks like a root itself.
    """
    if entry.n_items == 1:
        return 2 * entry.n_trees + 1
    return 2 * entry.n_trees - 1 if entry.n_items <= n_dims + 2 else entry.n_trees


def _check_nodes(path: Path, name: str, entry: CategoryEntry, n_dims: int) -> None:
    """Refuse a file of another dimension or metric, which Annoy would load and answer from."""
    dtype = node_dtype(n_dims)
    size = entry.files[INDEX].n_bytes
    if size % dtype.itemsize or size < entry.n_items * dtype.itemsize:
        reason = f"has {size} bytes, not {entry.n_items} items and trees of {n_dims} dimensions"
        raise ReleaseError(name, reason)
    with path.open("rb") as file:
        for item in (0, entry.n_items - 1):
            file.seek(item * dtype.itemsize)
            node = np.frombuffer(file.read(dtype.itemsize), dtype)[0]
            with np.errstate(all="ignore"):
                norm = float(np.dot(node["vector"], node["vector"]))
            is_norm = math.isfinite(norm) and math.isclose(node["norm"], norm, rel_tol=1e-3)
            if node["n_descendants"] != 1 or not is_norm:
                reason = f"item {item} is no vector of {n_dims} dimensions, metric {METRIC}"
                raise ReleaseError(name, reason)


def _why(error: Exception) -> str:
    """One line for what went wrong with a file, without its path."""
    if isinstance(error, OSError):
        if error.errno == errno.ENOENT:
            return "is missing"
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return "too many open files; raise the limit (LimitNOFILE in systemd, ulimit -n)"
        return error.strerror or str(error)
    return f"cannot be read: {error}".splitlines()[0]
