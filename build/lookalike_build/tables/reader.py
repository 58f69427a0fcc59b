"""A table, whatever it is read from: a CSV, JSON Lines or Parquet file, or an SQL query.

A format is a module with a function `read`; what else there is in the table is ignored.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lookalike.release.root import named
from lookalike_build.tables import csv, jsonl, parquet, sql
from lookalike_build.tables.chunks import Chunks, Problem
from lookalike_build.tables.columns import Column
from lookalike_build.tables.error import TableError
from lookalike_build.tables.format import Format, format_of

_READ: Final[dict[Format, Callable[[Path, Sequence[Column]], Chunks]]] = {
    "csv": csv.read,
    "jsonl": jsonl.read,
    "parquet": parquet.read,
    "sql": sql.read,
}


@dataclass(frozen=True)
class Table:
    """A table that is open: all its rows come from `chunks`, once."""

    path: Path
    format: Format
    chunks: Chunks

    def error(self, problems: Sequence[Problem]) -> TableError:
        """The error that names the problems in the order of the lines or rows."""
        place = "line" if self.format in ("csv", "jsonl") else "row"
        return TableError(
            self.path, [f"{place} {number}: {problem}" for number, problem in sorted(problems)]
        )


@contextmanager
def open_table(path: Path, columns: Sequence[Column]) -> Iterator[Table]:
    """Open the table at `path`, to read these columns.

    Raises TableError, here or from the chunks, if it is not a table, if a column is missing, repeated
    or of another kind, or if a query fails; OSError if it cannot be read. Lines that hold no row are
    among a chunk's problems.
    """
    with named(path):
        format_ = format_of(path)
        with closing(_READ[format_](path, columns)) as chunks:
            yield Table(path, format_, chunks)
