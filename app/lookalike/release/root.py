"""The release root: the folder that holds all releases and says which one is current.

    ROOT/current                 symlink to releases/<release>, replaced by rename
    ROOT/releases/<release>/     complete releases, never changed
    ROOT/releases/.staging/      the one being built, if any
    ROOT/releases/.before/       the release that was current when that began, as links
    ROOT/releases/.scratch/      what its builder has no memory for
    ROOT/releases/.updating/     the one that a follower is making, if any
    ROOT/releases/.rebasing/     categories whose index it makes anew
    ROOT/releases/.pushed-*/     one that deploy/push is copying here, if any
    ROOT/releases/.replaced-*/   a slim one, until the full copy in its place is checked
    ROOT/.lock                   held by whoever adds or removes a release or changes `current`
    ROOT/.build.lock             held by the one builder
    ROOT/.follow.lock            held by the one follower
    ROOT/.at-work                what the follower works on, its own
    ROOT/.feed.key               seals the images of the follower's feed, its own
    ROOT/journal/journal.sqlite  changes of products, see `lookalike.journal`

Whatever moment a writer dies at, `current` names a complete release and the next writer clears what
was left.
"""

import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
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
"""Ends the names of releases that a follower made."""
JOURNAL = Path("journal", "journal.sqlite")
_NEXT = ".current"
_LOCK = ".lock"
_BUILD_LOCK = ".build.lock"
FOLLOW_LOCK = ".follow.lock"
AT_WORK = ".at-work"
_WAIT_S = 0.05
_PEEK_S = 0.2
"""Longer than one who only asks whether a follower runs keeps the lock."""
LOCK_WAIT_S = 3600.0
"""Longer than any writer holds the root's lock: hours of work are not to be lost for it."""
_STAMP = "%Y%m%dT%H%M%S.%fZ"
_DIGEST = 12
_GIVEN_NAME = re.compile(
    rf"[0-9]{{8}}T[0-9]{{6}}\.[0-9]{{3}}Z-([0-9a-f]{{{_DIGEST}}})(?:{UPDATE_SUFFIX})?"
)


class RootError(LookalikeError):
    """What was asked of the root cannot be done; the text says what to do."""


class ReleaseRoot:
    """The release root at `path`. Reading needs nothing; writing needs `lock` held."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.releases = path / RELEASES
        self.staging = self.releases / STAGING
        self.before = self.releases / ".before"
        self.scratch = self.releases / ".scratch"
        self.updating = self.releases / ".updating"
        self.rebasing = self.releases / ".rebasing"
        # In a folder, since SQLite has its write-ahead log beside it, and others than us write there.
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
        return map_release(self.folder(name), self.manifest(name), before)

    def check(self, name: str) -> Iterator[CategoryEntry]:
        """Check every byte of `name`, yielding each category when done; ReleaseError if unfit."""
        manifest = self.manifest(name)
        yield from verify_digests(self.folder(name), manifest)
        check_release(self.folder(name), manifest)

    def new_name(self, content_digest: str) -> str:
        """A name for a new release that sorts after all others: UTC time, then content."""
        now = datetime.now(UTC)
        for name in self.names():
            stamp = stamp_of(name)
            # A clock set back must not make a new release older than those before it.
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
        """Be the one to change what releases there are and which is current.

        RootError if another is at it for longer than `wait_s`. A killed writer holds no lock.
        """
        return self._locked(_LOCK, f"another writer is at work on {self.path}", wait_s)

    def build_lock(self) -> AbstractContextManager[None]:
        """Be the one builder, which writes for a long time before it publishes; else RootError."""
        return self._locked(_BUILD_LOCK, f"another builder is at work on {self.path}")

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
            while not _try_lock(descriptor):
                if time.monotonic() >= until:
                    raise RootError(f"{busy}; wait for it to end")
                time.sleep(_WAIT_S)
            yield
        finally:
            os.close(descriptor)

    def remove_staging(self) -> None:
        """Remove the release being built, also what a killed builder left of one."""
        for folder in (self.staging, self.before, self.scratch):
            if folder.exists():
                shutil.rmtree(folder)

    def publish(self, name: str, staging: Path) -> None:
        """Check the release in the folder `staging`, give it its name and make it current.

        Categories that are the current release's are not checked again.
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
        """Remove old releases; the names removed.

        Kept are the current one, the `keep` newest of those that followers made and the `keep` newest
        of the others, so that many small changes do not take the way back past them.
        """
        updates = [name for name in self.names() if name.endswith(UPDATE_SUFFIX)]
        others = [name for name in self.names() if not name.endswith(UPDATE_SUFFIX)]
        old = sorted(updates[: -keep or None] + others[: -keep or None])
        removed = [name for name in old if name != self.current()]
        for name in removed:
            # Renamed first, so that a half-removed release is never seen as a release.
            doomed = self.releases / f".removed-{name}"
            self.releases.joinpath(name).rename(doomed)
        sync(self.releases)
        for doomed in self.releases.glob(".removed-*"):
            shutil.rmtree(doomed)
        (self.path / _NEXT).unlink(missing_ok=True)  # of a writer killed before it could rename it
        return removed


def open_release(root: str | os.PathLike[str], name: str | None = None) -> Release:
    """Check and map a release of the release root `root`: the current one, or the one called `name`.

    It stays what it is, whatever becomes current later. RootError where there is none, ReleaseError
    with the file named where it is damaged.
    """
    found = ReleaseRoot(Path(root))
    chosen = found.current() if name is None else name
    if chosen is None:
        raise found.none_yet()
    return found.open(chosen)


def stamp_of(name: str) -> datetime | None:
    """When the release `name` was made, by its name; None where that does not say."""
    with suppress(ValueError):
        return datetime.strptime(name.split("-", 1)[0], _STAMP).replace(tzinfo=UTC)
    return None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sync(path: Path) -> None:
    """Make a file's bytes, or the names in a folder, survive a power cut."""
    with named(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Have an OSError name `path` if it names no file: reads and writes of an open file name none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
