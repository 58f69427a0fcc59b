"""Change feeds: what becomes of JSON lines from a file that grows, from a pipe, from standard input."""

import json
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from feeding import follow_in_process
from lookalike.journal import Change, Journal, JournalError
from lookalike.release.attributes import Value
from lookalike_build.following.feed import MAX_LINE_BYTES, Feed, FeedError, IdTypes, open_feed
from waiting import HUNG_S, wait_until

INTEGERS: IdTypes = ("integer", "integer")
STRINGS: IdTypes = ("string", "string")


class Desk:
    """A journal, a feed file beside it, and what was complained of; feeds are closed at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "feed.jsonl"
        self.journal = Journal(folder / "journal" / "journal.sqlite")
        self.complaints: list[str] = []
        self.feeds: list[Feed] = []

    def open(self, path: Path | str = "", id_types: IdTypes = INTEGERS) -> Feed:
        feed = open_feed(str(path or self.path), self.journal, id_types, self.complaints.append)
        self.feeds.append(feed)
        return feed

    def products(self) -> list[Any]:
        return [change.product_id for change in self.changes()]

    def changes(self) -> list[Change]:
        return [change for _, change in self.journal.pending(10**9)]

    def n(self) -> int:
        return self.journal.status().n_pending


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    for feed in desk.feeds:
        feed.close()
    desk.journal.close()


def delete(*products: int) -> str:
    return "".join(
        json.dumps({"op": "delete", "category_id": 1, "product_id": product}) + "\n"
        for product in products
    )


def append(path: Path, text: str | bytes) -> None:
    with path.open("ab") as file:
        file.write(text.encode() if isinstance(text, str) else text)


def drain(feed: Feed) -> int:
    """Poll until nothing more is there."""
    total = 0
    while n := feed.poll():
        total += n
    return total


def wait_for(true: Callable[[], bool], feed: Feed) -> None:
    """Poll until something is true."""

    def held() -> bool:
        feed.poll()
        return true()

    wait_until(held)


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The journal takes nothing."""

    def full(*_: object) -> None:
        raise JournalError("full")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", full)
        yield


PUT = {"op": "put", "category_id": 1, "product_id": 234, "image": "photos/234.jpg"}
DELETE = {"op": "delete", "category_id": 1, "product_id": 234}
SET = {"op": "set", "category_id": 1, "product_id": 234, "values": {"price": 1200}}
PUT_FIELDS = "a put has op, category_id, product_id, image"
WHOLE = "must be a whole number from 0 to 9223372036854775807, not"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("photos/234.jpg", "{folder}/photos/234.jpg"),
        ("../234 ü.jpg", "{folder}/../234 ü.jpg"),
        ("/photos/234.jpg", "/photos/234.jpg"),
        ("https://shop.example/234.jpg?a=b", "https://shop.example/234.jpg?a=b"),
        ("s3://photos/234.jpg", "s3://photos/234.jpg"),
        ("file:///photos/234.jpg", "file:///photos/234.jpg"),
    ],
)
def test_an_image_is_a_url_or_a_path_from_the_feeds_folder(
    desk: Desk, given: str, kept: str
) -> None:
    append(desk.path, json.dumps({**PUT, "image": given}) + "\n")
    assert desk.open().poll() == 1
    assert desk.changes() == [Change("put", 1, 234, kept.format(folder=desk.folder))]


def test_a_feed_named_from_the_working_folder_gives_absolute_paths(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(desk.path, json.dumps(PUT) + "\n")
    monkeypatch.chdir(desk.folder)
    desk.open("feed.jsonl").poll()
    assert desk.changes()[0].image == str(desk.folder / "photos/234.jpg")


def test_changes_are_taken_in_order(desk: Desk) -> None:
    append(desk.path, json.dumps(PUT) + "\n" + json.dumps(DELETE) + "\n" + json.dumps(PUT) + "\n")
    desk.open().poll()
    assert [change.op for change in desk.changes()] == ["put", "delete", "put"]


def test_string_ids_are_taken_where_the_release_has_them(desk: Desk) -> None:
    line = {"op": "delete", "category_id": "Schuhe", "product_id": "ü/3"}
    append(desk.path, json.dumps(line) + "\n")
    desk.open(id_types=STRINGS).poll()
    assert desk.changes() == [Change("delete", "Schuhe", "ü/3")]


@pytest.mark.parametrize("nothing", [b"\n", b"\r\n", b" \t\n", b"\xef\xbb\xbf\n"])
def test_blank_lines_are_nothing(desk: Desk, nothing: bytes) -> None:
    append(desk.path, nothing + delete(5).encode() + nothing)
    assert desk.open().poll() == 1
    assert desk.complaints == []


def test_a_byte_order_mark_and_carriage_returns_are_no_fault(desk: Desk) -> None:
    append(desk.path, b"\xef\xbb\xbf" + delete(5, 6).encode().replace(b"\n", b"\r\n"))
    desk.open().poll()
    assert (desk.products(), desk.complaints) == ([5, 6], [])


def test_a_set_is_taken_with_its_values(desk: Desk) -> None:
    values: dict[str, Value | None] = {
        "price": 1200,
        "in_stock": False,
        "title": "日本",
        "seller": None,
    }
    append(desk.path, json.dumps({**SET, "values": values}) + "\n" + delete(5))
    assert desk.open().poll() == 2
    assert desk.changes() == [Change("set", 1, 234, values=values), Change("delete", 1, 5)]
    assert isinstance((desk.changes()[0].values or {})["price"], float)
    assert desk.complaints == []


BAD_LINES: list[tuple[Any, str]] = [
    (b"put 1", 'must be a JSON object, not "put 1": JSON is malformed: invalid character (byte 0)'),
    (
        b'{"op": "put", "cat',
        'must be a JSON object, not "{\\"op\\": \\"put\\", \\"cat": Input data was truncated',
    ),
    (b"[" * 10**5 + b"]" * 10**5, f'must be a JSON object, not "{"[" * 39}…: '),
    (b'{"op": "put"} {"op": "put"}', "trailing characters (byte 15)"),
    (b"\x1b[31m", 'must be a JSON object, not "\\u001b[31m": '),
    (b'{"op": "d\xe9lete"}', "must be a JSON object in UTF-8, not with byte 0xe9 in column 10"),
    (json.dumps(PUT).encode("utf-16-le"), "must be a JSON object, not "),
    ([1, 2], "must be a JSON object, not [1,2]"),
    ("text", 'must be a JSON object, not "text"'),
    (None, "must be a JSON object, not null"),
    ({}, 'op must be "put", "delete" or "set", not null'),
    ({**PUT, "op": "upsert"}, 'op must be "put", "delete" or "set", not "upsert"'),
    ({**PUT, "op": ["put"]}, 'op must be "put", "delete" or "set", not ["put"]'),
    ({**PUT, "imgae": "a.jpg"}, f'unknown field "imgae"; {PUT_FIELDS}'),
    (
        {**DELETE, "image": "a.jpg"},
        'unknown field "image"; a delete has op, category_id, product_id',
    ),
    ({"op": "put", "category_id": 1, "product_id": 2}, f"image is missing; {PUT_FIELDS}"),
    (
        {"op": "delete", "product_id": 2},
        "category_id is missing; a delete has op, category_id, product_id",
    ),
    ({**DELETE, "product_id": "234"}, f'product_id {WHOLE} "234"'),
    ({**DELETE, "product_id": 234.0}, f"product_id {WHOLE} 234.0"),
    ({**DELETE, "product_id": True}, f"product_id {WHOLE} true"),
    ({**DELETE, "product_id": None}, f"product_id {WHOLE} null"),
    ({**DELETE, "category_id": -1}, f"category_id {WHOLE} -1"),
    ({**DELETE, "category_id": 2**63}, f"category_id {WHOLE} {2**63}"),
    ({**DELETE, "category_id": 10**30}, f"category_id {WHOLE} {10**30}"),
    ({**DELETE, "op": "set"}, "values is missing; a set has op, category_id, product_id, values"),
    ({**SET, "price": 5}, 'unknown field "price"; a set has op, category_id, product_id, values'),
    ({**SET, "values": {}}, "values must be an object of at least one attribute, not {}"),
    ({**SET, "values": None}, "values must be an object of at least one attribute, not null"),
    ({**SET, "values": ["price"]}, 'must be an object of at least one attribute, not ["price"]'),
    ({**SET, "values": {"Price": 5}}, 'attribute "Price" must be 1 to 40 of a-z, 0-9 and single _'),
    ({**SET, "values": {"limit": 5}}, 'attribute "limit" is the name of a parameter'),
    (
        {**SET, "values": {"price": [5]}},
        "price must be true, false, a number, text or null, not [5]",
    ),
    ({**SET, "values": {"price": 10**400}}, "price must be a finite number, not 1000"),
    ({**SET, "values": {"title": ""}}, 'title must be text of 1 to 1000 bytes of UTF-8, not ""'),
    (b'{"op": "set", "values": {"price": NaN}}', "must be a JSON object, not "),
    ({**PUT, "image": ""}, 'image must be a URL or a path, not ""'),
    ({**PUT, "image": None}, "image must be a URL or a path, not null"),
    ({**PUT, "image": ["a.jpg"]}, 'image must be a URL or a path, not ["a.jpg"]'),
    ({**PUT, "image": "a\0.jpg"}, 'image must be a URL or a path, not "a\\u0000.jpg"'),
    (
        {**PUT, "image": "x" * MAX_LINE_BYTES},
        "a line must have at most 1048576 bytes, this one has more",
    ),
    (b"x" * 5 * MAX_LINE_BYTES, "a line must have at most 1048576 bytes, this one has more"),
]


@pytest.mark.parametrize(("bad", "message"), BAD_LINES)
def test_a_bad_line_is_named_and_left_out_and_the_rest_goes_on(
    desk: Desk, bad: object, message: str
) -> None:
    line = bad if isinstance(bad, bytes) else json.dumps(bad).encode()
    append(desk.path, delete(5).encode() + b"\n" + line + b"\n" + delete(6).encode())
    feed = desk.open()
    wait_for(lambda: desk.products() == [5, 6], feed)
    (complaint,) = desk.complaints
    assert complaint.startswith(f"{desk.path}:3: ")
    assert message in complaint
    assert complaint.isprintable()


@pytest.mark.parametrize(
    ("product_id", "message"),
    [
        (5, "product_id must be a string, not 5"),
        ("", "product_id must be 1 to 64 bytes of UTF-8, not 0"),
        ("x" * 65, "product_id must be 1 to 64 bytes of UTF-8, not 65"),
        ("a\tb", "product_id must not hold control characters"),
    ],
)
def test_a_string_id_is_held_to_what_a_release_may_have(
    desk: Desk, product_id: object, message: str
) -> None:
    append(desk.path, json.dumps({**DELETE, "category_id": "a", "product_id": product_id}) + "\n")
    assert desk.open(id_types=STRINGS).poll() == 0
    assert desk.complaints == [f"{desk.path}:1: {message}"]


def test_a_line_of_the_most_bytes_is_taken(desk: Desk) -> None:
    empty = json.dumps({**PUT, "image": ""})
    line = json.dumps({**PUT, "image": "x" * (MAX_LINE_BYTES - len(empty))})
    assert len(line) == MAX_LINE_BYTES
    append(desk.path, line + "\n")
    feed = desk.open()
    wait_for(lambda: desk.products() == [234], feed)


def test_lines_are_numbered_on_after_a_restart(desk: Desk) -> None:
    append(desk.path, delete(*range(1000)) + "\nbad\n")
    drain(desk.open())
    append(desk.path, delete(1) + "worse\n")
    drain(desk.open())
    assert [text.split(":")[1] for text in desk.complaints] == ["1002", "1004"]


def test_what_is_appended_is_taken(desk: Desk) -> None:
    append(desk.path, delete(5))
    feed = desk.open()
    taken = [feed.poll(), feed.poll()]
    append(desk.path, delete(6, 7))
    taken += [feed.poll(), feed.poll()]
    assert taken == [1, 0, 2, 0]
    assert desk.products() == [5, 6, 7]
    assert not feed.ended


def test_a_poll_of_an_unchanged_file_is_one_stat(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(desk.path, delete(5))
    feed = desk.open()
    drain(feed)
    calls: list[str] = []
    with monkeypatch.context() as patch:
        for name in ("open", "stat", "fstat", "pread"):
            real = getattr(os, name)

            def called(*args: Any, name: str = name, real: Any = real, **options: Any) -> Any:
                calls.append(name)
                return real(*args, **options)

            patch.setattr(os, name, called)
        assert feed.poll() == 0
        assert calls == ["stat"]
        append(desk.path, delete(6))
        assert feed.poll() == 1
        assert "pread" in calls


def test_a_last_line_waits_for_its_newline(desk: Desk) -> None:
    feed = desk.open(desk.path)
    line = delete(5)
    for end in range(len(line)):
        append(desk.path, line[end])
        assert feed.poll() == (end == len(line) - 1)
    append(desk.path, line[:-1])
    drain(feed)
    restarted = desk.open()
    assert restarted.poll() == 0
    append(desk.path, line[-1])
    assert restarted.poll() == 1
    assert desk.complaints == [f"{desk.path} is not there yet; waiting for it"]


def test_half_a_line_that_its_writer_takes_back_is_forgotten(desk: Desk) -> None:
    append(desk.path, delete(5) + '{"op": "delete", "ca')
    feed = desk.open()
    drain(feed)
    os.truncate(desk.path, len(delete(5)))
    drain(feed)
    append(desk.path, delete(6))
    drain(feed)
    assert (desk.products(), desk.complaints) == ([5, 6], [])


def test_a_restart_goes_on_where_it_was(desk: Desk) -> None:
    append(desk.path, delete(5, 6))
    drain(desk.open())
    append(desk.path, delete(7))
    assert drain(desk.open()) == 1
    assert desk.products() == [5, 6, 7]


def test_a_file_that_is_not_there_yet_is_waited_for(desk: Desk) -> None:
    feed = desk.open()
    assert feed.poll() == 0
    append(desk.path, delete(5))
    assert feed.poll() == 1


def test_a_rotated_file_is_read_to_its_end_first(desk: Desk) -> None:
    append(desk.path, delete(5))
    feed = desk.open()
    drain(feed)
    append(desk.path, delete(6))
    old = desk.path.rename(f"{desk.path}.1")
    append(old, delete(7))
    wait_for(lambda: desk.products() == [5, 6, 7], feed)
    desk.path.touch()
    drain(feed)
    append(old, delete(8))
    wait_for(lambda: desk.products() == [5, 6, 7, 8], feed)
    append(old, delete(9))
    append(desk.path, delete(10))
    wait_for(lambda: desk.products() == [5, 6, 7, 8, 9, 10], feed)
    append(desk.path, delete(11))
    wait_for(lambda: desk.products() == [5, 6, 7, 8, 9, 10, 11], feed)


@pytest.mark.parametrize("name", ["feed.jsonl.1", "feed.jsonl-20260102"])
@pytest.mark.parametrize("follows", [True, False])
def test_a_file_rotated_while_no_one_read_is_read_to_its_end_first(
    desk: Desk, name: str, follows: bool
) -> None:
    append(desk.folder / "feed.jsonl.2", delete(1))
    append(desk.folder / "feed.jsonl.txt", delete(1, 2))
    append(desk.path, delete(5))
    drain(desk.open())
    append(desk.path, delete(6))
    old = desk.path.rename(desk.folder / name)
    if follows:
        append(desk.path, delete(7))
    feed = desk.open()
    wait_for(lambda: desk.products()[:2] == [5, 6], feed)
    if not follows:
        append(old, delete(66))
        wait_for(lambda: desk.products() == [5, 6, 66], feed)
        append(desk.path, delete(7))
    wait_for(lambda: desk.products()[-1] == 7, feed)
    assert drain(desk.open()) == 0


def test_a_file_that_was_read_before_it_was_rotated_is_left_alone(desk: Desk) -> None:
    append(desk.path, delete(5))
    feed = desk.open()
    drain(feed)
    old = desk.path.rename(f"{desk.path}.1")
    append(desk.path, delete(6))
    wait_for(lambda: desk.products() == [5, 6], feed)
    append(old, delete(55))
    assert drain(desk.open()) == 0


def test_a_file_that_came_and_went_while_no_one_read_is_complained_of(desk: Desk) -> None:
    append(desk.path, delete(5))
    drain(desk.open())
    read = desk.path.rename(f"{desk.path}.2")
    unread = Path(f"{desk.path}.1")
    append(unread, delete(6))
    append(desk.path, delete(7))
    os.utime(unread, ns=(0, read.stat().st_mtime_ns + 1))
    feed = desk.open()
    wait_for(lambda: desk.products() == [5, 7], feed)
    (complaint,) = desk.complaints
    assert complaint.startswith(f"{unread} is newer than {read}, where reading goes on, and is not")


@pytest.mark.parametrize(("rest", "taken"), [(delete(6)[:-1], [6]), (delete(6)[:-2], [])])
def test_the_last_line_of_a_rotated_file_is_taken_if_it_is_whole(
    desk: Desk, rest: str, taken: list[int]
) -> None:
    append(desk.path, delete(5) + rest)
    feed = desk.open()
    drain(feed)
    desk.path.rename(f"{desk.path}.1")
    append(desk.path, delete(7) + "bad\n")
    wait_for(lambda: desk.products() == [5, *taken, 7], feed)
    lines = [complaint.split(":")[1] for complaint in desk.complaints]
    assert lines == (["2"] if taken else ["2", "2"])
    assert drain(desk.open()) == 0


def test_a_truncated_file_begins_anew(desk: Desk) -> None:
    append(desk.path, delete(5, 6, 7))
    feed = desk.open()
    drain(feed)
    os.truncate(desk.path, 0)
    drain(feed)
    append(desk.path, delete(5))
    drain(feed)
    append(desk.path, delete(8, 9))
    drain(feed)
    assert desk.products() == [5, 6, 7, 5, 8, 9]


def test_a_file_truncated_and_written_again_at_once_begins_anew(desk: Desk) -> None:
    append(desk.path, delete(5, 6))
    feed = desk.open()
    drain(feed)
    desk.path.write_text(delete(7, 8, 9))
    drain(feed)
    assert desk.products() == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("again", [delete(5), delete(9, 8, 7)])
def test_a_file_truncated_while_no_one_read_begins_anew(desk: Desk, again: str) -> None:
    append(desk.path, delete(5, 6))
    drain(desk.open())
    desk.path.write_text(again)
    assert drain(desk.open()) == again.count("\n")


def rewrite(path: Path, text: str) -> None:
    """In place: the file stays the same one."""
    with path.open("r+") as file:
        file.write(text)
        file.truncate()


LONG = list(range(1000, 1200))
"""More than 4 KiB of lines."""


@pytest.mark.parametrize(
    ("again", "taken"),
    [
        ([1, 6, 7, 8], [1, 6, 7, 8]),  # two more lines, the second another
        ([1, 9], [1, 9]),  # as long as before
        ([1, 9, *LONG], [1, 9, *LONG]),
    ],
)
@pytest.mark.parametrize("restarted", [True, False])
def test_a_file_that_was_rewritten_is_read_again_and_that_is_said(
    desk: Desk, again: list[int], taken: list[int], restarted: bool
) -> None:
    append(desk.path, delete(1, 2))
    feed = desk.open()
    drain(feed)
    if restarted:
        feed.close()
        desk.feeds.clear()
    rewrite(desk.path, delete(*again))
    os.utime(desk.path, (1, 1))  # as some moments later
    if restarted:
        feed = desk.open()
    assert drain(feed) == len(taken)
    assert desk.products() == [1, 2, *taken]
    (complaint,) = desk.complaints
    assert complaint == (
        f"{desk.path} was rewritten: what stands before byte {len(delete(1, 2))} is not what was read "
        "there; all of it is read again"
    )
    append(desk.path, delete(3))
    assert drain(desk.open()) == 1
    assert len(desk.complaints) == 1


def test_a_rewritten_file_whose_reading_was_interrupted_is_read_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(desk.path, delete(1, 2))
    drain(desk.open())
    rewrite(desk.path, delete(1, 6, 7))
    desk.open()
    assert drain(desk.open()) == 3


@pytest.mark.parametrize("restarted", [True, False])
def test_a_file_of_which_only_half_a_line_was_rewritten_goes_on(
    desk: Desk, restarted: bool
) -> None:
    append(desk.path, delete(*LONG) + '{"op": "put"')
    feed = desk.open()
    drain(feed)
    rewrite(desk.path, delete(*LONG, 7))
    if restarted:
        feed = desk.open()
    assert drain(feed) == 1
    assert desk.products() == [*LONG, 7]
    assert desk.complaints == []


def test_a_position_that_the_version_before_noted_is_gone_on_from(desk: Desk) -> None:
    append(desk.path, delete(1, 2))
    drain(desk.open())
    desk.journal._database.execute("DELETE FROM feed_tails")
    append(desk.path, delete(3))
    feed = desk.open()
    assert drain(feed) == 1
    assert desk.complaints == []


def test_a_position_that_the_version_before_moved_has_no_digest(desk: Desk) -> None:
    """It knows of no digest, and leaves the old one."""
    append(desk.path, delete(1, 2))
    drain(desk.open())
    append(desk.path, delete(3))
    size = desk.path.stat().st_size
    desk.journal._database.execute("UPDATE feeds SET position = ?", [size])
    append(desk.path, delete(4))
    assert drain(desk.open()) == 1
    assert desk.products() == [1, 2, 4]
    assert desk.complaints == []


def test_a_file_rewritten_before_a_digest_was_noted_is_read_again(desk: Desk) -> None:
    append(desk.path, delete(1, 2))
    feed = desk.open()
    drain(feed)
    desk.journal._database.execute("DELETE FROM feed_tails")
    rewrite(desk.path, delete(1, 6, 7))
    assert drain(feed) == 3


def test_a_truncation_that_was_seen_is_known_after_a_restart(desk: Desk) -> None:
    append(desk.path, delete(5))
    feed = desk.open()
    drain(feed)
    os.truncate(desk.path, 0)
    drain(feed)
    append(desk.path, delete(5, 6))
    assert drain(desk.open()) == 2


@pytest.mark.slow
def test_a_big_feed_comes_in_chunks(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    n = 50_000
    append(desk.path, delete(*range(n)))
    sizes: list[int] = []
    add = Journal.add

    def counted(
        self: Journal, changes: list[Change], feed: tuple[str, int], tail: str
    ) -> list[int]:
        sizes.append(len(changes))
        return add(self, changes, feed, tail)

    monkeypatch.setattr(Journal, "add", counted)
    assert drain(desk.open()) == n
    assert max(sizes) < 25_000
    assert desk.products() == list(range(n))


def test_what_the_journal_could_not_take_comes_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(desk.path, delete(5))
    feed = desk.open()
    drain(feed)
    append(desk.path, delete(6, 7) + '{"op"')

    with full_disk(monkeypatch), pytest.raises(JournalError, match="full"):
        feed.poll()
    assert feed.poll() == 2
    assert desk.products() == [5, 6, 7]


def test_a_file_that_cannot_be_read_for_a_while_is_complained_of_once(desk: Desk) -> None:
    append(desk.path, delete(5))
    feed = desk.open()
    drain(feed)
    desk.path.rename(f"{desk.path}.1")
    desk.path.mkdir()
    (desk.path / "x").touch()
    for _ in range(4):
        assert feed.poll() == 0
    (complaint,) = desk.complaints
    assert complaint.startswith(f"cannot read changes from {desk.path}: ")
    (desk.path / "x").unlink()
    desk.path.rmdir()
    append(desk.path, delete(6))
    wait_for(lambda: desk.products() == [5, 6], feed)


def test_a_folder_is_no_feed(desk: Desk) -> None:
    with pytest.raises(FeedError, match=r"is no file of lines; give a regular file, a pipe, or -"):
        desk.open(desk.folder)


def test_a_closed_standard_input_is_no_feed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(FeedError, match="standard input: it is closed"):
        desk.open("-")


def test_a_feed_in_no_folder_is_not_waited_for(desk: Desk) -> None:
    with pytest.raises(FeedError, match=f"no folder {desk.folder}/nowhere"):
        desk.open(desk.folder / "nowhere" / "feed.jsonl")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_feed_that_may_not_be_read_is_none(desk: Desk) -> None:
    desk.path.touch(0o000)
    with pytest.raises(FeedError, match=f"cannot read changes from {desk.path}: permission denied"):
        desk.open()


def test_a_writer_that_appends_in_pieces_loses_nothing(desk: Desk) -> None:
    n = 3000
    text = delete(*range(n)).encode()
    moments = random.Random(5)

    def write() -> None:
        with desk.path.open("ab", buffering=0) as file:
            place = 0
            while place < len(text):
                size = moments.randrange(1, 2000)
                file.write(text[place : place + size])
                place += size
                time.sleep(0.0005)

    writer = threading.Thread(target=write)
    feed = desk.open()
    writer.start()
    wait_for(lambda: len(desk.products()) == n, feed)
    writer.join()
    assert desk.products() == list(range(n))


AHEAD = 5000
"""Lines that wait for a reader at most: more than it takes before it is killed, and no more the slower
the machine."""


@pytest.mark.slow
def test_a_reader_killed_at_random_moments_takes_each_line_once(desk: Desk) -> None:
    kills = 40
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    # Processes forked of one that has imported what takes long to import.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["feeding"])
    written = rotated = rotations = 0
    done = threading.Event()

    def write() -> None:
        nonlocal written, rotated, rotations
        pieces = random.Random(seed + 1)
        taken = 0
        while not done.is_set():
            if written > taken + AHEAD:
                time.sleep(0.002)
                taken = desk.n()
                continue
            n = pieces.randrange(1, 300)
            text = delete(*range(written, written + n)).encode()
            cut = pieces.randrange(len(text))
            for piece in (text[:cut], text[cut:]):
                append(desk.path, piece)
                time.sleep(0.002)
            written += n
            # Not again before something of this one has been read.
            if pieces.random() < 0.1 and desk.n() > rotated:
                desk.path.rename(f"{desk.path}.{written}")
                rotated = written
                rotations += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(kills):
            process = processes.Process(target=follow_in_process, args=(desk.folder,))
            process.start()
            # Half of them as they start, half of them at work.
            before = desk.n()
            if moments.random() < 0.5:
                wait_until(lambda: desk.n() > before, process)  # noqa: B023
            process.join(moments.uniform(0, 0.05))
            assert process.is_alive()
            process.kill()
            process.join()
    finally:
        done.set()
        writer.join()
    feed = desk.open()
    wait_for(lambda: desk.n() >= written, feed)
    print(f"{written} lines, {rotations} rotations")
    assert rotations > 0
    assert desk.products() == list(range(written))


def test_a_pipe_is_read_as_lines_come_from_one_writer_after_the_other(desk: Desk) -> None:
    os.mkfifo(desk.path)
    feed = desk.open()
    assert feed.poll() == 0
    line = delete(6)
    with desk.path.open("w") as writer:
        writer.write(delete(5))
        writer.flush()
        assert feed.poll() == 1
        writer.write(line[:10])
        writer.flush()
        assert feed.poll() == 0
        writer.write(line[10:] + "bad\n" + line[:20])
        writer.flush()
        assert feed.poll() == 1
    assert feed.poll() == 0
    assert not feed.ended
    with desk.path.open("w") as writer:
        writer.write(delete(7))
    assert feed.poll() == 1
    assert feed.poll() == 0
    assert desk.products() == [5, 6, 7]
    assert [text.split(":")[1] for text in desk.complaints] == ["3", "4"]
    assert not feed.ended


@pytest.mark.slow
def test_much_through_a_pipe_comes_in_order(desk: Desk) -> None:
    n = 30_000
    os.mkfifo(desk.path)
    feed = desk.open()
    writer = threading.Thread(target=desk.path.write_text, args=(delete(*range(n)),))
    writer.start()
    wait_for(lambda: not writer.is_alive(), feed)
    drain(feed)
    assert desk.products() == list(range(n))


def test_what_the_journal_could_not_take_of_a_pipe_comes_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(desk.path)
    feed = desk.open()

    with desk.path.open("w") as writer:
        writer.write(delete(5, 6))
        writer.flush()
        with full_disk(monkeypatch), pytest.raises(JournalError, match="full"):
            feed.poll()
        assert feed.poll() == 2
    assert desk.products() == [5, 6]


FOLLOW_STANDARD_INPUT = """
import sys, time
from pathlib import Path
from lookalike.journal import Journal
from lookalike_build.following.feed import open_feed
feed = open_feed("-", Journal(Path(sys.argv[1])), ("integer", "integer"), print)
print("ready", flush=True)
while not feed.ended:
    feed.poll()
    time.sleep(0.01)
"""


@pytest.fixture
def follower(desk: Desk) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts a process that reads changes from its standard input."""
    started: list[subprocess.Popen[str]] = []

    def start(stdin: Any = subprocess.PIPE) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", FOLLOW_STANDARD_INPUT, desk.folder / "journal/journal.sqlite"],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=desk.folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        with suppress(BrokenPipeError):
            process.communicate()


@pytest.mark.slow
def test_standard_input_is_read_line_by_line_until_its_end(
    desk: Desk, follower: Callable[..., "subprocess.Popen[str]"]
) -> None:
    process = follower()
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    for product in range(4):
        process.stdin.write(json.dumps({**PUT, "product_id": product}) + "\n")
        process.stdin.flush()
        wait_until(lambda: product in desk.products(), process)  # noqa: B023
    process.stdin.write("bad\n" + delete(4).rstrip("\n"))
    process.stdin.flush()
    time.sleep(0.1)
    assert process.poll() is None
    assert desk.products() == [0, 1, 2, 3]
    output, errors = process.communicate(timeout=HUNG_S)
    assert output.startswith('standard input:5: must be a JSON object, not "bad": ')
    assert (process.returncode, errors) == (0, "")
    assert desk.products() == [0, 1, 2, 3, 4]
    assert desk.changes()[0].image == str(desk.folder / "photos/234.jpg")


@pytest.mark.slow
def test_a_file_as_standard_input_is_read_once_to_its_end(
    desk: Desk, follower: Callable[..., "subprocess.Popen[str]"]
) -> None:
    append(desk.path, delete(*range(20_000)))
    with desk.path.open() as file:
        process = follower(file)
        assert process.communicate(timeout=HUNG_S) == ("ready\n", "")
    assert desk.products() == list(range(20_000))
