"""Files of an experiment's records: which there are, and how DuckDB reads each.

CSV (with a header), Parquet and JSON Lines hold a record a row, in the columns that `EventColumns`
names. JSON access logs hold a request a line, see `log`. Text may be compressed, see `packing`; what is
not UTF-8 is unpacked, too.

DuckDB reads the files itself, on all cores: 100 million rows are too many for Python. So of the wing
`tables` only the formats, the names of Parquet's columns and the errors are used.
"""

import errno
import glob
import io
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final, Literal, NamedTuple

import pyarrow as pa

from lookalike.release.root import named
from lookalike.terminal.output import is_utf8
from lookalike_build.experiment import log
from lookalike_build.experiment.log import PATHS, LogPaths
from lookalike_build.experiment.packing import (
    BY_DUCKDB,
    Packing,
    check_one,
    check_text,
    packing_of,
    unpacked,
)
from lookalike_build.tables.csv import AS_IT_BEGINS, Dialect, Start, start_of
from lookalike_build.tables.error import TableError
from lookalike_build.tables.format import BYTE_ORDER_MARK, format_by_start, utf_16
from lookalike_build.tables.parquet import schema_of
from lookalike_build.tables.quoting import identifier, literal

Kind = Literal["csv", "parquet", "jsonl", "log"]

_START_BYTES = 1 << 16
_MAX_LINE_BYTES = 1 << 21


class EventColumns(NamedTuple):
    """What records call their columns; None: its own name, and it may be missing."""

    event: str = "event"
    pattern: str = "pattern"
    method: str = "method"
    category_id: str = "category_id"
    visitor: str | None = None
    time: str | None = None


COLUMNS: Final = EventColumns()
_PLAIN: Final = Start(0, [], ",")

MACROS: Final = (
    # ISO 8601, Unix seconds, and the time_local of nginx and Unit. Above 1e11 they are no seconds.
    "CREATE MACRO moment(t) AS epoch(coalesce(try_cast(t AS TIMESTAMPTZ), CASE WHEN "
    "abs(try_cast(t AS DOUBLE)) < 1e11 THEN to_timestamp(try_cast(t AS DOUBLE)) END, "
    "try_strptime(t, '%d/%b/%Y:%H:%M:%S %z')))",
    "CREATE MACRO parameter(uri, name) AS try(url_decode(replace(regexp_extract(uri, "
    "'[?&]' || name || '=([^&#]*)', 1), '+', ' ')))",
)
"""What `EventFile.select` is written in; the session's time zone is to be UTC."""


@dataclass(frozen=True)
class EventFile:
    """One file of records.

    `fields` are what `scan` gives of each row; `places` says which of them is which column of
    `EventColumns`, `names` what the file calls these. `moments` says that the time is a Parquet
    timestamp, not text or a number. `encoding` is Python's name of the text's codec. `first` is what
    CSV begins with, and `mixed` says that its lines end in different ways. `unpacked_at` is where the
    text is, in UTF-8 and from the header on, once it is unpacked.
    """

    path: Path
    kind: Kind
    packing: Packing
    fields: tuple[str, ...]
    places: Mapping[str, str]
    names: EventColumns
    paths: LogPaths
    moments: bool = False
    encoding: str = "utf-8"
    first: Start = _PLAIN
    mixed: bool = False
    unpacked_at: Path | None = None

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The text, in UTF-8 and from the header on, of a file that is not Parquet.

        TableError as of `packing.unpacked`.
        """
        with unpacked(self.path, self.packing) as file:
            if self._is_plain:
                yield file
                return
            with tempfile.TemporaryFile() as text:
                newline = None if self.mixed else ""
                reader = io.TextIOWrapper(file, self.encoding, "replace", newline=newline)
                for _ in range(self.first.n_lines):
                    reader.readline()
                while piece := reader.read(_START_BYTES):
                    text.write(piece.encode())
                text.seek(0)
                yield text

    @contextmanager
    def readable(self, folder: Path | None) -> Iterator["EventFile"]:
        """The file as DuckDB can read it, while the block runs: unpacked in a folder if need be."""
        if self.packing in BY_DUCKDB and self._is_plain:
            yield self
            return
        with tempfile.NamedTemporaryFile(prefix="lookalike-", dir=folder) as text:
            with self.open() as file:
                try:
                    shutil.copyfileobj(file, text)
                    text.flush()
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    room = f"no room to unpack it in {Path(text.name).parent} (--temporary)"
                    raise TableError(self.path, [room]) from None
            yield replace(self, unpacked_at=Path(text.name))

    @property
    def _is_plain(self) -> bool:
        """Whether DuckDB reads the text as it is, if it is not packed."""
        return self.encoding == "utf-8" and not self.first.n_lines and not self.mixed

    def check_whole(self) -> None:
        """Read packed text through; TableError if it is cut short, which DuckDB does not tell."""
        if self.packing:
            with self.open() as file:
                while file.read(_START_BYTES):
                    pass

    def own_name(self, column: str) -> str:
        """What the file calls a column of `EventColumns`."""
        if self.kind == "log" and column == "event":
            return "request_uri and status"
        return getattr(self.names, column) or column

    def place(self, line: int) -> str:
        """How a line of the text (in Parquet, a row) is named."""
        number = line + self.first.n_lines
        return f"{self.path}: {'row' if self.kind == 'parquet' else 'line'} {number}"

    def scan(self, rejects: str) -> str:
        """SQL of a table with `fields`, of text unless it is Parquet.

        A line that is no JSON object is a row of nulls. One that is no row of CSV goes to the table
        `rejects` instead.
        """
        path = literal(str(self.unpacked_at or self.path))
        if self.kind == "parquet":
            return f"read_parquet({path}, file_row_number = true)"
        types = ", ".join(f"{literal(field)}: 'VARCHAR'" for field in self.fields)
        file = f"{path}, columns = {{{types}}}"
        # Not by the name, which may say anything.
        packing = "" if self.unpacked_at else self.packing
        file += f", compression = '{packing or 'uncompressed'}'"
        if self.kind == "csv":
            return (
                f"read_csv({file}, header = true, auto_detect = false, "
                f"delim = {literal(self.first.delimiter)}, quote = '\"', "
                f"escape = '\"', max_line_size = {_MAX_LINE_BYTES}, store_rejects = true, "
                f"rejects_limit = 0, rejects_table = {literal(rejects)}, "
                f"rejects_scan = {literal(f'{rejects}_scan')})"
            )
        return f"read_json({file}, format = 'newline_delimited', ignore_errors = true)"

    def select(self) -> str:
        """SQL of what all kinds have in common, to be selected from a table with `fields`.

        Columns: event, pattern, method, category_id, visitor and time, text; `at_s`, Unix seconds, null
        where `time` is none; `other`, whether the row is no record of an experiment at all; `is_shown`,
        whether it is a request that the page sent when it was looked at.
        """
        if self.kind == "log":
            return log.columns(self.paths)
        names = {name: identifier(field) for name, field in self.places.items()}
        texts = {name: f"CAST({names.get(name, 'NULL')} AS VARCHAR)" for name in COLUMNS._fields}
        at = f"moment({texts['time']})"
        if self.moments:
            at, texts["time"] = f"epoch(CAST({names['time']} AS TIMESTAMPTZ))", "NULL"
        columns = ", ".join(f"{sql} AS {name}" for name, sql in texts.items())
        return f"{columns}, {at} AS at_s, false AS other, false AS is_shown"


def event_files(
    names: Sequence[str],
    columns: EventColumns = COLUMNS,
    paths: LogPaths = PATHS,
    dialect: Dialect = AS_IT_BEGINS,
) -> list[EventFile]:
    """The files that `names` are or match (``*``, ``?``, ``**``), each once; empty ones are left out.

    `dialect` is for those that are CSV.

    Raises TableError for what is missing or cannot be records, OSError if a file cannot be read.
    """
    found = {path: None for name in names for path in _matching(name)}
    files = (_event_file(path, columns, paths, dialect) for path in found)
    return [file for file in files if file is not None]


def _matching(name: str) -> list[Path]:
    if Path(name).is_file():
        return [Path(name)]
    found = map(Path, glob.glob(name, recursive=True))  # noqa: PTH207  # absolute, too
    matching = sorted(path for path in found if path.is_file())
    if not matching:
        raise TableError(Path(name), ["no such file, and no file matches it"])
    return matching


def _event_file(
    path: Path, columns: EventColumns, paths: LogPaths, dialect: Dialect
) -> EventFile | None:
    if not is_utf8(str(path)):
        raise TableError(path, ["its name is not UTF-8; rename it"])
    with named(path):
        packing = packing_of(path)
        with unpacked(path, packing) as file:
            start = file.read(_START_BYTES)
            while start and not start.strip(b"\0"):  # a hole where a log was copied and truncated
                start = file.read(_START_BYTES)
        check_one(path, start)
        encoding = utf_16(start) or "utf-8"
        if start.startswith(BYTE_ORDER_MARK):
            encoding = "utf-8-sig"  # of a log, DuckDB would not read the first line
        text = start.decode(encoding, "replace").encode()
        if not text.strip():
            return None
        format_ = format_by_start(path, text)
        if format_ == "parquet":
            return _parquet_file(path, columns, paths)
        # A log may begin with anything: a line of another format, or one that was cut by rotation.
        if format_ != "jsonl" and not log.first_object(text, ("request_uri", columns.event)):
            check_text(path, text)
            encoding = dialect.encoding or encoding
            return _csv_file(path, packing, encoding, start, columns, paths, dialect)
        return replace(_json_file(path, packing, text, columns, paths), encoding=encoding)


def _json_file(
    path: Path, packing: Packing, start: bytes, columns: EventColumns, paths: LogPaths
) -> EventFile:
    if "request_uri" in log.first_object(start, ("request_uri", columns.event)):
        return EventFile(path, "log", packing, log.FIELDS, {}, columns, paths)
    # A column that the first line lacks may be in a later one: every column is asked for.
    found = {name: field or name for name, field in columns._asdict().items()}
    return EventFile(path, "jsonl", packing, tuple(found.values()), found, columns, paths)


def _csv_file(
    path: Path,
    packing: Packing,
    encoding: str,
    start: bytes,
    columns: EventColumns,
    paths: LogPaths,
    dialect: Dialect,
) -> EventFile:
    text = start.decode(encoding, "replace")
    first = start_of(text, dialect)
    header = first.header
    # By place, so that names which repeat do no harm to others.
    fields = tuple(f"c{place}" for place in range(len(header)))
    found = _columns(path, header, columns)
    places = {name: fields[header.index(own)] for name, own in found.items()}
    # DuckDB would take several lines for one.
    mixed = "\r\n" in text and re.search(r"[^\r]\n", text) is not None
    file = EventFile(path, "csv", packing, fields, places, columns, paths)
    return replace(file, encoding=encoding, first=first, mixed=mixed)


def _parquet_file(path: Path, columns: EventColumns, paths: LogPaths) -> EventFile:
    schema = schema_of(path)
    found = _columns(path, schema.names, columns)
    time = found.get("time")
    moments = time is not None and pa.types.is_temporal(schema.field(time).type)
    fields = tuple(found.values())
    return EventFile(path, "parquet", "", fields, found, columns, paths, moments)


def _columns(path: Path, header: Sequence[str], columns: EventColumns) -> dict[str, str]:
    """The names in `header` of the columns that are there."""
    found = {}
    for name, given in columns._asdict().items():
        own = given or name
        count = header.count(own)
        if count == 1:
            found[name] = own
        elif count or given is not None:
            option = f"--{name.replace('_', '-')}-column"
            raise TableError(
                path,
                [
                    f"has {count or 'no'} column {own}, expected one (it has "
                    f"{', '.join(header)[:200]}); {option} says what it is called"
                ],
            )
    return found
