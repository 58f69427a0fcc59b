"""The size of a release that is still to be built: every file, by the formats in `release.opened`."""

import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lookalike.operate.plan import measured
from lookalike.release import files
from lookalike.release.vectors import node_dtype

N_SPARE = 24
"""How many spare neighbours the builder keeps besides those served."""
N_TREES = 10
N_INDEX_DIMS = 128

Sizes = dict[str, int]


@dataclass(frozen=True)
class Shape:
    """What else the size of a category depends on besides its number of products.

    `id_bytes` is the length of the longest product id, None if ids are whole numbers.
    """

    neighbours: int = 100
    n_dims: int = 2048
    id_bytes: int | None = None
    n_trees: int = N_TREES


def release_sizes(categories: Iterable[int], shape: Shape) -> Sizes:
    """Bytes by file name of a release; `categories` are their numbers of products."""
    total: Counter[str] = Counter()
    for n_items, times in Counter(categories).items():
        for file, size in category_sizes(n_items, shape).items():
            total[file] += times * size
    return dict(total)


def category_sizes(n_items: int, shape: Shape) -> Sizes:
    """Bytes by file name of a newly indexed category: exact except for the trees in ``index.ann``."""
    k = min(shape.neighbours, n_items - 1)
    width = min(shape.neighbours + N_SPARE, n_items - 1)
    n_index_dims = min(N_INDEX_DIMS, shape.n_dims, n_items)
    ids = "<i8" if shape.id_bytes is None else f"|S{shape.id_bytes}"
    return {
        files.PRODUCT_IDS: _array_bytes(ids, n_items),
        files.NEIGHBOURS: _array_bytes("<u4", n_items, k),
        files.DISTANCES: _array_bytes("<f4", n_items, width),
        files.SPARES: _array_bytes("<u4", n_items, width - k),
        files.SAME_PHOTO: _array_bytes("<u2", n_items),
        files.ROWS: _array_bytes("<u4", n_items),
        files.FEATURES: _array_bytes("<f4", n_items, shape.n_dims),
        files.ADDED: _array_bytes("<f4", 0, shape.n_dims),
        files.LENGTHS: _array_bytes("<f8", n_items),
        files.PROJECTION: _array_bytes("<f4", shape.n_dims, n_index_dims),
        files.PROJECTED: _array_bytes("<f4", n_index_dims, n_items),
        files.INDEX: _index_bytes(n_items, n_index_dims, shape.n_trees),
    }


def slim_bytes(sizes: Sizes) -> int:
    """The bytes of those files that a slim copy has."""
    return sum(sizes[file] for file in files.SLIM_FILES)


def _index_bytes(n_items: int, n_dims: int, n_trees: int) -> int:
    """The bytes of an Annoy file: a node for each item, the trees' nodes, and a copy of each root.

    A leaf holds up to n_dims + 2 items; if one holds them all, it is the tree.
    """
    leaf = n_dims + 2
    tree_nodes = 1.0 if n_items <= leaf else measured.TREE_NODES * n_items / leaf
    nodes = n_items + round(n_trees * tree_nodes) + n_trees
    return nodes * int(node_dtype(n_dims).itemsize)


def _array_bytes(descr: str, *shape: int) -> int:
    items = int(np.prod(shape, dtype=np.int64))
    return _header_bytes(descr, shape) + items * np.dtype(descr).itemsize


@lru_cache
def _header_bytes(descr: str, shape: tuple[int, ...]) -> int:
    file = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()
