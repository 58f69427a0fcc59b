"""The release being written: files in the root's staging folder until they are published.

Every file is on the disk (fsync) and described from what was read back before the folder gets a
release's name. A file that is the same as the current release's is a hard link to it: a server's warm
pages stay warm and the disk holds it once.
"""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from lookalike.release.files import (
    BEHAVIOUR,
    FILES,
    MANIFEST,
    ReleaseError,
)
from lookalike.release.ids import Id, IdType, category_folder
from lookalike.release.manifest import Applied, BehaviourEntry, CategoryEntry, Manifest, Model
from lookalike.release.opened import is_slim
from lookalike.release.root import ReleaseRoot, RootError, named, sync
from lookalike_build.publishing.behaviour import carry
from lookalike_build.publishing.category import CategoryWriter, Written


class Published(NamedTuple):
    """The current release; `new` where it was not current before, `n_unchanged` of its categories
    are those of the release before it. `left_out` says why that one's behaviour is not in it, if so."""

    release: str
    new: bool
    n_unchanged: int
    left_out: str | None = None


class Staging:
    """Writes one release of `root` in the folder `path`, which is the caller's alone.

    `current` is the manifest of the release that is current when `look` is called, if it is valid.
    """

    def __init__(self, root: ReleaseRoot, path: Path) -> None:
        self._root = root
        self.path = path
        self.look()
        self.discard()
        path.mkdir()

    def look(self) -> None:
        """Look up what is current now, as the constructor does."""
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
        """Remove the folder, also one that a killed writer left."""
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
            behaviour, left_out = self._carried(entries, id_types[1], checked=not suffix)
        draft = Manifest("draft", model, n_dims, *id_types, entries, applied, behaviour)
        before = self._root.current()
        release = None
        # A category that was rebuilt although nothing has changed is damaged in the current release.
        if n_unchanged == len(categories):
            release = self._still_current(draft)
        if release is None and not suffix:
            release = self._finished(draft)
        if release is None:
            release = self._named(draft, suffix)
        return Published(release, release != before, n_unchanged, left_out)

    def _still_current(self, draft: Manifest) -> str | None:
        """The current release, if its content is the draft's and its behaviour is sound."""
        current = current_manifest(self._root)
        same = current and current.content_digest() == draft.content_digest()
        return current.release if current and same and self._has_sound_behaviour(current) else None

    def _finished(self, draft: Manifest) -> str | None:
        """The newest release made current, if its content is the draft's and it passes all checks.

        Its writer was killed after naming it: of releases 1 and 2, 1 is still current, and 2 is what is
        to be published now. It is made current, and no release 3 beside it.
        """
        newest = _manifest(self._root, next(reversed(self._root.names()), None))
        if newest and newest.content_digest() == draft.content_digest():
            with suppress(ReleaseError):
                self._root.switch(newest.release)
                return newest.release
        return None

    def _named(self, draft: Manifest, suffix: str) -> str:
        """Write the manifest and make this a release, which is current then; its name."""
        name = f"{self._root.new_name(draft.content_digest())}{suffix}"
        path = self.path / MANIFEST
        with named(path):
            path.write_text(replace(draft, release=name).to_json(), encoding="utf-8")
        sync(path)
        self._root.publish(name, self.path)
        return name

    def _has_sound_behaviour(self, manifest: Manifest) -> bool:
        """Whether a release's behaviour, if it has any, is what its manifest says."""
        folder = self._root.folder(manifest.release) / BEHAVIOUR
        with suppress(ReleaseError):
            for file, entry in manifest.behaviour.files.items() if manifest.behaviour else ():
                entry.check_all(folder / file, file)
            return True
        return False

    def _carried(
        self, entries: Sequence[CategoryEntry], id_type: IdType, checked: bool
    ) -> tuple[BehaviourEntry | None, str | None]:
        """The current release's behaviour, or why it is left out, which an update may not do."""
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
            return carry(published, self.path, entries, checked), None
        except ReleaseError as error:
            if not checked:
                raise
            shutil.rmtree(self.path / BEHAVIOUR)
            return None, str(error)


def current_manifest(root: ReleaseRoot) -> Manifest | None:
    """The manifest of the current release; None where there is none, or it is invalid or slim."""
    return _manifest(root, root.current())


def _in(folder: Path, entry: CategoryEntry) -> Path:
    return folder / category_folder(entry.category_id)


def _manifest(root: ReleaseRoot, name: str | None) -> Manifest | None:
    """The manifest of a release; None where there is none, or it is invalid or slim."""
    with suppress(ReleaseError, RootError):
        manifest = root.manifest(name) if name else None
        if name and manifest and not is_slim(root.folder(name), manifest):
            return manifest
    return None
