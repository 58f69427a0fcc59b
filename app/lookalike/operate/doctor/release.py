"""Checks of the release root: the current release is valid, Unit's user may read it, there is room."""

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import disk_usage

from lookalike.operate.amounts import bytes_text
from lookalike.operate.doctor.access import READ, SEARCH, WRITE, User, described, refused, to_read
from lookalike.operate.doctor.finding import Finding, absent, ok, problem, warning
from lookalike.operate.doctor.host import Host
from lookalike.release.files import MANIFEST, ReleaseError
from lookalike.release.manifest import Manifest
from lookalike.release.opened import check_release, files_of, is_slim
from lookalike.release.root import ReleaseRoot, RootError
from lookalike.serving.settings import ROOT, TOKEN, TOKEN_FILE

_FULL_BYTES = 64 * 2**20
"""With less space free, a disk counts as full."""
_JOURNAL_BYTES = 256 * 2**20
"""Twice what the journal's files may take besides the pending photos."""
_NOT_OURS, _AS_ROOT = "cannot be read by this user", "run this as root"


def release(host: Host) -> Iterator[Finding]:
    """The current release is as its manifest says: what the app checks, with `full` every byte."""
    root = host.root
    if root is None:
        yield problem("no root is given", f"give --root ROOT, or set {ROOT.name}")
        return
    if not os.access(root.path, os.R_OK | os.X_OK, effective_ids=True):
        yield (
            warning(f"{root.path} {_NOT_OURS}", _AS_ROOT)
            if _is_there(root.path)
            else problem(f"there is no folder {root.path}", "give the root with --root ROOT")
        )
        return
    try:
        name = root.chosen()
        folder, manifest = root.folder(name), root.manifest(name)
        for _ in root.check(name) if host.asked.full else ():
            pass
        check_release(folder, manifest)
    except RootError as error:
        yield problem(str(error), "publish a release there, or give another --root ROOT")
    except ReleaseError as error:
        if error.reason == os.strerror(errno.EACCES):
            yield warning(f"{error.file} {_NOT_OURS}", _AS_ROOT)
            return
        yield problem(
            f"the current release must not be served: {error}",
            "`lookalike rollback` goes back to the one before; index or copy this one again",
        )
    else:
        yield ok(sound(folder, manifest, host.asked.full))


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        return True


def sound(folder: Path, manifest: Manifest, full: bool) -> str:
    """What a valid release holds, and how much of it was checked."""
    slim = ", a slim copy: no answers to vectors" if is_slim(folder, manifest) else ""
    how = "every byte as its manifest says"
    if not full:
        how = "sizes and ends as its manifest says (every byte: `lookalike check`)"
    return (
        f"{manifest.release}: {manifest.n_items} products in {len(manifest.categories)} "
        f"categories{slim}; {how}"
    )


def permissions(host: Host) -> Iterator[Finding]:
    """Unit's user can read the environment and the release, and write the journal if there is one."""
    user, root = host.user, host.root
    if user is None:
        yield absent("not checked: no Unit, so no user of its own to read the root")
        return
    if root is None or host.current is None:
        yield absent("not checked: there is no valid current release")
        return
    found = [*_reading(host, user, root, *host.current), *_writing(host, user, root)]
    journal = " and write the journal" if takes_changes(host) else ""
    yield from found or [ok(f"user {user.name} can read what it serves{journal}")]


def _reading(
    host: Host, user: User, root: ReleaseRoot, folder: Path, manifest: Manifest
) -> Iterator[Finding]:
    home = Path((host.app and host.app.config.get("home")) or sys.prefix)
    package = Path(__file__).parents[2]
    # The environment, what it is based on, and this package.
    wanted = to_read([home, Path(os.__file__).parent, package], [package / "wsgi.py"])
    remedy = "install Python and its environment where that user may read them, such as under /opt"
    yield from _denied(user, "read", "its Python environment", wanted, remedy)
    files = [folder / MANIFEST, *files_of(folder, manifest)]
    remedy = (
        f"chgrp lookalike {root.path} && chmod g+rx {root.path} && chgrp -R lookalike "
        f"{root.releases} && chmod -R g+rX {root.releases}, for a user of that group"
    )
    wanted = to_read([root.path, root.releases, folder], files)
    yield from _denied(user, "read", "the release", wanted, remedy)


def release_bytes(folder: Path, manifest: Manifest) -> int:
    """The size of the files of the copy in `folder`, by the manifest."""
    return sum(files_of(folder, manifest).values())


def _writing(host: Host, user: User, root: ReleaseRoot) -> Iterator[Finding]:
    token_file = host.environ.get(TOKEN_FILE.name)
    if token_file:
        remedy = f"chown {user.name} {token_file} and chmod 400 {token_file}"
        yield from _denied(user, "read", "the token", [(Path(token_file), READ)], remedy)
    if not takes_changes(host):
        return
    folder = root.journal.parent
    make = f"install -d -o lookalike-build -g lookalike -m 2770 {folder}"
    if not folder.exists():
        # The app makes the folder if it may.
        yield from _denied(user, "make", "the journal", [(root.path, WRITE | SEARCH)], make)
        return
    files = [path for path in folder.glob(f"{root.journal.name}*") if path.is_file()]
    wanted = [(folder, READ | WRITE | SEARCH), *((path, READ | WRITE) for path in files)]
    yield from _denied(user, "write", "the journal", wanted, make)


def takes_changes(host: Host) -> bool:
    """Whether the app takes changes of products over HTTP."""
    return bool(host.environ.get(TOKEN.name) or host.environ.get(TOKEN_FILE.name))


def _denied(
    user: User, verb: str, what: str, wanted: list[tuple[Path, int]], remedy: str
) -> Iterator[Finding]:
    try:
        path = refused(user, wanted)
    except FileNotFoundError as error:
        yield problem(f"{error.filename} is missing, to {verb} {what}", remedy)
    except PermissionError as error:
        yield warning(
            f"cannot tell whether user {user.name} can {verb} {what}: we may not look at "
            f"{error.filename}",
            _AS_ROOT,
        )
    else:
        if path:
            yield problem(
                f"user {user.name} cannot {verb} {what}: {path} is {described(path)}", remedy
            )


def disk(host: Host) -> Iterator[Finding]:
    """The root's disk has room for another release, and for the journal if changes are taken."""
    if host.root is None or not os.access(host.root.path, os.X_OK, effective_ids=True):
        yield absent("not checked: no root that this user may look at")
        return
    needed = release_bytes(*host.current) if host.current else 0
    yield room(host.root.path, disk_usage(host.root.path).free, needed)
    journal = host.root.journal.parent
    if takes_changes(host) and journal.is_dir():
        free = disk_usage(journal).free
        if _FULL_BYTES <= free < _JOURNAL_BYTES:
            yield warning(
                f"{bytes_text(free)} free for the journal {journal}; it may grow by 128 MiB and "
                "the pending photos",
                "make room",
            )


def room(path: Path, free: int, needed: int) -> Finding:
    """Whether `free` bytes at `path` are enough for another release of `needed` bytes."""
    text = f"{bytes_text(free)} free at {path}, another release like the current takes "
    text += f"{bytes_text(needed)} at most"
    remedy = "make room, or keep fewer releases (`lookalike-build index --keep`)"
    if free < _FULL_BYTES:
        return problem(f"{bytes_text(free)} free at {path}: the disk is full", remedy)
    return warning(text, remedy) if free < needed else ok(text)
