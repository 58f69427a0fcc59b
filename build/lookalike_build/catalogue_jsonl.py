"""A catalogue in JSON Lines: UTF-8, one object a line, line numbers for what is wrong.

Ids are integers where the values are whole numbers and strings where they are strings.
"""

from pathlib import Path

import orjson
import pyarrow as pa

from lookalike_build.catalogue_rows import ColumnNames, TextRows

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_KINDS = {int: "a whole number", str: "a string"}

Row = tuple[object, object, object]


def read_jsonl(path: Path, names: ColumnNames) -> pa.Table:
    """The rows as `TextRows.finish` gives them; CatalogueError names every malformed line."""
    rows = TextRows(path, names)
    kinds: dict[str, tuple[type, int]] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
            if text.isspace():
                continue
            try:
                row = _row(text, names)
            except _LineError as error:
                rows.refuse(number, str(error))
                continue
            if problem := _mixed(number, row, names, kinds):
                rows.refuse(number, problem)
            else:
                rows.add(number, *row)
    return rows.finish()


class _LineError(Exception):
    """A line that holds no row."""


def _row(text: bytes, names: ColumnNames) -> Row:
    try:
        record = orjson.loads(text)
        return record[names.product_id], record[names.category_id], record[names.image]
    except orjson.JSONDecodeError as error:
        raise _LineError(f"not JSON: {error.msg} at column {error.colno}") from None
    except KeyError as error:
        raise _LineError(f"has no field {error.args[0]}") from None
    except TypeError:
        raise _LineError("not a JSON object") from None


def _mixed(
    number: int, row: Row, names: ColumnNames, kinds: dict[str, tuple[type, int]]
) -> str | None:
    """What is wrong where an id is of another kind than the first of its column; `kinds` keeps it."""
    for name, id_ in zip(names[:2], row[:2], strict=True):
        kind = type(id_)
        if kind in _KINDS:
            first, line = kinds.setdefault(name, (kind, number))
            if kind is not first:
                return (
                    f"{name} is {_KINDS[kind]}, in line {line} it is {_KINDS[first]}: "
                    "make it the same in all lines"
                )
    return None
