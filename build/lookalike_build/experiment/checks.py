"""The checks of an experiment's records, in SQL, and the lines that fail them.

Malformed records are counted in the one pass over all records. Only if there are some, a text file is
read again, line by line, until the first few have been named.
"""

import csv
import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import pyarrow as pa

from lookalike.experiment import CHOSEN, METHODS, PATTERNS
from lookalike.terminal.output import printable
from lookalike_build.experiment.files import COLUMNS, EventFile

if TYPE_CHECKING:
    import duckdb

EVENTS: Final = ("impression", "click", "purchase")

COUNTED: Final = "counted"
UNANSWERED: Final = "unanswered"
"""Its method is none."""
OUTSIDE: Final = "outside"
"""It is from before or after the period."""
OTHER: Final = "other"
"""A request that has nothing to do with the experiment."""
VALID: Final = (COUNTED, UNANSWERED, OUTSIDE, OTHER, CHOSEN)
"""With `CHOSEN`, of a page that no pattern was assigned to: its method was chosen for the category."""

_KNOWN = {"event": EVENTS, "pattern": PATTERNS, "method": METHODS}
STATES: Final = (
    *VALID,
    *(f"missing {name}" for name in (*_KNOWN, "category_id", "time")),
    *(f"unknown {name}" for name in (*_KNOWN, "time")),
)
"""The states of a record: valid, without a column's value, or with an unknown value of it."""

_TIMES = "ISO 8601, Unix seconds or like 31/Dec/2026:23:59:59 +0900"
_CHUNK = 65_536
_SHOWN = 64


@dataclass(frozen=True)
class Period:
    """From `start` up to but without `until`, in Unix seconds; None is open."""

    start: float | None = None
    until: float | None = None


class Fault(NamedTuple):
    """A malformed record: its line (its row in Parquet) and the problem."""

    line: int
    problem: str


def checked(file: EventFile, table: str, period: Period, more: str = "") -> str:
    """SQL of the records in `table`, which has the file's fields, each with its `state` (of `STATES`).

    `more` is SQL of further columns to select.
    """
    cases = ["WHEN other THEN 'other'", f"WHEN pattern = '{CHOSEN}' THEN '{CHOSEN}'"]
    for name, known in _KNOWN.items():
        # Clicks and purchases need no method.
        needed = "AND event = 'impression' " if name == "method" else ""
        cases.append(f"WHEN coalesce({name}, '') = '' {needed}THEN 'missing {name}'")
        values = ", ".join(f"'{value}'" for value in ("", *known))
        cases.append(f"WHEN coalesce({name}, '') NOT IN ({values}) THEN 'unknown {name}'")
    cases.append("WHEN coalesce(category_id, '') = '' THEN 'missing category_id'")
    cases.append("WHEN at_s IS NULL AND coalesce(time, '') <> '' THEN 'unknown time'")
    if period != Period():
        cases.append("WHEN at_s IS NULL THEN 'missing time'")
    if period.start is not None:
        cases.append(f"WHEN at_s < {period.start!r} THEN 'outside'")
    if period.until is not None:
        cases.append(f"WHEN at_s >= {period.until!r} THEN 'outside'")
    cases.append("WHEN method = 'none' THEN 'unanswered'")
    state = f"CASE {' '.join(cases)} ELSE 'counted' END"
    return f"SELECT *, {state} AS state FROM (SELECT {file.select()}{more} FROM {table})"  # noqa: S608


def is_refused(file: EventFile, state: str) -> bool:
    """Whether a record in that state prevents the report.

    An unknown word in records is the shop's mistake; a log holds whatever anybody sent.
    """
    return file.kind != "log" and state in {f"unknown {name}" for name in _KNOWN}


def first_faults(
    database: "duckdb.DuckDBPyConnection",
    file: EventFile,
    period: Period,
    states: Collection[str],
    n: int,
) -> list[Fault]:
    """The first `n` records of a file that are in one of `states`, by line."""
    if not states or n == 0:
        return []
    if file.kind == "parquet":
        query = checked(file, file.scan("unused"), period, ", file_row_number + 1 AS line")
        return _faults(database, file, query, states, n)
    faults: list[Fault] = []
    fields = pa.schema([("line", pa.int64()), *((field, pa.string()) for field in file.fields)])
    lines = _csv_rows(file) if file.kind == "csv" else _json_rows(file)
    while len(faults) < n and (chunk := list(islice(lines, _CHUNK))):
        columns = [pa.array(column) for column in zip(*chunk, strict=True)]
        database.register("chunk", pa.table(columns, schema=fields))
        query = checked(file, "chunk", period, ", line")
        faults += _faults(database, file, query, states, n - len(faults))
        database.unregister("chunk")
    return faults


def _faults(
    database: "duckdb.DuckDBPyConnection",
    file: EventFile,
    query: str,
    states: Collection[str],
    n: int,
) -> list[Fault]:
    wanted = ", ".join(f"'{state}'" for state in states)
    rows = database.execute(
        f"SELECT line, state, {', '.join(COLUMNS._fields)} FROM ({query}) "  # noqa: S608
        f"WHERE state IN ({wanted}) ORDER BY line LIMIT {n}"
    ).fetchall()
    return [
        Fault(line, _problem(file, state, dict(zip(COLUMNS._fields, values, strict=True))))
        for line, state, *values in rows
    ]


def _problem(file: EventFile, state: str, values: dict[str, str | None]) -> str:
    what, name = state.split(" ")
    own = file.own_name(name)
    if name == "event" and what == "missing" and file.kind in ("jsonl", "log"):
        return f"is no JSON object with {own}"
    if what == "missing":
        return f"has no {own}"
    value = excerpt(values[name] or "")
    must = _TIMES if name == "time" else " or ".join(_KNOWN[name])
    return f'{own} must be {must}, not "{value}"'


def excerpt(text: str) -> str:
    """The beginning of a text that anybody may have written, safe to print on a terminal."""
    return printable(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def _csv_rows(file: EventFile) -> Iterator[tuple[object, ...]]:
    with file.open() as raw, io.TextIOWrapper(raw, "utf-8-sig", "replace", newline="") as text:
        reader = csv.reader(text, delimiter=file.first.delimiter)
        try:
            next(reader, None)
            for row in reader:
                if len(row) == len(file.fields):
                    yield (reader.line_num, *row)
        except csv.Error:  # an endless field, which DuckDB has counted
            return


def _json_rows(file: EventFile) -> Iterator[tuple[object, ...]]:
    with file.open() as lines:
        for number, line in enumerate(lines, 1):
            if line.isspace():
                continue
            try:
                record = msgspec.json.decode(line)
            except (ValueError, RecursionError):
                record = None
            values = record if isinstance(record, dict) else {}
            yield (number, *(_as_text(values.get(field)) for field in file.fields))


def _as_text(value: object) -> str | None:
    """A JSON value as the text that DuckDB reads it as."""
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()
