"""The journal keeps what was acknowledged, in order, whoever dies or writes beside it."""

import errno
import os
import random
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lookalike.journal import (
    DELETE,
    PUT,
    SET,
    Change,
    ForgottenError,
    Journal,
    JournalError,
    Outcome,
    Status,
    read_outcome,
    read_rejected,
    read_status,
    reader,
    writer,
)
from lookalike.journal.schema import FORMATS
from lookalike.release.attributes import Value
from lookalike.release.ids import Id
from support import as_nobody, no_more_files, readable_by_all

DAY_S = 24 * 3600
WEEK_S = 7 * DAY_S


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal" / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with closing(Journal(path)) as opened:
        yield opened


def put(product_id: int | str, photo: bytes = b"photo") -> Change:
    return Change(PUT, 1, product_id, photo=photo)


def a_set(product_id: int, **values: Value | None) -> Change:
    return Change(SET, 1, product_id, values=values)


def outcome(journal: Journal, number: int) -> Outcome:
    found = journal.outcome(number)
    assert found is not None
    return found


def pragma(journal: Journal, name: str) -> object:
    ((value,),) = journal._database.execute(f"PRAGMA {name}").fetchall()
    return value


def disk_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.iterdir())


def test_changes_are_taken_in_the_order_of_their_numbers(journal: Journal) -> None:
    changes = [
        put(5),
        Change(PUT, "shoes", "a/b", image="https://example.com/1.jpg"),
        Change(DELETE, 2**63 - 1, "日本"),
        put(5, b"\x00\xff"),
    ]
    numbers = journal.add(changes[:3]) + journal.add(changes[3:])
    assert numbers == sorted(set(numbers))
    without_photos = [change._replace(photo=None) for change in changes]
    assert journal.pending(10) == list(zip(numbers, without_photos, strict=True))
    assert [number for number, _ in journal.pending(2)] == numbers[:2]
    photos = [journal.photo(number) for number in numbers]
    assert photos == [change.photo for change in changes]


def test_a_set_is_taken_with_its_values(journal: Journal) -> None:
    change = a_set(5, price=0.1 + 0.2, in_stock=False, brand='"日本"\n', title=None)
    (number,) = journal.add([change])
    assert journal.pending(1) == [(number, change)]
    assert outcome(journal, number).op == SET


def test_many_more_sets_are_taken_than_puts_and_deletes(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = [a_set(i, price=i) for i in range(4)]
    numbers = journal.add([*sets, put(1), sets[0], Change(DELETE, 1, 1), *sets])
    assert [number for number, _ in journal.pending(1)] == numbers[:5]
    assert [number for number, _ in journal.pending(2)] == numbers[:7]
    assert [number for number, _ in journal.pending(3)] == numbers
    monkeypatch.setattr(writer, "MOST_PENDING", 6)
    assert [number for number, _ in journal.pending(3)] == numbers[:6]


def test_changes_are_added_all_or_none(journal: Journal) -> None:
    def broken() -> Iterator[Change]:
        yield put(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        journal.add(broken(), ("feed", 7))
    with pytest.raises(JournalError):
        journal.add([put(1), Change(PUT, 1, None)], ("feed", 7))  # type: ignore[arg-type]
    assert journal.pending(10) == []
    assert journal.position("feed") == 0
    journal.add([put(2)], ("feed", 7))
    assert journal.position("feed") == 7
    assert journal.position("another") == 0
    journal.add([], ("feed", 9))
    assert journal.position("feed") == 9


def test_all_is_there_when_it_is_opened_again(path: Path) -> None:
    with closing(Journal(path)) as journal:
        numbers = journal.add([put(1), put(2), put(3)], ("feed", 3))
        journal.reject({numbers[0]: "no photo"})
        journal.batch_done(1, 0.5)
        name, status = journal.id, journal.status()
    with closing(Journal(path)) as journal:
        assert journal.id == name
        assert journal.status()._replace(oldest_pending_s=0) == status._replace(oldest_pending_s=0)
        assert [number for number, _ in journal.pending(9)] == numbers[1:]
        assert journal.photo(numbers[1]) == b"photo"
        assert journal.position("feed") == 3


def test_each_change_is_settled_once_and_its_photo_goes(journal: Journal, path: Path) -> None:
    numbers = journal.add([put(1), put(2), put(3), put(4)])
    journal.reject({numbers[1]: "no photo"})
    assert journal.settle(numbers[2], "r1") == 2
    journal.reject({numbers[0]: "too late", numbers[1]: "again"})
    assert journal.settle(numbers[2], "r2") == 0
    assert [outcome(journal, n).state for n in numbers] == ["live", "rejected", "live", "pending"]
    assert [outcome(journal, n).release for n in numbers] == ["r1", None, "r1", None]
    assert outcome(journal, numbers[1]).reason == "no photo"
    assert [journal.photo(number) for number in numbers] == [None, None, None, b"photo"]
    assert [number for number, _ in read_rejected(path, 5)] == [numbers[1]]
    assert journal.outcome(numbers[3] + 1) is None
    status = journal.status()
    assert (status.n_pending, status.n_live, status.n_rejected) == (1, 2, 1)


def test_what_became_live_since_a_time_is_told(journal: Journal) -> None:
    began = time.time()
    numbers = journal.add([put(1), put(2), put(2), put(3), put(4)])
    journal.reject({numbers[0]: "no photo"})
    journal.settle(numbers[3], "r")
    assert journal.live_since(began) == [Change(PUT, 1, 2), Change(PUT, 1, 3)]
    assert journal.live_since(time.time() + 1) == []


def test_the_newest_live_change_of_a_product_is_told(journal: Journal) -> None:
    numbers = journal.add([put(1), Change(DELETE, 1, 1), put(2), Change(DELETE, 1, 2)])
    journal.reject({numbers[3]: "odd"})
    journal.settle(numbers[-1], "r")
    assert journal.live_since(0) == [Change(DELETE, 1, 1), Change(PUT, 1, 2)]
    (number,) = journal.add([put(1)])
    assert journal.live_since(0) == [Change(DELETE, 1, 1), Change(PUT, 1, 2)]
    journal.settle(number, "r")
    assert journal.live_since(0) == [Change(PUT, 1, 2), Change(PUT, 1, 1)]


def test_live_changes_outlive_a_catalogue_of_months(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = began = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    journal.settle(journal.add([put(1), Change(DELETE, 1, 2)])[-1], "r")
    now += 80 * DAY_S
    journal.settle(journal.add([put(1)])[-1], "r")
    assert journal.live_since(began) == [Change(DELETE, 1, 2), Change(PUT, 1, 1)]
    assert journal.live_since(began + 1) == [Change(PUT, 1, 1)]
    now += 11 * DAY_S
    journal.settle(journal.add([put(3)])[-1], "r")
    with pytest.raises(ForgottenError) as caught:
        journal.live_since(began)
    assert caught.value.until == began
    assert journal.live_since(began + 1) == [Change(PUT, 1, 1), Change(PUT, 1, 3)]


def make_live(journal: Journal, *changes: Change) -> None:
    journal.settle(journal.add(changes)[-1], "r")


def test_the_newest_live_value_of_each_attribute_is_told(journal: Journal) -> None:
    make_live(journal, a_set(1, price=5, title="a"), a_set(1, price=6), a_set(2, in_stock=True))
    assert journal.values_since(0) == {
        (1, 1): {"price": 6, "title": "a"},
        (1, 2): {"in_stock": True},
    }
    pending, odd, live = journal.add([a_set(1, title="b"), a_set(2, price=9), a_set(1, price=None)])
    journal.reject({odd: "odd"})
    assert journal.values_since(0)[1, 1] == {"price": 6, "title": "a"}
    journal.settle(pending, "r")
    assert journal.values_since(0)[1, 1] == {"price": 6, "title": "b"}
    journal.settle(live, "r")
    assert journal.values_since(0) == {
        (1, 1): {"price": None, "title": "b"},
        (1, 2): {"in_stock": True},
    }
    assert journal.values_since(time.time() + 1) == {}


def test_values_go_with_their_product(journal: Journal) -> None:
    delete = Change(DELETE, 1, 1)
    make_live(journal, a_set(1, price=5), a_set(2, price=5), put(1))
    assert set(journal.values_since(0)) == {(1, 1), (1, 2)}
    make_live(journal, a_set(1, title="a"), delete)
    assert set(journal.values_since(0)) == {(1, 2)}
    make_live(journal, delete, put(1), a_set(1, title="b"))
    assert journal.values_since(0)[1, 1] == {"title": "b"}


def test_a_set_is_no_newest_change_of_a_product(journal: Journal) -> None:
    make_live(journal, put(1), a_set(1, price=5), a_set(2, price=5))
    assert journal.live_since(0) == [Change(PUT, 1, 1)]
    journal.add([put(3), a_set(4, price=5)])
    assert journal.pending_products() == {(1, 3)}


def test_values_are_forgotten_after_months_and_alone(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = began = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    make_live(journal, a_set(1, price=5, title="a"))
    now += 80 * DAY_S
    make_live(journal, a_set(1, price=6))
    assert journal.values_since(began) == {(1, 1): {"price": 6, "title": "a"}}
    now += 11 * DAY_S
    make_live(journal, put(1))
    with pytest.raises(ForgottenError) as caught:
        journal.values_since(began)
    assert caught.value.until == began
    assert journal.values_since(began + 1) == {(1, 1): {"price": 6}}
    assert journal.live_since(began) == [Change(PUT, 1, 1)]


def test_values_are_as_old_as_they_are_whatever_the_clock_showed(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = began = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    make_live(journal, a_set(1, price=5))
    now = began + 10 * DAY_S  # ahead
    make_live(journal, a_set(2, price=5))
    now = began + 2 * DAY_S
    make_live(journal, a_set(3, price=5))
    assert set(journal.values_since(began + DAY_S)) == {(1, 2), (1, 3)}
    assert set(journal.values_since(now + 60)) == set()
    now = 1000.0  # behind
    make_live(journal, a_set(4, price=5))
    now = began + 3 * DAY_S
    assert (1, 4) in journal.values_since(began + 3 * DAY_S - 1)


def test_many_changes_are_settled_in_steps(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_AT_ONCE", 3)
    numbers = journal.add([put(i % 2) if i % 4 else a_set(i % 2, price=i) for i in range(9)])
    assert journal.settle(numbers[6], "r") == 7
    assert [outcome(journal, n).state for n in numbers] == ["live"] * 7 + ["pending"] * 2
    assert journal.values_since(0) == {(1, 0): {"price": 4}}
    assert journal.settle(numbers[8], "r") == 2
    assert journal.values_since(0) == {(1, 0): {"price": 8}}
    assert journal.status().n_live == 9


def products_since(journal: Journal, moment: float) -> set[Id]:
    return {change.product_id for change in journal.live_since(moment)}


@pytest.mark.parametrize("ahead", [DAY_S, 10 * DAY_S, 1000 * DAY_S])
def test_changes_that_came_while_the_clock_was_ahead_are_as_old_as_they_are(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    now = began = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    make_live(journal, put(1))
    now = began + ahead
    make_live(journal, put(2))
    now = began + 60
    assert 2 in products_since(journal, began + 30)
    make_live(journal, put(3))
    now = began + 7200
    assert products_since(journal, began + 3600) == set()
    make_live(journal, put(4))
    now = began + ahead + 7200
    if ahead < 90 * DAY_S:
        assert products_since(journal, began) == {1, 2, 3, 4}
    else:
        with pytest.raises(ForgottenError):
            products_since(journal, began)
    assert products_since(journal, now) == {3, 4}  # as if it had been behind since
    now += DAY_S
    assert products_since(journal, now) == set()


def test_changes_that_came_while_the_clock_was_behind_are_not_taken_for_old_ones(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = began = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    make_live(journal, put(1))
    now = 1000.0  # a host without a clock of its own, just after it started
    make_live(journal, put(2))
    (pending,) = journal.add([put(3)])
    now = began + DAY_S
    make_live(journal, put(4))
    assert journal.outcome(pending) is not None
    now += 60
    assert products_since(journal, began + 1) == {2, 3, 4}
    assert products_since(journal, now) == set()
    assert products_since(journal, began) == {1, 2, 3, 4}


def test_a_clock_behind_at_the_very_first_change_makes_it_no_old_one(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the journal was made tells."""
    began = time.time()
    now = 1000.0
    monkeypatch.setattr(time, "time", lambda: now)
    make_live(journal, put(1))
    now = began + 60
    assert products_since(journal, began) == {1}


def test_a_clock_that_was_ahead_and_then_behind_makes_nothing_old(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = began = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    now = began + 200 * DAY_S
    (ahead,) = journal.add([put(1)])
    now = began + 1
    journal.settle(ahead, "r1")
    now = 1000.0
    make_live(journal, put(2))
    now = began + 2
    assert products_since(journal, began) == {1, 2}


def test_a_clock_that_is_behind_for_a_moment_makes_nothing_old(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = began = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    make_live(journal, put(1))
    now = began - 5 * DAY_S
    assert products_since(journal, began - 6 * DAY_S) == {1}
    journal.settle(0, "r")
    now = began + DAY_S
    assert products_since(journal, began - 60) == {1}
    assert products_since(journal, began + 60) == set()


def test_a_clock_that_is_read_out_of_order_is_not_taken_for_wrong(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = began = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    first = journal.add([put(1)])
    now = began - 0.5
    second = journal.add([put(2)])
    journal.settle(second[-1], "r")
    assert [outcome(journal, n).received_at for n in first + second] == [began, began]
    now = began + DAY_S
    assert products_since(journal, began + 1) == set()


def test_a_journal_of_the_version_before_is_taken_over(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.time()
    monkeypatch.setattr(time, "time", lambda: began)
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as old:
        old.executescript(FORMAT_1)
    with closing(Journal(path)) as journal:
        assert journal.id == "0123456789abcdef"
        assert journal.pending(9) == [(9, Change(PUT, 1, 5))]
        assert journal.photo(9) == b"\xff"
        assert journal.position("feed") == 7
        assert journal.tail("feed") is None
        assert journal.status().pending_bytes == 1
        assert journal.live_since(began - WEEK_S + 1) == [
            Change(PUT, "shoes", 4),
            Change(DELETE, 1, 3),
        ]
        assert journal.status()[:4] == (1, began - 1009, 5, 1)
        # The first four were forgotten, all received over a week ago.
        with pytest.raises(ForgottenError) as caught:
            journal.live_since(began - WEEK_S)
        assert caught.value.until == began - WEEK_S
        assert journal.add([put(6)]) == [10]
    with closing(Journal(path)) as journal:
        assert len(journal.live_since(began - WEEK_S + 1)) == 2


def test_of_a_journal_of_the_version_before_that_forgot_nothing_all_is_known(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as old:
        old.executescript(FORMAT_1 + "UPDATE sqlite_sequence SET seq = 5;")
    with closing(Journal(path)) as journal:
        assert journal.live_since(0) == [Change(PUT, "shoes", 4), Change(DELETE, 1, 3)]


def test_of_a_journal_of_the_version_before_that_forgot_all_the_last_batch_counts(
    path: Path,
) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as old:
        old.executescript(FORMAT_1 + "DELETE FROM changes;")
    with closing(Journal(path)) as journal:
        assert journal.live_since(5001) == []
        with pytest.raises(ForgottenError):
            journal.live_since(5000)


def test_what_a_follower_of_the_version_before_settles_is_known(journal: Journal) -> None:
    (number,) = journal.add([put(1)])
    journal._database.execute(
        "UPDATE changes SET settled_at = 1, release = 'r' WHERE number = ?", [number]
    )
    assert journal.live_since(0) == [Change(PUT, 1, 1)]


def test_a_process_of_the_version_before_goes_on(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute("PRAGMA journal_mode = WAL")
        for statement in (s for statements in FORMATS[:2] for s in statements):
            old.execute(statement, {"id": "an id", "now": time.time(), "kept_s": WEEK_S})
        old.execute("PRAGMA user_version = 2")
        add = (
            "INSERT INTO changes (op, category_id, product_id, image, received_at)"
            f" VALUES (?, 1, ?, NULL, {time.time()})"
        )
        settle = "UPDATE changes SET settled_at = 1, release = 'r' WHERE settled_at IS NULL"
        old.execute(add, ["put", 1])
        with closing(Journal(path)) as journal:
            assert journal.pending(9) == [(1, Change(PUT, 1, 1))]
            make_live(journal, a_set(1, price=5), a_set(2, price=6))
            old.execute(add, ["delete", 1])
            old.execute(add, ["put", 2])
            old.execute(settle)
            old.execute("DELETE FROM changes WHERE received_at < ?1 AND settled_at < ?1", [1.0])
            assert journal.live_since(0) == [Change(DELETE, 1, 1), Change(PUT, 1, 2)]
            assert journal.values_since(0) == {(1, 2): {"price": 6}}


FORMAT_1 = """
CREATE TABLE journal (
    id TEXT NOT NULL, live INTEGER NOT NULL, rejected INTEGER NOT NULL,
    batches INTEGER NOT NULL, batch_s REAL NOT NULL, last_batch_changes INTEGER NOT NULL,
    last_batch_s REAL NOT NULL, last_batch_at REAL NOT NULL
);
CREATE TABLE changes (
    number INTEGER PRIMARY KEY AUTOINCREMENT, op TEXT NOT NULL, category_id NOT NULL,
    product_id NOT NULL, image TEXT, received_at REAL NOT NULL, settled_at REAL,
    release TEXT, reason TEXT
);
CREATE TABLE photos (number INTEGER PRIMARY KEY, photo BLOB NOT NULL);
CREATE TABLE feeds (feed TEXT PRIMARY KEY, position INTEGER NOT NULL);
CREATE INDEX pending ON changes (number) WHERE settled_at IS NULL;
CREATE INDEX received ON changes (received_at);
PRAGMA user_version = 1;
INSERT INTO journal VALUES ('0123456789abcdef', 5, 1, 2, 0.5, 3, 0.25, 5000);
INSERT INTO changes VALUES
    (5, 'put', 1, 3, NULL, strftime('%s', 'now') - 4000.0, 5000.0, 'r1', NULL),
    (6, 'put', 'shoes', 4, '/4.jpg', strftime('%s', 'now') - 4000.0, 5000.0, 'r1', NULL),
    (7, 'put', 1, 8, NULL, strftime('%s', 'now') - 4000.0, 5000.0, NULL, 'no photo'),
    (8, 'delete', 1, 3, NULL, strftime('%s', 'now') - 4000.0, 5000.0, 'r1', NULL),
    (9, 'put', 1, 5, NULL, 1009.0, NULL, NULL, NULL);
INSERT INTO photos VALUES (9, x'ff');
INSERT INTO feeds VALUES ('feed', 7);
"""
"""What the version before left: numbers 1 to 4 are forgotten, 9 is pending."""


def test_batches_are_noted(journal: Journal) -> None:
    assert journal.status() == Status()
    began = time.time()
    journal.batch_done(5, 0.25)
    journal.batch_done(3, 0.5)
    status = journal.status()
    assert (status.n_batches, status.batches_s) == (2, 0.75)
    assert (status.last_batch_changes, status.last_batch_s) == (3, 0.5)
    assert began <= status.last_batch_at <= time.time()


def test_settled_changes_go_a_week_after_they_were_settled(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    early = journal.add([put(1), put(2), put(3)])
    journal.reject({early[0]: "no photo"})
    now += WEEK_S + 1
    # Long pending: whoever sent it is still told, though it was received a week ago.
    journal.settle(early[1], "r")
    assert journal.outcome(early[0]) is None
    assert [outcome(journal, number).state for number in early[1:]] == ["live", "pending"]
    now += WEEK_S + 1
    journal.settle(0, "r")
    assert journal.outcome(early[1]) is None
    assert outcome(journal, early[2]).state == "pending"
    assert journal.status().oldest_pending_s == pytest.approx(2 * WEEK_S + 2)
    assert journal.add([put(4)]) > early


def test_settled_sets_go_after_a_day(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    product, price = journal.add([put(1), a_set(1, price=5)])
    journal.settle(price, "r")
    now += DAY_S + 1
    journal.settle(0, "r")
    assert journal.outcome(price) is None
    assert outcome(journal, product).state == "live"
    assert journal.values_since(0) == {(1, 1): {"price": 5}}


def test_numbers_are_not_given_twice_though_all_changes_are_gone(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    numbers = journal.add([put(1)] * 3)
    journal.settle(numbers[-1], "r")
    now += WEEK_S + 1
    journal.settle(numbers[-1], "r")
    assert [journal.outcome(number) for number in numbers] == [None] * 3
    assert journal.add([put(2)]) > numbers


@pytest.mark.slow
def test_two_processes_write_while_a_third_settles(path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(path), "200"]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    with closing(Journal(path)) as journal:
        settled: list[int] = []
        while len(settled) < 400:
            pending = journal.pending(7)
            assert [journal.photo(number) for number, _ in pending] == [b"x" * 1000] * len(pending)
            journal.reject({number: "odd" for number, _ in pending if number % 2})
            if pending:
                journal.settle(pending[-1][0], "r")
            settled += [number for number, _ in pending]
        told = [int(line) for writer in writers for line in writer.communicate()[0].split()]
        assert settled == sorted(settled) == sorted(told)
        states = {outcome(journal, number).state for number in settled if number % 2}
        assert states == {"rejected"}
        assert journal.status()[:4] == (0, 0, 200, 200)


WRITER = """
import sys
from pathlib import Path
from lookalike.journal import Change, Journal
journal = Journal(Path(sys.argv[1]))
for product_id in range(int(sys.argv[2])):
    (number,) = journal.add([Change("put", 1, product_id, photo=b"x" * 1000)])
    print(number, flush=True)
"""


@pytest.mark.slow
def test_what_was_acknowledged_survives_kill_9(path: Path) -> None:
    chance = random.Random(1)
    told: list[int] = []
    for _ in range(5):
        command = [sys.executable, "-c", WRITER, str(path), "1000000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            told.append(int(writer.stdout.readline()))
            time.sleep(chance.uniform(0, 0.1))
            writer.kill()
            # The last line may be cut off: then nobody was told that number.
            lines = writer.stdout.read().rpartition(b"\n")[0]
            told += map(int, lines.split())
    with closing(Journal(path)) as journal:
        kept = [number for number, _ in journal.pending(10**6)]
        assert kept == sorted(kept)
        assert set(told) <= set(kept)
        assert len(kept) <= len(told) + 5  # at most the one in hand at each death
        assert {journal.photo(number) for number in kept} == {b"x" * 1000}


def test_threads_share_one_journal(journal: Journal) -> None:
    numbers: list[int] = []

    def add() -> None:
        for product_id in range(50):
            numbers.extend(journal.add([put(product_id)]))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == [number for number, _ in journal.pending(1000)]
    assert len(set(numbers)) == 200


def test_changes_are_synced_before_they_are_acknowledged_or_taken(
    path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into the write-ahead log; SQLite syncs its checkpoints itself."""
    synced: list[tuple[str, int]] = []

    def note(descriptor: int) -> None:
        with closing(sqlite3.connect(path)) as other:
            ((n,),) = other.execute("SELECT count(*) FROM changes").fetchall()
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, n))

    monkeypatch.setattr(os, "fdatasync", note)
    assert (pragma(journal, "journal_mode"), pragma(journal, "synchronous")) == ("wal", 1)
    journal.pending(9)
    assert synced == []
    journal.add([put(1), put(2)])
    assert synced == [("journal.sqlite-wal", 2)]
    journal.pending(9)
    assert synced == [("journal.sqlite-wal", 2)] * 2

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(JournalError, match="Input/output error"):
        journal.add([put(3)])
    with pytest.raises(JournalError, match="Input/output error"):
        journal.pending(9)


def test_another_writer_is_waited_for_no_longer_than_said(path: Path, journal: Journal) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with closing(Journal(path, busy_s=0.2)) as waiting:  # to open it needs no lock
            began = time.monotonic()
            with pytest.raises(
                JournalError, match="database is locked; another process keeps it locked"
            ):
                waiting.add([put(1)])
            assert 0.2 <= time.monotonic() - began < 2
        assert journal.pending(1) == []  # readers do not wait
        other.execute("ROLLBACK")
    journal.add([put(1)])


@pytest.mark.slow
def test_room_of_settled_photos_is_used_again_and_given_back(path: Path, journal: Journal) -> None:
    def settle(numbers: list[int]) -> int:
        journal.settle(numbers[-1], "r")
        return path.stat().st_size

    photo = os.urandom(4 * 2**20)
    sizes = {settle(journal.add([put(1, photo)] * 3)) for _ in range(6)}
    assert max(sizes) < 16 * 2**20
    numbers = [number for _ in range(8) for number in journal.add([put(1, photo)] * 6)]
    assert path.stat().st_size > 180 * 2**20
    for _ in range(4):
        settle(numbers)
    journal._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert disk_bytes(path) < 80 * 2**20
    assert pragma(journal, "integrity_check") == "ok"


def test_on_a_full_disk_nothing_is_acknowledged_and_nothing_lost(journal: Journal) -> None:
    numbers = journal.add([put(1), put(2)])
    journal._database.execute(f"PRAGMA max_page_count = {pragma(journal, 'page_count')}")
    with pytest.raises(JournalError, match=r"is full; make room, nothing .* is lost"):
        journal.add([put(3), put(4, b"x" * 2**20)], ("feed", 1))
    assert [number for number, _ in journal.pending(9)] == numbers
    assert journal.photo(numbers[1]) == b"photo"
    assert journal.position("feed") == 0
    assert journal.settle(numbers[-1], "r") == 2
    journal._database.execute("PRAGMA max_page_count = 100000")
    assert journal.add([put(4, b"x" * 2**20)]) > numbers


IMPORTS = "from pathlib import Path; from lookalike.journal import *"


def refused(path: Path) -> str:
    """What somebody who may only read at `path` is told who opens the journal there."""
    program = (
        "try: Journal(Path(sys.argv[1])).add([Change('delete', 1, 1)])\n"
        "except JournalError as error: print(error)"
    )
    return as_nobody(IMPORTS, program, path).strip()


def test_a_folder_that_may_not_be_written_is_named(path: Path) -> None:
    path.parent.mkdir()
    readable_by_all(path.parent)
    assert refused(path) == (
        f"{path}: Permission denied; its folder and what is in it must be writable for this user"
    )


def test_a_file_that_may_not_be_written_is_named(path: Path) -> None:
    Journal(path).close()
    readable_by_all(path.parent)
    path.chmod(0o444)
    assert "; its folder and what is in it must be writable for this user" in refused(path)


def test_without_a_release_root_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="No such file or directory"):
        Journal(tmp_path / "missing" / "journal" / "journal.sqlite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_who_may_write_to_the_folder_may_write_to_the_files(path: Path, umask: int) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o2770)
    before = os.umask(umask)
    try:
        with closing(Journal(path)) as journal:
            journal.add([put(1)])
            modes = {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
            assert len(list(path.parent.iterdir())) == 3
    finally:
        os.umask(before)
    assert modes == {0o660}


def test_another_format_is_refused(path: Path) -> None:
    with closing(Journal(path)) as journal:
        journal._database.execute("PRAGMA user_version = 4")
    with pytest.raises(JournalError, match="format 4, this version reads 3; let the version that"):
        Journal(path)


def test_what_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"photos of shoes\n" * 1000)
    with pytest.raises(JournalError, match=f"{path}: file is not a database; move its folder away"):
        Journal(path)
    assert path.read_bytes() == b"photos of shoes\n" * 1000


@pytest.mark.parametrize("replaced", [False, True])
def test_a_journal_removed_or_replaced_takes_no_more(
    path: Path, journal: Journal, replaced: bool
) -> None:
    journal.add([put(1)])
    path.rename(path.with_name("elsewhere"))
    if replaced:
        path.touch()
    with pytest.raises(JournalError, match="was removed or replaced while it was open"):
        journal.add([put(2)])
    with pytest.raises(JournalError, match="was removed or replaced while it was open"):
        journal.pending(1)


def test_its_status_is_read_without_opening_it_for_writing(path: Path) -> None:
    assert read_status(path) is None
    assert not path.parent.exists()
    with closing(Journal(path)) as journal:
        journal.add([put(1)])
        files = sorted(path.parent.iterdir())
        status = read_status(path)
        assert status is not None
        assert status.n_pending == 1
        assert sorted(path.parent.iterdir()) == files
    path.write_bytes(b"x" * 5000)
    with pytest.raises(JournalError, match="not a database"):
        read_status(path)


READ = """
path = Path(sys.argv[1])
print(read_status(path).n_pending, read_outcome(path, 2).reason, read_rejected(path, 9)[0][0])
"""


def test_a_reader_who_may_not_write_reads_what_the_last_writer_closed(
    path: Path, journal: Journal
) -> None:
    journal.add([put(1), put(2), put(3)])
    journal.reject({2: "no photo"})
    journal.close()
    readable_by_all(path.parent)
    assert as_nobody(IMPORTS, READ, path) == "2 no photo 2\n"
    assert list(path.parent.iterdir()) == [path]


def test_a_reader_who_may_not_write_reads_beside_a_writer(path: Path, journal: Journal) -> None:
    journal.add([put(1), put(2), put(3)])
    journal.reject({2: "no photo"})
    readable_by_all(path.parent)
    assert as_nobody(IMPORTS, READ, path) == "2 no photo 2\n"


def test_a_reader_who_may_not_write_reads_what_a_killed_writer_left(path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from lookalike.journal import *\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "journal.add([Change('delete', 1, 1)] * 3)\n"
        "journal.reject({2: 'no photo'})\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert len(list(path.parent.iterdir())) == 3
    readable_by_all(path.parent)
    assert as_nobody(IMPORTS, READ, path) == "2 no photo 2\n"


def test_what_was_written_while_it_was_read_is_read_again(
    path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.add([put(1)])
    journal.close()
    read: list[str] = []
    connect = sqlite3.connect

    def write_meanwhile(address: Any, *rest: Any, **options: Any) -> sqlite3.Connection:
        database: sqlite3.Connection = connect(address, *rest, **options)
        if options.get("uri"):
            read.append(str(address).partition("?")[2])
            if len(read) == 1:
                with closing(Journal(path)) as other:
                    other.add([put(2)])
        return database

    monkeypatch.setattr(sqlite3, "connect", write_meanwhile)
    status = read_status(path)
    assert status is not None
    assert status.n_pending == 2
    assert read == ["immutable=1"] * 2


def test_readers_beside_writers_that_come_and_go_see_whole_states(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_READ_BUSY_S", 60.0)
    Journal(path).close()
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            with closing(Journal(path)) as journal:
                journal.add([put(1), put(2)])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        counts: list[int] = []
        while not counts or counts[-1] < 100:
            status = read_status(path)
            assert status is not None
            counts.append(status.n_pending)
    finally:
        stop.set()
        writer.join()
    assert counts == sorted(counts)
    assert not any(count % 2 for count in counts)


def test_a_journal_in_which_nothing_is_yet_has_no_status(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    assert read_status(path) is None
    assert read_rejected(path, 5) == []
    assert read_outcome(path, 1) is None


def test_a_journal_of_the_version_before_is_read_before_it_is_taken_over(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as old:
        old.executescript(FORMAT_1)
    status = read_status(path)
    assert status is not None
    assert status.pending_bytes == 1
    assert (status.n_pending, status.n_live, status.n_rejected) == (1, 5, 1)
    assert [number for number, _ in read_rejected(path, 5)] == [7]


def test_a_journal_of_a_later_version_is_not_read(path: Path) -> None:
    with closing(Journal(path)) as journal:
        journal._database.execute("PRAGMA user_version = 4")
    with pytest.raises(JournalError, match="format 4, this version reads 3"):
        read_status(path)


def test_too_many_open_files_are_called_so(path: Path, journal: Journal) -> None:
    """SQLite says that it cannot open the file, as it does where that may not be read."""
    with no_more_files():
        for use in (Journal, read_status):
            with pytest.raises(JournalError, match="Too many open files; raise the limit"):
                use(path)
