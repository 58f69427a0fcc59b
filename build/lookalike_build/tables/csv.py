"""CSV: text with a header, as shops and spreadsheets write it. All values are text.

A file is UTF-8, or UTF-16 where its beginning shows that; its delimiter is the one of `DELIMITERS` that
gives the header most fields. No rows are lines with nothing but delimiters, and the header where it is
repeated, as in files that were put together.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import IO, Final, NamedTuple

from lookalike_build.tables.chunks import Chunks, Row, of_rows
from lookalike_build.tables.columns import BLANKS, Column, check_names
from lookalike_build.tables.error import TableError
from lookalike_build.tables.format import utf_16

DELIMITERS: Final = (",", ";", "\t", "|")
_SUGGESTED: Final = ("cp1252", "cp932")
_MAX_FIELD: Final = 2**26
"""Characters. Descriptions are long, but a quote that is never closed must not fill the memory."""

_START: Final = 2**16
"""Characters that a header has at most."""

csv.field_size_limit(_MAX_FIELD)


Values = Callable[[list[str]], tuple[object, ...]]
"""Takes the values of the columns out of a row."""


class Dialect(NamedTuple):
    """How a CSV file is written: Python's name of its codec, and its delimiter.

    None is what the beginning of the file shows.
    """

    encoding: str | None = None
    delimiter: str | None = None


AS_IT_BEGINS: Final = Dialect()


def read(path: Path, columns: Sequence[Column], dialect: Dialect) -> Chunks:
    """The chunks of a CSV file; TableError if its header lacks a column."""
    return of_rows(_rows(path, columns, dialect), len(columns))


def header_of(path: Path, dialect: Dialect) -> list[str]:
    """The names in the header of a CSV file."""
    with _opened(path, dialect) as file:
        return start_of(file.read(_START), dialect).header


def misread(text: str) -> str | None:
    """What to do where text holds bytes that its file's encoding has not; None if it holds none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raw = text.encode("utf-8", "surrogateescape")
        readings = [f"{each} reads {raw.decode(each, 'replace')}" for each in _SUGGESTED]
        return f"is not UTF-8; give its --encoding ({', '.join(readings)})"
    return None


class Start(NamedTuple):
    """What a file begins with: `n_lines` before the header, its names, and the delimiter."""

    n_lines: int
    header: list[str]
    delimiter: str


@contextmanager
def _opened(path: Path, dialect: Dialect) -> Iterator[IO[str]]:
    with path.open("rb") as file:
        encoding = dialect.encoding or utf_16(file.read(8)) or "utf-8-sig"
    # Bytes that are not in the encoding become surrogates, which no valid value holds.
    with path.open(encoding=encoding, errors="surrogateescape", newline="") as file:
        try:
            yield file
        except UnicodeDecodeError as error:
            raise TableError(path, [f"is not {encoding}: {error.reason}"]) from None


def start_of(text: str, dialect: Dialect) -> Start:
    """What a file that begins with `text` begins with."""
    delimiters = dialect.delimiter or DELIMITERS
    if excel := re.match(r"sep=(.)\r?\n", text):
        text = text[excel.end() :]
        delimiters = dialect.delimiter or excel[1]
    found = []
    for delimiter in delimiters:
        names = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        found.append(Start(bool(excel), [name.strip(BLANKS) for name in names], delimiter))
    return max(found, key=lambda start: len(start.header))


def _rows(path: Path, columns: Sequence[Column], dialect: Dialect) -> Iterator[Row]:
    with _opened(path, dialect) as file:
        n_lines, header, delimiter = start_of(file.read(_START), dialect)
        file.seek(0)
        hint = misread(" ".join(header))
        more = ", expected one" + (f"; it {hint}" if hint else "")
        check_names(path, header, columns, f"line {n_lines + 1}: the header has", more)
        reader = csv.reader(islice(file, n_lines, None), delimiter=delimiter, strict=True)
        places = [header.index(name) for name, _ in columns]
        first, names, n = places[0], set(header), len(header)
        values: Values = itemgetter(*places) if places[1:] else lambda row: (row[first],)
        try:
            next(reader)
            line = reader.line_num
            for row in reader:
                line = reader.line_num
                cell = row[first] if len(row) == n else ""
                if cell and cell not in names and cell[0] not in BLANKS:
                    yield line + n_lines, values(row)
                elif found := _doubtful(row, header, values):
                    yield line + n_lines, found
        except csv.Error as error:
            yield line + n_lines + 1, f"not CSV: {error}"


def _doubtful(row: list[str], header: list[str], values: Values) -> tuple[object, ...] | str | None:
    """A line that may be no row: its values, what is wrong with it, or None if it is to be left out."""
    if not any(cell.strip() for cell in row):
        return None
    if len(row) != len(header):
        return f"has {len(row)} fields, the header has {len(header)}"
    names = [cell.strip(BLANKS) for cell in row]
    if names == header:
        return None
    if sorted(names) == sorted(header):
        return "is a header of another order; give files with different columns one by one"
    return values(row)
