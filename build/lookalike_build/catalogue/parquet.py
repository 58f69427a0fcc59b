"""A catalogue in Parquet: the columns' types say whether ids are integers or strings."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lookalike_build.catalogue.rows import CatalogueError, ColumnNames, typed_rows


def read_parquet(path: Path, names: ColumnNames) -> pa.Table:
    """The rows as `typed_rows` gives them; CatalogueError names every unfit row."""
    try:
        check_columns(path, pq.read_schema(path), names)
        table = pq.read_table(path, columns=list(names))
        # Arrow takes the file's word for it that strings are UTF-8.
        table.validate(full=True)
        return typed_rows(path, table, names)
    except pa.ArrowInvalid as error:
        raise CatalogueError(
            path, [f"cannot be read as Parquet: {error}".splitlines()[0]]
        ) from None


def check_columns(path: Path, schema: pa.Schema, names: Sequence[str]) -> None:
    """CatalogueError unless each of the columns is there, once."""
    problems = [
        f"has {schema.names.count(name) or 'no'} column {name}"
        for name in names
        if schema.names.count(name) != 1
    ]
    if problems:
        raise CatalogueError(path, problems)
