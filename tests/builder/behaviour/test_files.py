"""Events are read from every kind of file, and what is malformed is named with its line or row."""

import json
import shutil
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.release.ids import IdType
from lookalike_build.behaviour.files import RATING_COLUMNS, RatingColumns, read_ratings
from lookalike_build.tables import chunks
from lookalike_build.tables.csv import AS_IT_BEGINS
from lookalike_build.tables.error import TableError

T = 1_700_000_000
TEXT = "2023-11-14T22:13:20"

Read = Callable[..., list[tuple[Any, ...]]]


def read(
    path: Path, id_type: IdType = "integer", names: RatingColumns = RATING_COLUMNS
) -> list[tuple[Any, ...]]:
    """All events: user, product, seconds."""
    found: list[tuple[Any, ...]] = []

    def take(table: pa.Table) -> None:
        kinds = [pa.string(), pa.int64() if id_type == "integer" else pa.string(), pa.int64()]
        assert table.schema.types == kinds
        assert table.column_names == list(RATING_COLUMNS)
        found.extend(zip(*(column.to_pylist() for column in table.columns), strict=True))

    read_ratings(path, names, AS_IT_BEGINS, id_type, take)
    return [(user, product, at / 1_000_000) for user, product, at in found]


def problems(path: Path, id_type: IdType = "integer") -> list[str]:
    with pytest.raises(TableError) as error:
        read(path, id_type)
    assert all(line.startswith(f"{path}: ") for line in str(error.value).splitlines()[:20])
    return error.value.problems


def csv(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "events.csv"
    path.write_text("\n".join(["user_id,product_id,rated_at", *lines]) + "\n")
    return path


def jsonl(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "events.jsonl"
    objects = [dict(zip(RATING_COLUMNS, row, strict=True)) for row in rows]
    path.write_text("".join(f"{json.dumps(one)}\n" for one in objects))
    return path


def parquet(tmp_path: Path, *columns: Any) -> Path:
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table(list(columns), names=list(RATING_COLUMNS)), path)
    return path


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (str(T), T),
        (f"{T}.5", T + 0.5),
        (TEXT, T),
        ("2023-11-14 22:13:20", T),
        ("2023-11-14 22:13:20.25", T + 0.25),
        ("2023-11-14T22:13:20Z", T),
        ("2023-11-15T00:13:20+02:00", T),
        ("2023-11-15 00:13:20+02", T),
        ("2023-11-14 16:43:20.0-05:30", T),
        ("2023-11-14", T - (22 * 60 + 13) * 60 - 20),
        ("9999-12-31T23:59:59", 253_402_300_799),
    ],
)
def test_times_are_read_in_text(tmp_path: Path, text: str, seconds: float) -> None:
    assert read(csv(tmp_path, f"u,7,{text}")) == [("u", 7, seconds)]
    assert read(jsonl(tmp_path, ("u", 7, text))) == [("u", 7, seconds)]
    assert read(parquet(tmp_path, ["u"], [7], [text])) == [("u", 7, seconds)]


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "14.11.2023",
        "20231114",  # no seconds: it would be in 1970
        "1700000000000",  # milliseconds
        "-5",
        "1e9",
        "infinity",
        "1972-01-01",
        "10000-01-01",
        "2023-02-30",
        "2023-11-14 25:00:00",
        "日本",
    ],
)
def test_what_is_no_time_is_named(tmp_path: Path, text: str) -> None:
    said = f"rated_at must be a date, a timestamp or Unix seconds, of 1973 to 9999, not '{text}'"
    assert problems(csv(tmp_path, f"u,7,{T}", f"u,7,{text}")) == [f"line 3: {said}"]
    assert problems(jsonl(tmp_path, ("u", 7, text))) == [f"line 1: {said}"]
    assert problems(parquet(tmp_path, ["u", "u"], [7, 7], [TEXT, text])) == [f"row 2: {said}"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([datetime.fromtimestamp(T, UTC)], pa.timestamp("us")),
        pa.array([datetime.fromtimestamp(T, UTC)], pa.timestamp("ns")),
        pa.array([datetime.fromtimestamp(T, UTC)], pa.timestamp("s", "Asia/Tokyo")),
        pa.array(
            [datetime.fromtimestamp(T, timezone(timedelta(hours=9)))], pa.timestamp("ms", "UTC")
        ),
        pa.array([T], pa.int64()),
        pa.array([T], pa.uint32()),
        pa.array([T], pa.float64()),
        pa.array([Decimal(T)], pa.decimal128(20, 3)),
        pa.array([TEXT], pa.large_string()),
        pa.array([TEXT]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_times_are_read_of_every_type(tmp_path: Path, column: pa.Array) -> None:
    assert read(parquet(tmp_path, ["u"], [7], column)) == [("u", 7, T)]


def test_the_zone_of_this_machine_makes_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert read(csv(tmp_path, f"u,7,{TEXT}")) == [("u", 7, T)]
        assert read(sql(tmp_path, f"FROM '{tmp_path}/events.csv'")) == [("u", 7, T)]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_dates_are_their_first_second_in_utc(tmp_path: Path) -> None:
    midnight = datetime(2023, 11, 14, tzinfo=UTC).timestamp()
    assert read(parquet(tmp_path, ["u"], [7], [date(2023, 11, 14)])) == [("u", 7, midnight)]


@pytest.mark.parametrize("value", [True, [], {}, 1e300, -1.0, 0, 10**30])
def test_a_json_value_that_is_no_time_is_named(tmp_path: Path, value: Any) -> None:
    (problem,) = problems(jsonl(tmp_path, ("u", 7, value)))
    assert problem.startswith("line 1: rated_at must be a date, a timestamp or Unix seconds")


@pytest.mark.parametrize("value", [1e300, -1e300, float("nan"), float("inf"), 0.0, 1.7e12])
def test_a_number_that_is_no_time_is_named_with_its_row(tmp_path: Path, value: float) -> None:
    (problem,) = problems(parquet(tmp_path, ["u", "u"], [7, 7], [float(T), value]))
    assert problem.startswith("row 2: rated_at must be a date, a timestamp or Unix seconds")


def test_json_numbers_are_unix_seconds(tmp_path: Path) -> None:
    rows = [("u", 7, T), ("u", 8, T + 0.125)]
    assert read(jsonl(tmp_path, *rows)) == rows


def test_users_may_be_numbers_and_text(tmp_path: Path) -> None:
    assert read(jsonl(tmp_path, (5, 7, T), ("5", 8, T), ("u", 9, T))) == [
        ("5", 7, T),
        ("5", 8, T),
        ("u", 9, T),
    ]
    assert read(parquet(tmp_path, pa.array([5], pa.uint64()), [7], [T])) == [("5", 7, T)]


def test_product_ids_are_of_the_releases_type(tmp_path: Path) -> None:
    path = csv(tmp_path, f"u,7,{T}", f"u,08,{T}", f"u,x,{T}")
    assert [row[1] for row in read(path, "string")] == ["7", "08", "x"]
    said = "product_id must be a whole number as in the release, not"
    assert problems(path) == [f"line 3: {said} '08'", f"line 4: {said} 'x'"]
    assert problems(jsonl(tmp_path, ("u", 7, T), ("u", "x", T))) == [f"line 2: {said} 'x'"]
    assert problems(jsonl(tmp_path, ("u", 7, T), ("u", "x", T)), "string") == [
        "line 1: product_id must be a string as in the release, not 7"
    ]
    kinds: list[tuple[IdType, Any]] = [("integer", ["7"]), ("string", [7])]
    for id_type, ids in kinds:
        (problem,) = problems(parquet(tmp_path, ["u"], ids, [T]), id_type)
        assert problem.startswith("column product_id holds ")
        assert "each in the release" in problem


MALFORMED = [
    (("", 7, T), "user_id must be 1 to 64 bytes of UTF-8, not 0"),
    (("x" * 65, 7, T), "user_id must be 1 to 64 bytes of UTF-8, not 65"),
    (("a\tb", 7, T), "user_id must not hold control characters"),
    (("u", -7, T), "product_id must be a whole number from 0 to"),
    (("u", 2**63, T), "product_id must be a whole number from 0 to"),
]


@pytest.mark.parametrize(("row", "said"), MALFORMED)
def test_a_malformed_row_is_named(tmp_path: Path, row: tuple[Any, ...], said: str) -> None:
    good = ("u", 8, T)
    (problem,) = problems(jsonl(tmp_path, good, row, good))
    assert problem.startswith(f"line 2: {said}")
    columns = list(zip(good, row, good, strict=True))
    if row[1] == 2**63:
        columns[1] = pa.array(columns[1], pa.uint64())
    (problem,) = problems(parquet(tmp_path, *columns))
    assert problem.startswith(f"row 2: {said}")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ((None, 7, T), "user_id is empty"),
        (("u", None, T), "product_id is empty"),
        (("u", 7, None), "rated_at is empty"),
        ((True, 7, T), "user_id must be a whole number or a string, not True"),
        (("u", 7.5, T), "product_id must be a whole number or a string, not 7.5"),
        (([], 7, T), "user_id must be a whole number or a string, not []"),
    ],
)
def test_an_empty_or_unfit_value_is_named(tmp_path: Path, row: tuple[Any, ...], said: str) -> None:
    assert problems(jsonl(tmp_path, ("u", 8, T), row)) == [f"line 2: {said}"]
    if None in row:
        columns = list(zip(("u", 8, T), row, strict=True))
        assert problems(parquet(tmp_path, *columns)) == [f"row 2: {said}"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("u,7", "has 2 fields, the header has 3"),
        ("u,7,1,2", "has 4 fields, the header has 3"),
        (",7,2023-11-14", "user_id must be 1 to 64 bytes of UTF-8, not 0"),
        ("u,,2023-11-14", "product_id must be a whole number as in the release, not ''"),
        ("u,7,", "rated_at is empty"),
        ('u,7,"x', "not CSV: unexpected end of data"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    assert problems(csv(tmp_path, f"u,7,{T}", f'"u\nv",7,{T}', line))[-1] == f"line 5: {said}"


def test_all_malformed_lines_are_named_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "ROWS", 3)
    lines = [f"u,7,{T}", "u,7", f"u,x,{T}", f"u,7,{T}", "u,7,x", f"u,8,{T}", "u"]
    places = [problem.split(":")[0] for problem in problems(csv(tmp_path, *lines))]
    assert places == ["line 3", "line 4", "line 6", "line 8"]


def test_not_much_more_than_a_thousand_problems_are_looked_for(tmp_path: Path) -> None:
    assert len(problems(csv(tmp_path, *(5000 * ["u,7"])))) == 1000
    assert len(problems(csv(tmp_path, *(5000 * ["u,7,x"])))) == 1000


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    lines = [
        b"user_id,product_id,rated_at",
        b"\xff,7,2023-11-14",
        b"u,\xff,2023-11-14",
        b"u,7,\xff",
    ]
    path.write_bytes(b"\n".join(lines))
    assert [problem[:32] for problem in problems(path)] == [
        "line 2: user_id is not UTF-8; gi",
        "line 3: product_id must be a who",
        "line 4: rated_at must be a date,",
    ]


def test_chunks_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(f"u{i % 7}", i, T + i) for i in range(20)]
    for size in (1, 3, 19, 20, 21):
        monkeypatch.setattr(chunks, "ROWS", size)
        lines = [",".join(map(str, row)) for row in rows]
        assert read(csv(tmp_path, *lines)) == rows
        assert read(jsonl(tmp_path, *rows)) == rows
        assert read(parquet(tmp_path, *zip(*rows, strict=True))) == rows


def test_columns_may_have_other_names_and_be_among_others(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text(f"when,what,more,who\n{T},7,x,u\n")
    assert read(path, names=RatingColumns("who", "what", "when")) == [("u", 7, T)]
    assert problems(path) == [
        f"line 1: the header has no column {name}, expected one" for name in RATING_COLUMNS
    ]
    table = pa.table({"when": [T], "what": [7], "who": ["u"], "more": [1.5]})
    pq.write_table(table, tmp_path / "events.parquet")
    names = RatingColumns("who", "what", "when")
    assert read(tmp_path / "events.parquet", names=names) == [("u", 7, T)]
    assert problems(tmp_path / "events.parquet")[0] == "has no column user_id"


@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_column_of_another_type_is_refused(tmp_path: Path, column: int) -> None:
    columns: list[Any] = [["u"], [7], [T]]
    columns[column] = [[1.5]]
    (problem,) = problems(parquet(tmp_path, *columns))
    assert problem.startswith(f"column {RATING_COLUMNS[column]} holds list<")


def test_a_parquet_file_that_is_cut_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path, ["u"], [7], [T])
    path.write_bytes(path.read_bytes()[:-20])
    (problem,) = problems(path)
    assert problem.startswith("cannot be read as Parquet: ")


def test_compressed_files_are_refused_as_catalogues_are(tmp_path: Path) -> None:
    path = tmp_path / "events.csv.gz"
    path.write_bytes(b"\x1f\x8b123")
    assert problems(path) == ["is compressed by gzip; unpack it"]


def sql(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "events.sql"
    path.write_text(text)
    return path


def test_events_come_from_a_query(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "ROWS", 100)
    shutil.move(csv(tmp_path, f"u,7,{T}", f"v,8,{T}"), tmp_path / "more.csv")
    query = """
        CREATE TABLE event AS SELECT * FROM 'more.csv';
        SELECT user_id, product_id, to_timestamp(rated_at) AS rated_at, 1 AS other FROM event
        UNION ALL SELECT i::VARCHAR, i, TIMESTAMPTZ '2023-11-14 22:13:20Z', 2 FROM range(10, 1010) t(i)
        ORDER BY product_id
    """
    rows = read(sql(tmp_path, query))
    assert rows == [("u", 7, T), ("v", 8, T), *((str(i), i, T) for i in range(10, 1010))]


def test_sums_and_literals_of_a_query_are_taken(tmp_path: Path) -> None:
    query = f"SELECT 5 AS user_id, sum(i) AS product_id, {T} AS rated_at FROM range(4) t(i)"
    assert read(sql(tmp_path, query)) == [("5", 6, T)]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT 1 AS user_id", "its last statement gives no column product_id, expected one"),
        ("SELECT nothing", "statement 1: Binder Error: Referenced column"),
        ("CREATE TABLE a (b INT)", "its last statement gives no rows"),
        (
            "SELECT i AS user_id, 7 AS product_id, if(i = 900, error('no more'), 1) AS rated_at "
            "FROM range(1000) t(i)",
            "statement 1: Invalid Input Error: no more",
        ),
        (
            f"SELECT NULL AS user_id, 7 AS product_id, {T} AS rated_at",
            "row 1: user_id is empty",
        ),
    ],
)
def test_a_query_that_gives_no_events_is_refused(tmp_path: Path, query: str, said: str) -> None:
    assert problems(sql(tmp_path, query))[0].startswith(said)


def test_nothing_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[duckdb.DuckDBPyConnection] = []
    connect = duckdb.connect

    def connected() -> duckdb.DuckDBPyConnection:
        opened.append(connect())
        return opened[-1]

    monkeypatch.setattr(duckdb, "connect", connected)
    path = csv(tmp_path, f"u,1,{T}")
    sql = tmp_path / "events.sql"
    sql.write_text("SELECT * FROM 'events.csv'")
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("user_id\n")
    assert len(read(path)) == len(read(sql)) == 1
    assert problems(wrong)
    assert len(opened) == 4
    for database in opened:
        with pytest.raises(duckdb.ConnectionException, match="closed"):
            database.execute("SELECT 1")
