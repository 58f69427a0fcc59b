"""Reads the vectors of an Annoy index of angular metric from its file, without Annoy.

The file is an array of nodes: the items by number, then the trees, then copies of the trees' roots. A
node has an int32 `n_descendants`, eight bytes for the norm or two children, and a vector.
`n_descendants` is 1 for an item, 0 for a number without an item, and for a root the count of all
numbers, with and without items. The numbers of a vector are

    float32                 as Annoy writes them from Python, Go and others
    float64                 as mruby-annoy and others that use an Annoy from before 2020 write them
    float64, aligned to 8   as annoy.rb and others that use a later Annoy write them

From annoylib.h in github.com/spotify/annoy, d016892 (which mruby-annoy uses) and 1.17.3. Nothing in
the file names its layout; it is the one by which the nodes fit together.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.release.arrays import Features
from lookalike.release.manifest import MAX_DIMS
from lookalike.release.root import named
from lookalike_build.features.store import FeatureError

_ANGULAR = (("<f8", 12), ("<f8", 16), ("<f4", 12))
"""The type of the numbers, and the vector's offset in a node."""
_OTHER_METRICS = (("<f8", 20), ("<f8", 24), ("<f4", 16))
_BLOCK_BYTES = 2**23
_SOME = 64
_FEW, _MOST = 0.5, 0.9
_USUAL = (1e-12, 1e12)


@dataclass(frozen=True)
class AnnoyFile:
    """A checked file of `n_items` numbers; `items` are those of items that have a vector.

    `dtype` describes a node, with the fields `n_descendants` and `vector`.
    """

    path: Path
    dtype: np.dtype[Any]
    n_items: int
    items: npt.NDArray[np.int64]

    @classmethod
    def open(cls, path: Path, n_dims: int) -> "AnnoyFile":
        """Detect the file's layout; FeatureError if it is no index of `n_dims` dimensions."""
        for numbers, start in _ANGULAR:
            dtype = _node(n_dims, numbers, start)
            has_vector = _has_vector(path, dtype)
            if has_vector is not None:
                return cls(path, dtype, has_vector.size, np.flatnonzero(has_vector))
        raise FeatureError(f"{path}: {_what_is_wrong(path, n_dims)}")

    def blocks(self) -> Iterator[Features]:
        """The vectors of `items` in their order, in blocks (n, n_dims) of float32."""
        n_items = int(self.items[-1]) + 1
        for first, nodes in _blocks(self.path, self.dtype, n_items):
            last = first + len(nodes)
            here = self.items[slice(*np.searchsorted(self.items, (first, last)))] - first
            # A number beyond float32 becomes infinite, which is refused later.
            with np.errstate(over="ignore", under="ignore"):
                yield nodes["vector"][here].astype(np.float32)


def _node(n_dims: int, numbers: str, start: int) -> np.dtype[Any]:
    return np.dtype(
        {
            "names": ["n_descendants", "vector"],
            "formats": ["<i4", (numbers, (n_dims,))],
            "offsets": [0, start],
            "itemsize": start + n_dims * np.dtype(numbers).itemsize,
        }
    )


def _blocks(
    path: Path, dtype: np.dtype[Any], n_nodes: int, first: int = 0
) -> Iterator[tuple[int, npt.NDArray[np.void]]]:
    """Blocks of the nodes from `first` up to `n_nodes`, each with the number of its first node."""
    most = 2 + _BLOCK_BYTES // dtype.itemsize
    with named(path), path.open("rb") as file:
        file.seek(first * dtype.itemsize)
        while first < n_nodes:
            nodes = np.fromfile(file, dtype, min(most, n_nodes - first))
            if not nodes.size:
                raise FeatureError(f"{path}: was cut short while it was read")
            yield first, nodes
            first += len(nodes)


def _has_vector(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[np.bool_] | None:
    """Which items have a vector, (n_items,); None if the file is not made of such nodes."""
    n_nodes, rest = divmod(path.stat().st_size, dtype.itemsize)
    if rest or not n_nodes:
        return None
    ((_, last),) = _blocks(path, dtype, n_nodes, n_nodes - 1)
    n_items = int(last["n_descendants"][0])
    if not 1 <= n_items < n_nodes:
        return None
    has_vector: npt.NDArray[np.bool_] = np.empty(n_items, np.bool_)
    roots: list[bytes] = []
    for first, nodes in _blocks(path, dtype, n_nodes):
        items, trees = np.split(nodes, [max(0, n_items - first)])
        if not _fit_together(items, trees, n_items):
            return None
        added = items["n_descendants"] == 1
        has_vector[first : first + len(items)] = added & _not_zero(items)
        raw = trees.view(np.dtype((np.void, dtype.itemsize)))
        roots += raw[trees["n_descendants"] == n_items].tolist()
    half = len(roots) // 2
    copied = n_items == 1 or sorted(roots[:half]) == sorted(roots[half:])
    if not copied or not has_vector.any():
        return None
    start = int(np.argmax(has_vector))
    some = np.fromfile(path, dtype, min(_SOME, n_items - start), "", start * dtype.itemsize)
    return None if _of_another_type(some["vector"]) else has_vector


def _not_zero(nodes: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    """Which nodes have a vector that is not all zero."""
    with np.errstate(invalid="ignore"):  # of NaN
        return np.asarray(nodes["vector"].any(axis=1))


def _fit_together(items: npt.NDArray[np.void], trees: npt.NDArray[np.void], n_items: int) -> bool:
    """Whether the nodes are possible as items and as nodes of trees."""
    if n_items == 1 and items.size:
        # The root is a copy of the only item, or lists it and has no vector.
        copies = (trees["vector"] == items["vector"]).all()
        if not copies and _not_zero(trees).any():
            return False
    sizes = trees["n_descendants"]
    in_trees = (sizes >= min(2, n_items)) & (sizes <= n_items)
    return bool(np.isin(items["n_descendants"], (0, 1)).all() and in_trees.all())


def _of_another_type(vectors: npt.NDArray[Any]) -> bool:
    """Whether vectors read as float64 are really twice as many float32, or the other way round.

    Nodes of both have the same size. The lower half of a float64, read as float32, can have any
    magnitude; a float32 of a feature cannot.
    """
    halves = np.ascontiguousarray(vectors).view("<f4")[:, ::2].ravel()
    halves = np.abs(halves[halves.view("<u4") != 0])
    if halves.size < _SOME:
        return False  # too few to judge
    usual = np.mean((halves > _USUAL[0]) & (halves < _USUAL[1]))
    return bool(usual > _MOST if vectors.itemsize > halves.itemsize else usual < _FEW)


def _what_is_wrong(path: Path, n_dims: int) -> str:
    size = path.stat().st_size
    for numbers, start in _OTHER_METRICS:
        if _has_vector(path, _node(n_dims, numbers, start)) is not None:
            return (
                "is an index of another metric than angular (Euclidean, Manhattan or dot), or of"
                f" {n_dims + 1} dimensions, expected {n_dims}"
            )
    for numbers, start in _ANGULAR:
        sizes = start + np.dtype(numbers).itemsize * np.arange(1, MAX_DIMS + 1)
        for dims in np.flatnonzero((size % sizes == 0) & (sizes <= size)) + 1:
            if _has_vector(path, _node(int(dims), numbers, start)) is not None:
                return f"is an index of {dims} dimensions, expected {n_dims} (--dims)"
    nodes = sorted(_node(n_dims, *layout).itemsize for layout in _ANGULAR)
    return (
        f"is no complete Annoy index of {n_dims} dimensions: it is cut short, empty or something else"
        f" ({size} bytes; a node has {nodes[0]}, {nodes[1]} or {nodes[2]})"
    )
