"""A catalogue in CSV: UTF-8, with a header, fields between commas, line numbers for what is wrong.

Ids are integers if all of their column are whole numbers without leading zeros, otherwise strings.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.release.ids import MAX_INTEGER_ID
from lookalike_build.catalogue.rows import COLUMNS, CatalogueError, ColumnNames, Rows, TextRows

_OTHER_MARKS = {";": "semicolons", "\t": "tabs"}
INTEGER = "^(0|[1-9][0-9]{0,18})$"


def read_csv(path: Path, names: ColumnNames) -> pa.Table:
    """The rows as `TextRows.finish` gives them; CatalogueError names every malformed line."""
    rows = TextRows(path, names)
    csv_rows(path, names, rows)
    table = rows.finish()
    for place, name in enumerate(COLUMNS[:2]):
        table = table.set_column(place, name, typed_ids(table[name]))
    return table


def csv_rows(path: Path, names: Sequence[str], rows: Rows) -> None:
    """Give `rows` the three columns with these names; CatalogueError if the header has not all."""
    # Bytes that are not UTF-8 are carried as surrogates and found by the row's own check.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            first, second, third = _places(path, header, names)
            for row in reader:
                if len(row) == len(header):
                    rows.add(reader.line_num, row[first], row[second], row[third])
                elif row:
                    problem = f"has {len(row)} fields, the header has {len(header)}"
                    rows.refuse(reader.line_num, problem)
        except csv.Error as error:
            rows.refuse(reader.line_num, f"not CSV: {error}")


def _places(path: Path, header: list[str], names: Sequence[str]) -> list[int]:
    for mark, marks in _OTHER_MARKS.items():
        if len(header) == 1 and mark in header[0]:
            raise CatalogueError(path, [f"line 1: fields stand between {marks}, expected commas"])
    problems = [
        f"line 1: the header has {header.count(name) or 'no'} column {name}, expected one"
        for name in names
        if header.count(name) != 1
    ]
    if problems:
        raise CatalogueError(path, problems)
    return [header.index(name) for name in names]


def whole_number(text: str) -> int | None:
    """The id that a text is in a column of whole numbers; None if it is none."""
    number = int(text) if re.fullmatch(INTEGER, text) else None
    return None if number is None or number > MAX_INTEGER_ID else number


def typed_ids(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Ids as int64 if all are whole numbers without leading zeros, otherwise as strings."""
    if not pc.all(pc.match_substring_regex(texts, INTEGER)).as_py():
        return texts
    try:
        return texts.cast(pa.int64())
    except pa.ArrowInvalid:  # one of them is too large
        return texts
