"""Exports of shop systems: one row a product, everything else counted."""

from pathlib import Path

import pytest

from lookalike_build.catalogue.export import EXPORTS, Export, recognised
from lookalike_build.catalogue.reader import Catalogue, CatalogueFormat, read_catalogue
from lookalike_build.tables.csv import AS_IT_BEGINS
from lookalike_build.tables.error import TableError
from support import REPOSITORY

FEEDS = REPOSITORY / "tests" / "data" / "feeds"
Rows = list[tuple[object, ...]]


def read(path: Path, system: str, level: int | None = None) -> tuple[Rows, Catalogue]:
    found = read_catalogue(path, CatalogueFormat(export=Export(EXPORTS[system], level)))
    return [tuple(row.values()) for row in found.rows.to_pylist()], found


def csv(folder: Path, *lines: str) -> Path:
    path = folder / "export.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_the_exports_that_come_with_it() -> None:
    assert list(EXPORTS) == ["google-merchant", "magento", "shopify", "woocommerce"]


def test_shopify() -> None:
    rows, found = read(FEEDS / "shopify-export.csv", "shopify")
    assert rows == [
        ("blue-dress", "Dress", "https://cdn.example.com/1.jpg"),
        ("red-dress", "Dress", "https://cdn.example.com/3.jpg"),
    ]
    assert found.left_out == {"further picture": 1, "variant": 1}


def test_shopifys_pictures_are_in_the_order_of_their_positions_and_drafts_are_left_out(
    tmp_path: Path,
) -> None:
    path = csv(
        tmp_path,
        "Handle,Title,Type,Product Category,Image Src,Image Position,Published,Status",
        "a,A,Hat,,2.jpg,2,true,active",
        "a,,,,10.jpg,10,,",
        "a,,,,1.jpg,1,,",
        "a,,,,,,,",
        "draft,D,Hat,,x.jpg,1,true,draft",
        "draft,,,,y.jpg,2,,",
        "old,O,Hat,,x.jpg,1,true,archived",
        "hidden,H,Hat,,x.jpg,1,FALSE,active",
        "b,B,,Apparel & Accessories > Clothing > Hats,b.jpg,,TRUE,active",
        "bare,C,Hat,,,,true,active",
    )
    rows, found = read(path, "shopify")
    assert rows == [("a", "Hat", "1.jpg"), ("bare", "Hat", ""), ("b", "Hats", "b.jpg")]
    assert found.left_out == {
        "further picture": 2,
        "not active": 3,
        "not published": 1,
        "variant": 1,
    }
    assert sum(found.left_out.values()) + len(rows) == 10


def test_shopify_products_without_a_type_are_named(tmp_path: Path) -> None:
    header = "Handle,Title,Type,Image Src"
    path = csv(tmp_path, header, "a,A,,1.jpg", "b,B,Hat,2.jpg", ",,,3.jpg")
    with pytest.raises(TableError) as error:
        read(path, "shopify")
    assert error.value.problems == [
        "line 2: category_id is empty",
        "line 4: product_id must be 1 to 64 bytes of UTF-8, not 0",
    ]


def test_woocommerce() -> None:
    rows, found = read(FEEDS / "woocommerce-export.csv", "woocommerce")
    assert rows == [
        (12, "Mugs", "https://cdn.example.com/6.jpg"),
        (10, "T-shirts", "https://cdn.example.com/4.jpg"),
    ]
    assert found.left_out == {"variation": 1, "further category": 1}


def test_woocommerce_parents_have_the_picture_of_a_variation_if_they_have_none(
    tmp_path: Path,
) -> None:
    path = csv(
        tmp_path,
        "ID,Type,SKU,Published,Visibility in catalogue,Categories,Images,Parent",
        '1,variable,TS,1,visible,"Sale, Men > Shirts\\, long > Slim",,',
        "2,variation,TS-S,1,visible,,https://x/s.jpg,id:1",
        "3,variable,HAT,1,visible,Hats,,",
        '4,"variation, downloadable",HAT-S,1,visible,,https://x/hat.jpg,HAT',
        '5,simple,,1,visible,Hats,"https://x/a,b.jpg,https://x/c.jpg, https://x/d.jpg",',
        "6,simple,,-1,visible,Hats,https://x/e.jpg,",
        "7,simple,,0,visible,Hats,https://x/f.jpg,",
        "8,simple,,1,hidden,Hats,https://x/g.jpg,",
    )
    rows, found = read(path, "woocommerce")
    assert rows == [
        (3, "Hats", "https://x/hat.jpg"),
        (5, "Hats", "https://x/a,b.jpg"),
        (1, "Slim", "https://x/s.jpg"),
    ]
    assert found.left_out == {
        "hidden": 1,
        "not published": 2,
        "variation": 2,
        "further category": 1,
    }
    assert [row[1] for row in read(path, "woocommerce", 2)[0]] == ["Hats", "Hats", "Shirts, long"]


def test_magento(tmp_path: Path) -> None:
    path = csv(
        tmp_path,
        "sku,store_view_code,product_type,categories,visibility,product_online,base_image",
        'w1,,configurable,"Default/Women,Default/Women/Tops","Catalog, Search",1,/w/1/w1.jpg',
        "w1,de,,,,,",
        "w1-S,,simple,Default/Women/Tops,Not Visible Individually,1,/w/1/s.jpg",
        "w2,,simple,Default/Women/Tops,Catalog,2,/w/2/w2.jpg",
        "w3,,simple,Default/Men,Search,1,no_selection",
    )
    rows, found = read(path, "magento")
    assert rows == [("w3", "Men", ""), ("w1", "Tops", "/w/1/w1.jpg")]
    assert found.left_out == {
        "not active": 1,
        "store view": 1,
        "variant": 1,
        "further category": 1,
    }


@pytest.mark.parametrize("name", ["merchant-feed.tsv", "merchant-feed.xml"])
def test_google_merchant(name: str) -> None:
    rows, found = read(FEEDS / name, "google-merchant")
    assert rows == [("G1", "Shirts", "https://cdn.example.com/7.jpg")]
    assert found.left_out == {"variant": 1}


def test_google_merchants_columns_may_have_blanks_and_a_feed_may_be_atom(tmp_path: Path) -> None:
    path = csv(
        tmp_path,
        "ID\tImage Link\tProduct Type\tGoogle product category\titem group id",
        "A\ta.jpg\t\tApparel > Hats\t",
        "B\t\tHats\t\tG",
        "C\tc.jpg\tHats\t\tG",
    )
    expected = [("A", "Hats", "a.jpg"), ("G", "Hats", "c.jpg")]
    assert read(path, "google-merchant")[0] == expected
    atom = tmp_path / "feed.xml"
    atom.write_text(
        '<feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0">'
        "<title>Shop</title>"
        "<entry><g:id>A</g:id><g:image_link>a.jpg</g:image_link><title>x</title>"
        "<g:product_type>Hats</g:product_type><g:product_type>Other</g:product_type></entry>"
        "<entry><g:id>B</g:id><g:item_group_id>G</g:item_group_id><g:image_link/>"
        "<g:product_type>Hats</g:product_type></entry>"
        "<entry><g:id>C</g:id><g:item_group_id>G</g:item_group_id>"
        "<g:image_link><![CDATA[c.jpg]]></g:image_link>"
        "<g:product_type>Hats</g:product_type></entry></feed>"
    )
    assert read(atom, "google-merchant")[0] == expected


def test_damaged_xml_and_what_one_id_twice_are_named(tmp_path: Path) -> None:
    path = tmp_path / "feed.xml"
    text = (FEEDS / "merchant-feed.xml").read_text()
    path.write_text(text[:-30])
    with pytest.raises(TableError, match=r"line \d+: not XML"):
        read(path, "google-merchant")
    path.write_text(text.replace("<g:item_group_id>G1</g:item_group_id>", "").replace("A2", "A1"))
    with pytest.raises(TableError, match="product_id A1 of category Shirts is repeated"):
        read(path, "google-merchant")
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb">' + "".join(
        f'<!ENTITY b{n} "{f"&b{n - 1 or str()};" * 10}">' for n in range(1, 12)
    )
    path.write_text(f"{bomb}]><rss><item><id>&b11;</id></item></rss>")
    with pytest.raises(TableError, match="not XML"):
        read(path, "google-merchant")


def test_which_part_of_a_path_is_the_category(tmp_path: Path) -> None:
    path = csv(
        tmp_path,
        "id,image_link,product_type",
        "1,a,Women > Shoes",
        "2,b,Men>Shoes",
        "3,c,Men > Shirts > Slim",
        "4,d,Sale",
    )
    rows, found = read(path, "google-merchant")
    assert rows == [(4, "Sale", "d"), (1, "Shoes", "a"), (2, "Shoes", "b"), (3, "Slim", "c")]
    assert found.remarks == (
        "category Shoes holds the products of 2 paths: Men > Shoes, Women > Shoes",
    )
    rows, found = read(path, "google-merchant", 1)
    assert rows == [(2, "Men", "b"), (3, "Men", "c"), (4, "Sale", "d"), (1, "Women", "a")]
    assert found.remarks == ()
    assert {row[1] for row in read(path, "google-merchant", 2)[0]} == {"Sale", "Shirts", "Shoes"}


@pytest.mark.parametrize(
    ("name", "system"),
    [
        ("shopify-export.csv", "shopify"),
        ("woocommerce-export.csv", "woocommerce"),
        ("merchant-feed.tsv", "google-merchant"),
        ("merchant-feed.xml", "google-merchant"),
        ("one-odd-id.csv", None),
    ],
)
def test_an_export_is_recognised_and_named(name: str, system: str | None) -> None:
    assert recognised(FEEDS / name, AS_IT_BEGINS) == system
    if system:
        with pytest.raises(TableError) as error:
            read_catalogue(FEEDS / name)
        assert error.value.problems[-1] == f"it is an export that `--from {system}` reads as it is"


def test_what_an_export_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError) as error:
        read(csv(tmp_path, "Handle,Type", "a,Hat"), "shopify")
    assert error.value.problems == ["is no export for shopify: it has no column Image Src"]
    with pytest.raises(TableError) as error:
        read(csv(tmp_path, "Handle,Title,Image Src,Type", "a,A,Hat"), "shopify")
    assert error.value.problems == ["line 2: has 3 fields, the header has 4"]


def test_a_shop_may_have_an_export_of_its_own(tmp_path: Path) -> None:
    mapping = tmp_path / "own.sql"
    mapping.write_text(
        'CREATE TABLE feed ("Article" VARCHAR NOT NULL, "Photo" VARCHAR, "Off" VARCHAR);\n'
        "SELECT line, \"Article\" AS product_id, [['All', 'Hats']] AS categories, "
        "\"Photo\" AS image, CASE WHEN \"Off\" <> '' THEN 'off' END AS left_out FROM feed"
    )
    path = csv(tmp_path, "article;off", "7;", "8;yes")
    found = read_catalogue(path, CatalogueFormat(export=Export(mapping)))
    assert found.rows.to_pylist() == [{"product_id": 7, "category_id": "Hats", "image": ""}]
    assert found.left_out == {"off": 1}
    mapping.write_text('CREATE TABLE feed ("Article" VARCHAR); SELECT nothing FROM feed')
    with pytest.raises(TableError, match=r'own.sql: Binder Error: .*"nothing" not found'):
        read_catalogue(path, CatalogueFormat(export=Export(mapping)))
    mapping.write_text("SELECT 1")
    with pytest.raises(TableError, match="must have two statements: CREATE TABLE feed and SELECT"):
        read_catalogue(path, CatalogueFormat(export=Export(mapping)))
