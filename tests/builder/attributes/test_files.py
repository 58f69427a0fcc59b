"""Attributes are read from every kind of file, and what is malformed is named with its line or row."""

import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.release.ids import IdType
from lookalike_build.attributes.files import (
    ID_COLUMNS,
    Attribute,
    FileValues,
    IdColumns,
    read_attributes,
)
from lookalike_build.tables import chunks
from lookalike_build.tables.csv import AS_IT_BEGINS, Dialect
from lookalike_build.tables.error import TableError
from support import REPOSITORY

FEEDS = REPOSITORY / "tests" / "data" / "feeds"
PRICE = Attribute("price", "number", "price")
STOCK = Attribute("in_stock", "flag", "in_stock")
HIDE = Attribute("hidden", "flag", "hidden")
BRAND = Attribute("brand", "text", "brand")
ALL = (PRICE, STOCK, BRAND)
NAMES = ["category_id", "product_id", "price", "in_stock", "brand"]
INTEGERS: tuple[IdType, IdType] = ("integer", "integer")
STRINGS: tuple[IdType, IdType] = ("string", "string")

Row = tuple[Any, ...]


def found(
    path: Path,
    attributes: Sequence[Attribute] = ALL,
    id_types: tuple[IdType, IdType] = INTEGERS,
    names: IdColumns = ID_COLUMNS,
    dialect: Dialect = AS_IT_BEGINS,
) -> FileValues:
    return read_attributes(path, names, dialect, id_types, attributes)


def read(path: Path, *arguments: Any, **named: Any) -> list[Row]:
    """The rows: category, product, then values."""
    columns = found(path, *arguments, **named).rows.to_pydict().values()
    return list(zip(*columns, strict=True))


def problems(path: Path, *arguments: Any) -> list[str]:
    with pytest.raises(TableError) as error:
        found(path, *arguments)
    return error.value.problems


def csv(tmp_path: Path, *lines: str, names: Sequence[str] = NAMES) -> Path:
    path = tmp_path / "values.csv"
    path.write_text("\n".join([",".join(names), *lines]) + "\n")
    return path


def jsonl(tmp_path: Path, *objects: Any) -> Path:
    path = tmp_path / "values.jsonl"
    path.write_text("".join(f"{json.dumps(one)}\n" for one in objects))
    return path


def product(**values: Any) -> dict[str, Any]:
    return {"category_id": 1, "product_id": 7, **values}


def parquet(tmp_path: Path, **columns: Any) -> Path:
    path = tmp_path / "values.parquet"
    n = len(next(iter(columns.values())))
    pq.write_table(pa.table({"category_id": [1] * n, "product_id": range(n), **columns}), path)
    return path


def sql(tmp_path: Path, query: str) -> Path:
    path = tmp_path / "values.sql"
    path.write_text(query)
    return path


def one(attribute: Attribute, path: Path) -> list[Any]:
    """The values of the only attribute, by product."""
    return [row[2] for row in read(path, [attribute])]


ROWS = [(1, 7, 12.5, True, "Acme"), (1, 8, -3.0, None, None), (2, 7, None, False, "日本")]


def test_every_format_gives_the_same(tmp_path: Path) -> None:
    assert read(csv(tmp_path, "2,7,,no,日本", "1,7,12.50,TRUE,Acme", "1,8,-3, ,")) == ROWS
    objects = [
        {"category_id": 2, "product_id": 7, "in_stock": False, "brand": "日本"},
        {"category_id": 1, "product_id": 7, "price": 12.5, "in_stock": True, "brand": "Acme"},
        {"category_id": 1, "product_id": 8, "price": -3, "in_stock": None, "brand": ""},
    ]
    assert read(jsonl(tmp_path, *objects)) == ROWS
    columns = dict(zip(NAMES, zip(*ROWS, strict=True), strict=True))
    pq.write_table(pa.table(columns), tmp_path / "values.parquet")
    assert read(tmp_path / "values.parquet") == ROWS
    assert read(sql(tmp_path, "FROM 'values.parquet'")) == ROWS
    xml = tmp_path / "values.xml"
    items = [
        "".join(
            f"<{name}>{value}</{name}>" for name, value in zip(NAMES, row, strict=True) if value
        )
        for row in [(2, 7, "", "no", "日本"), (1, 7, 12.5, "t", "Acme"), (1, 8, -3, "", "")]
    ]
    xml.write_text(f"<rss>{''.join(f'<item>{item}</item>' for item in items)}</rss>")
    assert read(xml) == ROWS


def test_the_columns_have_arrow_types_and_values_come_by_category(tmp_path: Path) -> None:
    values = found(csv(tmp_path, "2,7,,no,b", "1,7,12.50,TRUE,a", "1,8,-3, ,"))
    types = [pa.int64(), pa.int64(), pa.float64(), pa.bool_(), pa.large_string()]
    assert values.rows.schema.types == types
    by_category = values.by_category()
    assert {each: one.product_ids.to_pylist() for each, one in by_category.items()} == {
        1: [7, 8],
        2: [7],
    }
    assert by_category[1].columns["price"].to_pylist() == [12.5, -3.0]
    assert by_category[2].columns["brand"].to_pylist() == ["b"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12.0),
        ("12.50", 12.5),
        ("-0.5", -0.5),
        ("1.", 1.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1.25E-2", 0.0125),
        ("007", 7.0),
        (" 12 ", 12.0),
        ("15.00 USD", 15.0),
        ("15EUR", 15.0),
        ("", None),
        ("  ", None),
    ],
)
def test_numbers_are_read_in_text(tmp_path: Path, text: str, value: float | None) -> None:
    assert one(PRICE, csv(tmp_path, f"1,7,{text}", names=NAMES[:3])) == [value]
    assert one(PRICE, jsonl(tmp_path, product(price=text))) == [value]
    assert one(PRICE, parquet(tmp_path, price=[text])) == [value]


@pytest.mark.parametrize(
    "text",
    [
        "12,50",
        "1.200,00",
        "1,200.00",
        "€12",
        "12.50 €",
        "12 eur",
        "nan",
        "inf",
        "1e999",
        "x",
        "0x1F",
    ],
)
def test_what_is_no_number_is_named(tmp_path: Path, text: str) -> None:
    said = (
        "price must be a finite number, with a point before decimals and nothing between thousands, "
        f"such as 1234.5, not '{text}'"
    )
    path = csv(tmp_path, "1,6,5", f'1,7,"{text}"', names=NAMES[:3])
    assert problems(path, [PRICE]) == [f"line 3: {said}"]
    assert problems(jsonl(tmp_path, product(price=text)), [PRICE]) == [f"line 1: {said}"]
    assert problems(parquet(tmp_path, price=["5", text]), [PRICE]) == [f"row 2: {said}"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([12, None], pa.int32()),
        pa.array([12, None], pa.uint64()),
        pa.array([12, None], pa.float32()),
        pa.array([Decimal(12), None], pa.decimal128(20, 3)),
        pa.array(["12", None], pa.large_string()),
        pa.array(["12", None]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_numbers_are_read_of_every_type(tmp_path: Path, column: pa.Array) -> None:
    assert one(PRICE, parquet(tmp_path, price=column)) == [12.0, None]


@pytest.mark.parametrize(
    ("texts", "value"),
    [
        (["true", "TRUE", "True", "1", "yes", "t", " Yes "], True),
        (["false", "FALSE", "0", "no", "F"], False),
        (["", " "], None),
    ],
)
def test_flags_are_read_in_text(tmp_path: Path, texts: list[str], value: bool | None) -> None:
    lines = [f"1,{i},{text}" for i, text in enumerate(texts)]
    names = ["category_id", "product_id", "in_stock"]
    assert one(STOCK, csv(tmp_path, *lines, names=names)) == [value] * len(texts)
    assert one(STOCK, parquet(tmp_path, in_stock=texts)) == [value] * len(texts)


@pytest.mark.parametrize(
    "column",
    [[True, False, None], [1, 0, None], [1.0, 0.0, None], ["1", "0", None]],
    ids=lambda column: type(column[0]).__name__,
)
def test_flags_are_read_of_every_type(tmp_path: Path, column: list[Any]) -> None:
    assert one(STOCK, parquet(tmp_path, in_stock=column)) == [True, False, None]
    objects = [{**product(in_stock=value), "product_id": i} for i, value in enumerate(column)]
    assert one(STOCK, jsonl(tmp_path, *objects)) == [True, False, None]


@pytest.mark.parametrize("value", ["in stock", "in_stock", "y", 2, 0.5, [], {}])
def test_what_is_no_flag_is_named(tmp_path: Path, value: Any) -> None:
    path = jsonl(tmp_path, product(in_stock=True), product(in_stock=value))
    assert problems(path, [STOCK]) == [
        f"line 2: in_stock must be true or false (or 1 or 0, yes or no, t or f), not {value!r}"
    ]


def test_text_is_taken_as_it_stands(tmp_path: Path) -> None:
    texts = [" Acme ", "x" * 1000, "é" * 500, "NULL", "007"]
    assert one(BRAND, parquet(tmp_path, brand=[*texts, "  ", None])) == [*texts, None, None]
    path = csv(tmp_path, "1,7, Acme ", "1,8, ", names=["category_id", "product_id", "brand"])
    assert one(BRAND, path) == [" Acme ", None]
    assert one(BRAND, parquet(tmp_path, brand=[77, None])) == ["77", None]
    assert one(BRAND, jsonl(tmp_path, product(brand=77))) == ["77"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("x" * 1001, "brand must be text of 1 to 1000 bytes of UTF-8, not 1001 bytes"),
        ("é" * 501, "brand must be text of 1 to 1000 bytes of UTF-8, not 1002 bytes"),
        (1.5, "brand must be text of 1 to 1000 bytes of UTF-8, not 1.5"),
        (True, "brand must be text of 1 to 1000 bytes of UTF-8, not True"),
    ],
)
def test_what_is_no_text_is_named(tmp_path: Path, value: Any, said: str) -> None:
    # A number beside it is a text all the same.
    path = jsonl(tmp_path, product(brand=5), product(brand="a"), product(brand=value))
    assert problems(path, [BRAND]) == [f"line 3: {said}"]


def test_json_values_may_be_of_several_types(tmp_path: Path) -> None:
    objects = [
        {"category_id": 1, "product_id": i, "price": price, "in_stock": stock}
        for i, (price, stock) in enumerate([(1, True), ("2.5", 1), (None, "no"), (3.5, None)])
    ]
    assert read(jsonl(tmp_path, *objects), [PRICE, STOCK]) == [
        (1, 0, 1.0, True),
        (1, 1, 2.5, True),
        (1, 2, None, False),
        (1, 3, 3.5, None),
    ]
    path = jsonl(tmp_path, product(price=1.5), product(price=True))
    assert problems(path, [PRICE])[0].endswith(", such as 1234.5, not True")


def test_a_line_of_json_may_lack_an_attribute_but_not_all_may(tmp_path: Path) -> None:
    path = jsonl(tmp_path, product(price=1), {"category_id": 1, "product_id": 8})
    assert one(PRICE, path) == [1.0, None]
    assert problems(path, [PRICE, BRAND]) == ["its lines have no column brand"]
    path = jsonl(tmp_path, product(price=1), {"product_id": 8, "price": 5})
    assert problems(path, [PRICE]) == ["line 2: has no field category_id"]


def test_numbers_of_an_attribute_have_one_currency(tmp_path: Path) -> None:
    names = NAMES[:3]
    path = csv(tmp_path, "1,7,15.00 USD", "1,8,", "1,9,7 USD", names=names)
    assert found(path, [PRICE]).currencies == {"price": "USD"}
    path = csv(tmp_path, "1,7,15.00 USD", "1,8,16", "1,9,7 EUR", "1,10,8 EUR", names=names)
    alike = "give all of its numbers the same currency, or none"
    assert problems(path, [PRICE]) == [
        f"line 3: price is without a currency, in line 2 it is in USD: {alike}",
        f"line 4: price is in EUR, in line 2 it is in USD: {alike}",
    ]
    assert found(csv(tmp_path, "1,7,15.00", names=names), [PRICE]).currencies == {}


def test_ids_are_of_the_releases_types(tmp_path: Path) -> None:
    path = csv(tmp_path, "01,7,5", "1,x,5", "1,,5", names=NAMES[:3])
    assert [
        row[:2] for row in read(csv(tmp_path, "1,007,5", names=NAMES[:3]), [PRICE], STRINGS)
    ] == [("1", "007")]
    path = csv(tmp_path, "01,7,5", "1,x,5", "1,,5", names=NAMES[:3])
    assert problems(path, [PRICE]) == [
        "line 2: category_id must be a whole number as in the release, not '01'",
        "line 3: product_id must be a whole number as in the release, not 'x'",
        "line 4: product_id must be a whole number as in the release, not ''",
    ]
    assert problems(parquet(tmp_path, price=[5]), [PRICE], STRINGS) == [
        "column category_id holds int64, expected strings: category ids are a string each in the "
        "release",
        "column product_id holds int64, expected strings: product ids are a string each in the release",
    ]
    assert read(
        jsonl(tmp_path, product(price=5), {**product(price=5), "product_id": "8"}), [PRICE]
    )[-1] == (1, 8, 5.0)


def test_a_product_that_is_repeated_must_have_the_same_values(tmp_path: Path) -> None:
    same = ["1,7,5,yes,a", "2,7,6,yes,a", "1,7,5.0,1,a"]
    assert len(read(csv(tmp_path, *same))) == 2
    assert problems(csv(tmp_path, *same, "1,7,5,,a", "2,7,6,yes,")) == [
        "line 5: product_id 7 of category 1 has other values in line 2",
        "line 6: product_id 7 of category 2 has other values in line 3",
    ]


def test_a_column_may_have_another_name_and_be_read_twice(tmp_path: Path) -> None:
    path = csv(tmp_path, "1,7,Acme,5", names=["shelf", "sku", "Vendor", "Variant Price"])
    attributes = [
        Attribute("seller", "text", "Vendor"),
        Attribute("brand", "text", "Vendor"),
        Attribute("price", "number", "Variant Price"),
    ]
    assert read(path, attributes, names=IdColumns("shelf", "sku")) == [(1, 7, "Acme", "Acme", 5.0)]
    columns = {"shelf": [1], "sku": [7], "Vendor": ["Acme"], "Variant Price": [5]}
    pq.write_table(pa.table(columns), tmp_path / "values.parquet")
    path = tmp_path / "values.parquet"
    assert read(path, attributes, names=IdColumns("shelf", "sku")) == [(1, 7, "Acme", "Acme", 5.0)]


def test_a_missing_column_and_one_of_another_type_are_named(tmp_path: Path) -> None:
    assert problems(csv(tmp_path, "1,7,5", names=NAMES[:3])) == [
        "line 1: the header has no column in_stock, expected one",
        "line 1: the header has no column brand, expected one",
    ]
    path = parquet(tmp_path, price=[True], in_stock=[[1]], brand=[1.5])
    assert problems(path) == [
        "column price holds bool, expected numbers or strings",
        "column in_stock holds list<element: int64>, expected booleans, 1 and 0, or strings",
        "column brand holds double, expected strings or integers",
    ]


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = csv(tmp_path, "1,7,5,yes,")
    path.write_bytes(path.read_bytes() + b"1,8,5,yes,Caf\xe9\n1,9,\xff,\xff,b\n")
    assert [problem[:35] for problem in problems(path)] == [
        "line 3: brand is not UTF-8; give it",
        "line 4: in_stock is not UTF-8; give",
        "line 4: price is not UTF-8; give it",
    ]
    path = csv(tmp_path, "1,7,5,yes,")
    path.write_bytes(path.read_bytes() + b"1,8,5,yes,Caf\xe9\n")
    assert read(path, dialect=Dialect("cp1252"))[1][4] == "Café"


def test_no_rows_are_refused(tmp_path: Path) -> None:
    assert problems(csv(tmp_path)) == ["holds no rows"]
    assert problems(
        sql(tmp_path, "SELECT 1 AS category_id, 1 AS product_id, 1 AS price WHERE false"), [PRICE]
    ) == ["holds no rows"]


def test_chunks_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"{i % 3},{i},{i} USD,{'yes' if i % 2 else ''},b{i}" for i in range(20)]
    expected = read(csv(tmp_path, *lines))
    bad = csv(tmp_path, *lines, "1,x,5,yes,a", "1,5", "1,99,y,yes,a", names=NAMES)
    said = problems(bad)
    assert [problem.split(":")[0] for problem in said] == ["line 22", "line 23", "line 24"]
    for size in (1, 3, 19, 20, 21):
        monkeypatch.setattr(chunks, "ROWS", size)
        assert read(csv(tmp_path, *lines)) == expected
        assert problems(csv(tmp_path, *lines, "1,x,5,yes,a", "1,5", "1,99,y,yes,a")) == said


def test_the_first_thousand_problems_are_named(tmp_path: Path) -> None:
    assert len(problems(csv(tmp_path, *(5000 * ["1,7,x,yes,a"])))) == 1000


def test_a_feed_of_google_merchant_is_read_as_it_is() -> None:
    names = IdColumns("product_type", "id")
    attributes = [PRICE, Attribute("availability", "text", "availability")]
    for feed in ("merchant-feed.tsv", "merchant-feed.xml"):
        values = found(FEEDS / feed, attributes, STRINGS, names)
        assert values.currencies == {"price": "USD"}
        assert [tuple(row.values()) for row in values.rows.to_pylist()] == [
            ("Clothing > Shirts", "A1", 25.0, "in_stock"),
            ("Clothing > Shirts", "A2", 25.0, "out_of_stock"),
        ]
    said = problems(FEEDS / feed, [Attribute("in_stock", "flag", "availability")], STRINGS, names)
    assert said[0].endswith("must be true or false (or 1 or 0, yes or no, t or f), not 'in_stock'")


QUERIES = {
    "merchant-feed.tsv": """
        SELECT split_part(product_type, ' > ', -1) AS category_id,
            coalesce(item_group_id, id) AS product_id,
            any_value(price) AS price, NOT bool_or(availability = 'in_stock') AS hidden FROM feed
    """,
    "shopify-export.csv": """
        SELECT any_value(Type) AS category_id, Handle AS product_id,
            any_value(Vendor) AS brand, min("Variant Price"::DOUBLE) AS price FROM feed
    """,
    "woocommerce-export.csv": """
        SELECT split_part(Categories, ' > ', -1) AS category_id, SKU AS product_id,
            "In stock?" AS in_stock FROM feed WHERE Type <> 'variation'
    """,
}


@pytest.mark.parametrize(
    ("feed", "attributes", "expected"),
    [
        ("merchant-feed.tsv", [PRICE, HIDE], [("Shirts", "G1", 25.0, False)]),
        (
            "shopify-export.csv",
            [BRAND, PRICE],
            [("Dress", "blue-dress", "Acme", 49.0), ("Dress", "red-dress", "Acme", 59.0)],
        ),
        (
            "woocommerce-export.csv",
            [STOCK],
            [("Mugs", "MUG", False), ("T-shirts, Sale", "TS", True)],
        ),
    ],
)
def test_exports_with_rows_of_variants_are_read_by_a_query(
    tmp_path: Path, feed: str, attributes: list[Attribute], expected: list[Row]
) -> None:
    table = f"CREATE TABLE feed AS FROM read_csv('{FEEDS / feed}', all_varchar = true);"
    path = sql(tmp_path, f"{table} {QUERIES[feed]} GROUP BY ALL")
    assert read(path, attributes, STRINGS) == expected
