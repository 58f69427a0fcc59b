"""The release root: the folder that holds all releases and says which one is current.

    ROOT/current                 symlink to releases/<release>, replaced by rename
    ROOT/releases/<release>/     complete releases, never changed
    ROOT/releases/.staging/      the release being built
    ROOT/releases/.finished/     which of its categories are finished, should the builder be killed
    ROOT/releases/.before/       links to the release that was current when the build began
    ROOT/releases/.scratch/      the build's temporary files
    ROOT/releases/.updating/     the release that a follower is making
    ROOT/releases/.rebasing/     categories whose index the follower rebuilds
    ROOT/releases/.pushed-*/     a release that deploy/push is copying here
    ROOT/releases/.replaced-*/   a slim copy, until the full copy in its place is checked
    ROOT/.lock                   held while releases are added or removed or `current` changes
    ROOT/.build.lock             held by the one builder
    ROOT/.follow.lock            held by the one follower
    ROOT/.at-work                the follower's note of what it is working on
    ROOT/.feed.key               the follower's key, which seals the images of its feed
    ROOT/journal/journal.sqlite  changes of products, see `lookalike.journal`

A writer may die at any moment: `current` still names a complete release, and the next writer removes
what the dead one left.
"""

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lookalike.errors import LookalikeError
from lookalike.release.files import MANIFEST, ReleaseError
from lookalike.release.manifest import CategoryEntry, Manifest, is_release_name
from lookalike.release.opened import Release, check_release, map_release, verify_digests

RELEASES = "releases"
CURRENT = "current"
STAGING = ".staging"
UPDATE_SUFFIX = "-update"
"""The end of the name of a release that a follower made."""
JOURNAL = Path("journal", "journal.sqlite")
_NEXT = ".current"
FOLLOW_LOCK = ".follow.lock"
AT_WORK = ".at-work"
_WAIT_S = 0.05
_PEEK_S = 0.2
"""Longer than a check whether a follower is running holds the lock."""
LOCK_WAIT_S = 3600.0
"""Longer than any writer holds the root's lock, so that it never costs a build hours of work."""
_DIGEST = 12
_GIVEN_NAME = re.compile(
    rf"[0-9]{{8}}T[0-9]{{6}}\.[0-9]{{3}}Z-([0-9a-f]{{{_DIGEST}}})(?:{UPDATE_SUFFIX})?"
)


class RootError(LookalikeError):
    """The release root cannot do what was asked; the text says what to do."""


class ReleaseRoot:
    """The release root at `path`. Hold `lock` to write; reading needs no lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.releases = path / RELEASES
        self.staging = self.releases / STAGING
        self.finished = self.releases / ".finished"
        self.before = self.releases / ".before"
        self.scratch = self.releases / ".scratch"
        self.updating = self.releases / ".updating"
        self.rebasing = self.releases / ".rebasing"
        # In a folder of its own: SQLite keeps its log beside it, and the app's user writes there too.
        self.journal = path / JOURNAL
        self.feed_key = path / ".feed.key"
        self.at_work = path / AT_WORK

    def names(self) -> list[str]:
        """The names of all releases, oldest first."""
        try:
            folders = [path.name for path in self.releases.iterdir() if path.is_dir()]
        except FileNotFoundError:
            return []
        return sorted(name for name in folders if is_release_name(name))

    def current(self) -> str | None:
        """The name of the current release; None if there is none yet."""
        try:
            target = Path((self.path / CURRENT).readlink())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RootError(f"{self.path / CURRENT} is not a symbolic link to a release") from error
        if (self.path / target).parent != self.releases or not is_release_name(target.name):
            raise RootError(f"{self.path / CURRENT} points to {target}, not to a release")
        return target.name

    def chosen(self, name: str | None = None) -> str:
        """The release `name`, or the current one; RootError if there is none yet."""
        chosen = self.current() if name is None else name
        if chosen is None:
            raise self.none_yet()
        return chosen

    def none_yet(self) -> RootError:
        """The error to raise if a release is needed and there is none."""
        return RootError(f"no release in {self.path} yet; `lookalike-build index` makes one")

    def folder(self, name: str) -> Path:
        """The folder of the release `name`; RootError if there is none."""
        folder = self.releases / name
        if not is_release_name(name) or not folder.is_dir():
            have = ", ".join(self.names()) or "none"
            raise RootError(f"no release {name!r} under {self.path}; it has: {have}")
        return folder

    def manifest(self, name: str) -> Manifest:
        """The manifest of the release `name`; ReleaseError if it is of another release."""
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
        """Open a release as `map_release` does; ReleaseError if it must not be served."""
        return map_release(self.folder(name), self.manifest(name), before)

    def check(self, name: str) -> Iterator[CategoryEntry]:
        """Check every byte of `name`, yielding each category when done; ReleaseError if invalid."""
        manifest = self.manifest(name)
        yield from verify_digests(self.folder(name), manifest)
        check_release(self.folder(name), manifest)

    def new_name(self, content_digest: str) -> str:
        """A name for a new release that sorts after all others: the UTC time, then the content."""
        now = datetime.now(UTC)
        for name in self.names():
            stamp = stamp_of(name)
            # Even if the clock was set back, a new release must sort last.
            now = max(now, stamp + timedelta(milliseconds=1)) if stamp else now
        return f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03}Z-{content_digest[:_DIGEST]}"

    def create(self) -> None:
        """Make the folders of an empty root where there are none; RootError if that fails."""
        try:
            self.releases.mkdir(parents=True, exist_ok=True)
            sync(self.path)
            sync(self.path.absolute().parent)
        except OSError as error:
            raise RootError(f"cannot create {self.releases}: {error.strerror}") from error

    def lock(self, wait_s: float = 0) -> AbstractContextManager[None]:
        """Hold the right to add and remove releases and to change which one is current.

        RootError if another writer holds it for longer than `wait_s`. A killed writer holds no lock.
        """
        return self._locked(".lock", f"another writer is at work on {self.path}", wait_s)

    def build_lock(self) -> AbstractContextManager[None]:
        """Be the one builder, who works for hours before it takes `lock`; else RootError."""
        return self._locked(".build.lock", f"another builder is at work on {self.path}")

    def follow_lock(self) -> AbstractContextManager[None]:
        """Be the one follower; else RootError."""
        return self._locked(FOLLOW_LOCK, f"another follower is at work on {self.path}", _PEEK_S)

    @contextmanager
    def _locked(self, name: str, busy: str, wait_s: float = 0) -> Iterator[None]:
        until = time.monotonic() + wait_s
        try:
            descriptor = os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RootError(f"cannot write to {self.path}: {error.strerror}") from error
        try:
            while True:
                with suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                if time.monotonic() >= until:
                    raise RootError(f"{busy}; wait for it to end")
                time.sleep(_WAIT_S)
            yield
        finally:
            os.close(descriptor)

    def remove_staging(self, but_finished: bool = False) -> None:
        """Remove the release being built, or what a killed builder left of one.

        With `but_finished`, leave the categories that it had finished, and others it was writing.
        """
        building = () if but_finished else (self.finished, self.staging)
        for folder in (self.before, self.scratch, *building):
            if folder.exists():
                shutil.rmtree(folder)

    def publish(self, name: str, staging: Path) -> None:
        """Check the release in the folder `staging`, give it its name and make it current.

        Categories that the current release has too are not checked again.
        """
        current = self.current()
        before = None
        with suppress(ReleaseError, RootError):
            before = (self.folder(current), self.manifest(current)) if current else None
        check_release(staging, Manifest.read(staging), before)
        sync(staging)
        staging.rename(self.releases / name)
        sync(self.releases)
        self.make_current(name)

    def make_current(self, name: str) -> None:
        """Point `current` at `name`, in one step."""
        link = self.path / _NEXT
        link.unlink(missing_ok=True)
        link.symlink_to(Path(RELEASES, name))
        link.replace(self.path / CURRENT)
        sync(self.path)

    def switch(self, name: str) -> None:
        """Check every byte of `name`, then make it current."""
        for _ in self.check(name):
            pass
        self.make_current(name)

    def previous(self) -> str:
        """The newest release older than the current one; RootError if there is none."""
        current = self.current()
        older = [name for name in self.names() if current is not None and name < current]
        if not older:
            raise RootError(f"no release older than the current one ({current}) in {self.path}")
        return older[-1]

    def prune(self, keep: int) -> list[str]:
        """Remove old releases; returns their names.

        Keeps the current one, the `keep` newest that followers made and the `keep` newest others: many
        small changes must not push out the nightly builds.
        """
        updates = [name for name in self.names() if name.endswith(UPDATE_SUFFIX)]
        others = [name for name in self.names() if not name.endswith(UPDATE_SUFFIX)]
        old = sorted(updates[: -keep or None] + others[: -keep or None])
        removed = [name for name in old if name != self.current()]
        for name in removed:
            # Renamed first: half a release must never be taken for a release.
            doomed = self.releases / f".removed-{name}"
            self.releases.joinpath(name).rename(doomed)
        sync(self.releases)
        for doomed in self.releases.glob(".removed-*"):
            shutil.rmtree(doomed)
        (self.path / _NEXT).unlink(missing_ok=True)  # left by a writer killed before the rename
        return removed


def open_release(root: str | os.PathLike[str], name: str | None = None) -> Release:
    """Check and map a release of the release root `root`: the current one, or the one called `name`.

    It stays open and the same, whatever becomes current later. RootError if there is no such release,
    ReleaseError with the file named if it is damaged.
    """
    found = ReleaseRoot(Path(root))
    return found.open(found.chosen(name))


def stamp_of(name: str) -> datetime | None:
    """When the release `name` was made; None if the name does not say."""
    with suppress(ValueError):
        stamp = datetime.strptime(name.split("-", 1)[0], "%Y%m%dT%H%M%S.%fZ")
        return stamp.replace(tzinfo=UTC)
    return None


def sync(path: Path) -> None:
    """Have a file's bytes, or the names in a folder, survive a power cut."""
    with named(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Have an OSError name `path` if it names no file, as after a read or write of an open file."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
