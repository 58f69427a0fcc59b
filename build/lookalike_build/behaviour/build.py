"""Behaviour: a table made of ratings, in a new release that is otherwise the current one."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lookalike.release.behaviour import related_dtype
from lookalike.release.category import read_product_ids
from lookalike.release.files import (
    BEHAVIOUR,
    BEHAVIOUR_TABLE,
    ID_FILES,
    LISTED,
    PRODUCT_IDS,
    RELATED,
    STARTS,
    FileEntry,
)
from lookalike.release.ids import IdType
from lookalike.release.manifest import BehaviourEntry, Manifest
from lookalike.release.root import LOCK_WAIT_S, ReleaseRoot, named, sync
from lookalike_build.behaviour.files import Take
from lookalike_build.behaviour.ratings import Counts, Ratings, RatingsError, RatingSettings
from lookalike_build.publishing.behaviour import Products, gone_of, products_of, read_ids, with_gone
from lookalike_build.publishing.files import link, link_if_same, write_array
from lookalike_build.publishing.ids import id_array
from lookalike_build.publishing.staging import Published, Staging, current_manifest

Read = Callable[[IdType, Take], object]
"""Reads all ratings, with product ids of a type, and passes them on."""
Progress = Callable[[int], AbstractContextManager[Callable[[int], object]]]
"""Called with the number of products; what it gives is called with how many more are done."""


class Made(NamedTuple):
    """The published release, the counts of its ratings, and the manifest's entry."""

    published: Published
    counts: Counts
    entry: BehaviourEntry


def add_behaviour(
    root: ReleaseRoot,
    read: Read,
    settings: RatingSettings,
    memory_bytes: int,
    progress: Progress,
) -> Made:
    """Publish the current release with behaviour made of the ratings from `read`.

    The categories are those of the release that is current in the end; they are linked, not read. The
    same ratings, settings and products give the same bytes. Raises RatingsError, ReleaseError,
    RootError, OSError, or what `read` raises; the current release then stays.
    """
    with root.build_lock():
        root.remove_staging()
        try:
            with root.lock(LOCK_WAIT_S):
                manifest = current_manifest(root, "behaviour", RatingsError)
                products = _hold(root, manifest)
            staging = Staging(root, root.staging)
            folder = staging.path / BEHAVIOUR
            folder.mkdir()
            root.scratch.mkdir(mode=0o700)
            with Ratings(root.scratch, manifest.product_id_type, memory_bytes) as ratings:
                for each in products.values():
                    ratings.add_released(read_product_ids(*each))
                read(manifest.product_id_type, ratings.add)
                counts = ratings.weigh(settings)
                table = _write_table(folder, ratings, counts, settings, progress)
            with root.lock(LOCK_WAIT_S):
                published, entry = _publish(root, staging, manifest.product_id_type, table)
            return Made(published, counts, entry)
        finally:
            root.remove_staging()


def _hold(root: ReleaseRoot, manifest: Manifest) -> Products:
    """Link the release's files of products, so that they stay if others remove it.

    The caller holds the root's lock.
    """
    published = products_of(root.folder(manifest.release), manifest.categories)
    held = products_of(root.before, manifest.categories)
    for category_id, (folder, entry) in held.items():
        folder.mkdir(parents=True)
        for file in ID_FILES:
            if file in entry.files:
                link(published[category_id][0] / file, folder / file)
    return held


def _write_table(
    folder: Path, ratings: Ratings, counts: Counts, settings: RatingSettings, progress: Progress
) -> BehaviourEntry:
    """Write the table, except which products are gone; return its entry without that."""
    ids = id_array(ratings.product_ids())
    write_array(folder / PRODUCT_IDS, ids)
    starts, listed = np.zeros(ids.size + 1, "<u8"), np.zeros(ids.size, np.bool_)
    dtype = related_dtype(ids)
    first = 0
    path = folder / RELATED
    with progress(ids.size) as done, named(path), path.open("xb") as file:
        header = {"descr": dtype, "fortran_order": False, "shape": (0,)}
        np.lib.format.write_array_header_1_0(file, header)
        for lengths, related in ratings.lists(settings, ids.size):
            last = first + lengths.size
            starts[first + 1 : last + 1] = starts[first] + lengths.cumsum().astype("<u8")
            listed[related] = True
            given = ids[related] if ids.dtype.kind == "i" else related
            file.write(given.astype(dtype).data)
            done(last - first)
            first = last
        n_related = int(starts[-1])
        file.seek(0)
        # NumPy's header leaves room for an array to grow, so its length is the same.
        np.lib.format.write_array_header_1_0(file, header | {"shape": (n_related,)})
    if not n_related:
        raise RatingsError(
            f"none of the {ids.size} rated products is related to one of the release; are their ids "
            "those of the catalogue?"
        )
    sync(path)
    write_array(folder / STARTS, starts)
    write_array(folder / LISTED, np.packbits(listed))
    files = {file: FileEntry.of(folder / file) for file in BEHAVIOUR_TABLE}
    newest = counts.newest // 1_000_000
    return BehaviourEntry(ids.size, n_related, 0, newest, settings.made_with, files)


def _publish(
    root: ReleaseRoot, staging: Staging, id_type: IdType, table: BehaviourEntry
) -> tuple[Published, BehaviourEntry]:
    """Publish the table with the release that is current now; the caller holds the root's lock."""
    staging.look()
    manifest = current_manifest(root, "behaviour", RatingsError)
    if manifest.product_id_type != id_type:
        raise RatingsError(
            f"release {manifest.release} became current, and its ids have another type; try again"
        )
    written = [staging.category(one.category_id).keep() for one in manifest.categories]
    folder = staging.path / BEHAVIOUR
    products = products_of(staging.path, manifest.categories)
    entry = with_gone(table, folder, gone_of(read_ids(folder / PRODUCT_IDS), products))
    if old := manifest.behaviour:
        link_if_same((root.folder(manifest.release) / BEHAVIOUR, old.files), (folder, entry.files))
    sync(folder)
    return staging.publish(replace(manifest, behaviour=entry), written), entry
