"""The check of secrets: only root, and the user that needs it, may read one."""

import os
import pwd
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lookalike.operate.doctor.access import READ, SEARCH, WRITE, User, described, may, refused
from lookalike.operate.doctor.finding import Finding, absent, ok, warning
from lookalike.operate.doctor.host import Host
from lookalike.serving.settings import TOKEN_FILE

SERVING, BUILDING = "lookalike", "lookalike-build"
"""The users that deploy/systemd makes."""
ENVIRONMENTS = (Path("/etc/lookalike/build.env"), Path("/etc/lookalike/serve.env"))
"""Files that systemd reads as root, for its services alone."""
_NOT_OWNER, _OTHERS = 0o077, 0o007


def secrets(host: Host) -> Iterator[Finding]:
    """The app's user cannot read the builder's home, and the builder cannot read the token."""
    serving, building = host.user or _user(SERVING), _user(BUILDING)
    checked: list[Path] = []
    found: list[Finding] = []
    for path in filter(_is_there, ENVIRONMENTS):
        checked.append(path)
        found += _environment(path)
    token = Path(host.environ.get(TOKEN_FILE.name) or os.devnull)
    if token != Path(os.devnull) and _is_there(token):
        checked.append(token)
        found += _token(token, serving, building)
    home = Path(pwd.getpwnam(BUILDING).pw_dir) if building else None
    if building and home and _is_there(home):
        checked.append(home)
        found += _home(home, serving, building)
    if not checked:
        yield absent("not checked: no token file, and nothing that deploy/systemd makes")
        return
    names = ", ".join(map(str, checked))
    yield from found or [ok(f"only the user that needs it may read each of {names}")]


def _environment(path: Path) -> Iterator[Finding]:
    if path.stat().st_mode & _NOT_OWNER or path.stat().st_uid != 0:
        yield warning(
            f"{path} may hold secrets and is {described(path)}; root alone is to read it",
            f"chown root:root {path} and chmod 600 {path}",
        )


def _home(path: Path, serving: User | None, building: User) -> Iterator[Finding]:
    if (
        serving
        and serving.uid not in (0, building.uid)
        and any(refused(serving, [(path, what)]) is None for what in (READ, WRITE, SEARCH))
    ):
        yield warning(
            f"user {serving.name} may look into {path}, where {BUILDING} has photos, features "
            f"and credentials: it is {described(path)}",
            f"chmod 700 {path}",
        )


def _token(path: Path, serving: User | None, building: User | None) -> Iterator[Finding]:
    status = path.stat()
    owner = serving.name if serving else SERVING
    remedy = f"chown {owner} {path} and chmod 400 {path}"
    if status.st_mode & _OTHERS:
        yield warning(f"everybody can read the token in {path}", remedy)
    elif building and (not serving or serving.uid != building.uid) and may(building, status, READ):
        yield warning(
            f"user {building.name} can read the token, which it does not need: {path} is "
            f"{described(path)}",
            remedy,
        )


def _user(name: str) -> User | None:
    with suppress(KeyError):
        return User.named(name)
    return None


def _is_there(path: Path) -> bool:
    return os.access(path, os.F_OK, effective_ids=True)
