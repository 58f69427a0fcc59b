"""Files of an experiment's records: which there are, and how DuckDB reads each.

CSV (UTF-8, with a header), Parquet and JSON Lines hold a record a row, in the columns that
`EventColumns` names. JSON access logs of Unit and nginx hold a request a line, as `LogPaths` says.
Text may be compressed by gzip.
"""

import csv
import glob
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal, NamedTuple, cast

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.errors import LookalikeError
from lookalike.release.root import named
from lookalike.terminal.output import is_utf8

Kind = Literal["CSV", "Parquet", "JSON", "log"]

_PARQUET_MAGIC = b"PAR1"
_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_START_BYTES = 1 << 16
_MAX_LINE_BYTES = 1 << 21


class EventError(LookalikeError):
    """Records that no report can be made of; the text names the place and the way out."""


class EventColumns(NamedTuple):
    """What records call their columns; None: its own name, and it may be missing."""

    event: str = "event"
    pattern: str = "pattern"
    method: str = "method"
    category_id: str = "category_id"
    visitor: str | None = None
    time: str | None = None


class LogPaths(NamedTuple):
    """Which requests of an access log are records of the experiment.

    A line is a JSON object with `request_uri` (path and query), `status`, `time`, `request_method`
    (which may be missing) and, if `related` is to count, two headers of the response,
    `x_lookalike_pattern` and `x_lookalike_method`. A request of `shown`, `clicked` or `purchased` with
    a status from 200 to 299, but no HEAD or OPTIONS, is an impression, a click or a purchase, and its
    query says it all. A request of `related` with status 200 is an impression where the log has these
    headers: they say the pattern and the method, the query the category and the visitor.
    """

    related: str = "/related"
    shown: str = "/shown"
    clicked: str = "/clicked"
    purchased: str = "/purchased"


COLUMNS: Final = EventColumns()
PATHS: Final = LogPaths()
_LOG_FIELDS: Final = (
    "request_uri",
    "status",
    "time",
    "request_method",
    "x_lookalike_pattern",
    "x_lookalike_method",
)

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
    timestamp, not text or a number.
    """

    path: Path
    kind: Kind
    compressed: bool
    fields: tuple[str, ...]
    places: Mapping[str, str]
    names: EventColumns
    paths: LogPaths
    moments: bool = False

    def open(self) -> IO[bytes]:
        """The bytes of a file that is not Parquet."""
        return open_text(self.path, self.compressed)

    def check_whole(self) -> None:
        """Read compressed text through; EventError if it is cut short, which DuckDB does not tell."""
        if self.compressed:
            with _read_as_gzip(self.path), self.open() as file:
                while file.read(_START_BYTES):
                    pass

    def own_name(self, column: str) -> str:
        """What the file calls a column of `EventColumns`."""
        if self.kind == "log" and column == "event":
            return "request_uri and status"
        return getattr(self.names, column) or column

    def place(self, line: int) -> str:
        """How a line (in Parquet, a row) is named."""
        return f"{self.path}: {'row' if self.kind == 'Parquet' else 'line'} {line}"

    def scan(self, rejects: str) -> str:
        """SQL of a table with `fields`, of text unless it is Parquet.

        A line that is no JSON object is a row of nulls. One that is no row of CSV goes to the table
        `rejects` instead.
        """
        path = _literal(str(self.path))
        if self.kind == "Parquet":
            return f"read_parquet({path}, file_row_number = true)"
        types = ", ".join(f"{_literal(field)}: 'VARCHAR'" for field in self.fields)
        file = f"{path}, columns = {{{types}}}"
        if self.compressed:
            file += ", compression = 'gzip'"
        if self.kind == "CSV":
            return (
                f"read_csv({file}, header = true, auto_detect = false, delim = ',', quote = '\"', "
                f"escape = '\"', max_line_size = {_MAX_LINE_BYTES}, store_rejects = true, "
                f"rejects_limit = 0, rejects_table = {_literal(rejects)}, "
                f"rejects_scan = {_literal(f'{rejects}_scan')})"
            )
        return f"read_json({file}, format = 'newline_delimited', ignore_errors = true)"

    def select(self) -> str:
        """SQL of what all kinds have in common, to be selected from a table with `fields`.

        Columns: event, pattern, method, category_id, visitor and time, text; `at_s`, Unix seconds, null
        where `time` is none; `other`, whether the row is no record of an experiment at all.
        """
        if self.kind == "log":
            return _log_columns(self.paths)
        names = {name: _name(field) for name, field in self.places.items()}
        texts = {name: f"CAST({names.get(name, 'NULL')} AS VARCHAR)" for name in COLUMNS._fields}
        at = f"moment({texts['time']})"
        if self.moments:
            at, texts["time"] = f"epoch(CAST({names['time']} AS TIMESTAMPTZ))", "NULL"
        columns = ", ".join(f"{sql} AS {name}" for name, sql in texts.items())
        return f"{columns}, {at} AS at_s, false AS other"


def _log_columns(paths: LogPaths) -> str:
    path = "regexp_extract(request_uri, '^[^?#]*')"
    beacons = {paths.shown: "impression", paths.clicked: "click", paths.purchased: "purchase"}
    by_path = " ".join(f"WHEN {_literal(path)} THEN '{event}'" for path, event in beacons.items())
    related = f"{path} = {_literal(paths.related)}"
    event = (
        "CASE WHEN request_method IN ('HEAD', 'OPTIONS') THEN NULL "
        # Unless the log has the headers, it says impressions by other requests.
        f"WHEN {related} AND status = '200' AND x_lookalike_pattern IS NOT NULL THEN 'impression' "
        f"WHEN status BETWEEN '200' AND '299' THEN CASE {path} {by_path} END END"
    )

    def told(name: str) -> str:
        # Where a header is missing, nginx writes "" and Unit "-".
        header = f"nullif(x_lookalike_{name}, '-')"
        return f"CASE WHEN {related} THEN {header} ELSE parameter(request_uri, '{name}') END"

    return (
        f"{event} AS event, {told('pattern')} AS pattern, {told('method')} AS method, "
        "parameter(request_uri, 'category_id') AS category_id, "
        "parameter(request_uri, 'visitor') AS visitor, time, moment(time) AS at_s, "
        "event IS NULL AND request_uri IS NOT NULL AND status IS NOT NULL AS other"
    )


def event_files(
    names: Sequence[str], columns: EventColumns = COLUMNS, paths: LogPaths = PATHS
) -> list[EventFile]:
    """The files that `names` are or match (``*``, ``?``, ``**``), each once; empty ones are left out.

    Raises EventError for what is missing or cannot be records, OSError if a file cannot be read.
    """
    found = {path: None for name in names for path in _matching(name)}
    files = (_event_file(path, columns, paths) for path in found)
    return [file for file in files if file is not None]


def _matching(name: str) -> list[Path]:
    if Path(name).is_file():
        return [Path(name)]
    found = map(Path, glob.glob(name, recursive=True))  # noqa: PTH207  # absolute, too
    matching = sorted(path for path in found if path.is_file())
    if not matching:
        raise EventError(f"{name}: no such file, and no file matches it")
    return matching


def _event_file(path: Path, columns: EventColumns, paths: LogPaths) -> EventFile | None:
    if not is_utf8(str(path)):
        raise EventError(f"{path}: its name is not UTF-8; rename it")
    with named(path):
        return _looked_into(path, columns, paths)


def _looked_into(path: Path, columns: EventColumns, paths: LogPaths) -> EventFile | None:
    with path.open("rb") as file:
        magic = file.read(len(_PARQUET_MAGIC))
    if magic == _PARQUET_MAGIC:
        return _parquet_file(path, columns, paths)
    compressed = magic.startswith(_GZIP_MAGIC)
    with _read_as_gzip(path), open_text(path, compressed) as file:
        start = file.read(_START_BYTES)
    text = start.removeprefix(_BYTE_ORDER_MARK).lstrip()
    if not text:
        return None
    if text.startswith(b"["):
        raise EventError(
            f"{path}: is one JSON array; write it as JSON Lines, an object a line (jq -c '.[]' does it)"
        )
    if not text.startswith(b"{"):
        return _csv_file(path, compressed, start, columns, paths)
    if start.startswith(_BYTE_ORDER_MARK):
        raise EventError(f"{path}: starts with a byte order mark, which JSON must not have")
    if _is_log(text):
        return EventFile(path, "log", compressed, _LOG_FIELDS, {}, columns, paths)
    # What a later line has may be missing in the first: every column is asked for.
    found = {name: field or name for name, field in columns._asdict().items()}
    return EventFile(path, "JSON", compressed, tuple(found.values()), found, columns, paths)


def _is_log(text: bytes) -> bool:
    """Whether the first line that is a JSON object is a request."""
    for line in text.splitlines():
        try:
            record = msgspec.json.decode(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            return "request_uri" in record
    return False


def _csv_file(
    path: Path, compressed: bool, start: bytes, columns: EventColumns, paths: LogPaths
) -> EventFile:
    text = io.StringIO(start.decode("utf-8-sig", "replace"), newline="")
    header = next(csv.reader(text), [])
    # By place, so that names which repeat do no harm to others.
    fields = tuple(f"c{place}" for place in range(len(header)))
    found = _columns(path, header, columns)
    places = {name: fields[header.index(own)] for name, own in found.items()}
    return EventFile(path, "CSV", compressed, fields, places, columns, paths)


def _parquet_file(path: Path, columns: EventColumns, paths: LogPaths) -> EventFile:
    try:
        schema = pq.read_schema(path)
    except pa.ArrowInvalid as error:
        raise EventError(f"{path}: cannot be read as Parquet: {error}".splitlines()[0]) from None
    found = _columns(path, schema.names, columns)
    time = found.get("time")
    moments = time is not None and pa.types.is_temporal(schema.field(time).type)
    fields = tuple(found.values())
    return EventFile(path, "Parquet", False, fields, found, columns, paths, moments)


def _columns(path: Path, header: Sequence[str], columns: EventColumns) -> dict[str, str]:
    """The names in `header` of the columns that are there."""
    found = {}
    for name, given in columns._asdict().items():
        own = given or name
        count = header.count(own)
        if count == 1:
            found[name] = own
        elif count or given is not None:
            raise EventError(
                f"{path}: has {count or 'no'} column {own}, expected one (it has "
                f"{', '.join(header)[:200]}); --{name.replace('_', '-')}-column says what it is called"
            )
    return found


def open_text(path: Path, compressed: bool) -> IO[bytes]:
    """The bytes of a file of text."""
    return cast(IO[bytes], gzip.open(path)) if compressed else path.open("rb")


@contextmanager
def _read_as_gzip(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise EventError(f"{path}: cannot be read as gzip: {error}") from None


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
