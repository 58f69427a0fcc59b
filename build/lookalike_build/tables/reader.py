"""A table, whatever it is read from: a CSV, XML, JSON Lines or Parquet file, or an SQL query.

A format is a module with a function `read`; what else there is in the table is ignored.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lookalike.release.root import named
from lookalike_build.tables import csv, jsonl, parquet, sql, xml
from lookalike_build.tables.chunks import Chunks, Problem
from lookalike_build.tables.columns import Column
from lookalike_build.tables.csv import AS_IT_BEGINS, Dialect
from lookalike_build.tables.error import TableError
from lookalike_build.tables.format import Format, format_of

_READ: Final[dict[Format, Callable[[Path, Sequence[Column]], Chunks]]] = {
    "jsonl": jsonl.read,
    "parquet": parquet.read,
    "sql": sql.read,
    "xml": xml.read,
}


@dataclass(frozen=True)
class Table:
    """A table that is open: all its rows come from `chunks`, once."""

    path: Path
    format: Format
    chunks: Chunks

    @property
    def place(self) -> str:
        """What the numbers of its rows are."""
        return "line" if self.format in ("csv", "jsonl") else "row"

    def error(self, problems: Sequence[Problem]) -> TableError:
        """The error that names the problems in the order of the lines or rows."""
        return TableError(
            self.path, [f"{self.place} {number}: {problem}" for number, problem in sorted(problems)]
        )


@contextmanager
def open_table(
    path: Path, columns: Sequence[Column], dialect: Dialect = AS_IT_BEGINS
) -> Iterator[Table]:
    """Open the table at `path`, to read these columns; `dialect` is how it is written if it is CSV.

    Raises TableError, here or from the chunks, if it is not a table, if a column is missing, repeated
    or of another kind, or if a query fails; OSError if it cannot be read. Lines that hold no row are
    among a chunk's problems.
    """
    with named(path):
        format_ = format_of(path)
        if format_ == "csv":
            read = csv.read(path, columns, dialect)
        elif any(dialect):
            raise TableError(path, [f"is {format_}, which has no --encoding and no --delimiter"])
        else:
            read = _READ[format_](path, columns)
        with closing(read) as chunks:
            yield Table(path, format_, chunks)


def column_names(path: Path, dialect: Dialect) -> list[str]:
    """The names of a file's columns if it is CSV or XML; none otherwise."""
    format_ = format_of(path)
    if format_ == "csv":
        return csv.header_of(path, dialect)
    return xml.names(path) if format_ == "xml" else []
