"""lookalike doctor, of secrets: what the wrong user may read is named, with the remedy."""

import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from findings import only
from lookalike.operate.doctor import secrets
from lookalike.operate.doctor.access import User
from lookalike.operate.doctor.finding import Level
from lookalike.operate.doctor.host import Asked, Host

US = os.getuid(), os.getgid()
SERVING = User("lookalike", 54321, frozenset({US[1]}))
BUILDING = User("lookalike-build", 54322, frozenset({US[1]}))
needs_root = pytest.mark.skipif(US[0] != 0, reason="only root can give files away")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may go into, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def host(place: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """With two users of one group, files as deploy/systemd makes them, and a token."""
    users = {user.name: user for user in (SERVING, BUILDING)}
    home = place / "home"
    home.mkdir(0o700)
    environment, token = place / "build.env", place / "token"
    environment.touch(0o600)
    token.touch(0o400)
    monkeypatch.setattr(User, "named", lambda name: users[name])
    monkeypatch.setattr(pwd, "getpwnam", lambda _: SimpleNamespace(pw_dir=str(home)))
    monkeypatch.setattr(secrets, "ENVIRONMENTS", (environment, place / "serve.env"))
    found = Host(Asked(), {"LOOKALIKE_TOKEN_FILE": str(token)})
    found.user = SERVING
    return found


@needs_root
def test_what_systemd_makes_is_well(host: Host, place: Path) -> None:
    found = only(secrets.secrets(host))
    assert found.level == Level.OK
    for name in ("build.env", "token", "home"):
        assert str(place / name) in found.text


@needs_root
@pytest.mark.parametrize(
    ("name", "mode", "said", "remedy"),
    [
        ("build.env", 0o640, "root alone is to read it", "chmod 600 {path}"),
        ("token", 0o440, "user lookalike-build can read the token", "chmod 400 {path}"),
        (
            "token",
            0o404,
            "everybody can read the token in",
            "chown lookalike {path} and chmod 400 {path}",
        ),
        ("home", 0o750, "user lookalike may look into {path}", "chmod 700 {path}"),
        ("home", 0o710, "user lookalike may look into {path}", "chmod 700 {path}"),
    ],
)
def test_what_the_wrong_user_may_read_is_told(
    name: str, mode: int, said: str, remedy: str, host: Host, place: Path
) -> None:
    path = place / name
    path.chmod(mode)
    found = only(secrets.secrets(host))
    assert found.level == Level.WARNING
    assert said.format(path=path) in found.text
    assert found.remedy.endswith(remedy.format(path=path))


@needs_root
def test_one_user_for_all_is_none_of_the_others_secrets(host: Host, place: Path) -> None:
    host.user = BUILDING
    (place / "token").chmod(0o440)
    (place / "home").chmod(0o750)
    assert only(secrets.secrets(host)).level == Level.OK


def test_where_there_are_none_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(secrets, "ENVIRONMENTS", (tmp_path / "build.env",))
    monkeypatch.setattr(secrets, "BUILDING", "nobody-of-that-name")
    there = Host(Asked(), {})
    there.user = None
    assert only(secrets.secrets(there)).level == Level.ABSENT
