"""lookalike doctor, of permissions: what Unit's user may not read or write is named."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from findings import only
from lookalike.operate.doctor import release
from lookalike.operate.doctor.access import READ, SEARCH, WRITE, User, may, refused, to_read
from lookalike.operate.doctor.finding import Level
from lookalike.operate.doctor.host import Asked, Host
from lookalike.release.root import ReleaseRoot

SHOP = User("shop", 1000, frozenset({1000, 50}))


@pytest.mark.parametrize(
    ("owner", "mode", "granted"),
    [
        ((1000, 1), 0o600, True),
        ((1000, 50), 0o060, False),  # the owner's bits hold, however large the group's are
        ((1, 50), 0o060, True),
        ((1, 50), 0o006, False),
        ((1, 1), 0o006, True),
        ((1, 1), 0o660, False),
    ],
)
def test_modes_grant_as_the_kernel_would(owner: tuple[int, int], mode: int, granted: bool) -> None:
    status = os.stat_result((mode, 0, 0, 1, *owner, 0, 0, 0, 0))
    assert may(SHOP, status, READ | WRITE) == granted
    assert may(User("root", 0, frozenset()), status, READ | WRITE)


def test_the_first_folder_or_file_that_denies_is_named(tmp_path: Path) -> None:
    stranger = User("stranger", 10**6, frozenset())
    folder, file = tmp_path / "folder", tmp_path / "folder" / "file"
    folder.mkdir()
    file.touch(0o640)
    wanted = to_read([], [file])
    for path in (tmp_path, *tmp_path.parents):
        if not path.stat().st_mode & SEARCH:
            assert refused(stranger, wanted) in tmp_path.parents or tmp_path
            return
    assert refused(stranger, wanted) == file
    folder.chmod(0o750)
    assert refused(stranger, wanted) == folder


def test_our_own_user_may_what_we_may(root: ReleaseRoot) -> None:
    there = Host(Asked(root=root.path))
    there.user = User.of_process(os.getpid())
    found = only(release.permissions(there))
    assert (found.level, "can read what it serves" in found.text) == (Level.OK, True)


def test_a_token_that_cannot_be_read_and_a_journal_that_cannot_be_made_are_told(
    root: ReleaseRoot, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef")
    token.chmod(0o600)
    there = Host(Asked(root=root.path), {"LOOKALIKE_TOKEN_FILE": str(token)})
    there.user = User("stranger", 10**6, frozenset())
    texts = [each.text for each in release.permissions(there)]
    assert any("cannot read the token" in text for text in texts)
    assert any("cannot make the journal" in text for text in texts)
    root.journal.parent.mkdir(mode=0o700)
    texts = [each.text for each in release.permissions(there)]
    assert any("cannot write the journal" in text for text in texts)


def test_a_missing_token_file_is_named(root: ReleaseRoot, tmp_path: Path) -> None:
    there = Host(Asked(root=root.path), {"LOOKALIKE_TOKEN_FILE": str(tmp_path / "token")})
    there.user = User.of_process(os.getpid())
    (found,) = release.permissions(there)
    assert found.text == f"{tmp_path / 'token'} is missing, to read the token"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.slow
def test_the_kernel_agrees(tmp_path: Path) -> None:
    tmp_path = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own folders are for one user
    user = User("stranger", 54321, frozenset({54321, 54322}))
    file = tmp_path / "file"
    file.touch()
    tmp_path.chmod(0o755)
    cases = [
        (owner, group, mode, wanted)
        for owner in (0, 54321)
        for group in (0, 54322)
        for mode in range(0, 0o1000, 3)
        for wanted in (READ, WRITE, SEARCH, READ | WRITE)
    ]
    try:
        for owner, group, mode, wanted in cases:
            os.chown(file, owner, group)
            file.chmod(mode)
            os.setegid(54321)
            os.setgroups([54322])
            os.seteuid(54321)
            try:
                allowed = os.access(file, wanted, effective_ids=True)
            finally:
                os.seteuid(0)
                os.setegid(0)
                os.setgroups([0])
            assert may(user, file.stat(), wanted) == allowed, (owner, group, oct(mode), wanted)
    finally:
        shutil.rmtree(tmp_path)
