"""SQL that reads CSV files: what DuckDB takes for a number and is none is named."""

from pathlib import Path

import pytest

from lookalike_build.catalogue.reader import read_catalogue
from lookalike_build.tables.error import TableError

COLUMNS = "sku AS product_id, shelf AS category_id, photo AS image"
N = 21_000  # DuckDB looks at fewer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files whose columns are whole numbers up to their last rows."""
    folder = tmp_path_factory.mktemp("feeds")
    rows = [f"{n},1,a.jpg,{n}" for n in range(N)]
    for name, last in {
        "zeros": "00042,1,b.jpg,5",
        "decimal": "12.7,1,c.jpg,5",
        "stock": "99999,1,d.jpg,007",
        "sound": "99999,1,d.jpg,7",
    }.items():
        text = "\n".join(["sku,shelf,photo,stock", *rows, last]) + "\n"
        (folder / f"{name}.csv").write_text(text)
    return folder


def read(folder: Path, tmp_path: Path, sql: str) -> set[object]:
    path = tmp_path / "catalogue.sql"
    path.write_text(sql.replace("@", str(folder)))
    return set(read_catalogue(path).rows["product_id"].to_pylist())


@pytest.mark.parametrize(
    ("sql", "place", "value"),
    [
        (f"SELECT {COLUMNS} FROM '@/zeros.csv'", 1, "sku 00042"),
        (f"SELECT {COLUMNS} FROM '@/decimal.csv'", 1, "sku 12.7"),
        (f"SELECT {COLUMNS} FROM read_csv('@/zeros.csv', header = true)", 1, "sku 00042"),
        (f"SELECT {COLUMNS} FROM read_csv_auto('@/decimal.csv')", 1, "sku 12.7"),
        (f"CREATE VIEW v AS FROM '@/zeros.csv'; SELECT {COLUMNS} FROM v", 2, "sku 00042"),
        (f'CREATE TABLE t AS FROM "@/zeros.csv"; SELECT {COLUMNS} FROM t', 1, "sku 00042"),
        (f"SELECT {COLUMNS.replace('sku', 'sku::VARCHAR')} FROM '@/z*.csv'", 1, "sku 00042"),
        (f"SELECT {COLUMNS} FROM '@/stock.csv' WHERE stock > 0", 1, "stock 007"),
    ],
)
def test_a_value_that_would_become_another_is_named(
    folder: Path, tmp_path: Path, sql: str, place: int, value: str
) -> None:
    with pytest.raises(TableError) as error:
        read(folder, tmp_path, sql)
    (problem,) = error.value.problems
    assert problem.startswith(f"statement {place}: ")
    assert f"row {N + 1}: {value} would be read as a whole number; write read_csv(" in problem


@pytest.mark.parametrize(
    ("sql", "last"),
    [
        (f"SELECT {COLUMNS} FROM read_csv('@/zeros.csv', all_varchar = true)", "00042"),
        (f"SELECT {COLUMNS} FROM read_csv('@/zeros.csv', types = {{'sku': 'VARCHAR'}})", "00042"),
        (f"SELECT {COLUMNS} FROM '@/sound.csv'", 99999),
        (f"SELECT {COLUMNS} FROM '@/stock.csv'", 99999),
    ],
)
def test_text_that_is_asked_for_and_columns_that_are_not_read_are_as_they_are(
    folder: Path, tmp_path: Path, sql: str, last: object
) -> None:
    assert last in read(folder, tmp_path, sql)
