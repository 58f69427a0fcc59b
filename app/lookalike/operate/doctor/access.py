"""Who may do what with a file, by its mode and the modes of the folders above it.

The user need not be ours. Access control lists and security modules are not checked.
"""

import grp
import os
import pwd
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lookalike.release.memory import fields_of

READ, WRITE, SEARCH = 4, 2, 1


class User(NamedTuple):
    """A user that processes run as: a name to show, the user's id, and the ids of all groups."""

    name: str
    uid: int
    gids: frozenset[int]

    @classmethod
    def named(cls, name: str, group: str | None = None) -> "User":
        """The user `name`, in its groups and in `group`; KeyError if one does not exist."""
        entry = pwd.getpwnam(name)
        gid = grp.getgrnam(group).gr_gid if group else entry.pw_gid
        return cls(name, entry.pw_uid, frozenset({gid, *os.getgrouplist(name, gid)}))

    @classmethod
    def of_process(cls, pid: int) -> "User":
        """The user that a process runs as; OSError if there is no such process."""
        fields = fields_of(f"{pid}/status")
        uid = int(fields["Uid"][1])
        gids = frozenset(map(int, [fields["Gid"][1], *fields["Groups"]]))
        return cls(user_name(uid), uid, gids)


def user_name(uid: int) -> str:
    """The name of a user, or the number if it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def may(user: User, status: os.stat_result, wanted: int) -> bool:
    """Whether `user` may do all of `wanted` (READ, WRITE, SEARCH) with a file of that status."""
    if user.uid == 0:
        return True
    if status.st_uid == user.uid:
        granted = status.st_mode >> 6
    elif status.st_gid in user.gids:
        granted = status.st_mode >> 3
    else:
        granted = status.st_mode
    return granted & wanted == wanted


def refused(user: User, wanted: Sequence[tuple[Path, int]]) -> Path | None:
    """The first of the paths, or of the folders above one, that denies `user` what is wanted there.

    OSError if one is missing, or we may not look there ourselves.
    """
    seen: set[Path] = set()
    for path, what in wanted:
        real = path.resolve(strict=True)
        for folder in reversed(real.parents):
            if folder not in seen and not may(user, folder.stat(), SEARCH):
                return folder
            seen.add(folder)
        if not may(user, real.stat(), what):
            return real
    return None


def to_read(folders: Iterable[Path], files: Iterable[Path]) -> list[tuple[Path, int]]:
    """What `refused` must check before `folders` can be listed and `files` read."""
    return [*((path, READ | SEARCH) for path in folders), *((path, READ) for path in files)]


def described(path: Path) -> str:
    """Owner, group and mode, as in ``lookalike-build:lookalike mode 2750``."""
    status = path.stat()
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    return f"{user_name(status.st_uid)}:{group} mode {status.st_mode & 0o7777:o}"
