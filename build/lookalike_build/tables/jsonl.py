"""JSON Lines: UTF-8, one object a line. Each value has its own type."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from lookalike_build.tables.chunks import Chunks, Row, of_rows
from lookalike_build.tables.columns import Column
from lookalike_build.tables.format import BYTE_ORDER_MARK


def read(path: Path, columns: Sequence[Column]) -> Chunks:
    """The chunks of a file of JSON Lines."""
    return of_rows(_rows(path, [name for name, _ in columns]), len(columns))


def _rows(path: Path, names: Sequence[str]) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            if not text.isspace():
                yield number, _values(text, names)


def _values(text: bytes, names: Sequence[str]) -> tuple[object, ...] | str:
    """The fields of a line with these names, or what is wrong with it."""
    try:
        record = msgspec.json.decode(text)
        return tuple([record[name] for name in names])
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    except KeyError as error:
        return f"has no field {error.args[0]}"
    except TypeError:
        return "not a JSON object"
