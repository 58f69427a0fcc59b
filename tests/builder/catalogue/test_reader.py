"""Catalogues: what is read, and what is refused before any work starts."""

import importlib.util
import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.terminal.install import install
from lookalike_build.catalogue.reader import COLUMNS, CatalogueFormat, ColumnNames, read_catalogue
from lookalike_build.catalogue.rows import invalid_row, valid
from lookalike_build.tables import chunks
from lookalike_build.tables.error import TableError

SHOP = ColumnNames("sku", "shelf", "photo")


def rows(path: Path, names: ColumnNames = COLUMNS) -> list[tuple[object, ...]]:
    return [
        tuple(row.values()) for row in read_catalogue(path, CatalogueFormat(names)).rows.to_pylist()
    ]


def csv_file(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "catalogue.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def jsonl_file(tmp_path: Path, *lines: str | bytes, name: str = "catalogue.jsonl") -> Path:
    path = tmp_path / name
    raw = [line if isinstance(line, bytes) else line.encode() for line in lines]
    path.write_bytes(b"\n".join(raw))
    return path


def row(product_id: object = 1, category_id: object = 1, image: object = "x") -> str:
    return json.dumps({"product_id": product_id, "category_id": category_id, "image": image})


def sql_file(tmp_path: Path, sql: str | bytes) -> Path:
    path = tmp_path / "catalogue.sql"
    path.write_bytes(sql if isinstance(sql, bytes) else sql.encode())
    return path


def problems(path: Path, names: ColumnNames = COLUMNS) -> list[str]:
    with pytest.raises(TableError) as error:
        read_catalogue(path, CatalogueFormat(names))
    return error.value.problems


def test_csv_columns_may_stand_in_any_order_beside_others(tmp_path: Path) -> None:
    text = "colour,image,category_id,product_id\nred,a.jpg,2,11\nblue,b.jpg,1,10\n"
    assert rows(csv_file(tmp_path, text)) == [(10, 1, "b.jpg"), (11, 2, "a.jpg")]


def test_rows_are_sorted_by_category_and_else_keep_their_order(tmp_path: Path) -> None:
    text = "product_id,category_id,image\n3,b,x\n2,a,x\n1,b,x\n9,a,x\n"
    assert [row[:2] for row in rows(csv_file(tmp_path, text))] == [
        (2, "a"),
        (9, "a"),
        (3, "b"),
        (1, "b"),
    ]


def test_a_spreadsheets_byte_order_mark_quotes_and_line_ends_are_read(tmp_path: Path) -> None:
    text = '\ufeffproduct_id,category_id,image\r\n1,1,"a, ""b"".jpg"\r\n\r\n2,1,c.jpg\r\n'
    assert rows(csv_file(tmp_path, text)) == [(1, 1, 'a, "b".jpg'), (2, 1, "c.jpg")]


@pytest.mark.parametrize("id_", ["007", "1a", "1.5", "+1", "-1", "9223372036854775808", "١"])
def test_one_id_that_is_no_plain_number_makes_all_ids_text(tmp_path: Path, id_: str) -> None:
    text = f"product_id,category_id,image\n5,1,x\n{id_},1,x\n"
    assert rows(csv_file(tmp_path, text)) == [("5", 1, "x"), (id_, 1, "x")]


def test_a_product_may_stand_in_two_categories(tmp_path: Path) -> None:
    text = "product_id,category_id,image\n5,1,x\n5,2,x\n"
    assert rows(csv_file(tmp_path, text)) == [(5, 1, "x"), (5, 2, "x")]


def test_parquet_types_decide_the_types_of_ids(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.parquet"
    table = {"product_id": ["1", "2"], "category_id": [4, 3], "image": ["a", "b"], "other": [0, 0]}
    pq.write_table(pa.table(table), path)
    assert rows(path) == [("2", 3, "b"), ("1", 4, "a")]


def test_repeated_ids_are_named_by_line(tmp_path: Path) -> None:
    text = "product_id,category_id,image\n1,1,x\n2,1,x\n1,1,y\n2,2,x\n1,1,z\n2,1,z\n"
    assert problems(csv_file(tmp_path, text)) == [
        "product_id 1 of category 1 is repeated in lines 2, 4, 6",
        "product_id 2 of category 1 is repeated in lines 3, 7",
    ]


def test_every_malformed_row_is_named_by_line(tmp_path: Path) -> None:
    text = (
        b"product_id,category_id,image\n"
        b"1,1\n"
        b"2,1,x,y\n"
        b",1,x\n"
        b'3,"a\nb",x\n'
        b"4,1,\n" + b"5,1,\xff.jpg\n" + b"z" * 65 + b",1,x\n"
    )
    assert problems(csv_file(tmp_path, text)) == [
        "line 2: has 2 fields, the header has 3",
        "line 3: has 4 fields, the header has 3",
        "line 4: product_id must be 1 to 64 bytes of UTF-8, not 0",
        "line 6: category_id must not hold control characters",
        "line 8: image is not UTF-8; give its --encoding (cp1252 reads ÿ.jpg, cp932 reads \uf8f3.jpg)",
        "line 9: product_id must be 1 to 64 bytes of UTF-8, not 65",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: the header has no column product_id, expected one"),
        ("product_id,image\n1,x\n", "line 1: the header has no column category_id, expected one"),
        (
            "product_id,category_id,image,image\n",
            "line 1: the header has 2 column image, expected one",
        ),
        ("product_id,category_id,image\n", "holds no products"),
        ('product_id,category_id,image\n1,1,"x\n', "line 2: not CSV: unexpected end of data"),
    ],
)
def test_a_csv_file_without_what_is_needed_is_refused(
    tmp_path: Path, text: str, problem: str
) -> None:
    assert problem in problems(csv_file(tmp_path, text))


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"product_id": [1], "image": ["x"]}, "has no column category_id"),
        (
            {"product_id": [1.5], "category_id": [1], "image": ["x"]},
            "column product_id holds double, expected integers or strings",
        ),
        (
            {"product_id": [1, None], "category_id": [1, 1], "image": ["x", "y"]},
            "row 2: product_id is empty",
        ),
        (
            {"product_id": [1, -2], "category_id": [1, 1], "image": ["x", "y"]},
            "row 2: product_id must be a whole number from 0 to 9223372036854775807, not -2",
        ),
        (
            {"product_id": [1, 1], "category_id": [1, 1], "image": ["x", "y"]},
            "product_id 1 of category 1 is repeated in lines 1, 2",
        ),
    ],
)
def test_an_unfit_parquet_file_is_refused(
    tmp_path: Path, columns: dict[str, list[object]], problem: str
) -> None:
    path = tmp_path / "catalogue.parquet"
    pq.write_table(pa.table(columns), path)
    assert problems(path) == [problem]


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    path = csv_file(tmp_path, b"PAR1 and nothing more")
    assert problems(path)[0].startswith("cannot be read as Parquet")


def test_only_the_first_problems_are_printed(tmp_path: Path) -> None:
    text = "product_id,category_id,image\n" + "1\n" * 50
    with pytest.raises(TableError) as error:
        read_catalogue(csv_file(tmp_path, text))
    lines = str(error.value).splitlines()
    assert len(lines) == 21
    assert lines[-1].endswith("and 30 more")


def test_columns_may_have_the_shops_own_names(tmp_path: Path) -> None:
    expected = [(7, "a", "x.jpg")]
    text = "image,sku,shelf,photo\nno,7,a,x.jpg\n"
    assert rows(csv_file(tmp_path, text), SHOP) == expected
    line = '{"image": 1, "sku": 7, "shelf": "a", "photo": "x.jpg"}'
    assert rows(jsonl_file(tmp_path, line), SHOP) == expected
    assert (
        rows(sql_file(tmp_path, "SELECT 7 AS sku, 'a' AS shelf, 'x.jpg' AS photo"), SHOP)
        == expected
    )
    path = tmp_path / "catalogue.parquet"
    pq.write_table(pa.table({"sku": [7], "shelf": ["a"], "photo": ["x.jpg"]}), path)
    assert rows(path, SHOP) == expected


def test_problems_are_told_in_the_shops_own_names(tmp_path: Path) -> None:
    header = "line 1: the header has no column shelf, expected one"
    assert problems(csv_file(tmp_path, "sku,photo\n1,x\n"), SHOP) == [header]
    text = "sku,shelf,photo\n1,\x01,x\n1,1,a\0b\n"
    assert problems(csv_file(tmp_path, text), SHOP) == [
        "line 2: shelf must not hold control characters",
        "line 3: photo must not hold a zero byte",
    ]
    repeated = "sku 1 of category 1 is repeated in lines 2, 3"
    assert problems(csv_file(tmp_path, "sku,shelf,photo\n1,1,x\n1,1,y\n"), SHOP) == [repeated]
    assert problems(jsonl_file(tmp_path, row()), SHOP) == ["line 1: has no field sku"]


def test_an_image_may_be_a_url(tmp_path: Path) -> None:
    url = "https://shop.example/p/1.jpg?w=600&h=600"
    assert rows(csv_file(tmp_path, f"product_id,category_id,image\n1,1,{url}\n")) == [(1, 1, url)]


@pytest.mark.parametrize("name", ["catalogue.jsonl", "c.NDJSON", "c.json", "c.txt"])
def test_json_lines_are_read_whatever_else_they_hold(tmp_path: Path, name: str) -> None:
    lines: list[str | bytes] = [
        b"\xef\xbb\xbf" + row("ü", 2, "b.jpg").encode() + b"\r",
        "  \r",
        "",
        '{"tags": [{"a": null}], "product_id": "7", "image": "a.jpg", "category_id": 1}',
        "",
    ]
    assert rows(jsonl_file(tmp_path, *lines, name=name)) == [("7", 1, "a.jpg"), ("ü", 2, "b.jpg")]


def test_every_malformed_json_line_is_named(tmp_path: Path) -> None:
    lines: list[tuple[str | bytes, str]] = [
        ("nonsense", "not JSON: "),
        ('{"product_id": NaN}', "not JSON: "),
        (b'{"product_id": "\xff"}', "not JSON: "),
        (row() + row(), "not JSON: "),
        (row()[:-1], "not JSON: "),
        ("[1]", "not a JSON object"),
        ("7", "not a JSON object"),
        ('{"product_id": 1, "image": "x"}', "has no field category_id"),
        (row(product_id=None), "product_id is empty"),
        (row(product_id=""), "product_id must be 1 to 64 bytes of UTF-8, not 0"),
        (row(product_id=1.0), "product_id must be a whole number or a string, not 1.0"),
        (
            '{"product_id": 1e3, "category_id": 1, "image": "x"}',
            "product_id must be a whole number",
        ),
        (row(category_id=True), "category_id must be a whole number or a string, not True"),
        (row(category_id=["a"]), "category_id must be a whole number or a string, not ['a']"),
        (row(category_id=-1), "category_id must be a whole number from 0 to "),
        (row(category_id=2**63), "category_id must be a whole number from 0 to "),
        (row(image=5), "image must be a string, not 5"),
        (row(image="a\0b"), "image must not hold a zero byte"),
    ]
    found = problems(jsonl_file(tmp_path, row(5), *(line for line, _ in lines)))
    assert len(found) == len(lines)
    for number, (problem, (_, expected)) in enumerate(zip(found, lines, strict=True), 2):
        assert problem.startswith(f"line {number}: {expected}")


@pytest.mark.parametrize("apart", [1, 3, 4, 5])
def test_json_ids_of_two_kinds_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart: int
) -> None:
    monkeypatch.setattr(chunks, "ROWS", 4)
    lines = [row(number) for number in range(apart)]
    assert problems(jsonl_file(tmp_path, *lines, row("a"), row(apart))) == [
        f"line {apart + 1}: product_id is a string, in line 1 it is a whole number: "
        "make it the same in all lines"
    ]


@pytest.mark.parametrize("n", [3, 4, 5, 9])
def test_every_chunk_is_read_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    monkeypatch.setattr(chunks, "ROWS", 4)
    expected: list[tuple[object, ...]] = [(number, "c", "x") for number in range(n)]
    lines = [row(*values) for values in expected]
    assert rows(jsonl_file(tmp_path, *lines)) == expected
    problem = "category_id must be 1 to 64 bytes of UTF-8, not 0"
    assert problems(jsonl_file(tmp_path, *lines, row(n, "", "x"))) == [f"line {n + 1}: {problem}"]
    path = tmp_path / "catalogue.parquet"
    columns = zip(*expected, (n, "", "x"), strict=True)
    pq.write_table(pa.table(dict(zip(COLUMNS, columns, strict=True))), path)
    assert problems(path) == [f"row {n + 1}: {problem}"]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("c.json", b' [\n{"product_id": 1}]', "is one JSON array; write it as JSON Lines"),
        ("c.jsonl", b"", "holds no products"),
        ("c.csv.gz", b"\x1f\x8b\x08\x00", "is compressed by gzip; unpack it"),
        ("c.csv", b"PK\x03\x04\x14", "is a spreadsheet or a ZIP archive; save it as CSV in UTF-8"),
        ("c.jsonl", "{}".encode("utf-16"), "is in UTF-16; save it in UTF-8"),
        ("c.db", b"SQLite format 3\0", "is an SQLite database; give a .sql file"),
    ],
)
def test_a_file_of_another_format_is_told_what_to_become(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(content)
    (found,) = problems(tmp_path / name)
    assert found.startswith(problem)


def test_a_parquet_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays(
        [pa.array([1]), pa.array([1]), pa.array([1]), pa.array(["x"])],
        ["product_id", "product_id", "category_id", "image"],
    )
    pq.write_table(table, tmp_path / "c.parquet")
    assert problems(tmp_path / "c.parquet") == ["has 2 column product_id"]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (pa.array([1, 2**63], pa.uint64()), "must be a whole number from 0 to"),
        (pa.array(["a", "b"]).dictionary_encode(), None),
        (pa.array([Decimal(1), Decimal(2)], pa.decimal128(38, 0)), None),
        (pa.array([Decimal(1), Decimal(2**70)], pa.decimal128(38, 0)), "must be a whole number"),
        (pa.array(["a", "b" * 65], pa.large_string()), "must be 1 to 64 bytes of UTF-8, not 65"),
    ],
)
def test_ids_of_any_whole_or_text_type_are_read(
    tmp_path: Path, values: pa.Array, problem: str | None
) -> None:
    path = tmp_path / "c.parquet"
    pq.write_table(
        pa.table({"product_id": values, "category_id": [1, 1], "image": ["x"] * 2}), path
    )
    if problem is None:
        assert [id_ for id_, *_ in rows(path)] == values.to_pylist()
    else:
        assert problems(path)[0].startswith(f"row 2: product_id {problem}")


def test_parquet_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    text = pa.array([b"\xff"]).view(pa.string())
    pq.write_table(pa.table({"product_id": [1], "category_id": [1], "image": text}), path)
    assert problems(path)[0].startswith("cannot be read as Parquet")


@pytest.mark.parametrize(
    "id_",
    [
        "",
        "a",
        "z" * 64,
        "z" * 65,
        "ü" * 32,
        "ü" * 33,
        "a\0",
        "\x1f",
        " ",
        "~",
        "\x7f",
        "\x80",
        "\x9f",
        "\xa0",
        "日本",
        None,
        -1,
        0,
        2**63 - 1,
    ],
)
def test_a_chunk_is_fit_if_each_of_its_rows_is(id_: object) -> None:
    one, images = pa.array([1]), pa.array(["x"])
    is_valid = invalid_row(COLUMNS, id_, 1, "x") is None
    ids = pa.array([id_], pa.int64() if isinstance(id_, int) else pa.string())
    assert valid(ids, one, images) == valid(one, ids, images) == is_valid


def test_the_last_statements_rows_are_the_catalogue(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("id,shelf,photo\n3,b,x\n1,b,y\n2,a,z\n")
    sql = """
        -- the shop's own columns; "; " is no end
        CREATE TABLE product AS FROM read_csv('p.csv');
        SELECT 1;
        SELECT id AS product_id, shelf AS category_id, photo AS image, 5 AS other FROM product
    """
    catalogue = read_catalogue(sql_file(tmp_path, sql))
    assert catalogue.folder == tmp_path
    assert [tuple(row.values()) for row in catalogue.rows.to_pylist()] == [
        (2, "a", "z"),
        (1, "b", "y"),
        (3, "b", "x"),
    ]


def test_a_file_shows_what_was_so_an_hour_before_it_was_written(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "product_id,category_id,image\n1,1,x\n")
    os.utime(path, (2e9, 1.5e9))
    assert read_catalogue(path).as_of == 1.5e9 - 3600


def test_a_query_shows_what_is_so_when_it_begins(tmp_path: Path) -> None:
    path = sql_file(tmp_path, VALUES.format("(1, 1, 'x')"))
    os.utime(path, (1.5e9, 1.5e9))
    before = time.time()
    as_of = read_catalogue(path).as_of
    assert as_of is not None
    assert before <= as_of <= time.time()


@pytest.mark.parametrize("ahead", [60, 1800, 86400, 1e11])
def test_the_moment_of_a_file_from_the_future_is_not_known(tmp_path: Path, ahead: float) -> None:
    path = csv_file(tmp_path, "product_id,category_id,image\n1,1,x\n")
    os.utime(path, (1.5e9, time.time() + ahead))
    assert read_catalogue(path).as_of is None


@pytest.mark.parametrize("name", ["catalogue.csv", "catalogue.sql"])
def test_the_moment_may_be_given(tmp_path: Path, name: str) -> None:
    path = csv_file(tmp_path, "product_id,category_id,image\n1,1,x\n")
    if name.endswith("sql"):
        path = sql_file(tmp_path, VALUES.format("(1, 1, 'x')"))
    os.utime(path, (1.5e9, time.time() + 60))
    assert read_catalogue(path, as_of=1.2e9).as_of == 1.2e9


def test_sql_types_are_integers_or_strings(tmp_path: Path) -> None:
    sql = """SELECT sum(1) AS product_id, uuid '00000000-0000-0000-0000-000000000001' AS category_id,
        'a.jpg'::ENUM ('a.jpg') AS image"""
    assert rows(sql_file(tmp_path, sql)) == [(1, "00000000-0000-0000-0000-000000000001", "a.jpg")]


VALUES = "SELECT * FROM (VALUES {}) AS v (product_id, category_id, image)"


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("", "its last statement gives no rows; end it with a SELECT"),
        ("SELECT 1; CREATE TABLE t AS SELECT 1", "its last statement gives no rows"),
        (
            "SELECT 1 AS product_id, 2 AS category_id",
            "its last statement gives no column image, expected one; "
            "it gives product_id, category_id",
        ),
        (
            "SELECT 1 AS product_id, 2 AS category_id, 'x' AS image, 'y' AS image",
            "its last statement gives 2 column image, expected one",
        ),
        (VALUES.format("(1, 1, 'x')") + " WHERE false", "holds no products"),
        (VALUES.format("(1, 1, 'x'), (NULL, 1, 'x')"), "row 2: product_id is empty"),
        (VALUES.format("(1, 1, 'x'), (2, NULL, 'x')"), "row 2: category_id is empty"),
        (VALUES.format("(1.5, 1, 'x')"), "column product_id holds decimal128(2, 1), expected"),
        (VALUES.format("(1, 1e0, 'x')"), "column category_id holds double, expected"),
        (VALUES.format("(1, 1, 5)"), "column image holds int32, expected strings"),
        (
            VALUES.format("(1, 1, 'x'), (1, 1, 'y')"),
            "product_id 1 of category 1 is repeated in rows 1, 2",
        ),
        ("SELECT 1;\nSELEKT 2", 'line 2: Parser Error: syntax error at or near "SELEKT"'),
        ("SELECT 1; FROM table_", "statement 2: Catalog Error: Table with name table_ does not"),
        ("FROM path", "statement 1: Catalog Error: Table with name path does not exist"),
        ("SELECT CAST('a' AS INT)", "statement 1: Conversion Error: Could not convert string 'a'"),
        ("SELECT ?", "statement 1: Invalid Input Error"),
        (b"SELECT '\xff'", "is not UTF-8"),
    ],
)
def test_sql_that_gives_no_catalogue_is_refused_in_one_line(
    tmp_path: Path, sql: str | bytes, problem: str
) -> None:
    (found,) = problems(sql_file(tmp_path, sql))
    assert found.startswith(problem)
    assert "\n" not in found


@pytest.mark.parametrize(
    "sql",
    [
        "ATTACH 'host=h password=s3cret.db' AS shop (READ_ONLY)",
        "ATTACH 'mysql://u:s3cret@h/shop.db' AS shop (READ_ONLY)",
        "ATTACH 'host=h password=''a \"s3cret'' x.db' AS shop (READ_ONLY)",
        "ATTACH 'host=h password=s3cret AS shop (READ_ONLY)",
        "CREATE SECRET (TYPE s3, SECRET s3cret s3cret)",
    ],
)
def test_passwords_in_sql_are_not_repeated(tmp_path: Path, sql: str) -> None:
    (found,) = problems(sql_file(tmp_path, sql + "; SELECT 1"))
    assert "Error: " in found
    assert "s3cret" not in found


def test_a_sqlite_database_beside_the_sql_file_is_read(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as shop:
        shop.execute("CREATE TABLE product (sku TEXT, shelf INTEGER, photo TEXT)")
        shop.executemany("INSERT INTO product VALUES (?, ?, ?)", [("b", 1, "x"), ("a", 1, "y")])
        shop.commit()
    sql = f"""
        LOAD '{sqlite_extension()}';
        ATTACH 'shop.db' AS shop (TYPE sqlite, READ_ONLY);
        SELECT * FROM shop.product
    """
    assert rows(sql_file(tmp_path, sql), SHOP) == [("a", 1, "y"), ("b", 1, "x")]


def sqlite_extension() -> Path:
    """DuckDB's extension for SQLite where it is installed as a package, for tests to load offline."""
    package = importlib.util.find_spec("duckdb_extension_sqlite_scanner")
    folders: Iterable[str] = (package and package.submodule_search_locations) or ()
    for folder in folders:
        for extension in Path(folder).rglob("*.duckdb_extension"):
            return extension
    pytest.skip("needs the package duckdb-extension-sqlite-scanner")


def test_without_duckdb_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert problems(sql_file(tmp_path, "SELECT 1")) == [
        f"needs duckdb, which is missing; {install('build')}"
    ]
