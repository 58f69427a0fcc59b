"""What `lookalike-build follow --status` says."""

import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lookalike.journal import Change, Journal
from lookalike.release.root import CURRENT, FOLLOW_LOCK, ReleaseRoot, RootError
from lookalike_build.following.status import in_words, report
from support import as_nobody, integer_catalogue, readable_by_all


@pytest.fixture
def journal(root: ReleaseRoot) -> Iterator[Journal]:
    journal = Journal(root.journal)
    yield journal
    journal.close()


def files(root: ReleaseRoot) -> list[Path]:
    return sorted(root.path.rglob("*"))


def test_a_root_without_a_journal_says_so_and_stays_without_one(root: ReleaseRoot) -> None:
    before = files(root)
    n_products = sum(len(product_ids) for product_ids, _ in integer_catalogue().values())
    assert report(root) == [
        f"follower: not running; `lookalike-build follow --root {root.path}` starts it",
        f"current release: {root.current()}, products: {n_products}, categories: 4",
        f"changes: none yet (no journal {root.journal})",
    ]
    assert files(root) == before


def test_an_empty_folder_has_no_release_yet(tmp_path: Path) -> None:
    lines = report(ReleaseRoot(tmp_path))
    assert lines[1] == "current release: none yet; `lookalike-build index` makes one"
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RootError, match=f"no folder {tmp_path}/nowhere"):
        report(ReleaseRoot(tmp_path / "nowhere"))


def test_a_release_that_cannot_be_read_is_told_of_among_the_rest(
    root: ReleaseRoot, journal: Journal
) -> None:
    (root.path / CURRENT / "manifest.json").unlink()
    lines = report(root)
    assert lines[1] == "current release: cannot be read: manifest.json: is missing"
    assert lines[2] == "changes pending: 0"


def test_a_new_journal_has_nothing(root: ReleaseRoot, journal: Journal) -> None:
    assert report(root)[2:] == [
        "changes pending: 0",
        "changes settled: 0 live, 0 rejected",
        "batches: none yet",
    ]


def test_changes_batches_and_the_last_rejected_are_told(
    root: ReleaseRoot, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    moment = now - 7200

    def at() -> float:
        return moment

    monkeypatch.setattr(time, "time", at)
    numbers = journal.add(Change("put", 1, product, image="/photos/x.jpg") for product in range(10))
    journal.reject({number: f"reason {number}" for number in numbers[:7]})
    moment = now - 300
    journal.settle(numbers[-1], "r")
    journal.batch_done(10, 1.5)
    journal.batch_done(1, 0.25)
    moment = now - 200
    journal.add([Change("delete", 1, 5)])
    moment = now - 3
    journal.add([Change("delete", 1, 6)])
    moment = now
    assert report(root)[2:] == [
        "changes pending: 2, the oldest for 3 min",
        "changes settled: 3 live, 7 rejected",
        "batches: 2, 0.9 s each on average",
        "last batch: 1 change in 0.2 s, 5 min ago",
        "last rejected, newest first:",
        *[
            f"  change {number}, put of product {number - 1} in category 1, 2 h ago: reason {number}"
            for number in (7, 6, 5, 4, 3)
        ],
    ]


@pytest.mark.parametrize("running", [True, False])
def test_a_follower_runs_while_it_holds_its_lock(root: ReleaseRoot, running: bool) -> None:
    with (root.path / FOLLOW_LOCK).open("w") as lock:
        if running:
            fcntl.flock(lock, fcntl.LOCK_EX)
        assert (report(root)[0] == "follower: running") is running
        if not running:  # and it can still start
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (0.4, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (86_399, "23 h"),
        (300_000, "3 d"),
    ],
)
def test_a_length_of_time_is_told_in_its_largest_unit(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_it_is_told_to_who_may_only_read(root: ReleaseRoot) -> None:
    journal = Journal(root.journal)
    journal.add([Change("delete", 1, 5)] * 3)
    journal.reject({2: "no reason"})
    journal.close()
    readable_by_all(root.journal.parent)
    imports = (
        "from pathlib import Path; from lookalike.release.root import ReleaseRoot\n"
        "from lookalike_build.following.status import report"
    )
    program = "print(*report(ReleaseRoot(Path(sys.argv[1])))[2:4], sep='\\n')"
    pending, settled = as_nobody(imports, program, root.path).splitlines()
    assert pending.startswith("changes pending: 2, the oldest for ")
    assert settled == "changes settled: 0 live, 1 rejected"
