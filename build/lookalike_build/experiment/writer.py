"""Writes records of an experiment as CSV, Parquet or JSON Lines, according to the file's suffix."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from lookalike_build.files.whole import whole_file

SUFFIXES: Final = (".csv", ".parquet", ".jsonl")

Write = Callable[[pa.Table], None]


@contextmanager
def event_writer(path: Path, schema: pa.Schema) -> Iterator[Write]:
    """Yield a function that writes a table of records; the file appears when the block ends.

    The path's suffix is one of `SUFFIXES`.
    """
    with whole_file(path) as part:
        if path.suffix == ".parquet":
            with pq.ParquetWriter(part, schema, compression="zstd") as parquet:
                yield parquet.write_table
        elif path.suffix == ".csv":
            options = pc.WriteOptions(quoting_style="needed")
            with pc.CSVWriter(part, schema, write_options=options) as text:
                yield text.write_table
        else:
            with part.open("wb") as lines:
                yield lambda table: lines.writelines(map(_line, table.to_pylist()))


def _line(record: dict[str, object]) -> bytes:
    known = {name: value for name, value in record.items() if value is not None}
    return msgspec.json.encode(known) + b"\n"
