"""Columns are what the values make of them, in parts; only parts that differ are written again."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lookalike.release.columns
import lookalike_build.publishing.columns
from lookalike.release.attributes import AttributeTypes, Value, Values
from lookalike.release.columns import Columns, open_columns
from lookalike.release.files import FileEntry
from lookalike.release.manifest import CategoryEntry
from lookalike_build.publishing.columns import (
    ARROW_TYPES,
    arrays_of,
    columns_of,
    differences,
    no_columns,
    reordered,
    same_columns,
    with_values,
    write_columns,
)
from support import RANDOM_CASES

TYPES: AttributeTypes = {"hidden": "flag", "price": "number", "title": "text", "brand": "text"}
PART = 4

texts = st.sampled_from(["a", "b", "é", "z", "日本", "\U0001f600", "\uffff", "a" * 30])
values = st.fixed_dictionaries(
    {},
    optional={
        "hidden": st.none() | st.booleans(),
        "price": st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.just(2**60 + 1),
        "title": st.none() | texts,
        "brand": st.none() | texts,
    },
)


@pytest.fixture(autouse=True, scope="module")
def _small_parts() -> Iterator[None]:
    with (
        mock.patch.object(lookalike.release.columns, "PART", PART),
        mock.patch.object(lookalike_build.publishing.columns, "PART", PART),
    ):
        yield


def made(rows: list[Values]) -> Columns:
    """Whole columns, made at once."""
    arrays = {}
    for name, one in TYPES.items():
        each = [row.get(name) for row in rows]
        if one == "number":
            each = [None if value is None else float(value) for value in each]
        arrays[name] = pa.array(each, ARROW_TYPES[one])
    return columns_of(TYPES, arrays, len(rows))


def present(values: Values) -> dict[str, Value]:
    return {name: value for name, value in values.items() if value is not None}


def rows_of(columns: Columns) -> list[dict[str, Value]]:
    return [present(columns.values(item)) for item in range(columns.n_items)]


@settings(max_examples=100 * RANDOM_CASES, deadline=None)
@given(
    rows=st.lists(values, max_size=10),
    steps=st.lists(
        st.tuples(st.integers(0, 5), st.dictionaries(st.integers(0, 30), values, max_size=5)),
        max_size=4,
    ),
)
def test_values_set_one_by_one_make_what_whole_columns_make(
    rows: list[Values], steps: list[tuple[int, dict[int, Values]]]
) -> None:
    columns = made(rows)
    expected = [_floats(present(row)) for row in rows]
    for n_more, changes in steps:
        expected += [{} for _ in range(n_more)]
        kept = {item: each for item, each in changes.items() if item < len(expected)}
        before, columns = columns, with_values(columns, len(expected), kept, TYPES)
        old = [*map(dict, expected)]
        for item, each in kept.items():
            expected[item] = _floats(present({**expected[item], **each}))
        assert rows_of(columns) == expected
        if n_more == 0:
            assert (columns is before) == (old == expected)
            found = differences(before, columns)
            assert found.keys() == {item for item, row in enumerate(expected) if row != old[item]}
            for item, each in found.items():
                assert _floats(present({**old[item], **each})) == expected[item]
    again = columns_of(TYPES, arrays_of(columns), columns.n_items)
    assert rows_of(again) == expected
    assert same_columns(again, made([*expected]))
    # One whose last value was set to none may still have its column.
    assert same_columns(again, columns) or again.types != columns.types
    order = np.random.default_rng(len(expected)).permutation(len(expected) + 2) - 2
    moved = reordered(columns, np.maximum(order, -1))
    assert rows_of(moved) == [expected[item] if item >= 0 else {} for item in order]


def _floats(values: Mapping[str, Value]) -> dict[str, Value]:
    return {name: float(one) if name == "price" else one for name, one in values.items()}


ROWS: list[Values] = [
    {"price": float(item), "title": f"é {item % 3}", "hidden": item == 5} for item in range(11)
]


def entry_of(
    columns: Columns, folder: Path, base: tuple[Path, CategoryEntry] | None = None
) -> CategoryEntry:
    """Write the columns; an entry that has their files."""
    folder.mkdir()
    files = write_columns(folder, columns, base)
    entry: CategoryEntry = mock.Mock(spec=CategoryEntry, files=files)
    return entry


def test_what_is_written_is_read(tmp_path: Path) -> None:
    columns = made(ROWS)
    files = write_columns(tmp_path, columns)
    assert [*files] == [
        *(f"columns-{part}.npy" for part in range(3)),
        *(f"texts-{part}.npy" for part in range(3)),
    ]
    assert files == {file: FileEntry.of(tmp_path / file) for file in files}
    read = open_columns(tmp_path, columns.types, 11)
    assert [*read.types] == ["hidden", "price", "title"]
    assert rows_of(read) == [present(row) for row in ROWS]
    assert read.hidden.tolist() == [5]


@pytest.mark.parametrize(
    ("n_items", "changes", "written"),
    [
        (11, {5: {"price": 0.5}}, ["columns-1.npy"]),
        (11, {5: {"title": "z"}}, ["columns-1.npy", "texts-1.npy"]),
        (11, {7: {"title": "é 0"}}, ["columns-1.npy"]),
        (12, {}, ["columns-2.npy"]),
        (13, {}, ["columns-2.npy", "columns-3.npy", "texts-3.npy"]),
        (11, {0: {"brand": "é 0"}}, [f"columns-{part}.npy" for part in range(3)]),
    ],
)
def test_only_files_that_differ_are_written(
    tmp_path: Path, n_items: int, changes: dict[int, Values], written: list[str]
) -> None:
    base, folder = tmp_path / "base", tmp_path / "new"
    columns = made(ROWS)
    entry = entry_of(columns, base)
    entry_of(with_values(columns, n_items, changes, TYPES), folder, (base, entry))
    new = [
        path.name
        for path in sorted(folder.iterdir())
        if not (base / path.name).exists() or path.stat().st_ino != (base / path.name).stat().st_ino
    ]
    assert new == sorted(written)


def test_a_category_without_values_has_no_columns(tmp_path: Path) -> None:
    columns = made([{}, {"price": None}, {"title": None}])
    assert (columns.types, columns.parts, write_columns(tmp_path, columns)) == ({}, (), {})
    assert with_values(no_columns(2), 3, {1: {"price": None}}, TYPES).types == {}
    later = with_values(no_columns(2), 3, {1: {"title": "a"}, 2: {"hidden": False}}, TYPES)
    assert [*later.types] == ["hidden", "title"]


def test_texts_that_nobody_has_any_more_are_left_out() -> None:
    columns = with_values(made(ROWS), 11, {item: {"title": None} for item in range(4)})
    assert [len(part.texts) for part in columns.parts if part.texts is not None] == [0, 3, 3]
