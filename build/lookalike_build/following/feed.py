"""The change feed: changes of products as JSON lines, from a file that grows, a pipe or standard input.

One object a line, in UTF-8, at most `MAX_LINE_BYTES` long:

    {"op": "put", "category_id": 1, "product_id": 234, "image": "photos/234.jpg"}
    {"op": "delete", "category_id": 1, "product_id": 234}
    {"op": "set", "category_id": 1, "product_id": 234, "values": {"price": 1200, "title": null}}

`image` is a URL or a path, relative to the folder of the feed file, or to the working folder where
lines come through a pipe. `values` are by attribute, null where missing; the follower rejects those
that the release has no such attribute for. A line that is none of these is left out and complained
of, a blank one is nothing. A line is taken when its newline is there, the last one also when it is
certain that no more comes: half an object is never a whole one.

A file is followed like `tail -F` does. How far it has been read is in the journal, noted in the same
step as the changes themselves: whatever moment the reader is killed at, no line is lost or taken
twice. Of a pipe, what has been read and not yet journaled is lost then; whoever must be certain
writes a file, or sends changes over HTTP.
"""

import hashlib
import os
import select
import stat
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cached_property
from glob import escape
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from lookalike.errors import LookalikeError
from lookalike.journal import DELETE, PUT, SET, Change, Journal
from lookalike.release.attributes import (
    AttributeType,
    Value,
    Values,
    name_problem,
    value_problem,
)
from lookalike.release.files import reason_of
from lookalike.release.ids import IdType, json_id_problem, shown
from lookalike_build.photos.image import is_url

STANDARD_INPUT: Final = "-"
MAX_LINE_BYTES: Final = 2**20
_BLOCK_BYTES = 2**20
_HEAD_BYTES = 4096
_TAIL_BYTES = 4096
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_IDS: Final = ("category_id", "product_id")
_FIELDS: Final = {
    PUT: ("op", *_IDS, "image"),
    DELETE: ("op", *_IDS),
    SET: ("op", *_IDS, "values"),
}
_JSON_TYPES: Final[dict[type, AttributeType]] = {
    bool: "flag",
    int: "number",
    float: "number",
    str: "text",
}

IdTypes = tuple[IdType, IdType]
Complain = Callable[[str], object]
Seal = Callable[[str], str]
"""Makes what the journal has of an image."""


class FeedError(LookalikeError):
    """A feed that cannot be read at all; the text names it and says why."""


class Feed(Protocol):
    """Where changes come from; of one thread."""

    @property
    def ended(self) -> bool:
        """Whether no more will ever come: only standard input ends."""

    def poll(self) -> int:
        """Add what has come to the journal, about 1 MiB at most; how many changes that was.

        Never waits. Raises JournalError, after which the next call tries the same changes again, and
        FeedError where a pipe breaks.
        """

    def close(self) -> None:
        """Let go of the file or pipe."""


def open_feed(
    path: str,
    journal: Journal,
    id_types: IdTypes,
    complain: Complain,
    seal: Seal = lambda image: image,
) -> Feed:
    """The feed at `path`, a regular file or a pipe, or standard input for ``-``; else FeedError.

    A file need not be there yet. `id_types` are the types of category ids and product ids.
    `complain` hears, in one line each, of lines that are left out and of files that are waited for.
    """
    place = Path(path)
    try:
        if path == STANDARD_INPUT:
            if sys.stdin is None:  # its number may be that of another file by now
                raise FeedError("cannot read changes from standard input: it is closed")
            lines = _Lines("standard input", Path(), id_types, complain, seal)
            return _PipeFeed(os.dup(0), journal, lines, endless=False)
        if place.exists() and stat.S_ISFIFO(place.stat().st_mode):
            lines = _Lines(path, Path(), id_types, complain, seal)
            descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
            return _PipeFeed(descriptor, journal, lines, endless=True)
        if not place.parent.is_dir():
            raise FeedError(f"cannot read changes from {path}: no folder {place.parent}")
        return _FileFeed(place, journal, _Lines(path, place.parent, id_types, complain, seal))
    except OSError as error:
        raise FeedError(f"cannot read changes from {path}: {_reason(error)}") from error


class _PipeFeed:
    """Lines from a descriptor, numbered from where it was opened; `endless` if more writers may come.

    A FIFO stays open between its writers. Where one leaves without a newline its line ends, too.
    """

    def __init__(self, descriptor: int, journal: Journal, lines: "_Lines", endless: bool) -> None:
        self._descriptor = descriptor
        self._journal = journal
        self._lines = lines
        self._endless = endless
        self._at_end = False
        self._cutter = _Cutter()
        self._waiting: list[Change] = []
        self._ready = select.poll()
        self._ready.register(descriptor, select.POLLIN)

    @property
    def ended(self) -> bool:
        return self._at_end and not self._waiting

    def poll(self) -> int:
        # What could not be added the last time comes first, and alone: it must not become too much.
        if not self._waiting:
            self._read()
        n = len(self._waiting)
        if n:
            self._journal.add(self._waiting)
            self._waiting = []
        return n

    def close(self) -> None:
        os.close(self._descriptor)

    def _read(self) -> None:
        until = self._cutter.n_bytes + _BLOCK_BYTES
        # Asked first, since standard input may be shared and must not be made non-blocking.
        while not self._at_end and self._cutter.n_bytes < until and self._ready.poll(0):
            number = self._cutter.n_lines + 1
            try:
                data = os.read(self._descriptor, _BLOCK_BYTES)
            except OSError as error:
                name = self._lines.name
                raise FeedError(f"cannot read changes from {name}: {_reason(error)}") from error
            lines = self._cutter.cut(data) if data else self._cutter.finish()
            self._waiting += self._lines.changes(lines, number)
            self._at_end = not data and not self._endless
            if not data:
                return


class _FileFeed:
    """Lines of the file at `path`, and of whatever file is there later.

    When another file is at `path` and has bytes, the one that was there, whatever it is called now,
    is read to its end, and then the other from its beginning. Where that happened while no one read,
    the old one is looked for beside it, called as before with something more behind a ``.`` or
    ``-``. So nothing is lost, unless a file is replaced twice before the first of the two was read.

    In the journal a file is named by its inode and its first line, which stay as it is renamed, and
    after a restart: the inode alone may be another file's by then, and so may the line. A file
    that is shorter than what was read of it, or that begins otherwise, is read from its beginning. So
    is one that was rewritten, in which other bytes stand before where reading goes on.
    """

    ended = False

    def __init__(self, path: Path, journal: Journal, lines: "_Lines") -> None:
        self._path = path
        self._journal = journal
        self._lines = lines
        self._seen: tuple[int, int] | None = None
        self._complained = ""
        try:
            self._file: _OpenFile | None = _OpenFile(path, journal, lines)
        except FileNotFoundError:
            self._file = None
            lines.complain(f"{path} is not there yet; waiting for it")
        if (self._file is None or not self._file.begun) and (renamed := self._renamed()):
            self.close()
            self._file = renamed

    def poll(self) -> int:
        try:
            n = self._poll()
        except (OSError, FeedError) as error:
            # Perhaps only in this moment: what rotates files may give them away a little later.
            reason = str(error) if isinstance(error, FeedError) else _reason(error)
            problem = f"cannot read changes from {self._path}: {reason}; trying again"
            if problem != self._complained:
                self._lines.complain(problem)
            self._complained = problem
            return 0
        self._complained = ""
        return n

    def close(self) -> None:
        if self._file:
            self._file.close()
            self._file = None

    def _poll(self) -> int:
        there = None
        with suppress(FileNotFoundError):
            there = self._path.stat()
        if self._file is None:
            if there is None:
                return 0
            self._file = _OpenFile(self._path, self._journal, self._lines)
        same = there is not None and os.path.samestat(there, self._file.status)
        seen = (there.st_size, there.st_mtime_ns) if there and same else None
        if seen and seen == self._seen:
            return 0
        n, at_end = self._file.take()
        self._seen = seen if at_end else None
        # An empty one does not count: who writes may not know of it yet, and go on in the other.
        if at_end and there and there.st_size and not same:
            n += self._file.finish()
            self.close()
        return n

    def _renamed(self) -> "_OpenFile | None":
        """The file that was at the path when it was last read."""
        begun: list[tuple[int, Path]] = []
        unknown: list[tuple[int, Path]] = []
        for path in self._path.parent.glob(escape(self._path.name) + "[.-]*"):
            with suppress(OSError, FeedError):
                file = _OpenFile(path, self._journal, self._lines)
                (begun if file.begun else unknown).append((file.status.st_mtime_ns, path))
                file.close()
        if not begun:
            return None
        for modified, path in sorted(unknown):
            if (modified, path) > max(begun):
                self._lines.complain(
                    f"{path} is newer than {max(begun)[1]}, where reading goes on, and is not read: it "
                    f"became that before anything of it was read, or was never {self._path}"
                )
        return _OpenFile(max(begun)[1], self._journal, self._lines)


class _OpenFile:
    """A regular file, read from where the journal says; `begun` if that is not its beginning."""

    def __init__(self, path: Path, journal: Journal, lines: "_Lines") -> None:
        self._path = path
        self._journal = journal
        self._lines = lines
        self._before = b""
        # Without waiting, should it be a pipe by now.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            self.status = os.fstat(self._descriptor)
            if not stat.S_ISREG(self.status.st_mode):
                raise FeedError(
                    f"{path} is no file of lines; give a regular file, a pipe, or - for standard input"
                )
            self._begin()
        except BaseException:
            self.close()
            raise

    @property
    def begun(self) -> bool:
        return self._start > 0

    def take(self) -> tuple[int, bool]:
        """Add the changes of the next block to the journal; how many, and whether it was the last."""
        self._begin_where_replaced()
        seen = self._next()
        if not seen.startswith(self._before):
            self._begin(rewritten=True)
            seen = self._next()
        n_bytes = len(seen) - len(self._before)
        return self._take(seen), n_bytes < _BLOCK_BYTES

    def _begin_where_replaced(self) -> None:
        """Begin again in a file that has become shorter, or begins otherwise, than what was read."""
        size = os.fstat(self._descriptor).st_size
        if self._name and size < self._start + self._cutter.n_cut_bytes:
            # Else it would go on from there once it has grown so far again.
            self._journal.add((), (self._name, 0))
            self._begin()
        if size < self._offset or self._name is None or self._name != self._identity():
            self._begin()

    def _take(self, seen: bytes) -> int:
        """Add the changes of the lines in a block, which comes in `seen` after what was there before.

        What follows the last newline waits for the next block, and the journal notes the position
        before it. Example: of a new file, ``a\\nb\\nc`` is read, 5 bytes. Lines a and b are taken, the
        journal notes position 4, and `_before` is all 5. The next block begins with byte 5, and `_next`
        reads these 5 again before it, to see that they have not changed.
        """
        number = self._cutter.n_lines + 1
        lines = self._cutter.cut(seen[len(self._before) :])
        n_rest = self._cutter.n_bytes - self._cutter.n_cut_bytes
        self._before = seen[-_TAIL_BYTES:]
        return self._add(lines, number, seen[: len(seen) - n_rest])

    def finish(self) -> int:
        """Add the change of a last line without newline to the journal."""
        return self._add(self._cutter.finish(), self._cutter.n_lines, self._before)

    def close(self) -> None:
        os.close(self._descriptor)

    @property
    def _offset(self) -> int:
        return self._start + self._cutter.n_bytes

    def _begin(self, rewritten: bool = False) -> None:
        """Go to where the journal says, or to the beginning of a file in which something else is there.

        Where the journal does not know what was there, `rewritten` decides.
        """
        self.__dict__.pop("_n_lines_before", None)
        self._name = self._identity()
        position = self._journal.position(self._name) if self._name else 0
        size = os.fstat(self._descriptor).st_size
        self._start = position if position <= size else 0
        self._cutter = _Cutter()
        self._before = self._read_before()
        if not self._name or not self._start:
            return
        tail = self._journal.tail(self._name)
        if rewritten if tail is None else tail != _digest(self._before):
            self._lines.complain(
                f"{self._path} was rewritten: what stands before byte {self._start} is not what was "
                "read there; all of it is read again"
            )
            self._journal.add((), (self._name, 0))
            self._start = 0
            self._before = b""

    def _read_before(self) -> bytes:
        n_bytes = min(_TAIL_BYTES, self._offset)
        return os.pread(self._descriptor, n_bytes, self._offset - n_bytes)

    def _next(self) -> bytes:
        """What stands where `_before` was read, and the next block."""
        n_before = len(self._before)
        return os.pread(self._descriptor, n_before + _BLOCK_BYTES, self._offset - n_before)

    def _identity(self) -> str | None:
        """The file's name in the journal; None as long as it has no whole line."""
        head = os.pread(self._descriptor, _HEAD_BYTES, 0)
        line, newline, _ = head.partition(b"\n")
        if not newline and len(head) < _HEAD_BYTES:
            return None
        return f"{self.status.st_ino} {hashlib.sha256(line).hexdigest()[:32]}"

    def _add(self, lines: list[bytes], number: int, read: bytes) -> int:
        """Add the changes of lines numbered from `number`, the last of which ends what was `read`."""
        if not lines:
            return 0
        changes = self._lines.changes(lines, number, lambda: self._n_lines_before)
        position = self._start + self._cutter.n_cut_bytes
        feed = (self._name, position) if self._name else None
        try:
            self._journal.add(changes, feed, _digest(read[-_TAIL_BYTES:]))
        except BaseException:
            self._begin()
            raise
        return len(changes)

    @cached_property
    def _n_lines_before(self) -> int:
        """How many lines are before where reading began; counted only if there is one to name."""
        n = 0
        for offset in range(0, self._start, _BLOCK_BYTES):
            n_bytes = min(_BLOCK_BYTES, self._start - offset)
            n += os.pread(self._descriptor, n_bytes, offset).count(b"\n")
        return n


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class _Cutter:
    """Cuts what comes piece by piece into lines, without their newlines.

    Of a line that is too long, enough is kept to see that it is. `n_bytes` came so far, of which
    `n_cut_bytes` are in the `n_lines` lines that were cut.
    """

    def __init__(self) -> None:
        self.n_bytes = self.n_cut_bytes = self.n_lines = 0
        self._rest = b""

    def cut(self, data: bytes) -> list[bytes]:
        """The lines that end in `data`, which comes next."""
        *lines, rest = data.split(b"\n")
        self.n_bytes += len(data)
        if lines:
            lines[0] = self._rest + lines[0]
            self._rest = b""
            self.n_cut_bytes = self.n_bytes - len(rest)
            self.n_lines += len(lines)
        self._rest = (self._rest + rest)[: MAX_LINE_BYTES + 1]
        return lines

    def finish(self) -> list[bytes]:
        """What came after the last newline, if anything, as a line."""
        lines = [self._rest] if self._rest else []
        self.n_cut_bytes = self.n_bytes
        self.n_lines += len(lines)
        self._rest = b""
        return lines


class _LineError(Exception):
    """A line that holds no change."""


class _Lines:
    """Makes changes of lines of what is called `name`, and complains of those that are none."""

    def __init__(
        self, name: str, folder: Path, id_types: IdTypes, complain: Complain, seal: Seal
    ) -> None:
        self.name = name
        self.complain = complain
        self._seal = seal
        self._folder = folder.absolute()
        self._id_types = id_types

    def changes(
        self, lines: Iterable[bytes], first: int, n_before: Callable[[], int] = lambda: 0
    ) -> list[Change]:
        """The changes of lines, numbered from `first` after `n_before` others, counted if need be."""
        changes = []
        for place, line in enumerate(lines):
            text = line.removeprefix(_BYTE_ORDER_MARK)
            if not text or text.isspace():
                continue
            try:
                changes.append(self._change(text))
            except _LineError as error:
                self.complain(f"{self.name}:{n_before() + first + place}: {error}")
        return changes

    def _change(self, text: bytes) -> Change:
        values = _object(text)
        op = values.get("op")
        if op not in (PUT, DELETE, SET):
            raise _LineError(f'op must be "put", "delete" or "set", not {shown(op)}')
        fields = _FIELDS[op]
        for name in values:
            if name not in fields:
                raise _LineError(f"unknown field {shown(name)}; a {op} has {', '.join(fields)}")
        for name in fields:
            if name not in values:
                raise _LineError(f"{name} is missing; a {op} has {', '.join(fields)}")
        ids = values["category_id"], values["product_id"]
        for name, value, id_type in zip(_IDS, ids, self._id_types, strict=True):
            if problem := json_id_problem(value, id_type):
                raise _LineError(f"{name} {problem}")
        if op == SET:
            return Change(op, *ids, values=_values(values["values"]))
        return Change(op, *ids, self._image(values["image"]) if op == PUT else None)

    def _image(self, image: object) -> str:
        if not isinstance(image, str) or not image or "\0" in image:
            raise _LineError(f"image must be a URL or a path, not {shown(image)}")
        return self._seal(image if is_url(image) else str(self._folder / image))


def _values(given: object) -> Values:
    """The values of a set, numbers as floats."""
    if not isinstance(given, dict) or not given:
        raise _LineError(f"values must be an object of at least one attribute, not {shown(given)}")
    values: dict[str, Value | None] = {}
    for name, value in given.items():
        if problem := name_problem(name):
            raise _LineError(f"attribute {shown(name)} {problem}")
        json_type = _JSON_TYPES.get(type(value))
        if value is not None and json_type is None:
            raise _LineError(
                f"{name} must be true, false, a number, text or null, not {shown(value)}"
            )
        if json_type and (problem := value_problem(value, json_type)):
            raise _LineError(f"{name} {problem}")
        values[name] = float(value) if json_type == "number" else value
    return values


def _object(text: bytes) -> dict[str, Any]:
    if len(text) > MAX_LINE_BYTES:
        raise _LineError(f"a line must have at most {MAX_LINE_BYTES} bytes, this one has more")
    try:
        values = msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        try:
            given = shown(text.decode())
        except UnicodeDecodeError as wrong:
            byte = f"byte 0x{text[wrong.start]:02x} in column {wrong.start + 1}"
            raise _LineError(f"must be a JSON object in UTF-8, not with {byte}") from None
        raise _LineError(f"must be a JSON object, not {given}: {error}") from None
    if not isinstance(values, dict):
        raise _LineError(f"must be a JSON object, not {shown(values)}")
    return values


def _reason(error: OSError) -> str:
    return reason_of(error).lower()
