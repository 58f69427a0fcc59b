"""Tables of all formats: the same chunks, the same places, nothing left open."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike_build.tables import chunks
from lookalike_build.tables.columns import STRINGS, WHOLE, WHOLE_OR_STRINGS, Column
from lookalike_build.tables.error import TableError
from lookalike_build.tables.format import Format
from lookalike_build.tables.reader import open_table

NUMBERS = Column("n", WHOLE_OR_STRINGS)
NAMES = Column("name", STRINGS)


def as_csv(folder: Path, rows: list[tuple[int, str]]) -> Path:
    path = folder / "table.csv"
    path.write_text("n,other,name\n" + "".join(f"{n},x,{name}\n" for n, name in rows))
    return path


def as_jsonl(folder: Path, rows: list[tuple[int, str]]) -> Path:
    path = folder / "table.jsonl"
    path.write_text("".join(json.dumps({"n": n, "name": name}) + "\n" for n, name in rows))
    return path


def as_parquet(folder: Path, rows: list[tuple[int, str]]) -> Path:
    path = folder / "table.parquet"
    numbers, names = pa.array([n for n, _ in rows], pa.int64()), [name for _, name in rows]
    pq.write_table(
        pa.table({"n": numbers, "other": [None] * len(rows), "name": pa.array(names, pa.string())}),
        path,
    )
    return path


def as_sql(folder: Path, rows: list[tuple[int, str]]) -> Path:
    as_parquet(folder, rows)
    path = folder / "table.sql"
    path.write_text("FROM 'table.parquet'")
    return path


FORMATS: dict[Format, Callable[[Path, list[tuple[int, str]]], Path]] = {
    "csv": as_csv,
    "jsonl": as_jsonl,
    "parquet": as_parquet,
    "sql": as_sql,
}


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("format_", FORMATS)
def test_all_formats_give_all_rows_with_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: Format, n: int
) -> None:
    monkeypatch.setattr(chunks, "ROWS", 2)
    expected = [(number * 10, f"ü{number}") for number in range(n)]
    with open_table(FORMATS[format_](tmp_path, expected), [NAMES, NUMBERS]) as table:
        assert table.format == format_
        found = [row for chunk in table.chunks for row in chunk.rows()]
    first_line = 2 if format_ == "csv" else 1
    assert found == [
        (line, name, str(number) if format_ == "csv" else number)
        for line, (number, name) in enumerate(expected, first_line)
    ]


def test_lines_that_hold_no_row_are_problems_of_their_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "ROWS", 2)
    path = tmp_path / "table.csv"
    path.write_text("n,name\n1\n2\n3,x\n4,y\n5\n")
    with open_table(path, [NUMBERS, NAMES]) as table:
        found = [(list(chunk.rows()), list(chunk.problems)) for chunk in table.chunks]
    problem = "has 1 fields, the header has 2"
    assert found == [
        ([], [(2, problem), (3, problem)]),
        ([(4, "3", "x"), (5, "4", "y")], []),
        ([], [(6, problem)]),
    ]
    assert str(table.error(found[2][1])) == f"{path}: line 6: {problem}"


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        ([1, 2], pa.int64()),
        (["a", None], pa.string()),
        ([1, "a"], pa.null()),
        ([2**70], pa.null()),
        (["\udcff"], pa.null()),
        ([None], pa.string()),
        ([], pa.string()),
    ],
)
def test_values_are_an_array_if_they_have_a_common_type(
    values: list[Any], type_: pa.DataType
) -> None:
    (array,) = chunks.Chunk(range(len(values)), [values]).arrays()
    assert (array.type, len(array)) == (type_, len(values))


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("format_", ["parquet", "sql"])
def test_a_typed_column_of_another_kind_is_refused_before_any_row(
    tmp_path: Path, format_: Format, n: int
) -> None:
    path = FORMATS[format_](tmp_path, [(1, "x")][:n])
    with (
        open_table(path, [Column("n", STRINGS), Column("name", WHOLE)]) as table,
        pytest.raises(TableError) as caught,
    ):
        next(table.chunks)
    assert caught.value.problems == [
        "column n holds int64, expected strings",
        "column name holds string, expected integers",
    ]


def test_whoever_stops_reading_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    opened: list[duckdb.DuckDBPyConnection] = []
    connect = duckdb.connect

    def connected() -> duckdb.DuckDBPyConnection:
        opened.append(connect())
        return opened[-1]

    monkeypatch.setattr(duckdb, "connect", connected)
    (tmp_path / "folder").mkdir()
    as_sql(tmp_path / "folder", [(1, "x")])

    def stop() -> None:
        with open_table(Path("folder/table.sql"), [NUMBERS]) as table:
            next(table.chunks)
            assert Path.cwd() == tmp_path / "folder"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as kept:  # its traceback holds the frames
        stop()
    assert kept.tb is not None
    assert Path.cwd() == tmp_path
    with pytest.raises(duckdb.ConnectionException, match="closed"):
        opened[0].execute("SELECT 1")
