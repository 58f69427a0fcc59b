"""Hot files: read in before they are served, locked if wanted, watched, let go of after a change."""

import ctypes
import gc
import mmap
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest
from annoy import AnnoyIndex

from lookalike.release import memory
from lookalike.release.files import DISTANCES, HOT_FILES, NEIGHBOURS
from lookalike.release.memory import locked_bytes, resident_share
from lookalike.release.opened import Release
from lookalike.release.root import ReleaseRoot
from lookalike.serving.application import Application
from lookalike.serving.source import ReleaseSource
from support import (
    Catalogue,
    Client,
    client_of,
    forget,
    integer_catalogue,
    publish,
    random_features,
)

PAGE = resource.getpagesize()


def share_of(*paths: Path) -> float | None:
    return resident_share({path: path.stat().st_size for path in paths})


def in_memory(path: Path) -> float:
    """What `resident_share` samples, counted: mincore(2) is truthful about a file of one's own."""
    size = path.stat().st_size
    pages = (ctypes.c_ubyte * -(-size // PAGE))()
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        start = ctypes.c_char.from_buffer(mapped)
        failed = ctypes.CDLL(None).mincore(
            ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size), pages
        )
        del start
    assert not failed
    return fmean(page & 1 for page in pages)


def forget_or_skip(path: Path) -> None:
    """`forget`, and see that it was: a page that the kernel is busy with may take a second time."""
    for _ in range(10):
        forget(path)
        if in_memory(path) == 0:
            return
    pytest.skip("this file system does not forget what is in memory")


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A file of eight pages, none of them in the page cache."""
    path = tmp_path / "file"
    path.write_bytes(bytes(8 * PAGE))
    forget_or_skip(path)
    return path


def eventually(measured: Callable[[], bool]) -> bool:
    """A hundred tries: the kernel takes pages back and reads ahead, and a disk may be at once done."""
    return any(measured() for _ in range(100))


def test_the_resident_share_is_that_of_the_pages_in_memory(pages: Path) -> None:
    def is_a_quarter() -> bool:
        forget(pages)
        with pages.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            file.read(2 * PAGE)
        return in_memory(pages) == 0.25 == share_of(pages)

    assert eventually(is_a_quarter)
    pages.read_bytes()
    assert share_of(pages) == 1


def test_the_resident_share_goes_over_files_in_proportion_to_their_size(
    pages: Path, tmp_path: Path
) -> None:
    small, empty = tmp_path / "small", tmp_path / "empty"
    small.write_bytes(bytes(2 * PAGE))
    empty.touch()

    def in_proportion() -> bool:
        small.read_bytes()
        forget(pages)
        return share_of(small, empty) == 1 and share_of(pages, empty, small) == 0.2

    assert eventually(in_proportion)


def test_a_measurement_does_not_find_the_pages_that_the_one_before_read_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, 1_000_000 * PAGE)
    seen: set[int] = set()

    def was_seen(_: int, offset: int) -> bool:
        before = len(seen)
        seen.add(offset)
        return len(seen) == before

    monkeypatch.setattr(memory, "_is_resident", was_seen)
    assert [share_of(path) for _ in range(3)] == [0, 0, 0]
    assert len(seen) == pytest.approx(3 * 1024, rel=0.01)
    assert max(seen) < path.stat().st_size


def test_what_cannot_be_told_is_none(tmp_path: Path) -> None:
    assert resident_share({tmp_path / "missing": PAGE}) is None
    assert share_of() is None


@pytest.mark.slow
def test_what_look_ups_touch_is_in_memory_before_a_release_is_served(
    tmp_path: Path,
) -> None:
    ids = list(range(8000))  # distances of 1.4 MB, of which reading ahead takes in a part
    catalogue: Catalogue = {1: (ids, random_features(len(ids), 0, n_dims=2))}
    root = publish(tmp_path / "r", catalogue, tmp_path / "f", neighbours=20, n_trees=1, recall=0)
    folder = root.folder(str(root.current()))
    for path in folder.glob("1/*"):
        forget_or_skip(path)
    distances = folder / "1" / DISTANCES
    client = client_of(root)
    assert share_of(*(folder / "1" / name for name in HOT_FILES)) == 1
    assert in_memory(distances) < 0.9
    assert b"\nlookalike_resident_share 1.0000\n" in client.get("/metrics").body


def test_the_resident_share_is_measured_once_a_minute(
    root: ReleaseRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = iter([0.25, 0.5])
    monkeypatch.setattr(Release, "resident_share", lambda _: next(shares))
    source = ReleaseSource(root)
    client = Client(Application(source))
    found = []
    start = time.monotonic()
    for after_s in (0, 59, 61):
        monkeypatch.setattr(time, "monotonic", lambda s=start + after_s: s)
        source.look()
        text = client.get("/metrics").body.decode()
        found += re.findall(r"^lookalike_resident_share (\S+)$", text, re.MULTILINE)
    assert found == ["0.2500", "0.2500", "0.5000"]


@pytest.mark.slow
def test_no_more_files_are_opened_than_are_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {tmp_path / str(number): 100 for number in range(20_000)}
    for path in files:
        path.touch()
    opened, open_ = [], os.open

    def counted(path: Path, flags: int) -> int:
        opened.append(path)
        return open_(path, flags)

    monkeypatch.setattr(os, "open", counted)
    resident_share(files)
    assert 0 < len(opened) < 1100


def test_arrays_need_no_open_file(integer_root: ReleaseRoot) -> None:
    release = integer_root.open(str(integer_root.current()))
    vectors = [category.vectors for category in release.categories.values()]
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    held = [link for link in links if link.readlink().is_relative_to(release.folder)]
    # Annoy keeps its own open.
    assert len(held) == sum(
        each is not None and isinstance(each.index, AnnoyIndex) for each in vectors
    )


def test_hot_files_are_locked_in_memory_if_wanted(root: ReleaseRoot) -> None:
    before = locked_bytes()
    source = ReleaseSource(root, lock_memory=True)
    source.look()
    assert source.release is not None
    expected = sum(
        array.nbytes
        for category in source.release.categories.values()
        for array in (category.product_ids, category.neighbours)
    )
    assert locked_bytes() - before >= expected
    text = Client(Application(source)).get("/metrics").body.decode()
    assert int(re.findall(r"^lookalike_locked_bytes (\d+)$", text, re.MULTILINE)[0]) >= expected
    source.release = None
    del text
    gc.collect()
    assert locked_bytes() == before


def test_where_locking_is_not_allowed_the_log_says_so_and_serving_goes_on(
    root: ReleaseRoot,
) -> None:
    program = """
import resource
resource.setrlimit(resource.RLIMIT_MEMLOCK, (4096, 4096))
from lookalike.wsgi import application
environ = {"PATH_INFO": "/readyz", "REQUEST_METHOD": "GET"}
print(b"".join(application(environ, lambda status, headers: print(status))))
"""
    may_lock_all = (24, 14, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_IPC_LOCK: root has no limit else
    environ = {"LOOKALIKE_ROOT": str(root.path), "LOOKALIKE_LOCK_MEMORY": "true"}
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: ctypes.CDLL(None).prctl(*may_lock_all),
    )
    assert run.stdout.startswith("200 OK")
    assert "cannot lock the hot files in memory" in run.stderr
    assert "the limit is 4096 bytes" in run.stderr


def test_what_fits_is_locked_where_not_all_does(root: ReleaseRoot) -> None:
    program = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
from lookalike.release.memory import locked_bytes
from lookalike.release.opened import Release
from lookalike.release.root import ReleaseRoot
root = ReleaseRoot(Path(sys.argv[1]))
release = root.open(root.current())
try:
    release.lock()
except OSError:
    print(locked_bytes())
"""
    may_lock_all = (24, 14, 0, 0, 0)
    run = subprocess.run(
        [sys.executable, "-c", program, str(root.path)],
        capture_output=True,
        check=True,
        preexec_fn=lambda: ctypes.CDLL(None).prctl(*may_lock_all),
    )
    # Category 40's table is too large; those before and after it are not.
    assert 24_576 <= int(run.stdout) <= 65_536


def test_unchanged_categories_stay_open_through_a_change(root: ReleaseRoot, tmp_path: Path) -> None:
    source = ReleaseSource(root)
    source.look()
    assert source.release is not None
    before = dict(source.release.categories)
    catalogue = {**integer_catalogue(), 2: ([5, 3], random_features(2, 9))}
    publish(root.path, catalogue, tmp_path / "again")
    source.look()
    after = source.release.categories
    assert source.release.manifest.release == root.current()
    assert [number for number in after if after[number] is before[number]] == [1, 3, 40]
    client = Client(Application(source))
    assert client.get("/nns?category_id=2&product_id=5").body == b"[5,3]"
    assert client.get("/nns?category_id=1&product_id=100") == client_of(root).get(
        "/nns?category_id=1&product_id=100"
    )


def test_a_file_that_was_replaced_is_opened_and_checked_anew(root: ReleaseRoot) -> None:
    source = ReleaseSource(root)
    source.look()
    name = str(root.current())
    path = root.folder(name) / "2" / NEIGHBOURS
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 0xFF
    path.unlink()
    path.write_bytes(damaged)
    other = root.folder(name).rename(root.releases / "other")
    other.rename(root.releases / name)
    source._seen = None
    source.look()
    assert source.problem is not None
    assert f"2/{NEIGHBOURS}" in source.problem


@pytest.mark.slow
def test_nothing_is_left_of_old_releases_after_200_changes(
    root: ReleaseRoot, tmp_path: Path
) -> None:
    publish(root.path, {1: ([1, 2], random_features(2, 0))}, tmp_path / "f")
    names = root.names()
    source = ReleaseSource(root)
    client = Client(Application(source))

    def change(number: int) -> None:
        root.make_current(names[number % 2])
        source.look()
        client.get("/nns?category_id=1&product_id=1&limit=500")
        assert source.release is not None
        assert source.release.manifest.release == names[number % 2]

    def left() -> tuple[int, int, int]:
        maps = Path("/proc/self/maps").read_text()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
        descriptors = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        opened = sum(link.readlink().is_relative_to(root.path) for link in descriptors)
        return maps.count(str(root.path)), opened, resident

    for number in range(20):
        change(number)
    mapped, descriptors, resident = left()
    for number in range(200):
        change(number)
    mapped_after, descriptors_after, resident_after = left()
    assert (mapped_after, descriptors_after) == (mapped, descriptors)
    assert resident_after - resident < 4e6
