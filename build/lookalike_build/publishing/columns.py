"""The columns of a category between two releases: read as Arrow arrays, changed, and written.

Of a large category only the parts that a change concerns are made again, and written again only where
their bytes differ.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.release.arrays import Flags, Positions
from lookalike.release.attributes import AttributeType, AttributeTypes, Value, Values
from lookalike.release.columns import (
    DTYPES,
    NO_FLAG,
    NO_TEXT,
    PART,
    Column,
    Columns,
    Part,
    Texts,
    columns_dtype,
    n_parts,
    open_columns,
    part_files,
    texts_dtype,
)
from lookalike.release.files import FileEntry, ReleaseError, columns_file, texts_file
from lookalike.release.manifest import CategoryEntry
from lookalike.release.memory import map_array
from lookalike_build.publishing.files import link, write_array

ARROW_TYPES: Final[Mapping[AttributeType, pa.DataType]] = {
    "flag": pa.bool_(),
    "number": pa.float64(),
    "text": pa.large_string(),
}
_MISSING: Final[Mapping[AttributeType, Any]] = {"flag": NO_FLAG, "number": np.nan, "text": NO_TEXT}

Arrays = Mapping[str, pa.Array]
"""By attribute, the values (n,) of items, of `ARROW_TYPES`; null where missing."""


def no_columns(n_items: int) -> Columns:
    """Those of a category without attributes."""
    return Columns({}, (), n_items)


def read_columns(folder: Path, entry: CategoryEntry) -> Columns:
    """Those of a published category; ReleaseError if a file is damaged."""
    for file in entry.column_files:
        entry.files[file].check_all(folder / file, f"{folder.name}/{file}")
    return open_columns(folder, entry.attributes, entry.n_all)


def columns_of(types: AttributeTypes, arrays: Arrays, n_items: int) -> Columns:
    """The columns of these arrays, in the order of `types`; an attribute without values has none."""
    used = {
        name: one
        for name, one in types.items()
        if name in arrays and arrays[name].null_count < n_items
    }
    firsts = range(0, n_items if used else 0, PART)
    each = ({name: arrays[name][first : first + PART] for name in used} for first in firsts)
    return Columns(used, tuple(_part(used, part) for part in each), n_items)


def arrays_of(columns: Columns) -> dict[str, pa.Array]:
    """The columns as arrays."""
    parts = [_part_arrays(columns.types, part) for part in columns.parts]
    return {name: pa.concat_arrays([part[name] for part in parts]) for name in columns.types}


def reordered(columns: Columns, items: Positions) -> Columns:
    """Those of a category whose item i has the values of item `items[i]`, or none where that is -1."""
    indices = pa.array(items, mask=items < 0)
    arrays = {name: array.take(indices) for name, array in arrays_of(columns).items()}
    return columns_of(columns.types, arrays, items.size)


def is_hidden(columns: Columns) -> Flags:
    """Which items (n_items,) are hidden, also of those that have left."""
    hidden = np.zeros(columns.n_items, np.bool_)
    hidden[columns.hidden] = True
    return hidden


def with_values(
    columns: Columns,
    n_items: int,
    values: Mapping[int, Values],
    known: AttributeTypes = MappingProxyType({}),
) -> Columns:
    """With these values by item instead, of now `n_items`; the same object if nothing differs.

    `known` are the attributes that a category may have columns of, in their order. It gets one once an
    item has a value of it.
    """
    known = {**known, **columns.types}
    changed: dict[int, dict[int, dict[str, Value | None]]] = defaultdict(dict)
    used = set(columns.types)
    for item, each in values.items():
        of_item = {}
        for name, value in each.items():
            now = float(value) if value is not None and known[name] == "number" else value
            if now != (columns.value(name, item) if item < columns.n_items else None):
                of_item[name] = now
        if of_item:
            changed[item // PART][item % PART] = of_item
            used.update(name for name, value in of_item.items() if value is not None)
    types = {name: one for name, one in known.items() if name in used}
    if not changed and n_items == columns.n_items:
        return columns
    if not types:
        return no_columns(n_items)
    parts = []
    for number in range(n_parts(n_items)):
        n = min(PART, n_items - number * PART)
        old = columns.parts[number] if number < len(columns.parts) else Part({}, None)
        n_before = max(0, min(PART, columns.n_items - number * PART))
        if number in changed or n != n_before or types != columns.types:
            old = _changed(old, types, n, changed[number])
        parts.append(old)
    return Columns(types, tuple(parts), n_items)


def differences(before: Columns, after: Columns) -> dict[int, Values]:
    """By item what is different in `after`, which has as many items."""
    values: dict[int, dict[str, Value | None]] = defaultdict(dict)
    old, new = arrays_of(before), arrays_of(after)
    for name in {**before.types, **after.types}:
        nulls = pa.nulls(after.n_items, (new.get(name) or old[name]).type)
        was, now = old.get(name, nulls), new.get(name, nulls)
        same = pc.or_(
            pc.fill_null(pc.equal(was, now), False), pc.and_(was.is_null(), now.is_null())
        )
        items = np.flatnonzero(~same.to_numpy(zero_copy_only=False))
        for item, value in zip(items.tolist(), now.take(pa.array(items)).to_pylist(), strict=True):
            values[item][name] = value
    return dict(values)


def same_columns(one: Columns, other: Columns) -> bool:
    """Whether the files of both are the same."""
    alike = [*one.types.items()] == [*other.types.items()] and one.n_items == other.n_items
    return alike and all(
        (array.tobytes() == was.tobytes())
        for (_, array), (_, was) in zip(_arrays(one), _arrays(other), strict=True)
    )


def write_columns(
    folder: Path, columns: Columns, base: tuple[Path, CategoryEntry] | None = None
) -> dict[str, FileEntry]:
    """Write the files into `folder`; those that `base`, a folder and its entry, has are linked."""
    entries = {file: _written(folder, file, array, base) for file, array in _arrays(columns)}
    return {file: entries[file] for file in part_files(columns.types, columns.n_items)}


def _arrays(columns: Columns) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """The files and what they hold."""
    for number, part in enumerate(columns.parts):
        n = min(PART, columns.n_items - number * PART)
        record = np.empty((), columns_dtype(columns.types, n))
        for name, column in part.columns.items():
            record[name] = column
        yield columns_file(number), record
        if part.texts is not None:
            yield texts_file(number), part.texts.record


def _written(
    folder: Path, file: str, array: npt.NDArray[Any], base: tuple[Path, CategoryEntry] | None
) -> FileEntry:
    if base and file in base[1].files:
        with suppress(ReleaseError):
            if map_array(base[0] / file, (), array.dtype).tobytes() == array.tobytes():
                link(base[0] / file, folder / file)
                return base[1].files[file]
    write_array(folder / file, array)
    return FileEntry.of(folder / file)


def _changed(
    part: Part, types: AttributeTypes, n: int, changes: Mapping[int, Mapping[str, Value | None]]
) -> Part:
    """A part of now n items with other values, by position."""
    named = set(chain.from_iterable(changes.values()))
    texts = [name for name, one in types.items() if one == "text"]
    arrays = {}
    # Texts of a part are made together, as are those that it is the first to have.
    again = set(texts) if part.texts is None or named.intersection(texts) else set()
    for name in named.intersection(types) | again:
        values = _array(types[name], part, name).to_pylist() if name in part.columns else []
        values += [None] * (n - len(values))
        for position, of_item in changes.items():
            values[position] = of_item.get(name, values[position])
        arrays[name] = pa.array(values, ARROW_TYPES[types[name]])
    new = _part({name: one for name, one in types.items() if name in arrays}, arrays)
    columns = {}
    for name, one in types.items():
        columns[name] = new.columns[name] if name in arrays else _grown(part, name, one, n)
    return Part(columns, part.texts if new.texts is None else new.texts)


def _grown(part: Part, name: str, attribute_type: AttributeType, n: int) -> Column:
    column = np.full(n, _MISSING[attribute_type], DTYPES[attribute_type])
    if name in part.columns:
        old = part.columns[name]
        column[: old.size] = old
    return column


def _part_arrays(types: AttributeTypes, part: Part) -> dict[str, pa.Array]:
    return {name: _array(one, part, name) for name, one in types.items()}


def _array(attribute_type: AttributeType, part: Part, name: str) -> pa.Array:
    column = part.columns[name]
    if attribute_type == "number":
        return pa.array(column, mask=np.isnan(column))
    if attribute_type == "flag":
        return pa.array(column == 1, mask=column == NO_FLAG)
    if part.texts is None:
        raise ValueError(f"{name} is a text of a part without texts")
    ends, utf8 = part.texts.record["ends"], part.texts.record["utf8"]
    offsets = np.concatenate([[0], ends]).astype(np.int64)
    texts = pa.LargeStringArray.from_buffers(ends.size, pa.py_buffer(offsets), pa.py_buffer(utf8))
    return texts.take(pa.array(column, mask=column == NO_TEXT))


def _part(types: AttributeTypes, arrays: Arrays) -> Part:
    columns: dict[str, Column] = {}
    texts = [arrays[name] for name, one in types.items() if one == "text"]
    encoded = pa.concat_arrays(texts).dictionary_encode() if texts else None
    if encoded is not None:
        order = pc.sort_indices(encoded.dictionary).to_numpy()
        code_of = np.empty(order.size + 1, np.uint32)
        code_of[order] = np.arange(order.size, dtype=np.uint32)
        code_of[-1] = NO_TEXT
        codes = iter(np.split(code_of[encoded.indices.fill_null(-1).to_numpy()], len(texts)))
    for name, one in types.items():
        array = arrays[name]
        if one == "text":
            columns[name] = next(codes)
        elif one == "number":
            columns[name] = array.fill_null(np.nan).to_numpy().astype("<f8", copy=False)
        else:
            columns[name] = array.cast(pa.int8()).fill_null(NO_FLAG).to_numpy()
    return Part(columns, None if encoded is None else _texts(encoded.dictionary.take(order)))


def _texts(texts: pa.Array) -> Texts:
    """The texts of a file: `texts` are ascending."""
    _, offsets, utf8 = texts.buffers()
    ends = np.frombuffer(offsets or b"\0" * 8, np.int64, len(texts) + 1, 8 * texts.offset)
    record = np.empty((), texts_dtype(len(texts), int(ends[-1])))
    record["ends"] = ends[1:]
    record["utf8"] = np.frombuffer(utf8 or b"", np.uint8, int(ends[-1]))
    return Texts(record)
