"""Conditions in requests: what they are called, what they keep, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lookalike.release.attributes import AttributeTypes, Values
from lookalike.release.ids import Id
from lookalike.release.root import ReleaseRoot
from lookalike.serving.searches import Searches
from lookalike.serving.selections import Selections
from support import (
    Client,
    brute_force,
    change,
    client_of,
    give,
    integer_catalogue,
    make_slim,
    post,
    publish,
    random_features,
    rate,
)

TYPES: AttributeTypes = {"price": "number", "on_sale": "flag", "brand": "text"}
CATALOGUE = integer_catalogue()
PRODUCTS = [*range(5000, 8000, 10)]
"""Those of category 40, more than its table holds."""


def values_of(place: int) -> Values:
    """The values of the product at a place of category 40; every tenth has none."""
    if place % 10 == 9:
        return {}
    brand = "a,b" if place % 7 == 0 else f"é {place % 3}"
    return {"price": place % 50 + 0.5, "on_sale": place % 4 == 0, "brand": brand}


VALUES = {product_id: values_of(place) for place, product_id in enumerate(PRODUCTS)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> ReleaseRoot:
    """A root with a release whose category 40 has attributes; tests must not change it."""
    folder = tmp_path_factory.mktemp("attributes")
    found = publish(folder / "root", CATALOGUE, folder / "features")
    give(found, {40: VALUES}, TYPES)
    return found


@pytest.fixture(scope="module")
def client(root: ReleaseRoot) -> Client:
    return client_of(root)


def asked(client: Client, product_id: int, rest: str) -> list[int]:
    answer = client.get(f"/nns?category_id=40&product_id={product_id}&{rest}")
    assert answer.status == "200 OK", answer.body
    found: list[int] = json.loads(answer.body)
    assert found[0] == product_id
    return found[1:]


def posted(client: Client, **fields: Any) -> Any:
    answer = post(client, {"category_id": 40, **fields})
    assert answer.status == "200 OK", answer.body
    return json.loads(answer.body)


def nearest(product_id: int, keeps: Callable[[Values], bool], n: int) -> list[int]:
    """The nearest `n` of brute force that are kept."""
    order, _ = brute_force(CATALOGUE[40][1], PRODUCTS.index(product_id))
    others = [PRODUCTS[item] for item in order]
    return [one for one in others if keeps(VALUES[one])][:n]


def price_of(values: Values) -> float:
    return float(values.get("price") or -1.0)


OF_5070: Values = VALUES[5070]
KEPT: dict[str, Callable[[Values], bool]] = {
    "price=7.5": lambda values: values.get("price") == 7.5,
    "price__lt=10": lambda values: 0 < price_of(values) < 10,
    "price__lte=9.5": lambda values: 0 < price_of(values) <= 9.5,
    "price__gt=1e1": lambda values: price_of(values) > 10,
    "price__gte=10.5": lambda values: price_of(values) >= 10.5,
    "price__in=1.5,2.5,77": lambda values: values.get("price") in (1.5, 2.5),
    "price__notin=1.5": lambda values: values.get("price") != 1.5,
    "price__not=1.5": lambda values: values.get("price") != 1.5,
    "price__missing=true": lambda values: "price" not in values,
    "price__missing=false": lambda values: "price" in values,
    "on_sale=true": lambda values: values.get("on_sale") is True,
    "on_sale=false": lambda values: values.get("on_sale") is False,
    "on_sale__not=true": lambda values: values.get("on_sale") is not True,
    "brand=%C3%A9+1": lambda values: values.get("brand") == "é 1",
    "brand__in=%C3%A9+1,%C3%A9+2": lambda values: values.get("brand") in ("é 1", "é 2"),
    'brand__in=["a,b"]': lambda values: values.get("brand") == "a,b",
    "brand=nobody's": lambda _: False,
    "brand__not=nobody's": lambda _: True,
    "brand__same=true": lambda values: values.get("brand") == OF_5070["brand"],
    "brand__same=false": lambda values: values.get("brand") != OF_5070["brand"],
    "hidden__missing=true": lambda _: True,
    "hidden=true": lambda _: False,
    "price__lt=20&on_sale=true": lambda values: (
        0 < price_of(values) < 20 and values.get("on_sale") is True
    ),
}


@pytest.mark.parametrize("condition", KEPT)
@pytest.mark.parametrize("limit", [2, 12, 200])
def test_an_answer_has_the_nearest_that_meet_the_conditions(
    client: Client, condition: str, limit: int
) -> None:
    assert asked(client, 5070, f"limit={limit}&{condition}") == nearest(
        5070, KEPT[condition], limit - 1
    )


def test_a_category_without_values_has_missing_ones(client: Client) -> None:
    for condition, n in (("price__missing=true", 6), ("price__gt=0", 0), ("brand__not=x", 6)):
        answer = client.get(f"/nns?category_id=2&product_id=5&{condition}")
        assert len(json.loads(answer.body)) == 1 + n


def test_in_a_body_values_are_json(client: Client) -> None:
    fields: dict[str, Any] = {"price__lt": 20, "brand__in": ["é 1", "a,b"], "on_sale": False}
    in_url = 'price__lt=20&brand__in=["é 1","a,b"]&on_sale=false'.replace("é", "%C3%A9")
    expected = [[one, *asked(client, one, in_url)] for one in (5070, 5190)]
    assert posted(client, product_ids=[5070, 5190], **fields) == expected
    vector = CATALOGUE[40][1][7].tolist()
    found = posted(client, vector=vector, limit=9, price__gt=20)
    assert found == nearest(5070, lambda values: price_of(values) > 20, 9)


def test_distinct_returns_so_many_of_each_value(client: Client) -> None:
    for distinct, most in (("brand", 1), ("brand:2", 2), ("on_sale:3", 3)):
        name = distinct.partition(":")[0]
        found = asked(client, 5070, f"limit=300&distinct={distinct}&{name}__missing=false")
        values = [VALUES[one][name] for one in found]
        assert {values.count(value) for value in values} == {most}
    missing = asked(client, 5070, "limit=300&distinct=brand&brand__missing=true")
    assert len(missing) == 30


REFUSED = {
    "cost=5": 'unknown parameter "cost"; known are category_id, product_id, limit, exclude_self, '
    "distances, max_distance, closer_than, distinct, defaults, and conditions on hidden, price, "
    "on_sale, brand",
    "price__below=5": 'unknown condition "price__below"; price is a number and takes price, '
    "price__not, price__in, price__notin, price__lt, price__lte, price__gt, price__gte, "
    "price__missing, price__same",
    "price__=5": 'unknown condition "price__"; price is a number and takes price, ',
    "on_sale__lt=1": 'unknown condition "on_sale__lt"; on_sale is a flag and takes on_sale, ',
    "price=cheap": 'price must be a finite number, not "cheap"',
    "price=5,": 'price must be a finite number, not "5,"',
    "price__in=5,": 'price__in must be a finite number, not ""',
    "price__lt=1e999": "price__lt must be a finite number, not ",
    "price__missing=5": 'price__missing must be true or false, not "5"',
    "on_sale=1": 'on_sale must be true or false, not "1"',
    "brand=": "brand must be text of 1 to 1000 bytes of UTF-8, not ",
    "brand__in=[1": "brand__in begins with [ and is no JSON array",
    "brand__in=[]": "brand__in must be 1 to 100 values, not 0 of them",
    "brand__in=[1]": "brand__in must be text of 1 to 1000 bytes of UTF-8, not 1",
    "brand__same=perhaps": 'brand__same must be true or false, not "perhaps"',
    "distinct=cost": 'distinct must be one of photo, hidden, price, on_sale, brand, not "cost"',
    "distinct=brand:0": "distinct must have a whole number from 1 to 1000 after the colon, not ",
    "distinct=photo:2": 'distinct=photo takes no number, not "photo:2"',
    "closer_than=0": 'closer_than must be a number from 0.01 to 100, such as 0.1, not "0"',
    "defaults=no": "defaults must be true or false, not ",
    "price=5&price=6": "price is given more than once",
    "&".join(f"price__lt={n}" for n in range(1)) + "&price": "price has no value; write price=…",
}


@pytest.mark.parametrize("rest", REFUSED)
def test_what_is_wrong_is_named(client: Client, rest: str) -> None:
    for path in ("/nns", "/related"):
        answer = client.get(f"{path}?category_id=40&product_id=5070&{rest}")
        assert answer.status == "400 Bad Request"
        detail = json.loads(answer.body)["detail"]
        if path == "/nns" or "unknown parameter" not in detail:
            assert detail.startswith(REFUSED[rest])


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"price": "5"}, 'price must be a finite number, not "5"'),
        ({"price": True}, "price must be a finite number, not true"),
        ({"on_sale": "true"}, 'on_sale must be true or false, not "true"'),
        ({"brand__in": "a,b"}, 'brand__in must be 1 to 100 values, not "a,b"'),
        ({"brand": None}, "brand must be text of 1 to 1000 bytes of UTF-8, not null"),
        ({"distinct": 5}, "distinct must be one of photo, hidden, price, on_sale, brand, not 5"),
        ({"closer_than": "1"}, "closer_than must be a number from 0.01 to 100, such as 0.1, not "),
        ({"defaults": "true"}, 'defaults must be true or false, not "true"'),
        ({"cost": 5}, 'unknown field "cost"; known are category_id, product_ids, vector, '),
    ],
)
def test_what_is_wrong_in_a_body_is_named(
    client: Client, fields: dict[str, Any], detail: str
) -> None:
    answer = post(client, {"category_id": 40, "product_ids": [5070], **fields})
    assert (answer.status, json.loads(answer.body)["detail"][: len(detail)]) == (
        "400 Bad Request",
        detail,
    )


def test_a_vector_has_no_value_to_be_the_same_as(client: Client) -> None:
    fields = {"category_id": 40, "vector": [1.0] * 16, "brand__same": True}
    detail = json.loads(post(client, fields).body)["detail"]
    assert detail == "brand__same goes with product_ids; a vector is no product"


def test_too_many_conditions_are_refused(client: Client) -> None:
    names = [f"{name}__{op}" for name in ("price",) for op in ("not", "lt", "lte", "gt", "gte")]
    names += [f"{name}__{op}" for name in TYPES for op in ("missing", "same")]
    names += ["price__in", "price__notin", "brand__in", "brand__notin", "brand__not", "hidden"]
    fields = {name: (5 if "t" in name[5:] or "g" in name else True) for name in names}
    answer = post(client, {"category_id": 40, "product_ids": [5070], **fields})
    assert json.loads(answer.body)["detail"] == "17 conditions are too many: give at most 16"


def test_many_products_may_not_take_many_searches(root: ReleaseRoot) -> None:
    client = client_of(root, searches=Searches(max_per_request=3))
    rare = {"category_id": 40, "limit": 12, "price": 7.5}
    assert post(client, {**rare, "product_ids": PRODUCTS[:3]}).status == "200 OK"
    answer = post(client, {**rare, "product_ids": PRODUCTS[:4]})
    assert answer.status == "400 Bad Request"
    assert json.loads(answer.body)["detail"] == (
        "the conditions take a search for more than 3 of the 4 product_ids: ask for at most 3 "
        "product_ids, or for fewer products of each"
    )
    usual = {"category_id": 40, "limit": 3, "price__gt": 5, "product_ids": PRODUCTS[:40]}
    assert post(client, usual).status == "200 OK"


def test_answers_beyond_the_table_are_counted(root: ReleaseRoot) -> None:
    counted: list[int] = []
    client = client_of(root, searches=Searches(count=lambda: counted.append(1)))
    for rest, n in (("", 0), ("&price__gt=5", 0), ("&price=7.5", 1), ("&limit=300", 2)):
        client.get(f"/nns?category_id=40&product_id=5070{rest}")
        assert len(counted) == n


def test_a_slim_copy_answers_from_the_table(tmp_path: Path) -> None:
    root = publish(tmp_path / "root", CATALOGUE, tmp_path / "features")
    give(root, {40: VALUES}, TYPES)
    table = asked(client_of(root), 5070, "limit=101")
    make_slim(root)
    client = client_of(root)
    for condition, keeps in KEPT.items():
        kept = [one for one in table if keeps(VALUES[one])]
        assert asked(client, 5070, f"limit=200&{condition}") == kept


def test_the_etag_is_that_of_what_the_answer_depends_on(tmp_path: Path) -> None:
    root = publish(tmp_path / "root", CATALOGUE, tmp_path / "features")
    give(root, {40: VALUES}, TYPES)
    paths = {
        name: f"/nns?category_id=40&product_id=5070{rest}"
        for name, rest in (("plain", ""), ("cheap", "&price__lt=5"), ("dear", "&price__gt=5"))
    }
    before = {name: client_of(root).get(path) for name, path in paths.items()}
    assert len({answer.headers["ETag"] for answer in before.values()}) == 3
    give(root, {40: {**VALUES, 5080: {"price": 3.0}}}, TYPES)
    client = client_of(root)
    for name, path in paths.items():
        tag = before[name].headers["ETag"]
        status = client.get(path, HTTP_IF_NONE_MATCH=tag).status
        assert status == ("304 Not Modified" if name == "plain" else "200 OK")
        assert client.get(path).headers["ETag"] == client.get(path + "&limit=9").headers["ETag"]
    with_defaults = client_of(root, selections=Selections("price__lt=5"))
    assert with_defaults.get(paths["plain"]).headers["ETag"] != before["plain"].headers["ETag"]


def test_defaults_hold_unless_a_request_says_otherwise(root: ReleaseRoot) -> None:
    client = client_of(root, selections=Selections("price__lt=20&on_sale=true&distinct=photo"))
    plain = client_of(root)

    def same(rest: str, written_out: str) -> None:
        assert asked(client, 5070, rest) == asked(plain, 5070, written_out)

    same("limit=12", "limit=12&price__lt=20&on_sale=true")
    same("limit=12&on_sale=false", "limit=12&price__lt=20&on_sale=false")
    same("limit=12&price__missing=false", "limit=12&on_sale=true")
    same("limit=12&defaults=false", "limit=12")
    same("defaults=false&price__lt=5", "price__lt=5")
    same("distances=false&exclude_self=false", "price__lt=20&on_sale=true")
    assert posted(client, product_ids=[5070], limit=12) == [
        [5070, *asked(plain, 5070, "limit=12&price__lt=20&on_sale=true")]
    ]
    assert posted(client, product_ids=[5070], limit=12, defaults=False) == [
        [5070, *asked(plain, 5070, "limit=12")]
    ]
    related = json.loads(client.get("/related?product_id=5070&category_id=40").body)
    assert related["product_ids"] == asked(plain, 5070, "limit=13&price__lt=20&on_sale=true")
    release = json.loads(client.get("/release").body)
    assert release["defaults_problem"] is None
    assert release["attributes"] == {"hidden": "flag", **TYPES}


def test_defaults_that_do_not_apply_are_reported(
    root: ReleaseRoot, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_of(root, selections=Selections("cost__lt=20&on_sale=true"))
    assert asked(client, 5070, "limit=12") == asked(client_of(root), 5070, "limit=12")
    problem = json.loads(client.get("/release").body)["defaults_problem"]
    assert problem.startswith(
        'LOOKALIKE_DEFAULTS does not apply to this release: unknown parameter "cost__lt"; known are '
    )
    assert caplog.messages.count(problem) == 1


def test_what_others_rated_meets_the_conditions_wherever_it_is(tmp_path: Path) -> None:
    root = publish(tmp_path / "root", CATALOGUE, tmp_path / "features")
    ratings: list[tuple[str, Id, int]] = [
        (user, one, 1_700_000_000) for user in "uvw" for one in (5070, 5080, 5120, 100, 110)
    ]
    rate(root, ratings)
    dear: dict[Id, Values] = {100: {"price": 90.0}, 110: {"price": 5.0}}
    give(root, {40: VALUES, 1: dear}, TYPES)
    client = client_of(root, b_percent=0)

    def related(rest: str) -> tuple[set[int], str]:
        answer = client.get(f"/related?product_id=5070&category_id=40&visitor=a{rest}")
        found = json.loads(answer.body)
        return set(found["product_ids"]), found["method"]

    assert related("") == ({5080, 5120, 100, 110}, "behaviour")
    assert related("&price__gt=10") == ({5120, 100}, "behaviour")
    assert related("&price__gt=80") == ({100}, "behaviour")
    found, method = related("&price=48.5")
    assert method == "image"
    assert {VALUES[one]["price"] for one in found} == {48.5}


def test_a_hidden_product_that_came_live_has_its_own_answer(tmp_path: Path) -> None:
    root = publish(tmp_path / "root", CATALOGUE, tmp_path / "features")
    feature = random_features(1, 77)[0]
    change(root, {40: {5: feature}}, values={40: {5: {"hidden": True}, 5000: {"hidden": True}}})
    client = client_of(root)
    order, _ = brute_force(np.vstack([CATALOGUE[40][1], feature]), len(PRODUCTS))
    expected = [PRODUCTS[item] for item in order if PRODUCTS[item] != 5000]
    for rest in ("", "&hidden__missing=true", "&distinct=photo"):
        assert asked(client, 5, f"limit=400{rest}") == expected
    assert not {5, 5000} & set(asked(client, 5010, "limit=400"))
    assert posted(client, vector=feature.tolist(), limit=400) == expected
