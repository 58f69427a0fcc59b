"""What is at work when a follower dies is tried alone, and rejected only where it happens again."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest

from lookalike.journal import Change, Journal, JournalError
from lookalike_build.following.at_work import AtWork
from lookalike_build.photos.decoding import HostError

# Dies at work on changes of these numbers, and gives the next follower's note.
Die = Callable[..., AtWork]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(Journal(tmp_path / "journal" / "journal.sqlite")) as journal:
        journal.add([Change("delete", 1, product_id) for product_id in range(5)])
        yield journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "at-work.json"


@pytest.fixture
def die(path: Path, journal: Journal) -> Die:
    unfinished: list[AbstractContextManager[None]] = []  # which a death leaves so

    def die(at_work: AtWork, *numbers: int) -> AtWork:
        unfinished.append(at_work.on(numbers))
        unfinished[-1].__enter__()
        after = AtWork(path)
        after.begin(journal)
        return after

    return die


@pytest.fixture
def at_work(path: Path, journal: Journal) -> AtWork:
    at_work = AtWork(path)
    assert at_work.begin(journal) == {}
    return at_work


def test_what_was_at_work_at_a_death_is_tried_alone(at_work: AtWork, die: Die) -> None:
    assert die(at_work, 2, 3).suspects == {2, 3}


def test_what_is_done_alone_is_no_longer_suspected(at_work: AtWork, die: Die) -> None:
    after = die(at_work, 2, 3)
    with after.on([2]):
        pass
    assert after.suspects == {3}
    assert die(after, 3).suspects == {3}


def test_it_is_rejected_after_two_more_deaths_alone(
    at_work: AtWork, die: Die, path: Path, journal: Journal
) -> None:
    after = die(die(at_work, 2, 3), 3)
    assert AtWork(path).begin(journal) == {}
    die(after, 3)
    reason = "the follower died 3 times as it read or decoded this photo, in the end alone"
    rejected = AtWork(path).begin(journal)
    assert list(rejected) == [3]
    assert rejected[3].startswith(reason)


def test_an_operator_who_kills_twice_has_nothing_rejected(
    at_work: AtWork, die: Die, path: Path, journal: Journal
) -> None:
    after = die(die(at_work, 2, 3), 2)
    assert AtWork(path).begin(journal) == {}
    with after.on([2]):
        pass
    assert die(after, 3).suspects == {3}
    assert AtWork(path).begin(journal) == {}


def test_an_end_outside_of_the_work_is_no_death(
    at_work: AtWork, path: Path, journal: Journal
) -> None:
    with at_work.on([1, 2]):
        pass
    after = AtWork(path)
    assert after.begin(journal) == {}
    assert after.suspects == set()


def test_an_end_after_sigterm_is_no_death(at_work: AtWork, die: Die) -> None:
    with at_work.on([1, 2]):
        at_work.forgive()
        assert die(at_work, 1, 2).suspects == set()


def test_what_was_suspected_before_sigterm_stays_so(at_work: AtWork, die: Die) -> None:
    after = die(at_work, 1, 2)
    with after.on([1]):
        after.forgive()
        assert die(after, 1).suspects == {1, 2}
    assert die(after, 1).suspects == {2}


def test_sigterm_before_it_has_begun_changes_nothing(at_work: AtWork, die: Die, path: Path) -> None:
    die(at_work, 1)
    note = path.read_bytes()
    AtWork(path).forgive()
    assert path.read_bytes() == note


@pytest.mark.parametrize(
    "error",
    [HostError("x"), MemoryError(), OSError(24, "Too many open files"), JournalError("full")],
)
def test_a_fault_of_the_machine_is_no_death_and_has_each_tried_alone(
    at_work: AtWork, path: Path, journal: Journal, error: Exception
) -> None:
    for _ in range(5):
        with pytest.raises(type(error)), at_work.on([1, 2]):
            raise error
        assert at_work.suspects == {1, 2}
        at_work = AtWork(path)
        assert at_work.begin(journal) == {}
        assert at_work.suspects == {1, 2}


def test_any_other_error_is_a_death(at_work: AtWork, path: Path, journal: Journal) -> None:
    for _ in range(3):
        assert at_work.begin(journal) == {}
        with pytest.raises(ZeroDivisionError), at_work.on([1]):
            raise ZeroDivisionError
        at_work = AtWork(path)
    assert list(at_work.begin(journal)) == [1]


def test_ctrl_c_is_no_death(at_work: AtWork, path: Path, journal: Journal) -> None:
    with pytest.raises(KeyboardInterrupt), at_work.on([1]):
        raise KeyboardInterrupt
    after = AtWork(path)
    after.begin(journal)
    assert after.suspects == set()


def test_what_is_settled_is_no_longer_suspected(
    at_work: AtWork, die: Die, journal: Journal
) -> None:
    journal.settle(2, "r")
    assert die(at_work, 2, 3).suspects == {3}


def test_numbers_of_another_journal_mean_nothing(
    at_work: AtWork, die: Die, path: Path, tmp_path: Path
) -> None:
    die(at_work, 1)
    with closing(Journal(tmp_path / "other" / "journal.sqlite")) as other:
        other.add([Change("delete", 1, 1)])
        after = AtWork(path)
        assert after.begin(other) == {}
        assert after.suspects == set()


@pytest.mark.parametrize(
    "note", [b"", b"\0" * 100, b"[]", b"{}", b"7", b'{"journal": "x", "at_work": 5, "deaths": {}}']
)
def test_a_note_that_a_power_cut_broke_means_nothing(
    path: Path, journal: Journal, note: bytes
) -> None:
    path.write_bytes(note)
    at_work = AtWork(path)
    assert at_work.begin(journal) == {}
    assert at_work.suspects == set()


def test_a_note_that_cannot_be_written_is_told_of_once_and_stops_nothing(
    tmp_path: Path, journal: Journal
) -> None:
    lines: list[str] = []
    at_work = AtWork(tmp_path / "missing" / "at-work.json", lines.append)
    at_work.begin(journal)
    for _ in range(3):
        with at_work.on([1, 2]):
            pass
    (line,) = lines
    assert line.startswith("cannot note which changes are being worked on: ")


def test_a_note_that_cannot_be_renewed_accuses_nobody(
    at_work: AtWork, path: Path, journal: Journal
) -> None:
    with at_work.on([1, 2]):
        path.with_suffix(".part").mkdir()
    after = AtWork(path)
    assert after.begin(journal) == {}
    assert after.suspects == set()
