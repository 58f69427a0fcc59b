"""The release being written: files in the root's staging folder until they are published.

Every file is on the disk (fsync) and described from what was read back before the folder gets a
release's name. A file that is the same as the current release's is a hard link to it: a server's warm
pages stay warm and the disk holds it once.
"""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from annoy import AnnoyIndex

from lookalike.manifest import (
    DISTANCES,
    FEATURES,
    FILES,
    INDEX,
    MANIFEST,
    NEIGHBOURS,
    PRODUCT_IDS,
    PROJECTION,
    CategoryEntry,
    FileEntry,
    Id,
    IdType,
    Manifest,
    Model,
    ReleaseError,
    category_folder,
)
from lookalike.release import is_slim
from lookalike.root import ReleaseRoot, RootError, sync
from lookalike.vector_index import Distances, Items
from lookalike_build.disk_array import create_array
from lookalike_build.projection import Projected


class Tuned(NamedTuple):
    """How a category is searched by vector, and the recall measured so; see `CategoryEntry`."""

    n_trees: int
    candidates: int
    search_k: int
    recall: float | None
    recall_sample: int


class Written(NamedTuple):
    """A category that is all there, and whether it was taken over from the current release."""

    entry: CategoryEntry
    unchanged: bool


class Published(NamedTuple):
    """The current release; `new` where it was not current before, `n_unchanged` of its categories
    are those of the release before it."""

    release: str
    new: bool
    n_unchanged: int


class CategoryWriter:
    """Writes one category into the staging folder; picklable, so that another process may do it.

    `begin`, then `add_ids`; then the category may be there already (`take_over`) or `add_index`
    completes it. `begin` again starts over.
    """

    def __init__(
        self, category_id: Id, folder: Path, current: tuple[Path, CategoryEntry] | None
    ) -> None:
        self.category_id = category_id
        self.folder = folder
        self._current = current

    def begin(self, n_items: int, n_dims: int) -> npt.NDArray[np.float32]:
        """The features (n_items, n_dims), to be filled in, in the file."""
        if self.folder.exists():
            shutil.rmtree(self.folder)  # of a writer that died on the way
        self.folder.mkdir()
        return create_array(self.folder / FEATURES, (n_items, n_dims))

    def add_ids(self, product_ids: npt.NDArray[np.int64] | list[str]) -> None:
        """Write the items' product ids, ascending."""
        _write_array(self.folder / PRODUCT_IDS, _id_array(product_ids))

    def take_over(self, made_with: str) -> Written | None:
        """The current release's category where it has these ids and features and was made so.

        None where it differs, or is not what its manifest says: then the good files are to be made.
        """
        if self._current is None or self._current[1].made_with != made_with:
            return None
        folder, entry = self._current
        try:
            for file in (PRODUCT_IDS, FEATURES):
                entry.files[file].check_all(self.folder / file, file)
            for file in FILES:
                entry.files[file].check_all(folder / file, file)
        except ReleaseError:
            return None
        for file in FILES:
            _place(folder / file, self.folder / file)
        sync(self.folder)
        return Written(entry, unchanged=True)

    def add_index(
        self,
        table: tuple[Items, Distances],
        projected: Projected,
        annoy: AnnoyIndex,
        tuned: Tuned,
        made_with: str,
    ) -> Written:
        """Write the rest: the exact table and the index, `annoy` built of the projected items."""
        sync(self.folder / FEATURES)
        neighbours, distances = table
        _write_array(self.folder / NEIGHBOURS, neighbours.astype("<u4"))
        _write_array(self.folder / DISTANCES, distances.astype("<f4"))
        projection = projected.projection.astype("<f4", copy=False)
        _write_array(self.folder / PROJECTION, projection)
        annoy.save(str(self.folder / INDEX))
        sync(self.folder / INDEX)
        entry = CategoryEntry(
            category_id=self.category_id,
            n_items=len(neighbours),
            k=neighbours.shape[1],
            n_index_dims=projection.shape[1],
            **tuned._asdict(),
            made_with=made_with,
            files={file: FileEntry.of(self.folder / file) for file in FILES},
        )
        self._share(entry)
        sync(self.folder)
        return Written(entry, unchanged=False)

    def _share(self, new: CategoryEntry) -> None:
        if self._current is None:
            return
        folder, old = self._current
        for file in FILES:
            # Where the current release is not what its manifest says, ours is the good file.
            with suppress(ReleaseError):
                if old.files[file] == new.files[file]:
                    old.files[file].check_all(folder / file, file)
                    _place(folder / file, self.folder / file)


class Staging:
    """Writes one release under `root`, whose lock the caller holds."""

    def __init__(self, root: ReleaseRoot) -> None:
        self._root = root
        self._current = _manifest(root, root.current())
        self._published: dict[Id, tuple[Path, CategoryEntry]] = {}
        if self._current:
            folder = root.folder(self._current.release)
            for entry in self._current.categories:
                published = folder / category_folder(entry.category_id)
                self._published[entry.category_id] = published, entry
        root.remove_staging()
        root.staging.mkdir()

    def category(self, category_id: Id) -> CategoryWriter:
        """The writer of a category."""
        folder = self._root.staging / category_folder(category_id)
        return CategoryWriter(category_id, folder, self._published.get(category_id))

    def publish(
        self,
        model: Model,
        n_dims: int,
        id_types: tuple[IdType, IdType],
        categories: Sequence[Written],
    ) -> Published:
        """Name the release, check it and make it current.

        `id_types` are those of the category and the product ids. Where the current release holds
        the same content it stays current, so that no cache in front loses its answers.
        """
        entries = tuple(written.entry for written in categories)
        n_unchanged = sum(written.unchanged for written in categories)
        digest = Manifest("draft", model, n_dims, *id_types, entries).content_digest()
        # Where the same was made and not taken over, the current release is damaged.
        same = self._current if n_unchanged == len(categories) else None
        if same and same.content_digest() == digest:
            return Published(same.release, False, n_unchanged)
        newest = _manifest(self._root, next(reversed(self._root.names()), None))
        if newest and newest.content_digest() == digest:
            # A writer died between naming this release and making it current; or it is damaged.
            with suppress(ReleaseError):
                self._root.switch(newest.release)
                return Published(newest.release, True, n_unchanged)
        name = self._root.new_name(digest)
        manifest = Manifest(name, model, n_dims, *id_types, entries)
        path = self._root.staging / MANIFEST
        path.write_text(manifest.to_json(), encoding="utf-8")
        sync(path)
        self._root.publish(name)
        return Published(name, True, n_unchanged)


def _manifest(root: ReleaseRoot, name: str | None) -> Manifest | None:
    """The manifest of a release; None where there is none, it is unfit or the copy is slim."""
    with suppress(ReleaseError, RootError):
        manifest = root.manifest(name) if name else None
        if name and manifest and not is_slim(root.folder(name), manifest):
            return manifest
    return None


def _id_array(product_ids: npt.NDArray[np.int64] | list[str]) -> npt.NDArray[np.generic]:
    if isinstance(product_ids, list):
        return np.array([product_id.encode() for product_id in product_ids], dtype=np.bytes_)
    return product_ids.astype("<i8")


def _write_array(path: Path, array: npt.NDArray[np.generic]) -> None:
    with path.open("xb") as file:  # never into what may be a link to a published file
        np.lib.format.write_array(file, np.ascontiguousarray(array), version=(1, 0))
    sync(path)


def _place(published: Path, path: Path) -> None:
    """Have the published file at `path`: a link, or a copy where there can be none."""
    path.unlink(missing_ok=True)
    try:
        os.link(published, path)
    except OSError:  # another device, or a file system without hard links
        shutil.copyfile(published, path)
        sync(path)
