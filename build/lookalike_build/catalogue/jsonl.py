"""A catalogue in JSON Lines: UTF-8, one object a line, line numbers for what is wrong.

Ids are integers where the values are whole numbers and strings where they are strings.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pyarrow as pa

from lookalike_build.catalogue.rows import ColumnNames, Rows, TextRows

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_jsonl(path: Path, names: ColumnNames) -> pa.Table:
    """The rows as `TextRows.finish` gives them; CatalogueError names every malformed line."""
    rows = TextRows(path, names)
    jsonl_rows(path, names, rows)
    return rows.finish()


def jsonl_rows(path: Path, names: Sequence[str], rows: Rows) -> None:
    """Give `rows` the three fields with these names."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
            if text.isspace():
                continue
            try:
                rows.add(number, *_row(text, names))
            except _LineError as error:
                rows.refuse(number, str(error))


class _LineError(Exception):
    """A line that holds no row."""


def _row(text: bytes, names: Sequence[str]) -> tuple[object, object, object]:
    first, second, third = names
    try:
        record = msgspec.json.decode(text)
        return record[first], record[second], record[third]
    except (ValueError, RecursionError) as error:
        raise _LineError(f"not JSON: {error}") from None
    except KeyError as error:
        raise _LineError(f"has no field {error.args[0]}") from None
    except TypeError:
        raise _LineError("not a JSON object") from None
