"""Catalogues as shops and their spreadsheets send them; the files are in tests/data/feeds."""

import json
from pathlib import Path

import pytest

from lookalike_build.catalogue.reader import Catalogue, CatalogueFormat, read_catalogue
from lookalike_build.tables.csv import AS_IT_BEGINS, Dialect
from lookalike_build.tables.error import TableError
from support import REPOSITORY

FEEDS = REPOSITORY / "tests" / "data" / "feeds"
HEADER = "product_id,category_id,image"


def catalogue(
    folder: Path, text: str | bytes, dialect: Dialect = AS_IT_BEGINS, name: str = "catalogue.csv"
) -> Catalogue:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_catalogue(path, CatalogueFormat(dialect=dialect))


def rows(found: Catalogue) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in found.rows.to_pylist()]


def problems(folder: Path, text: str | bytes) -> list[str]:
    with pytest.raises(TableError) as error:
        catalogue(folder, text)
    return error.value.problems


def test_blanks_around_values_are_no_part_of_them() -> None:
    assert rows(read_catalogue(FEEDS / "blanks-around.csv")) == [
        (1001, 1, "photos/a.jpg"),
        (1002, 1, "photos/b.jpg"),
        (1003, 1, "https://cdn.example.com/c.jpg"),
    ]
    assert rows(read_catalogue(FEEDS / "one-odd-id.csv")) == [
        (1001, 1, "photos/a.jpg"),
        (1002, 1, "photos/b.jpg"),
        (1003, 1, "photos/c.jpg"),
    ]


@pytest.mark.parametrize("blank", ["\t", "\xa0", "\u3000", "\u200b", "\ufeff", " \r\n "])
@pytest.mark.parametrize("name", ["catalogue.csv", "catalogue.jsonl"])
def test_any_blank_is_one(tmp_path: Path, name: str, blank: str) -> None:
    around = [f"{blank}{value}{blank}" for value in ("1001", "1", "a b.jpg")]
    csv = f"{HEADER}\n" + ",".join(f'"{value}"' for value in around) + "\n"
    if name.endswith("csv"):
        assert rows(catalogue(tmp_path, csv)) == [(1001, 1, "a b.jpg")]
    else:
        import json

        line = json.dumps(dict(zip(HEADER.split(","), around, strict=True)))
        assert rows(catalogue(tmp_path, line, name=name)) == [("1001", "1", "a b.jpg")]


def test_a_product_without_a_photo_stays_one_and_an_empty_row_is_none(tmp_path: Path) -> None:
    assert rows(read_catalogue(FEEDS / "row-without-photo.csv")) == [
        (1001, 1, "photos/a.jpg"),
        (1002, 1, ""),
        (1003, 1, "photos/c.jpg"),
    ]
    text = f"{HEADER}\n\n,,\n , ,\t\n1,1,\n,,,,,\n"
    assert rows(catalogue(tmp_path, text)) == [(1, 1, "")]
    lines = '{"product_id": 1, "category_id": 1, "image": null}\n' * 1
    assert rows(catalogue(tmp_path, lines, name="c.jsonl")) == [(1, 1, "")]


def test_a_row_of_other_columns_only_is_named(tmp_path: Path) -> None:
    text = f"{HEADER},title\n1,1,a,x\n,,,y\n"
    assert problems(tmp_path, text) == ["line 3: product_id must be 1 to 64 bytes of UTF-8, not 0"]


@pytest.mark.parametrize("value", ['="1003"', "#N/A", "#REF!", "nan", "NULL", "\\N", "undefined"])
@pytest.mark.parametrize("column", [0, 1])
def test_ids_that_stand_for_nothing_are_named(tmp_path: Path, value: str, column: int) -> None:
    ids = ["7", "8"]
    ids[column] = value
    name = HEADER.split(",")[column]
    said = f"line 3: {name} is {value}, which stands for a formula or for no value; write the id"
    assert problems(tmp_path, f"{HEADER}\n1,1,x\n{','.join(ids)},x\n") == [said]


@pytest.mark.parametrize("value", ["1.23457E+12", "1,23457E+12", "4.9E+9", "9.78014E+12"])
@pytest.mark.parametrize("column", [0, 1])
def test_a_number_that_a_spreadsheet_has_shortened_is_named(
    tmp_path: Path, value: str, column: int
) -> None:
    with pytest.raises(
        TableError, match=r"line 3: product_id 1\.23457E\+12 is a number that a spr"
    ):
        read_catalogue(FEEDS / "spreadsheet-id.csv")
    ids = ["sku-1", "c"]
    ids[column] = f'"{value}"'
    (problem,) = problems(tmp_path, f"{HEADER}\nsku-2,d,x\n{','.join(ids)},x\n")
    name = HEADER.split(",")[column]
    assert problem.startswith(
        f"line 3: {name} {value} is a number that a spreadsheet has shortened"
    )


def test_whole_numbers_that_were_made_decimals_are_named(tmp_path: Path) -> None:
    assert problems(tmp_path, f"{HEADER}\n1,1,x\n2.0,1,x\n3,1,x\n4.0,1,x\n") == [
        "line 3: product_id 2.0 is a whole number that was made a decimal; write it without",
        "line 5: product_id 4.0 is a whole number that was made a decimal; write it without",
    ]
    assert problems(tmp_path, f"{HEADER}\n1,12.0,x\n") == [
        "line 2: category_id 12.0 is a whole number that was made a decimal; write it without"
    ]
    # Among other texts it may be the name of a version.
    assert rows(catalogue(tmp_path, f"{HEADER}\nv2.0,1,x\n2.0,1,x\n"))[1][0] == "2.0"


@pytest.mark.parametrize("odd", ["1003x", "#1003", "01003", "9223372036854775808", "-3", "1 003"])
def test_what_makes_all_ids_text_is_said(tmp_path: Path, odd: str) -> None:
    found = catalogue(tmp_path, f"{HEADER}\n1001,1,x\n1002,1,x\n{odd},1,x\n")
    assert {row[0] for row in rows(found)} == {"1001", "1002", odd}
    (remark,) = found.remarks
    assert remark == (
        "product_id is text: 1 of 3 are no whole numbers; "
        f"line 4: product_id {odd!r} is no whole number"
    )


def test_text_that_is_usual_is_not_remarked(tmp_path: Path) -> None:
    assert catalogue(tmp_path, f"{HEADER}\na,1,x\nb,1,x\n3,1,x\n").remarks == ()


def test_a_long_cell_of_another_column_is_read(tmp_path: Path) -> None:
    text = f'{HEADER},text\n1,1,x,{"z" * 140_000}\n2,1,y,"{"a,b" * 2_000_000}"\n'
    assert rows(catalogue(tmp_path, text)) == [(1, 1, "x"), (2, 1, "y")]


def test_a_quote_that_is_never_closed_is_named_where_it_is_opened(tmp_path: Path) -> None:
    text = f'{HEADER}\n1,1,x\n2,1,"y\n' + "3,1,z\n" * 50
    assert problems(tmp_path, text) == ["line 3: not CSV: unexpected end of data"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_spreadsheets_write_is_seen_from_the_beginning(
    tmp_path: Path, delimiter: str, encoding: str, end: str
) -> None:
    lines = [f"{HEADER},title", '7,Größe,photos/ä.jpg,"x, y; z"', "8,衣類,b.jpg,"]
    text = end.join(line.replace(",", delimiter) for line in lines)
    assert rows(catalogue(tmp_path, text.encode(encoding))) == [
        (7, "Größe", "photos/ä.jpg"),
        (8, "衣類", "b.jpg"),
    ]


def test_excel_may_name_the_delimiter_in_a_line_of_its_own(tmp_path: Path) -> None:
    text = f"sep=;\r\n{HEADER.replace(',', ';')}\r\n1;1;x\r\n;\r\n2;1\r\n"
    assert problems(tmp_path, text) == ["line 5: has 2 fields, the header has 3"]
    assert rows(catalogue(tmp_path, text[:-5])) == [(1, 1, "x")]


@pytest.mark.parametrize(
    ("encoding", "category"), [("cp1252", "Größe"), ("cp932", "衣類・小物"), ("mac-roman", "Größe")]
)
def test_another_encoding_is_read_if_it_is_given_and_asked_for_if_not(
    tmp_path: Path, encoding: str, category: str
) -> None:
    text = f"{HEADER}\n1,a,x\n2,{category},x\n".encode(encoding)
    found = rows(catalogue(tmp_path, text, Dialect(encoding)))
    assert (2, category, "x") in found
    (problem,) = problems(tmp_path, text)
    assert problem.startswith("line 3: category_id is not UTF-8; give its --encoding (cp1252 reads")
    if encoding != "mac-roman":
        assert f"{encoding} reads {category}" in problem


def test_bytes_of_another_encoding_in_a_column_that_is_ignored_do_no_harm(tmp_path: Path) -> None:
    text = f"{HEADER},title\n1,1,x,Größe\n".encode("cp1252")
    assert rows(catalogue(tmp_path, text)) == [(1, 1, "x")]


def test_a_delimiter_that_is_given_counts(tmp_path: Path) -> None:
    text = "a;b;c;d,product_id,category_id,image\n0,1,1,x\n"
    assert rows(catalogue(tmp_path, text, Dialect(delimiter=","))) == [(1, 1, "x")]
    assert "has no column product_id" in problems(tmp_path, text.replace("d,", "d;e;f,"))[0]


def test_a_header_in_the_middle_is_no_row(tmp_path: Path) -> None:
    text = f"{HEADER}\n1,1,x\n{HEADER}\n2,1,y\n"
    assert rows(catalogue(tmp_path, text)) == [(1, 1, "x"), (2, 1, "y")]
    marked = text.replace(f"\n{HEADER}", f"\n\ufeff{HEADER}")
    assert rows(catalogue(tmp_path, marked)) == [(1, 1, "x"), (2, 1, "y")]
    other = text.replace(f"\n{HEADER}", "\ncategory_id,product_id,image")
    assert problems(tmp_path, other) == [
        "line 3: is a header of another order; give files with different columns one by one"
    ]


def test_a_product_may_be_called_as_a_column(tmp_path: Path) -> None:
    text = f"{HEADER}\nimage,1,x\nproduct_id,1,y\n"
    assert {row[0] for row in rows(catalogue(tmp_path, text))} == {"image", "product_id"}


@pytest.mark.parametrize(
    "image",
    ["//x/a.jpg", "['a.jpg']", '{"src": "a.jpg"}', "<img src=a.jpg>", "data:,x", r"C:\a.jpg"],
)
def test_images_that_are_no_path_have_no_base(image: str, tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps({"product_id": 1, "category_id": 1, "image": image}))
    found = read_catalogue(path, CatalogueFormat(image_base="https://shop.example/media/"))
    assert [row[2] for row in rows(found)] == [image]


def test_images_that_are_no_url_may_have_a_base(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text(f"{HEADER}\n1,1,/a/b.jpg\n2,1,c.jpg\n3,1,http://x/d.jpg\n4,1,\n")
    found = read_catalogue(path, CatalogueFormat(image_base="https://shop.example/media/"))
    assert [row[2] for row in rows(found)] == [
        "https://shop.example/media/a/b.jpg",
        "https://shop.example/media/c.jpg",
        "http://x/d.jpg",
        "",
    ]
