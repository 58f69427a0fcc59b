"""JSON Lines: UTF-8, one object a line. Each value has its own type."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from lookalike_build.tables.chunks import Chunks, Row, of_rows
from lookalike_build.tables.columns import Column, check_names
from lookalike_build.tables.format import BYTE_ORDER_MARK


def read(path: Path, columns: Sequence[Column]) -> Chunks:
    """The chunks of a file of JSON Lines."""
    return of_rows(_rows(path, columns), len(columns))


def _rows(path: Path, columns: Sequence[Column]) -> Iterator[Row]:
    names = [name for name, _ in columns]
    unseen = set(names)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            if not text.isspace():
                yield number, _values(text, columns, unseen)
    if len(unseen) < len(names):  # there are objects
        check_names(path, [name for name in names if name not in unseen], columns, "its lines have")


def _values(text: bytes, columns: Sequence[Column], unseen: set[str]) -> tuple[object, ...] | str:
    """The fields of a line that are `columns`, or what is wrong with it; `unseen` lose its names."""
    try:
        record = msgspec.json.decode(text)
        values = tuple(
            [record.get(name) if kind.optional else record[name] for name, kind in columns]
        )
        if unseen:
            unseen.difference_update(record)
        return values
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    except KeyError as error:
        return f"has no field {error.args[0]}"
    except TypeError:
        return "not a JSON object"
