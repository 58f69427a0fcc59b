"""Catalogues: what is read, and what is refused before any work starts."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike_build.catalogue import CatalogueError, read_catalogue


def rows(path: Path) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in read_catalogue(path).rows.to_pylist()]


def csv_file(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "catalogue.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(CatalogueError) as error:
        read_catalogue(path)
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


@pytest.mark.parametrize("id_", ["007", "1a", "1.0", "+1", "-1", "9223372036854775808", "١"])
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
        "line 7: image is empty",
        "line 8: image must be a path in UTF-8",
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
        ({"product_id": [1], "category_id": [1], "image": [None]}, "row 1: image is empty"),
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
    with pytest.raises(CatalogueError) as error:
        read_catalogue(csv_file(tmp_path, text))
    lines = str(error.value).splitlines()
    assert len(lines) == 21
    assert lines[-1].endswith("and 30 more")
