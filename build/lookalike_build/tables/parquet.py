"""Parquet: each column has a type."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lookalike_build.tables import chunks
from lookalike_build.tables.columns import Column, check_names, check_types
from lookalike_build.tables.error import TableError


def read(path: Path, columns: Sequence[Column]) -> chunks.Chunks:
    """The chunks of a Parquet file; TableError if it is damaged or lacks a column."""
    with _reported(path), pq.ParquetFile(path) as file:
        check_names(path, file.schema_arrow.names, columns, "has")
        check_types(path, file.schema_arrow, columns)
        yield from chunks.of_batches(_batches(file, columns), columns)


def schema_of(path: Path) -> pa.Schema:
    """The schema of a Parquet file; TableError if it is damaged."""
    with _reported(path):
        return pq.read_schema(path)


def _batches(file: pq.ParquetFile, columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
    for batch in file.iter_batches(chunks.ROWS, columns=[name for name, _ in columns]):
        # Arrow takes the file's word for it that strings are UTF-8.
        batch.validate(full=True)
        yield batch


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Raise as TableError what Arrow finds wrong with a file."""
    try:
        yield
    except pa.ArrowInvalid as error:
        raise TableError(path, [f"cannot be read as Parquet: {error}".splitlines()[0]]) from None
