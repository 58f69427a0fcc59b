"""The release root: who may change it when, what is removed, and what is checked again."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import lookalike.release.opened
from lookalike.release.category import Category
from lookalike.release.files import MANIFEST, NEIGHBOURS, ReleaseError
from lookalike.release.manifest import Manifest
from lookalike.release.root import UPDATE_SUFFIX, ReleaseRoot, RootError
from support import change, random_features
from waiting import HUNG_S

LOCKS = {"lock": "writer", "build_lock": "builder", "follow_lock": "follower"}
HOLD = """
import sys, time
from pathlib import Path
from lookalike.release.root import ReleaseRoot

with getattr(ReleaseRoot(Path(sys.argv[1])), sys.argv[2])():
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def empty(tmp_path: Path) -> ReleaseRoot:
    """A root with no release."""
    root = ReleaseRoot(tmp_path / "root")
    root.create()
    return root


@contextmanager
def held_elsewhere(root: ReleaseRoot, lock: str) -> Iterator[int]:
    """Another process, by its number, that has the lock until it is killed."""
    command = [sys.executable, "-c", HOLD, str(root.path), lock]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as holder:
        try:
            assert holder.stdout
            assert holder.stdout.readline() == b"held\n"
            yield holder.pid
        finally:
            holder.kill()


# Locks


@pytest.mark.parametrize(("lock", "who"), LOCKS.items())
def test_a_lock_is_one_processs_until_it_dies(empty: ReleaseRoot, lock: str, who: str) -> None:
    busy = f"another {who} is at work on {empty.path}; wait for it to end"
    with held_elsewhere(empty, lock):
        with pytest.raises(RootError) as refused, getattr(empty, lock)():
            pass
        assert str(refused.value) == busy
    with getattr(empty, lock)():
        pass


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_is_let_go_of_whatever_happens_under_it(empty: ReleaseRoot, lock: str) -> None:
    with pytest.raises(ZeroDivisionError), getattr(empty, lock)():
        raise ZeroDivisionError
    with getattr(empty, lock)(), pytest.raises(RootError), getattr(empty, lock)():
        pass
    with getattr(empty, lock)():
        pass


def test_a_builder_a_follower_and_a_writer_are_not_in_each_others_way(empty: ReleaseRoot) -> None:
    with empty.build_lock(), empty.follow_lock(), empty.lock():
        pass


def test_a_lock_that_is_waited_for_comes_when_its_holder_is_killed(empty: ReleaseRoot) -> None:
    with held_elsewhere(empty, "lock") as holder:
        killer = threading.Timer(0.3, os.kill, (holder, signal.SIGKILL))
        started = time.monotonic()
        killer.start()
        with empty.lock(wait_s=HUNG_S):
            assert 0.3 <= time.monotonic() - started < HUNG_S


def test_a_lock_is_waited_for_no_longer_than_was_said(empty: ReleaseRoot) -> None:
    with empty.lock():
        started = time.monotonic()
        with pytest.raises(RootError, match="another writer is at work"), empty.lock(wait_s=0.2):
            pass
        assert time.monotonic() - started >= 0.2


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_of_a_root_that_is_not_there_is_refused(tmp_path: Path, lock: str) -> None:
    root = ReleaseRoot(tmp_path / "none")
    with pytest.raises(RootError, match=r"^cannot write to .*none: No such file or directory$"):
        getattr(root, lock)().__enter__()


# Removing releases


def name_of(day: int, suffix: str = "") -> str:
    return f"202001{day:02}T000000.000Z-0123456789ab{suffix}"


def with_releases(root: ReleaseRoot, days: str, current: int) -> None:
    """Releases day after day: ``i`` from an index, ``u`` an update."""
    for day, kind in enumerate(days, 1):
        name = name_of(day, UPDATE_SUFFIX if kind == "u" else "")
        (root.releases / name).mkdir()
        if day == current:
            root.make_current(name)


@pytest.mark.parametrize(
    ("days", "current", "keep", "removed"),
    [
        ("iiii", 4, 2, [1, 2]),
        ("uuuu", 4, 2, [1, 2]),
        ("iiiuuuu", 7, 2, [1, 4, 5]),
        ("iuiuiuiu", 8, 1, [1, 2, 3, 4, 5, 6]),
        ("iuuuuuu", 7, 1, [2, 3, 4, 5, 6]),  # the way back past all updates stays
        ("uiiii", 5, 3, [2]),
        ("iiiuuu", 1, 1, [2, 4, 5]),
        ("iiiuuu", 4, 1, [1, 2, 5]),
        ("iuiu", 4, 0, [1, 2, 3]),
        ("iu", 2, 9, []),
    ],
)
def test_as_many_updates_as_other_releases_are_kept_and_the_current_one(
    empty: ReleaseRoot, days: str, current: int, keep: int, removed: list[int]
) -> None:
    with_releases(empty, days, current)
    before = empty.names()
    gone = [before[day - 1] for day in removed]
    assert empty.prune(keep) == gone
    assert empty.names() == [name for name in before if name not in gone]
    assert empty.current() == before[current - 1]
    assert [path.name for path in empty.releases.iterdir() if path.name[0] == "."] == []


def test_the_way_back_from_an_update_is_the_release_before_it(empty: ReleaseRoot) -> None:
    with_releases(empty, "iuu", current=3)
    assert empty.previous() == name_of(2, UPDATE_SUFFIX)
    empty.make_current(empty.previous())
    assert empty.previous() == name_of(1)


def test_a_new_release_sorts_after_an_update(empty: ReleaseRoot) -> None:
    update = f"29991231T235959.999Z-0123456789ab{UPDATE_SUFFIX}"
    (empty.releases / update).mkdir()
    assert empty.new_name("a" * 64) == f"30000101T000000.000Z-{'a' * 12}"


# Names


def test_an_update_bears_its_digest_in_its_name(root: ReleaseRoot) -> None:
    name = change(root, {1: {100: None}})
    manifest = root.manifest(name)
    assert name.endswith(f"Z-{manifest.content_digest()[:12]}{UPDATE_SUFFIX}")
    assert (root.current(), manifest.release) == (name, name)
    assert len(list(root.check(name))) == 4


@pytest.mark.parametrize("update", [False, True])
def test_a_manifest_that_is_not_what_its_release_was_named_for_is_refused(
    root: ReleaseRoot, update: bool
) -> None:
    name = change(root, {1: {100: None}}) if update else str(root.current())
    path = root.folder(name) / MANIFEST
    document = json.loads(path.read_text())
    document["model"]["name"] = "another"
    path.write_text(json.dumps(document))
    with pytest.raises(ReleaseError) as refused:
        root.manifest(name)
    assert str(refused.value) == (
        f"{MANIFEST}: is not what the release was named for (its digest differs)"
    )


# Publishing


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folder names of categories that are checked from now on."""
    names: list[str] = []

    def spy(folder: Path, *rest: Any) -> Category:
        names.append(folder.name)
        return Category(folder, *rest)

    monkeypatch.setattr(lookalike.release.opened, "Category", spy)
    return names


def staged(root: ReleaseRoot, **other: Any) -> str:
    """Put the current release into the staging folder, as links, under a new name."""
    old = root.folder(str(root.current()))
    document = json.loads((old / MANIFEST).read_text()) | other
    for path in old.glob("*/*"):
        link = root.staging / path.relative_to(old)
        link.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, link)
    path = root.staging / MANIFEST
    path.write_text(json.dumps(document))
    name = root.new_name(Manifest.read(root.staging).content_digest())
    path.write_text(json.dumps(document | {"release": name}))
    return name


def replace(path: Path, data: bytes) -> None:
    """Another file of that name."""
    path.unlink()
    path.write_bytes(data)


def test_what_is_the_current_releases_is_not_checked_again(
    root: ReleaseRoot, checked: list[str]
) -> None:
    name = staged(root)
    path = root.staging / "40" / NEIGHBOURS
    replace(path, path.read_bytes())
    root.publish(name, root.staging)
    assert checked == ["40"]
    assert root.current() == name


def test_a_damaged_copy_of_the_current_releases_file_is_refused(root: ReleaseRoot) -> None:
    before, name = root.current(), staged(root)
    path = root.staging / "2" / NEIGHBOURS
    replace(path, path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(ReleaseError) as refused:
        root.publish(name, root.staging)
    assert refused.value.file == f"2/{NEIGHBOURS}"
    assert (root.current(), root.names()) == (before, [before])


def test_where_the_current_releases_file_is_damaged_a_sound_one_is_checked(
    root: ReleaseRoot, checked: list[str]
) -> None:
    name = staged(root)
    path = root.folder(str(root.current())) / "2" / NEIGHBOURS
    replace(path, path.read_bytes()[:-1] + b"\xff")
    root.publish(name, root.staging)
    assert checked == ["2"]
    assert root.current() == name


@pytest.mark.parametrize(("field", "value"), [("product_id_type", "string"), ("n_dims", 17)])
def test_the_same_files_said_to_be_of_another_kind_are_refused(
    root: ReleaseRoot, field: str, value: object
) -> None:
    before, name = root.current(), staged(root, **{field: value})
    with pytest.raises(ReleaseError, match=r"^1/.*the manifest says"):
        root.publish(name, root.staging)
    assert (root.current(), root.names()) == (before, [before])


def test_the_first_release_is_checked_whole(root: ReleaseRoot, checked: list[str]) -> None:
    name = staged(root)
    (root.path / "current").unlink()
    root.publish(name, root.staging)
    assert checked == ["1", "2", "3", "40"]


def test_an_update_checks_only_what_has_changed(root: ReleaseRoot, checked: list[str]) -> None:
    change(root, {2: {5: random_features(1, 8)[0]}})
    assert checked == ["2"]
