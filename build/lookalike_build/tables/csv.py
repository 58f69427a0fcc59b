"""CSV: UTF-8, with a header, fields between commas. All values are text."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from lookalike_build.tables.chunks import Chunks, Row, of_rows
from lookalike_build.tables.columns import Column, check_names
from lookalike_build.tables.error import TableError

_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs"}


def read(path: Path, columns: Sequence[Column]) -> Chunks:
    """The chunks of a CSV file; TableError if its header lacks a column."""
    return of_rows(_rows(path, columns), len(columns))


def _rows(path: Path, columns: Sequence[Column]) -> Iterator[Row]:
    # Bytes that are not UTF-8 become surrogates, which no valid value holds.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            _check_header(path, header, columns)
            places = [header.index(name) for name, _ in columns]
            for row in reader:
                if len(row) == len(header):
                    yield reader.line_num, tuple([row[place] for place in places])
                elif row:
                    problem = f"has {len(row)} fields, the header has {len(header)}"
                    yield reader.line_num, problem
        except csv.Error as error:
            yield reader.line_num, f"not CSV: {error}"


def _check_header(path: Path, header: list[str], columns: Sequence[Column]) -> None:
    for delimiter, delimiters in _OTHER_DELIMITERS.items():
        if len(header) == 1 and delimiter in header[0]:
            problem = f"line 1: fields stand between {delimiters}, expected commas"
            raise TableError(path, [problem])
    check_names(path, header, columns, "line 1: the header has", ", expected one")
