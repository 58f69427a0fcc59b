"""lookalike doctor, of the release root: what is unsound, unreadable or without room is named."""

from pathlib import Path

import numpy as np

from findings import only
from lookalike.operate.doctor import kernel, release
from lookalike.operate.doctor.finding import Level
from lookalike.operate.doctor.host import Asked, Host
from lookalike.release.files import NEIGHBOURS
from lookalike.release.root import ReleaseRoot
from support import make_slim, rate

MB = 10**6


def test_a_sound_release_is_described(root: ReleaseRoot) -> None:
    found = only(release.release(Host(Asked(root=root.path))))
    assert found.level == Level.OK
    assert "368 products in 4 categories; sizes and ends as its manifest says" in found.text
    make_slim(root)
    assert "a slim copy" in only(release.release(Host(Asked(root=root.path)))).text


def test_every_byte_is_compared_only_when_asked_for(root: ReleaseRoot) -> None:
    path = root.folder(str(root.current())) / "40" / NEIGHBOURS
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4] = np.uint32(7).tobytes()
    path.write_bytes(data)
    assert only(release.release(Host(Asked(root=root.path)))).level == Level.OK
    full = only(release.release(Host(Asked(root=root.path, full=True))))
    assert (full.level, "40/neighbours.npy" in full.text) == (Level.PROBLEM, True)


def test_a_root_missing_empty_or_with_a_strange_current_is_a_problem(tmp_path: Path) -> None:
    missing = only(release.release(Host(Asked(root=tmp_path / "none"))))
    assert missing.text == f"there is no folder {tmp_path / 'none'}"
    empty = only(release.release(Host(Asked(root=tmp_path))))
    assert (empty.level, "no release in" in empty.text) == (Level.PROBLEM, True)
    (tmp_path / "current").touch()
    strange = only(release.release(Host(Asked(root=tmp_path))))
    assert (strange.level, "not a symbolic link" in strange.text) == (Level.PROBLEM, True)


def test_other_checks_have_nothing_to_look_at_in_an_unfit_release(root: ReleaseRoot) -> None:
    (root.folder(str(root.current())) / "manifest.json").write_text("{")
    there = Host(Asked(root=root.path))
    found = only(release.release(there))
    assert (found.level, "manifest.json: cannot be read" in found.text) == (Level.PROBLEM, True)
    for check in (kernel.memory, kernel.descriptors, kernel.mapped_files):
        assert only(check(there)).level == Level.ABSENT


def test_room_is_for_a_release_like_the_current(root: ReleaseRoot) -> None:
    rate(root, [("user", product_id, 1_700_000_000) for product_id in range(100, 120)])
    there = Host(Asked(root=root.path))
    assert there.current is not None
    folder, _ = there.current
    sizes = sum(path.stat().st_size for path in folder.glob("*/*"))
    assert release.release_bytes(*there.current) == sizes
    for free, level in (
        (200 * MB, Level.OK),
        (99 * MB, Level.WARNING),
        (MB, Level.PROBLEM),
    ):
        assert release.room(root.path, free, 100 * MB).level == level
