"""The release being written: files in the root's staging folder until they are published.

Every file is on the disk (fsync) and described from what was read back before the folder gets a
release's name. A file that is the same as the current release's is a hard link to it: a server's warm
pages stay warm and the disk holds it once.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from lookalike.errors import LookalikeError
from lookalike.release.files import BEHAVIOUR, MANIFEST, RULES, ReleaseError
from lookalike.release.ids import Id, category_folder
from lookalike.release.manifest import BehaviourEntry, CategoryEntry, Manifest
from lookalike.release.opened import is_slim
from lookalike.release.root import ReleaseRoot, RootError, named, sync
from lookalike.release.rules import Rule
from lookalike_build.publishing.behaviour import carry, products_of
from lookalike_build.publishing.category import CategoryWriter, Counts, Written
from lookalike_build.publishing.rules import with_rules, with_rules_of


class Published(NamedTuple):
    """The current release; `new` where it was not current before, `n_unchanged` of its categories
    are those of the release before it, `n_rebuilt` have been made from their features. `left_out` says
    what else that one had that is not in it, why, and what to do; `counts` are of all products, if they
    were counted."""

    release: str
    new: bool
    n_unchanged: int
    left_out: tuple[str, ...] = ()
    n_rebuilt: int = 0
    counts: Counts = Counts()


class Staging:
    """Writes one release of `root` in the folder `path`, which is the caller's alone.

    `current` is the manifest of the release that is current when `look` is called, if it is valid. With
    the folder `finished`, categories that are finished are noted there, and those of a killed builder
    that wrote here are still there.
    """

    def __init__(self, root: ReleaseRoot, path: Path, finished: Path | None = None) -> None:
        self._root = root
        self.path = path
        self._finished_folder = finished
        self.look()
        if finished is None:
            self.discard()
        path.mkdir(exist_ok=finished is not None)

    def look(self) -> None:
        """Look up what is current now, as the constructor does."""
        self.current = full_manifest(self._root, self._root.current())
        self._published: dict[Id, tuple[Path, CategoryEntry]] = {}
        if self.current:
            folder = self._root.folder(self.current.release)
            for entry in self.current.categories:
                published = folder / category_folder(entry.category_id)
                self._published[entry.category_id] = published, entry

    def hold_current(self) -> None:
        """Link the current release, so that it stays to be taken over from when others remove it."""
        for category_id, (folder, entry) in self._published.items():
            held = self._root.before / category_folder(category_id)
            try:
                held.mkdir(parents=True)
                for file in entry.files:
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
        note = self._finished_folder and self._finished_folder / f"{folder.name}.json"
        current = self._published.get(category_id)
        return CategoryWriter(category_id, folder, current, note, current)

    def publish(
        self,
        draft: Manifest,
        categories: Sequence[Written],
        suffix: str = "",
        left_out: tuple[str, ...] = (),
        rules: Mapping[Id, Sequence[Rule]] | None = None,
    ) -> Published:
        """Name the release, check it and make it current; the root's lock is held.

        `draft` says all but its name, which ends with `suffix`, its `categories`, and whether `hidden`
        is among its attributes: it is once a category has a column of it. Without behaviour
        in it, that of the current release is taken over, in an update (whose name has a suffix) without
        reading it. Where the current release holds the same content it stays current, so that no cache
        in front loses its answers. Unless `rules` are given, by category, those of the current release
        are taken over. `left_out` is as in `Published`.
        """
        if rules is None:
            categories, reason = self._with_current_rules(draft, categories, checked=not suffix)
            if reason:
                left_out += (f"rules are left out: {reason}; run `lookalike-build rules`",)
        else:
            categories = [
                with_rules(each, self._folder(each), rules.get(each.entry.category_id, ()))
                for each in categories
            ]
        draft = _with_categories(draft, tuple(written.entry for written in categories))
        self._remove_others(draft)
        n_unchanged = sum(written.unchanged for written in categories)
        if draft.behaviour is None:
            behaviour, reason = self._carried(draft, checked=not suffix)
            draft = replace(draft, behaviour=behaviour)
            if reason:
                way_out = "run `lookalike-build behaviour`"
                left_out = (*left_out, f"behaviour is left out: {reason}; {way_out}")
        before = self._root.current()
        release = None
        # A category that was rebuilt although nothing has changed is damaged in the current release.
        if n_unchanged == len(categories):
            release = self._still_current(draft)
        if release is None and not suffix:
            release = self._finished(draft)
        if release is None:
            release = self._named(draft, suffix)
        n_rebuilt = sum(written.rebuilt for written in categories)
        counts = Counts(*map(sum, zip(*(written.counts for written in categories), strict=True)))
        here = {written.entry.category_id for written in categories}
        lost = sum(was.n_items for each, (_, was) in self._published.items() if each not in here)
        counts = counts._replace(gone=counts.gone + lost)
        return Published(release, release != before, n_unchanged, left_out, n_rebuilt, counts)

    def _remove_others(self, draft: Manifest) -> None:
        """Remove what a killed builder has left that is not of this release."""
        known = {BEHAVIOUR, *(category_folder(entry.category_id) for entry in draft.categories)}
        if draft.behaviour is None:
            known.remove(BEHAVIOUR)
        for path in self.path.iterdir():
            if path.name not in known:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _still_current(self, draft: Manifest) -> str | None:
        """The current release, if its content is the draft's and its behaviour is sound."""
        current = full_manifest(self._root, self._root.current())
        if current is None or current.content_digest() != draft.content_digest():
            return None
        folder = self._root.folder(current.release) / BEHAVIOUR
        with suppress(ReleaseError):
            for file, entry in current.behaviour.files.items() if current.behaviour else ():
                entry.check_all(folder / file, file)
            return current.release
        return None

    def _finished(self, draft: Manifest) -> str | None:
        """The newest release made current, if its content is the draft's and it passes all checks.

        Its writer was killed after naming it: of releases 1 and 2, 1 is still current, and 2 is what is
        to be published now. It is made current, and no release 3 beside it.
        """
        newest = full_manifest(self._root, next(reversed(self._root.names()), None))
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

    def _carried(self, draft: Manifest, checked: bool) -> tuple[BehaviourEntry | None, str | None]:
        """The current release's behaviour, or why it is left out, which an update may not do."""
        manifest, unreadable = self._now_current(BEHAVIOUR)
        if manifest is None or manifest.behaviour is None:
            return None, unreadable
        before, now = manifest.product_id_type, draft.product_id_type
        if before != now:
            return None, f"its product ids are {before}s, the release's {now}s"
        published = self._root.folder(manifest.release), manifest, manifest.behaviour
        try:
            return carry(published, self.path, draft.categories, checked), None
        except ReleaseError as error:
            if not checked:
                raise
            shutil.rmtree(self.path / BEHAVIOUR)
            return None, str(error)

    def _with_current_rules(
        self, draft: Manifest, categories: Sequence[Written], checked: bool
    ) -> tuple[list[Written], str | None]:
        """The categories with the rules that the current release has of them, and why some are left
        out, which an update only does where a category is gone."""
        manifest, unreadable = self._now_current(f"*/{RULES}")
        reasons = [unreadable] if unreadable else []
        published: dict[Id, tuple[Path, CategoryEntry]] = {}
        if manifest and manifest.product_id_type == draft.product_id_type:
            published |= products_of(self._root.folder(manifest.release), manifest.categories)
        elif manifest and any(entry.n_rules for entry in manifest.categories):
            before, now = manifest.product_id_type, draft.product_id_type
            reasons = [f"their product ids are {before}s, the release's {now}s"]
        after = []
        for each in categories:
            old, folder = published.pop(each.entry.category_id, None), self._folder(each)
            kept = None
            if old and old[1].n_rules:
                try:
                    kept = with_rules_of(each, folder, old, draft.product_id_type)
                except ReleaseError as error:
                    if not checked:
                        raise
                    reasons.append(str(error))
            after.append(kept or with_rules(each, folder, ()))
        reasons += [f"category {one} is gone" for one, old in published.items() if old[1].n_rules]
        return after, ", ".join(reasons) or None

    def _folder(self, written: Written) -> Path:
        return self.path / category_folder(written.entry.category_id)

    def _now_current(self, holds: str) -> tuple[Manifest | None, str | None]:
        """The manifest of the release that is current now, or why it cannot be read if it `holds`
        files of that pattern."""
        name = self._root.current()
        try:
            return self._root.manifest(name) if name else None, None
        except (ReleaseError, RootError) as error:
            had_any = name and any((self._root.releases / name).glob(holds))
            return None, f"the current release cannot be read: {error}" if had_any else None


def _with_categories(draft: Manifest, categories: tuple[CategoryEntry, ...]) -> Manifest:
    used = {*draft.attributes, *chain.from_iterable(entry.attributes for entry in categories)}
    attributes = {name: one for name, one in draft.known_attributes.items() if name in used}
    return replace(draft, categories=categories, attributes=attributes)


def current_manifest(root: ReleaseRoot, adding: str, error: type[LookalikeError]) -> Manifest:
    """The current release's manifest, to publish it with what is to be added; `error` if it is slim."""
    name = root.chosen()
    manifest = root.manifest(name)
    if is_slim(root.folder(name), manifest):
        raise error(f"release {name} is a slim copy; add {adding} where releases are built")
    return manifest


def full_manifest(root: ReleaseRoot, name: str | None) -> Manifest | None:
    """The manifest of a release; None where there is none, or it is invalid or slim."""
    with suppress(ReleaseError, RootError):
        manifest = root.manifest(name) if name else None
        if name and manifest and not is_slim(root.folder(name), manifest):
            return manifest
    return None
