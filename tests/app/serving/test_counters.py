"""Counters are summed over processes, whatever becomes of the file that they share, and of them."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lookalike.serving import counters
from lookalike.serving.counters import (
    MAX_PROCESSES,
    STALE_S,
    Counters,
    file_bytes,
    remove_stale,
)

COLUMNS = 3
PROCESS = """
import sys
from pathlib import Path
from lookalike.serving.counters import Counters
counters = Counters(3, Path(sys.argv[1]))
counters.row[1] += 100
print("counted", flush=True)
for _ in sys.stdin:
    counters.join()
    print(counters.sums(), flush=True)
"""


class Process:
    """Another process that has counted 100 in column 1 and lives on."""

    def __init__(self, path: Path) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-c", PROCESS, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._read() == "counted"

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()

    def join(self) -> str:
        """Have it join the others; the sums that it sees then."""
        assert self._child.stdin
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        return self._read()

    def _read(self) -> str:
        assert self._child.stdout
        return self._child.stdout.readline().strip()


def make_stale(path: Path) -> None:
    """Let the file's last use be so long ago that nobody can be about to use it again."""
    used = time.time() - STALE_S - 1
    os.utime(path, (used, used))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "counters"


def test_all_that_share_a_path_are_summed(path: Path) -> None:
    one, two = Counters(COLUMNS, path), Counters(COLUMNS, path)
    one.row[1] += 1
    two.row[1] += 10
    two.row[2] += 5
    assert one.sums() == two.sums() == ([0, 11, 5], 2)


def test_counting_goes_on_once_the_file_is_removed(path: Path) -> None:
    ours = Counters(COLUMNS, path)
    with Process(path):
        path.unlink()
        ours.row[1] += 1
        assert ours.sums() == ([0, 101, 0], 2)


def test_all_meet_again_in_the_file_that_replaces_a_removed_one(path: Path) -> None:
    ours = Counters(COLUMNS, path)
    ours.row[1] += 1
    with Process(path) as ended:
        ended.join()
    with Process(path) as other:
        path.unlink()
        with Process(path) as newcomer:
            ours.join()
            ours.row[1] += 1
            assert other.join() == newcomer.join() == str(ours.sums()) == "([0, 302, 0], 3)"


def test_a_process_that_moved_is_not_counted_twice_by_those_that_have_not(path: Path) -> None:
    one, two, three = (Counters(COLUMNS, path) for _ in range(3))
    for each in (one, two, three):
        each.row[1] += 1
    path.unlink()
    for moved, each in enumerate((one, two, three), 1):
        each.join()
        assert one.sums() == ([0, moved, 0], moved)


def test_a_file_is_never_cut_short(path: Path) -> None:
    """Others may have mapped all of it: they would die of SIGBUS."""
    path.write_bytes(bytes(file_bytes(COLUMNS) + 4096))
    Counters(COLUMNS, path).row[1] += 1
    assert path.stat().st_size == file_bytes(COLUMNS) + 4096


def test_all_of_a_new_file_is_reserved(path: Path) -> None:
    Counters(COLUMNS, path)
    status = path.stat()
    assert status.st_blocks * 512 >= status.st_size == file_bytes(COLUMNS)


FULL = """
import logging, sys
from pathlib import Path
from lookalike.serving.counters import Counters
logging.basicConfig(stream=sys.stdout, format="%(message)s")
full = Path(sys.argv[1], "filling")
full.write_bytes(bytes(60 * 1024))
counters = Counters(100, Path(sys.argv[1], "counters"))
for column in range(1, 100):
    counters.row[column] += 1
print(counters.sums() == ([0] + 99 * [1], 1))
full.unlink()
counters._retry_at = 0
counters.join()
print(Counters(100, Path(sys.argv[1], "counters")).sums() == ([0] + 99 * [1], 2))
"""


def test_where_memory_is_full_a_process_counts_for_itself_until_there_is_room(
    tmp_path: Path,
) -> None:
    inside = f"mount -t tmpfs -o size=256k none {tmp_path} && exec {sys.executable} -c '{FULL}' "
    inside = inside.replace("60 * 1024", "200 * 1024") + str(tmp_path)
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("no mount of one's own: unshare --map-root-user --mount is not allowed here")
    run = subprocess.run([*command, inside], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    refused, alone, *_, shared = run.stdout.splitlines()
    assert "No space left on device" in refused
    assert (alone, shared) == ("True", "True")


@pytest.mark.parametrize("kind", ["folder", "link", "missing"])
def test_without_the_file_a_process_counts_for_itself(
    path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(path.with_name("elsewhere"))
    ours = Counters(COLUMNS, path if kind != "missing" else path / "counters")
    ours.row[1] += 1
    assert ours.sums() == ([0, 1, 0], 1)
    assert "cannot share metrics" in caplog.text
    ours.join()
    assert len(caplog.records) == 1


def test_a_file_of_another_user_is_not_used(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path.touch()
    monkeypatch.setattr(os, "getuid", lambda: path.stat().st_uid + 1)
    Counters(COLUMNS, path)
    assert "belongs to another user" in caplog.text
    assert path.stat().st_size == 0


def test_one_process_more_than_there_are_rows_counts_for_itself(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sharing = [Counters(COLUMNS, path) for _ in range(MAX_PROCESSES)]
    assert sharing[0].sums()[1] == MAX_PROCESSES
    assert not caplog.text
    alone = Counters(COLUMNS, path)
    alone.row[1] += 1
    assert alone.sums() == ([0, 1, 0], 1)
    assert f"{MAX_PROCESSES} processes share it already" in caplog.text


def test_a_file_in_use_is_not_stale(path: Path, tmp_path: Path) -> None:
    kept, ended = tmp_path / "counters-kept", tmp_path / "counters-ended"
    with Process(path):
        for each in (kept, ended):
            each.write_bytes(b"")
        for each in (path, kept, ended):
            make_stale(each)
        remove_stale(tmp_path, "counters", kept)
        assert set(tmp_path.iterdir()) == {path, kept}


def test_a_file_whose_server_may_be_restarting_is_not_stale(path: Path, tmp_path: Path) -> None:
    another = tmp_path / "counters-another"
    with Process(path):
        pass
    remove_stale(tmp_path, "counters", another)
    with Process(path) as process:
        make_stale(path)
        process.join()
    remove_stale(tmp_path, "counters", another)
    assert path.exists()
    make_stale(path)
    remove_stale(tmp_path, "counters", another)
    assert not path.exists()


def test_a_file_removed_as_it_is_opened_is_not_joined(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who opened it meanwhile waits for whoever removes it, and then makes another."""
    Counters(COLUMNS, path)
    lock, removals = counters._lock, iter([path])

    def slow(descriptor: int, byte: int, **how: object) -> bool:
        locked = lock(descriptor, byte, **how)  # type: ignore[arg-type]
        for each in removals:
            each.unlink()
        return locked

    monkeypatch.setattr(counters, "_lock", slow)
    one = Counters(COLUMNS, path)
    two = Counters(COLUMNS, path)
    one.row[1] += 1
    assert two.sums() == ([0, 1, 0], 2)
