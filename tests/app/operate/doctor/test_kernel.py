"""lookalike doctor, of kernel and CPU: memory, limits, clock and Annoy's instructions."""

import os
import resource
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from findings import levels, only
from lookalike.operate.doctor import kernel
from lookalike.operate.doctor.access import User
from lookalike.operate.doctor.finding import Level
from lookalike.operate.doctor.host import Asked, Host
from lookalike.release.files import BEHAVIOUR, NEIGHBOURS, RELATED, SAME_PHOTO, STARTS
from lookalike.release.ids import Id
from lookalike.release.root import ReleaseRoot
from lookalike.serving.source import ReleaseSource
from lookalike_build.indexing.live import FeatureChanges
from support import change, make_slim, rate

MB = 10**6


def test_memory_is_to_hold_the_hot_files_twice() -> None:
    for available, level in (
        (20 * MB, Level.OK),
        (19 * MB, Level.WARNING),
        (9 * MB, Level.PROBLEM),
    ):
        found = kernel.page_cache(10 * MB, available, 0.5)
        assert (found.level, "(50% of that is in memory now)" in found.text) == (level, True)
    assert "in memory now" not in kernel.page_cache(10 * MB, 20 * MB, None).text


def test_the_hot_files_are_those_of_the_manifest(root: ReleaseRoot) -> None:
    rate(root, [("user", product_id, 1_700_000_000) for product_id in range(100, 120)])
    there = Host(Asked(root=root.path))
    assert there.current is not None
    folder, manifest = there.current
    hot = [*folder.glob("*/product_ids.npy"), *folder.glob(f"*/{NEIGHBOURS}")]
    hot += folder.glob(f"*/{SAME_PHOTO}")
    hot += [folder / BEHAVIOUR / file for file in (STARTS, RELATED)]
    assert kernel.hot_bytes(manifest) == sum(path.stat().st_size for path in hot)
    assert levels(kernel.memory(there)) == [Level.OK]


def test_locked_memory_matters_only_where_it_is_to_be_locked(root: ReleaseRoot) -> None:
    asked = Asked(root=root.path)
    assert only(kernel.locked(Host(asked, {}))).text.startswith("LOOKALIKE_LOCK_MEMORY is not")
    there = Host(asked, {"LOOKALIKE_LOCK_MEMORY": "true"})
    assert "may lock" in only(kernel.locked(there)).text
    for limit, level in (
        (None, Level.OK),
        (20 * MB, Level.OK),
        (10 * MB, Level.WARNING),
        (8 * MB, Level.PROBLEM),
    ):
        assert kernel.locking(10 * MB, limit, "Unit").level == level


def test_open_files_are_counted_twice_and_with_others() -> None:
    for limit, level in (
        (None, Level.OK),
        (2000, Level.OK),
        (1990, Level.WARNING),
        (1000, Level.PROBLEM),
    ):
        assert kernel.open_files(968, limit, "Unit").level == level


@pytest.mark.parametrize(
    ("most", "level"), [(33_024, Level.OK), (33_023, Level.WARNING), (17_023, Level.PROBLEM)]
)
def test_a_release_is_mapped_twice_in_a_change(most: int, level: Level) -> None:
    finding = kernel.mappings(16_000, most)
    assert finding.level == level
    assert f"may map {most} files" in finding.text


@pytest.mark.parametrize("slim", [False, True])
def test_a_release_maps_no_more_files_than_that(root: ReleaseRoot, slim: bool) -> None:
    change(root, {40: {7990: None, 5010: np.ones(16, np.float32)}})
    if slim:
        make_slim(root)
    source = ReleaseSource(root)
    source.look()
    assert source.release is not None
    mapped = Path("/proc/self/maps").read_text().count(f"{root.path}/")
    most = 4 * (kernel.MAPPED_SLIM if slim else kernel.MAPPED)
    assert most / 2 < mapped <= most


@pytest.mark.parametrize("slim", [False, True])
def test_a_release_holds_no_more_files_open_than_that(root: ReleaseRoot, slim: bool) -> None:
    changes: dict[Id, FeatureChanges] = {40: {7990: None, 5010: np.ones(16, np.float32)}}
    change(root, changes)
    if slim:
        make_slim(root)

    def held() -> int:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return sum(link.readlink().is_relative_to(root.path) for link in links)

    source = ReleaseSource(root)
    source.look()
    assert source.release is not None
    limits = [kernel.OPEN_SLIM if slim else kernel.OPEN_FILES] * 4
    assert held() <= sum(limits)


def test_limits_are_those_of_the_processes_and_else_our_own() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for processes, whose in (([os.getpid()], "a process of Unit's"), ([], "this shell")):
        limit, said = kernel.limit_of(processes, "Max open files", resource.RLIMIT_NOFILE)
        assert (limit, said.startswith(whose)) == (hard, True)


def test_metrics_need_a_folder_and_room(tmp_path: Path) -> None:
    us = User.of_process(os.getpid())
    assert kernel.metrics(tmp_path, us, None).level == Level.OK
    assert kernel.metrics(tmp_path, None, 10 * MB).level == Level.OK
    full = kernel.metrics(tmp_path, us, 4096)
    assert (full.level, "for itself alone" in full.text) == (Level.WARNING, True)
    tmp_path.chmod(0o755)
    stranger = User("stranger", 10**6, frozenset())
    assert kernel.metrics(tmp_path, stranger, None).level == Level.WARNING


def test_annoy_works_here() -> None:
    assert only(kernel.annoy(Host(Asked()))).level == Level.OK


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (f"os.kill(os.getpid(), {signal.SIGILL:d})", "dies of SIGILL (illegal instruction)"),
        (f"os.kill(os.getpid(), {signal.SIGKILL:d})", "dies of SIGKILL"),
        ("raise ImportError('no annoylib')", "cannot be used: ImportError: no annoylib"),
        ("sys.exit(3)", "exit status 3"),
    ],
)
def test_annoy_that_dies_takes_nobody_with_it(program: str, said: str) -> None:
    found = kernel.trial([sys.executable, "-c", f"import os, sys; {program}"])
    assert (found.level, said in found.text) == (Level.PROBLEM, True), found
    assert "--no-binary annoy annoy" in found.remedy


def test_a_clock_behind_the_newest_release_is_a_problem() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    behind = kernel.right_time(now, now + timedelta(hours=3), True)
    assert behind.level == Level.PROBLEM
    assert "the newest release is of 3 h later" in behind.text
    assert kernel.right_time(now, now + timedelta(seconds=5), True).level == Level.OK
    assert kernel.right_time(now, None, False).level == Level.WARNING
    assert kernel.right_time(now, None, None).level == Level.OK


def test_releases_with_names_of_their_own_have_no_stamp(root: ReleaseRoot) -> None:
    (root.releases / "by-hand").mkdir()
    assert levels(kernel.clock(Host(Asked(root=root.path)))) in ([Level.OK], [Level.WARNING])
    (root.releases / "20990102T030405.678Z-0123456789ab").mkdir()
    assert only(kernel.clock(Host(Asked(root=root.path)))).level == Level.PROBLEM
