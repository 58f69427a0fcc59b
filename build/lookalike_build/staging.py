"""The release being written: files in the root's staging folder until they are published.

Every file is on the disk (fsync) and described from what was read back before the folder gets a
release's name. A file that is the same as the current release's becomes a hard link to it: a
server's warm pages stay warm and the disk holds it once.
"""

import os
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


class Staging:
    """Writes one release under `root`, whose lock the caller holds."""

    def __init__(self, root: ReleaseRoot) -> None:
        self._root = root
        self._entries: list[CategoryEntry] = []
        self._damaged = False
        self._current = _manifest(root, root.current())
        root.remove_staging()
        root.staging.mkdir()

    def new_category(self, category_id: Id, n_items: int, n_dims: int) -> npt.NDArray[np.float32]:
        """Begin a category; its features (n_items, n_dims) are to be filled in, in the file."""
        folder = self.folder(category_id)
        folder.mkdir()
        return create_array(folder / FEATURES, (n_items, n_dims))

    def folder(self, category_id: Id) -> Path:
        """The folder of a category being written."""
        return self._root.staging / category_folder(category_id)

    def add_category(
        self,
        category_id: Id,
        product_ids: npt.NDArray[np.int64] | list[str],
        table: tuple[Items, Distances],
        projected: Projected,
        annoy: AnnoyIndex,
        tuned: Tuned,
    ) -> CategoryEntry:
        """Write the rest of a new category: ascending product ids, the exact table, the index.

        `annoy` is built of the projected items.
        """
        folder = self.folder(category_id)
        sync(folder / FEATURES)
        neighbours, distances = table
        _write_array(folder / PRODUCT_IDS, _id_array(product_ids))
        _write_array(folder / NEIGHBOURS, neighbours.astype("<u4"))
        _write_array(folder / DISTANCES, distances.astype("<f4"))
        _write_array(folder / PROJECTION, projected.projection.astype("<f4", copy=False))
        annoy.save(str(folder / INDEX))
        sync(folder / INDEX)
        entry = CategoryEntry(
            category_id=category_id,
            n_items=len(product_ids),
            k=neighbours.shape[1],
            n_index_dims=projected.projection.shape[1],
            **tuned._asdict(),
            files={file: FileEntry.of(folder / file) for file in FILES},
        )
        self._share(folder, entry)
        sync(folder)
        self._entries.append(entry)
        return entry

    def publish(
        self, model: Model, n_dims: int, id_types: tuple[IdType, IdType]
    ) -> tuple[str, bool]:
        """Name the release, check it and make it current; its name and whether it is new.

        `id_types` are those of the category and the product ids. Where the current release holds
        the same content it stays current, so that no cache in front loses its answers.
        """
        draft = Manifest("draft", model, n_dims, *id_types, categories=tuple(self._entries))
        digest = draft.content_digest()
        current = None if self._damaged else self._current
        if current and current.content_digest() == digest:
            return current.release, False
        newest = _manifest(self._root, next(reversed(self._root.names()), None))
        if newest and newest.content_digest() == digest:
            # A writer died between naming this release and making it current; or it is damaged.
            with suppress(ReleaseError):
                self._root.switch(newest.release)
                return newest.release, True
        name = self._root.new_name(digest)
        manifest = Manifest(name, model, n_dims, *id_types, categories=tuple(self._entries))
        path = self._root.staging / MANIFEST
        path.write_text(manifest.to_json(), encoding="utf-8")
        sync(path)
        self._root.publish(name)
        return name, True

    def _share(self, folder: Path, entry: CategoryEntry) -> None:
        if self._current is None:
            return
        same_id = [old for old in self._current.categories if old.category_id == entry.category_id]
        published = self._root.folder(self._current.release) / folder.name
        for file in FILES:
            if not same_id or same_id[0].files[file] != entry.files[file]:
                continue
            try:
                entry.files[file].check_all(published / file, f"{folder.name}/{file}")
            except ReleaseError:
                # The current release is not what its manifest says: ours is the good file.
                self._damaged = True
            else:
                _replace_by_link(folder / file, published / file)


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
    with path.open("wb") as file:
        np.lib.format.write_array(file, np.ascontiguousarray(array), version=(1, 0))
    sync(path)


def _replace_by_link(path: Path, published: Path) -> None:
    link = path.with_name(f".{path.name}")
    # Another device, or a file system without hard links: then the copy stays.
    with suppress(OSError):
        os.link(published, link)
        link.replace(path)
