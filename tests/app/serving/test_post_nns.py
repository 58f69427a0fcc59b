"""POST /nns: many products at once, or a vector."""

import io
import json

import numpy as np
import pytest

from lookalike.release.root import ReleaseRoot
from lookalike.serving.application import AnswerLimits, Application
from lookalike.serving.body import MAX_BYTES
from lookalike.serving.searches import Searches
from lookalike.serving.source import ReleaseSource
from support import (
    Client,
    brute_force,
    client_of,
    etag_of,
    integer_catalogue,
    make_slim,
    post,
    random_features,
    string_catalogue,
)


@pytest.fixture(scope="module")
def client(integer_root: ReleaseRoot) -> Client:
    return client_of(integer_root)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"limit": 1},
        {"limit": 7, "exclude_self": True},
        {"limit": 200},
        {"limit": 12, "distances": True},
        {"limit": 150, "distances": True, "exclude_self": True},
        {"limit": 150, "distances": True, "max_distance": 1.25},
        {"max_distance": 1, "exclude_self": True},
    ],
)
def test_many_products_are_answered_as_each_alone(
    client: Client, options: dict[str, object]
) -> None:
    limit = int(str(options.get("limit", 10)))
    for category_id, (product_ids, _) in integer_catalogue().items():
        n = 3 if limit > 101 else 50
        asked = [*product_ids[:n], product_ids[0]]
        answer = post(client, {"category_id": category_id, "product_ids": asked, **options})
        assert answer.status == "200 OK"
        query = "".join(f"&{name}={json.dumps(value)}" for name, value in options.items())
        alone = [
            client.get(f"/nns?category_id={category_id}&product_id={product_id}{query}").body
            for product_id in asked
        ]
        assert answer.body == b"[" + b",".join(alone) + b"]"


def test_an_unknown_product_is_null_among_the_others(client: Client) -> None:
    answer = post(client, {"category_id": 1, "product_ids": [1, 100, 2], "limit": 1})
    assert answer.body == b"[null,[100],null]"


def test_text_ids_are_answered(string_root: ReleaseRoot) -> None:
    ids, _ = string_catalogue()["shoes"]
    client = client_of(string_root)
    answers = json.loads(post(client, {"category_id": "shoes", "product_ids": ids}).body)
    assert [answer[0] for answer in answers] == ids
    assert {len(answer) for answer in answers} == {10}


def test_the_answer_has_the_etag_of_its_category_and_is_not_for_caching(
    client: Client, integer_root: ReleaseRoot
) -> None:
    etag = etag_of(integer_root, 3)
    answer = post(client, {"category_id": 3, "product_ids": [77]}, HTTP_IF_NONE_MATCH=etag)
    assert (answer.status, answer.body) == ("200 OK", b"[[77]]")
    assert answer.headers == {
        "Content-Type": "application/json",
        "Content-Length": "6",
        "ETag": etag,
        "Cache-Control": "no-store",
    }


@pytest.mark.parametrize("n", [1, 12, 60, 300, 1000])
def test_a_vector_is_answered_with_what_is_nearest(client: Client, n: int) -> None:
    for category_id, (product_ids, features) in integer_catalogue().items():
        for vector in random_features(20, 77):
            order, distances = brute_force(np.vstack([features, vector]), len(features))
            document = {"category_id": category_id, "vector": vector.tolist(), "limit": n}
            answer = json.loads(post(client, {**document, "distances": True}).body)
            assert len(answer["product_ids"]) == min(n, len(product_ids))
            exact = [product_ids[item] for item in order[:n]]
            found = set(answer["product_ids"])
            assert len(found & set(exact)) >= 0.95 * len(exact)
            assert answer["distances"] == sorted(answer["distances"])
            by_id = dict(zip((product_ids[item] for item in order), distances, strict=True))
            expected = [by_id[product_id] for product_id in answer["product_ids"]]
            np.testing.assert_allclose(answer["distances"], expected, atol=1e-6)
            assert json.loads(post(client, document).body) == answer["product_ids"]


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1, 1e30, 1e300])
def test_the_scale_of_a_vector_does_not_matter(client: Client, scale: float) -> None:
    product_ids, features = integer_catalogue()[40]
    vector = (features[7].astype(np.float64) * scale).tolist()
    answer = json.loads(post(client, {"category_id": 40, "vector": vector}).body)
    assert answer[0] == product_ids[7]
    assert len(answer) == 10


def test_whole_numbers_are_numbers(client: Client) -> None:
    ones = json.loads(post(client, {"category_id": 1, "vector": [1] * 16}).body)
    assert ones == json.loads(post(client, {"category_id": 1, "vector": [0.5] * 16}).body)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (f"{10**400}", "vector has a number beyond what a float64 holds"),
        ("1e400", "the body is not JSON in UTF-8"),
        ("[" * 100_000 + "]" * 100_000, "the body is not JSON in UTF-8"),
    ],
    ids=["integer", "float", "deep"],
)
def test_what_python_cannot_hold_is_refused(client: Client, value: str, problem: str) -> None:
    body = f'{{"category_id": 1, "vector": [{", ".join([value, *["1"] * 15])}]}}'.encode()
    headers = {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
    answer = client.get("/nns", "POST", **headers)
    assert answer.status == "400 Bad Request"
    assert json.loads(answer.body)["detail"] == problem


def test_the_settings_bound_what_is_asked(integer_root: ReleaseRoot) -> None:
    source = ReleaseSource(integer_root)
    source.look()
    client = Client(Application(source, AnswerLimits(5, max_product_ids=2)))
    answers = json.loads(post(client, {"category_id": 1, "product_ids": [100, 101]}).body)
    assert [len(answer) for answer in answers] == [5, 5]
    more = post(client, {"category_id": 1, "product_ids": [100, 101, 102]})
    assert b"product_ids must be an array of 1 to 2 product ids, not 3 of them" in more.body
    assert (
        b"from 1 to 5, not 6"
        in post(client, {"category_id": 1, "product_ids": [1], "limit": 6}).body
    )


@pytest.mark.parametrize(("exclude_self", "most"), [(False, 101), (True, 100)])
def test_beyond_the_table_few_products_are_answered_at_once(
    integer_root: ReleaseRoot, exclude_self: bool, most: int
) -> None:
    client = client_of(integer_root, searches=Searches(max_per_request=2))
    ids = integer_catalogue()[40][0]
    asked = {"category_id": 40, "exclude_self": exclude_self}
    for product_ids, limit, status in (
        (ids[:2], most + 1, "200 OK"),
        (ids[:3], most, "200 OK"),
        (ids[:3], most + 1, "400 Bad Request"),
        (ids[:1] * 3, 1000, "400 Bad Request"),
    ):
        answer = post(client, {**asked, "product_ids": product_ids, "limit": limit})
        assert answer.status == status
    assert json.loads(answer.body)["detail"] == (
        "a limit of 1000 is beyond the table of category 40 and 3 product_ids are too many for that: "
        f"ask for at most 2 product_ids, or for a limit of at most {most}"
    )


def test_where_nothing_is_searched_for_any_limit_goes_with_many_products(root: ReleaseRoot) -> None:
    """The table holds all of a small category, and in a slim copy there is nothing beyond it."""
    few = Searches(max_per_request=1, percent=1, clock=iter(range(0, -100, -1)).__next__)
    batch = {"category_id": 1, "product_ids": list(range(100, 160)), "limit": 1000}
    assert post(client_of(root, searches=few), batch).status == "200 OK"
    make_slim(root)
    ids = integer_catalogue()[40][0]
    batch = {"category_id": 40, "product_ids": ids[:50], "limit": 1000}
    assert post(client_of(root, searches=few), batch).status == "200 OK"


def test_a_body_that_is_too_large_is_not_read(client: Client) -> None:
    class Unread(io.BytesIO):
        def read(self, n: int | None = -1) -> bytes:
            raise AssertionError

    answer = client.get(
        "/nns",
        "POST",
        CONTENT_LENGTH=str(MAX_BYTES + 1),
        CONTENT_TYPE="",
        **{"wsgi.input": Unread()},
    )
    assert answer.status == "413 Content Too Large"
    assert json.loads(answer.body)["error"] == "too_large"


def test_without_a_release_it_is_503(root: ReleaseRoot) -> None:
    client = Client(Application(ReleaseSource(root)))
    answer = post(client, {"category_id": 1, "product_ids": [100]})
    assert answer.status == "503 Service Unavailable"


def test_a_slim_copy_answers_all_but_vectors(root: ReleaseRoot) -> None:
    full = client_of(root)
    asked = [
        f"/nns?category_id={category_id}&product_id={product_id}&limit=101&distances=true"
        for category_id, (product_ids, _) in integer_catalogue().items()
        for product_id in product_ids[:20]
    ]
    expected = [full.get(target) for target in asked]
    batch = {"category_id": 1, "product_ids": [100, 101]}
    expected_batch = post(full, batch)
    make_slim(root)
    slim = client_of(root)
    assert [slim.get(target).body for target in asked] == [answer.body for answer in expected]
    assert post(slim, batch).body == expected_batch.body
    etags = {client.get(asked[0]).headers["ETag"] for client in (full, slim)}
    etag = etag_of(root, 1)
    assert etags == {etag, f'{etag[:-1]}-slim"'}
    assert json.loads(slim.get("/release").body)["slim"] is True
    assert json.loads(full.get("/release").body)["slim"] is False
    assert list(root.check(str(root.current())))
    answer = post(slim, {"category_id": 1, "vector": [1] * 16})
    assert answer.status == "501 Not Implemented"
    assert json.loads(answer.body)["error"] == "slim_copy"
    assert post(slim, {"category_id": 99, "vector": [1] * 16}).status == "404 Not Found"


def test_beyond_the_table_a_slim_copy_ends_with_it(root: ReleaseRoot) -> None:
    target = "/nns?category_id=40&product_id=5000&limit={}"
    table = client_of(root).get(target.format(101)).body
    make_slim(root)
    assert client_of(root).get(target.format(250)).body == table
