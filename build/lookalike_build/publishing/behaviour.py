"""Behaviour between two releases: its table stays, and which of its products are gone is updated."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.release.arrays import Flags, Items, Positions
from lookalike.release.behaviour import open_gone
from lookalike.release.category import read_product_ids
from lookalike.release.columns import open_columns
from lookalike.release.files import (
    BEHAVIOUR,
    BEHAVIOUR_TABLE,
    GONE,
    ID_FILES,
    LISTED,
    PRODUCT_IDS,
    FileEntry,
    ReleaseError,
    reason_of,
)
from lookalike.release.ids import Id, category_folder
from lookalike.release.manifest import BehaviourEntry, CategoryEntry, Manifest
from lookalike.release.root import sync
from lookalike_build.publishing.files import link, link_if_same, write_array
from lookalike_build.publishing.ids import Ids, positions_of

Products = Mapping[Id, tuple[Path, CategoryEntry]]
"""Where the products of each category are to be read, and what the manifest says of it."""


def products_of(folder: Path, entries: Sequence[CategoryEntry]) -> Products:
    """The products of the categories in a release's folder."""
    return {
        entry.category_id: (folder / category_folder(entry.category_id), entry) for entry in entries
    }


def carry(
    published: tuple[Path, Manifest, BehaviourEntry],
    folder: Path,
    entries: Sequence[CategoryEntry],
    checked: bool,
) -> BehaviourEntry:
    """Take the behaviour of a published release into `folder`, a new one with these categories.

    With `checked`, every byte taken over is checked and every product is looked for; otherwise the
    published release is trusted, and only what differs from it is looked at. ReleaseError if a file is
    missing or damaged.
    """
    release, manifest, old = published
    source, target = release / BEHAVIOUR, folder / BEHAVIOUR
    after = products_of(folder, entries)
    target.mkdir()
    for file in BEHAVIOUR_TABLE:
        if checked:
            old.files[file].check_all(source / file, f"{BEHAVIOUR}/{file}")
        elif not (source / file).exists():
            raise ReleaseError(f"{BEHAVIOUR}/{file}", "is missing")
        link(source / file, target / file)
    product_ids = read_ids(target / PRODUCT_IDS)
    if checked:
        gone = gone_of(product_ids, after)
    else:
        before = products_of(release, manifest.categories)
        gone = np.zeros(product_ids.size, np.bool_)
        gone[open_gone(source, old)] = True
        gone = gone_after(product_ids, gone, before, after)
    entry = with_gone(old, target, gone)
    link_if_same((source, old.files), (target, {GONE: entry.files[GONE]}))
    sync(target)
    return entry


def with_gone(entry: BehaviourEntry, folder: Path, gone: Flags) -> BehaviourEntry:
    """Write which rows in lists are `gone`, bool (n_products,), into `folder`; the updated entry."""
    entry.files[LISTED].check_all(folder / LISTED, f"{BEHAVIOUR}/{LISTED}")
    listed = np.unpackbits(np.load(folder / LISTED), count=entry.n_products).view(np.bool_)
    rows = np.flatnonzero(gone & listed).astype("<u4")
    write_array(folder / GONE, rows)
    files = {**entry.files, GONE: FileEntry.of(folder / GONE)}
    return replace(entry, n_gone=rows.size, files=files)


def gone_of(product_ids: Ids, products: Products) -> Flags:
    """Which of the ids (n,), ascending, no category has and shows, bool (n,)."""
    return gone_after(product_ids, np.ones(product_ids.size, np.bool_), {}, products)


def gone_after(product_ids: Ids, gone: Flags, before: Products, after: Products) -> Flags:
    """Which of the ids (n,), ascending, are in no category `after`, where those `gone` were `before`.

    A category that hides a product counts as one that does not have it. Only files that have changed
    are read, and the others only where a product has left its category, which may then be in any.
    Example: product 5 moves from category 1 to 2, and 6 leaves category 1.
    Both have left category 1, and 5 is found again in 2; 6 is gone, unless category 3 has it too.
    """
    gone = gone.copy()
    left = [np.empty(0, np.intp)]
    for category_id in before.keys() | after.keys():
        old, new = before.get(category_id), after.get(category_id)
        if old and new and _are_alike(old, new):
            continue
        were, are = _rows_of(product_ids, old), _rows_of(product_ids, new)
        gone[are] = False
        left.append(np.setdiff1d(were, are, assume_unique=True))
    rows = np.concatenate(left)
    for each in after.values() if rows.size else ():
        _, known = positions_of(_visible_ids(*each), product_ids[rows])
        rows = rows[~known]
    gone[rows] = True
    return gone


def read_ids(path: Path) -> Ids:
    """The product ids in a file, mapped; ReleaseError if it cannot be read."""
    try:
        ids: Any = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise ReleaseError(f"{path.parent.name}/{path.name}", reason_of(error)) from error
    return np.asarray(ids)


def _are_alike(old: tuple[Path, CategoryEntry], new: tuple[Path, CategoryEntry]) -> bool:
    """Whether two categories have the same visible products."""
    ids, columns = (
        [[each[1].files.get(file) for file in files] for each in (old, new)]
        for files in (ID_FILES, new[1].column_files)
    )
    if ids[0] != ids[1] or old[1].n_hidden != new[1].n_hidden:
        return False
    same = old[1].attributes == new[1].attributes and columns[0] == columns[1]
    return same or np.array_equal(_hidden_items(*old), _hidden_items(*new))


def _hidden_items(folder: Path, entry: CategoryEntry) -> Items:
    """Trusted: they were checked when the release was published."""
    return open_columns(folder, entry.attributes, entry.n_all, entry.column_files).hidden


def _visible_ids(folder: Path, entry: CategoryEntry) -> Ids:
    """The product ids of a category that are not hidden, ascending."""
    return read_product_ids(folder, entry, _hidden_items(folder, entry))


def _rows_of(product_ids: Ids, products: tuple[Path, CategoryEntry] | None) -> Positions:
    if products is None:
        return np.empty(0, np.intp)
    rows, known = positions_of(product_ids, _visible_ids(*products))
    return rows[known]
