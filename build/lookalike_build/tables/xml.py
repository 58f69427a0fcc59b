"""XML: a feed in RSS or Atom. Each `item` or `entry` is a row, and its elements are the columns.

A column has the name of its element without a namespace, and its text. Of several elements of one name
the first counts. Rows are numbered from 1. Entities that grow without end are refused by the parser.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from lookalike_build.tables.chunks import Chunks, Row, of_rows
from lookalike_build.tables.columns import Column, check_names
from lookalike_build.tables.error import TableError

_ROWS = ("item", "entry")


def read(path: Path, columns: Sequence[Column]) -> Chunks:
    """The chunks of an XML file; TableError if it is damaged, or if no item has a column.

    What an item lacks is None.
    """
    return of_rows(_rows(path, columns), len(columns))


def names(path: Path) -> list[str]:
    """The names of the elements of all rows."""
    return list(dict.fromkeys(name for item in _items(path) for name in item))


def _rows(path: Path, columns: Sequence[Column]) -> Iterator[Row]:
    found: set[str] = set()
    for number, item in enumerate(_items(path), 1):
        found.update(item)
        yield number, tuple([item.get(name) for name, _ in columns])
    check_names(path, list(found), columns, "its items have", ", expected one")


def _items(path: Path) -> Iterator[dict[str, str | None]]:
    try:
        parents: list[ElementTree.Element] = []
        for event, element in ElementTree.iterparse(path, ("start", "end")):  # noqa: S314
            if event == "start":
                parents.append(element)
                continue
            parents.pop()
            if parents and _name(element) in _ROWS:
                # The first of a name counts.
                yield {_name(each): each.text for each in reversed(element)}
                parents[-1].clear()  # otherwise all of the file would stay in memory
    except ElementTree.ParseError as error:
        line, _ = error.position
        raise TableError(path, [f"line {line}: not XML: {error}"]) from None


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
