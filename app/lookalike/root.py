"""The release root: the folder that holds all releases and says which one is current.

    ROOT/current                 symlink to releases/<release>, replaced by rename
    ROOT/releases/<release>/     complete releases, never changed
    ROOT/releases/.staging/      the one being written, if any
    ROOT/.lock                   held by the one writer
    ROOT/journal/journal.sqlite  changes of products, see `lookalike.journal`

Whatever moment a writer dies at, `current` names a complete release and the next writer clears what
was left.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lookalike.manifest import MANIFEST, CategoryEntry, Manifest, ReleaseError, is_release_name
from lookalike.release import Release, check_release, open_release, verify_digests

RELEASES = "releases"
CURRENT = "current"
STAGING = ".staging"
JOURNAL = Path("journal", "journal.sqlite")
_NEXT = ".current"
_LOCK = ".lock"
_STAMP = "%Y%m%dT%H%M%S.%fZ"
_DIGEST = 12
_GIVEN_NAME = re.compile(rf"[0-9]{{8}}T[0-9]{{6}}\.[0-9]{{3}}Z-([0-9a-f]{{{_DIGEST}}})")


class RootError(Exception):
    """What was asked of the root cannot be done; the text says what to do."""


class ReleaseRoot:
    """The release root at `path`. Reading needs nothing; writing needs `lock` held."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.releases = path / RELEASES
        self.staging = self.releases / STAGING
        # In a folder, since SQLite has its write-ahead log beside it, and others than us write there.
        self.journal = path / JOURNAL

    def names(self) -> list[str]:
        """The names of all releases, oldest first."""
        try:
            folders = [path.name for path in self.releases.iterdir() if path.is_dir()]
        except FileNotFoundError:
            return []
        return sorted(name for name in folders if is_release_name(name))

    def current(self) -> str | None:
        """The name of the current release, or None where there is none yet."""
        try:
            target = Path((self.path / CURRENT).readlink())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RootError(f"{self.path / CURRENT} is not a symbolic link to a release") from error
        if (self.path / target).parent != self.releases or not is_release_name(target.name):
            raise RootError(f"{self.path / CURRENT} points to {target}, not to a release")
        return target.name

    def none_yet(self) -> RootError:
        """What to raise where a release is needed and there is none."""
        return RootError(f"no release in {self.path} yet; `lookalike-build index` makes one")

    def folder(self, name: str) -> Path:
        """The folder of the release `name`; RootError if there is none."""
        folder = self.releases / name
        if not is_release_name(name) or not folder.is_dir():
            have = ", ".join(self.names()) or "none"
            raise RootError(f"no release {name!r} under {self.path}; it has: {have}")
        return folder

    def manifest(self, name: str) -> Manifest:
        """The manifest of the release `name`, which must bear that name; else ReleaseError."""
        manifest = Manifest.read(self.folder(name))
        if manifest.release != name:
            reason = f"is of release {manifest.release}, in the folder of {name}"
            raise ReleaseError(MANIFEST, reason)
        given = _GIVEN_NAME.fullmatch(name)
        if given and given[1] != manifest.content_digest()[:_DIGEST]:
            raise ReleaseError(
                MANIFEST, "is not what the release was named for (its digest differs)"
            )
        return manifest

    def open(self, name: str, before: Release | None = None) -> Release:
        """Open the release `name` for serving; ReleaseError if it must not be served.

        Categories unchanged since the open release `before` are taken from it.
        """
        return open_release(self.folder(name), self.manifest(name), before)

    def check(self, name: str) -> Iterator[CategoryEntry]:
        """Check every byte of `name`, yielding each category when done; ReleaseError if unfit."""
        manifest = self.manifest(name)
        yield from verify_digests(self.folder(name), manifest)
        check_release(self.folder(name), manifest)

    def new_name(self, content_digest: str) -> str:
        """A name for a new release that sorts after all others: UTC time, then content."""
        now = datetime.now(UTC)
        for name in self.names():
            with suppress(ValueError):
                stamp = datetime.strptime(name.split("-", 1)[0], _STAMP).replace(tzinfo=UTC)
                # A clock set back must not make a new release older than those before it.
                now = max(now, stamp + timedelta(milliseconds=1))
        return f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03}Z-{content_digest[:_DIGEST]}"

    def create(self) -> None:
        """Make the folders of an empty root where there are none; RootError if that fails."""
        try:
            self.releases.mkdir(parents=True, exist_ok=True)
            sync(self.path)
            sync(self.path.absolute().parent)
        except OSError as error:
            raise RootError(f"cannot create {self.releases}: {error.strerror}") from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the one writer; RootError if another is at work. A killed writer holds no lock."""
        try:
            descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RootError(f"cannot write to {self.path}: {error.strerror}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                message = f"another writer is at work on {self.path}; wait for it to end"
                raise RootError(message) from None
            yield
        finally:
            os.close(descriptor)

    def remove_staging(self) -> None:
        """Remove the release being written, also what a killed writer left of one."""
        if self.staging.exists():
            shutil.rmtree(self.staging)

    def publish(self, name: str) -> None:
        """Check the staged release, give it its name and make it current."""
        check_release(self.staging, Manifest.read(self.staging))
        sync(self.staging)
        self.staging.rename(self.releases / name)
        sync(self.releases)
        self.make_current(name)

    def make_current(self, name: str) -> None:
        """Point `current` at `name`, in one step."""
        link = self.path / _NEXT
        link.unlink(missing_ok=True)
        link.symlink_to(Path(RELEASES, name))
        link.replace(self.path / CURRENT)
        sync(self.path)

    def switch(self, name: str, done: Callable[[CategoryEntry], object] = lambda _: None) -> None:
        """Check every byte of `name`, then make it current. `done` hears of each category."""
        for entry in self.check(name):
            done(entry)
        self.make_current(name)

    def previous(self) -> str:
        """The newest release older than the current one; RootError if there is none."""
        current = self.current()
        older = [name for name in self.names() if current is not None and name < current]
        if not older:
            raise RootError(f"no release older than the current one ({current}) in {self.path}")
        return older[-1]

    def prune(self, keep: int) -> list[str]:
        """Remove all but the `keep` newest releases, never the current one; the names removed."""
        removed = [name for name in self.names()[: -keep or None] if name != self.current()]
        for name in removed:
            # Renamed first, so that a half-removed release is never seen as a release.
            doomed = self.releases / f".removed-{name}"
            self.releases.joinpath(name).rename(doomed)
        sync(self.releases)
        for doomed in self.releases.glob(".removed-*"):
            shutil.rmtree(doomed)
        return removed


def sync(path: Path) -> None:
    """Make a file's bytes, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
