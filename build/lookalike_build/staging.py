"""The release being written: files in the root's staging folder until they are published.

Every file is on the disk (fsync) and described from what was read back before the folder gets a
release's name. A file that is the same as the current release's is a hard link to it: a server's warm
pages stay warm and the disk holds it once.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from annoy import AnnoyIndex

from lookalike.manifest import (
    ADDED,
    BASE_FILES,
    BEHAVIOUR,
    DISTANCES,
    FEATURES,
    FILES,
    INDEX,
    MANIFEST,
    NEIGHBOURS,
    PRODUCT_IDS,
    PROJECTION,
    ROWS,
    SPARES,
    Applied,
    BehaviourEntry,
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
from lookalike.root import ReleaseRoot, RootError, named, sync
from lookalike.vector_index import Distances, Items
from lookalike_build.behaviour_files import carry
from lookalike_build.disk_array import create_array
from lookalike_build.projection import Projected
from lookalike_build.release_file import id_array, place, share, write_array
from lookalike_build.table import Ids, Table


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
    are those of the release before it. `left_out` says why that one's behaviour is not in it, if so."""

    release: str
    new: bool
    n_unchanged: int
    left_out: str | None = None


class CategoryWriter:
    """Writes one category into the staging folder; picklable, so that another process may do it.

    `begin`, then `add_ids`; then the category may be there already (`take_over`) or `add_index`
    completes it. `begin` again starts over. Or `add_update` makes all of it of what is there.
    """

    def __init__(
        self, category_id: Id, folder: Path, current: tuple[Path, CategoryEntry] | None
    ) -> None:
        self.category_id = category_id
        self.folder = folder
        self._current = current

    def begin(self, n_items: int, n_dims: int) -> npt.NDArray[np.float32]:
        """The features (n_items, n_dims), to be filled in, in the file."""
        self._begin()
        return create_array(self.folder / FEATURES, (n_items, n_dims))

    def _begin(self) -> None:
        if self.folder.exists():
            shutil.rmtree(self.folder)  # of a writer that died on the way
        self.folder.mkdir()

    def add_ids(self, product_ids: Ids | list[str]) -> None:
        """Write the items' product ids, ascending."""
        write_array(self.folder / PRODUCT_IDS, id_array(product_ids))

    def take_over(self, made_with: str) -> Written | None:
        """The current release's category where it has these ids and features and was made so.

        None where it differs, or is not what its manifest says: then the good files are to be made.
        """
        if self._current is None or self._current[1].made_with != made_with:
            return None
        folder, entry = self._current
        if entry.n_added or entry.n_base != entry.n_items:
            return None  # the same answers, but not the same files
        try:
            for file in (PRODUCT_IDS, FEATURES):
                entry.files[file].check_all(self.folder / file, file)
            for file in FILES:
                entry.files[file].check_all(folder / file, file)
        except ReleaseError:
            return None
        for file in FILES:
            place(folder / file, self.folder / file)
        sync(self.folder)
        return Written(entry, unchanged=True)

    def add_index(
        self,
        table: tuple[Items, Distances],
        k: int,
        projected: Projected,
        annoy: AnnoyIndex,
        tuned: Tuned,
        made_with: str,
    ) -> Written:
        """Write the rest: the exact table, of whose width k are served, and the index.

        `annoy` is built of the projected items.
        """
        sync(self.folder / FEATURES)
        n_items, n_dims = len(table[0]), len(projected.projection)
        self._write_table(*table, k)
        self._write_rows(np.arange(n_items, dtype="<u4"), np.empty((0, n_dims), "<f4"))
        projection = projected.projection.astype("<f4", copy=False)
        write_array(self.folder / PROJECTION, projection)
        with named(self.folder / INDEX):
            annoy.save(str(self.folder / INDEX))
        sync(self.folder / INDEX)
        entry = CategoryEntry(
            category_id=self.category_id,
            n_items=n_items,
            k=k,
            n_spare=table[0].shape[1] - k,
            n_base=n_items,
            n_added=0,
            n_index_dims=projection.shape[1],
            **tuned._asdict(),
            made_with=made_with,
            files={file: FileEntry.of(self.folder / file) for file in FILES},
        )
        if self._current:
            folder, old = self._current
            share((folder, old.files), (self.folder, entry.files))
        sync(self.folder)
        return Written(entry, unchanged=False)

    def add_update(
        self, table: Table, added: npt.NDArray[np.float32], base: tuple[Path, CategoryEntry]
    ) -> Written:
        """Write a whole category: the index and its features are those of `base`, its folder and entry.

        `added` (n_added, n_dims) are the features that the table's rows name besides.
        """
        self._begin()
        self.add_ids(table.product_ids)
        self._write_table(table.items, table.distances, table.k)
        self._write_rows(table.rows.astype("<u4", copy=False), added.astype("<f4", copy=False))
        folder, entry = base
        for file in BASE_FILES:
            place(folder / file, self.folder / file)
        files = {
            file: entry.files[file] if file in BASE_FILES else FileEntry.of(self.folder / file)
            for file in FILES
        }
        sync(self.folder)
        n_items, width = table.items.shape
        counts = {"n_items": n_items, "k": table.k, "n_spare": width - table.k}
        return Written(replace(entry, **counts, n_added=len(added), files=files), unchanged=False)

    def replace(self, write: Callable[["CategoryWriter"], Written]) -> Written:
        """Have `write` make the category anew, of what is here until it is done."""
        anew = CategoryWriter(self.category_id, self.folder.with_name(".anew"), None)
        written = write(anew)
        self.remove()
        anew.folder.rename(self.folder)
        return written

    def remove(self) -> None:
        """Remove the category: none of its products are left."""
        shutil.rmtree(self.folder)

    def keep(self) -> Written:
        """The current release's category as it is, unread."""
        if self._current is None:
            raise ValueError(f"category {self.category_id} is not in the current release")
        folder, entry = self._current
        self._begin()
        for file in FILES:
            place(folder / file, self.folder / file)
        sync(self.folder)
        return Written(entry, unchanged=True)

    def _write_table(self, items: Items, distances: Distances, k: int) -> None:
        write_array(self.folder / NEIGHBOURS, items[:, :k].astype("<u4", copy=False))
        write_array(self.folder / SPARES, items[:, k:].astype("<u4", copy=False))
        write_array(self.folder / DISTANCES, distances.astype("<f4", copy=False))

    def _write_rows(self, rows: Items, added: npt.NDArray[np.float32]) -> None:
        write_array(self.folder / ROWS, rows)
        write_array(self.folder / ADDED, added)


class Staging:
    """Writes one release of `root` in the folder `path`, which is the caller's alone.

    `current` is the manifest of the release that is current, and fit, when it is looked; or None.
    """

    def __init__(self, root: ReleaseRoot, path: Path) -> None:
        self._root = root
        self.path = path
        self.look()
        self.discard()
        path.mkdir()

    def look(self) -> None:
        """Look what is current now; done when this begins."""
        self.current = current_manifest(self._root)
        self._published: dict[Id, tuple[Path, CategoryEntry]] = {}
        if self.current:
            folder = self._root.folder(self.current.release)
            for entry in self.current.categories:
                self._published[entry.category_id] = _in(folder, entry), entry

    def hold_current(self) -> None:
        """Link the current release, so that it stays to be taken over from when others remove it."""
        for category_id, (folder, entry) in self._published.items():
            held = _in(self._root.before, entry)
            try:
                held.mkdir(parents=True)
                for file in FILES:
                    os.link(folder / file, held / file)
            except OSError:  # no hard links here, or removed already
                continue
            self._published[category_id] = held, entry

    def discard(self) -> None:
        """Remove what is there, also what a killed writer left."""
        if self.path.exists():
            shutil.rmtree(self.path)

    def category(self, category_id: Id) -> CategoryWriter:
        """The writer of a category."""
        folder = self.path / category_folder(category_id)
        return CategoryWriter(category_id, folder, self._published.get(category_id))

    def publish(
        self,
        model: Model,
        n_dims: int,
        id_types: tuple[IdType, IdType],
        categories: Sequence[Written],
        applied: Applied | None = None,
        suffix: str = "",
        behaviour: BehaviourEntry | None = None,
    ) -> Published:
        """Name the release, check it and make it current; the root's lock is held.

        `id_types` are those of the category and the product ids; `suffix` ends the name. `behaviour`
        is what is written of it; without, that of the current release is taken over, in an update
        (whose name has a suffix) without reading it. Where the current release holds the same content
        it stays current, so that no cache in front loses its answers.
        """
        entries = tuple(written.entry for written in categories)
        n_unchanged = sum(written.unchanged for written in categories)
        left_out = None
        if behaviour is None:
            behaviour, left_out = self._carried(entries, id_types[1], anew=not suffix)
        made = Manifest("draft", model, n_dims, *id_types, entries, applied, behaviour)
        digest = made.content_digest()
        # Where the same was made and not taken over, the current release is damaged.
        same = current_manifest(self._root) if n_unchanged == len(categories) else None
        if same and same.content_digest() == digest and self._has_sound_behaviour(same):
            return Published(same.release, False, n_unchanged, left_out)
        name = None if suffix else next(reversed(self._root.names()), None)
        newest = _manifest(self._root, name)
        if newest and newest.content_digest() == digest:
            # A writer died between naming this release and making it current; or it is damaged.
            with suppress(ReleaseError):
                was_current = newest.release == self._root.current()
                self._root.switch(newest.release)
                return Published(newest.release, not was_current, n_unchanged, left_out)
        name = f"{self._root.new_name(digest)}{suffix}"
        path = self.path / MANIFEST
        with named(path):
            path.write_text(replace(made, release=name).to_json(), encoding="utf-8")
        sync(path)
        self._root.publish(name, self.path)
        return Published(name, True, n_unchanged, left_out)

    def _has_sound_behaviour(self, manifest: Manifest) -> bool:
        """Whether that of a release, if it has any, is what its manifest says."""
        folder = self._root.folder(manifest.release) / BEHAVIOUR
        with suppress(ReleaseError):
            for file, entry in manifest.behaviour.files.items() if manifest.behaviour else ():
                entry.check_all(folder / file, file)
            return True
        return False

    def _carried(
        self, entries: Sequence[CategoryEntry], id_type: IdType, anew: bool
    ) -> tuple[BehaviourEntry | None, str | None]:
        """The current release's behaviour, or why it cannot be had; an update must not go without."""
        name = self._root.current()
        try:
            manifest = self._root.manifest(name) if name else None
        except (ReleaseError, RootError) as error:
            had_any = name and (self._root.releases / name / BEHAVIOUR).exists()
            return None, f"the current release cannot be read: {error}" if had_any else None
        if manifest is None or manifest.behaviour is None:
            return None, None
        if manifest.product_id_type != id_type:
            return (
                None,
                f"its product ids are {manifest.product_id_type}s, the release's {id_type}s",
            )
        release = self._root.folder(manifest.release)
        try:
            published = release, manifest, manifest.behaviour
            return carry(published, self.path, entries, anew), None
        except ReleaseError as error:
            if not anew:
                raise
            shutil.rmtree(self.path / BEHAVIOUR)
            return None, str(error)


def current_manifest(root: ReleaseRoot) -> Manifest | None:
    """The manifest of the current release; None where there is none, it is unfit or a slim copy."""
    return _manifest(root, root.current())


def _in(folder: Path, entry: CategoryEntry) -> Path:
    return folder / category_folder(entry.category_id)


def _manifest(root: ReleaseRoot, name: str | None) -> Manifest | None:
    """The manifest of a release; None where there is none, it is unfit or the copy is slim."""
    with suppress(ReleaseError, RootError):
        manifest = root.manifest(name) if name else None
        if name and manifest and not is_slim(root.folder(name), manifest):
            return manifest
    return None
