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

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from pathlib import Path

from lookalike.category import Category
from lookalike.manifest import (
    FILES,
    CategoryEntry,
    Id,
    Manifest,
    category_folder,
)


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
            path = folder / category / file
            entry.files[file].check_all(path, f"{category}/{file}")
        yield entry
