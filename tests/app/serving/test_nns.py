"""GET /nns answers as DESIGN says: by WSGI, without a server."""

import json
import math
from urllib.parse import quote, quote_plus

import numpy as np
import pytest

from lookalike.release.category import within
from lookalike.release.root import ReleaseRoot
from support import (
    Client,
    brute_force,
    client_of,
    etag_of,
    integer_catalogue,
    string_catalogue,
)


@pytest.fixture(scope="module")
def client(integer_root: ReleaseRoot) -> Client:
    return client_of(integer_root)


def test_every_product_answers_with_itself_and_the_brute_force_ranking(client: Client) -> None:
    for category_id, (product_ids, features) in integer_catalogue().items():
        for item, product_id in enumerate(product_ids):
            target = (
                f"/nns?category_id={category_id}&product_id={product_id}&limit=101&distances=true"
            )
            answer = json.loads(client.get(target).body)
            order, distances = brute_force(features, item)
            expected = [product_id, *(product_ids[other] for other in order[:100])]
            assert answer["product_ids"] == expected
            np.testing.assert_allclose(answer["distances"][1:], distances[:100], rtol=1e-6)
            assert answer["distances"][0] == 0


def test_the_answer_is_compact_json_with_length_type_and_etag(
    client: Client, integer_root: ReleaseRoot
) -> None:
    answer = client.get("/nns?category_id=2&product_id=900&limit=2")
    assert answer.status == "200 OK"
    assert answer.body.startswith(b"[900,")
    assert b" " not in answer.body
    assert answer.headers == {
        "Content-Type": "application/json",
        "Content-Length": str(len(answer.body)),
        "ETag": etag_of(integer_root, 2),
        "Cache-Control": "public, max-age=10, stale-while-revalidate=60, stale-if-error=86400",
    }


def test_limit_is_ten_by_default_and_counts_the_product_itself(client: Client) -> None:
    answer = json.loads(client.get("/nns?category_id=1&product_id=123").body)
    assert len(answer) == 10
    assert answer[0] == 123


def test_limit_one_is_the_product_itself(client: Client) -> None:
    assert client.get("/nns?category_id=1&product_id=123&limit=1").body == b"[123]"


def test_exclude_self_leaves_the_product_out_and_still_fills_the_limit(client: Client) -> None:
    whole = json.loads(client.get("/nns?category_id=1&product_id=123&limit=13").body)
    without = client.get("/nns?category_id=1&product_id=123&limit=12&exclude_self=true")
    assert json.loads(without.body) == whole[1:]


def test_a_category_smaller_than_the_limit_answers_with_what_there_is(client: Client) -> None:
    assert len(json.loads(client.get("/nns?category_id=2&product_id=0&limit=1000").body)) == 7
    assert client.get("/nns?category_id=3&product_id=77&limit=1000").body == b"[77]"
    alone = client.get("/nns?category_id=3&product_id=77&exclude_self=true&distances=true")
    assert alone.body == b'{"product_ids":[],"distances":[]}'


def test_beyond_the_table_the_answer_begins_with_it_and_goes_on_without_repeats(
    client: Client,
) -> None:
    product_ids, features = integer_catalogue()[40]
    for item in (0, 150, 299):
        target = f"/nns?category_id=40&product_id={product_ids[item]}&distances=true&limit="
        exact = json.loads(client.get(target + "101").body)
        more = json.loads(client.get(target + "250").body)
        assert more["product_ids"][:101] == exact["product_ids"]
        assert len(set(more["product_ids"])) == len(more["product_ids"]) > 240
        assert more["distances"] == sorted(more["distances"])
        order, distances = brute_force(features, item)
        true = dict(zip((product_ids[other] for other in order), distances, strict=True))
        found = [true[product_id] for product_id in more["product_ids"][1:]]
        np.testing.assert_allclose(more["distances"][1:], found, atol=1e-6)


def test_beyond_the_table_may_be_all_of_the_category(client: Client) -> None:
    answer = json.loads(client.get("/nns?category_id=40&product_id=5000&limit=1000").body)
    assert sorted(answer) == list(range(5000, 8000, 10))


@pytest.mark.parametrize("limit", [12, 101, 250])
def test_no_neighbour_is_further_away_than_asked(client: Client, limit: int) -> None:
    product_ids, _ = integer_catalogue()[40]
    for item in (0, 150, 299):
        target = f"/nns?category_id=40&product_id={product_ids[item]}&limit={limit}&distances=true"
        whole = json.loads(client.get(target).body)
        found, distances = whole["product_ids"], whole["distances"]
        for place in (1, 5, limit // 2, len(found) - 1):
            for most, n in ((distances[place], place + 1), (distances[place] - 1e-6, place)):
                answer = json.loads(client.get(f"{target}&max_distance={most:.12f}").body)
                assert answer["product_ids"] == found[:n]
                assert answer["distances"] == distances[:n]


def test_the_product_itself_is_never_too_far_away(client: Client) -> None:
    target = "/nns?category_id=1&product_id=123&max_distance=0"
    assert client.get(target).body == b"[123]"
    assert client.get(f"{target}&exclude_self=true").body == b"[]"
    assert client.get("/nns?category_id=1&product_id=123&max_distance=2").body == (
        client.get("/nns?category_id=1&product_id=123").body
    )


def test_a_distance_is_one_as_it_is_shown(client: Client) -> None:
    """A distance is a float32, and 0.8 is none: whoever sends it means the nearest that is."""
    shown = np.float32(0.8)
    items, distances = np.arange(3, dtype=np.uint32), np.array([0.5, shown, 0.9], np.float32)
    assert within(items, distances, 0.8)[0].tolist() == [0, 1]
    assert within(items, distances, float(shown))[0].tolist() == [0, 1]
    assert within(items, distances, math.inf)[0].tolist() == [0, 1, 2]
    target = "/nns?category_id=1&product_id=123&max_distance="
    assert client.get(target + "1e-3").body == b"[123]"
    assert len(json.loads(client.get(target + "2e0").body)) == 10


@pytest.mark.parametrize(
    "text", ["-0.1", "2.1", "nan", "inf", "1e1", "1e", "0,8", ".8", "0.", "%200.8", "x", "0" * 99]
)
def test_a_distance_that_is_none_is_refused(client: Client, text: str) -> None:
    for path in ("/nns", "/related"):
        answer = client.get(f"{path}?category_id=1&product_id=123&max_distance={text}")
        assert answer.status == "400 Bad Request"
        assert "max_distance must be a number from 0 to 2" in json.loads(answer.body)["detail"]


def test_string_ids_are_found_however_they_are_escaped(string_root: ReleaseRoot) -> None:
    client = client_of(string_root)
    for category_id, (product_ids, _) in string_catalogue().items():
        for product_id in product_ids:
            for escape in (quote, quote_plus):
                category, product = escape(str(category_id), safe=""), escape(product_id, safe="")
                answer = client.get(f"/nns?product_id={product}&category_id={category}&limit=64")
                assert answer.status == "200 OK"
                found = json.loads(answer.body)
                assert found[0] == product_id
                assert sorted(found) == sorted(product_ids)


@pytest.mark.parametrize(
    "target",
    [
        "/nns?category_id=9&product_id=100",
        "/nns?category_id=1&product_id=1",
        "/nns?category_id=1&product_id=160",
        "/nns?category_id=1&product_id=9223372036854775807",
    ],
)
def test_an_unknown_category_or_product_is_404(client: Client, target: str) -> None:
    answer = client.get(target)
    assert answer.status == "404 Not Found"
    assert answer.body == b'{"error":"not_found"}'


@pytest.mark.parametrize("product_id", ["A", "A-1x", "zz", "z" * 63, "%C3%BC", "00", "%E6%97%A5"])
def test_an_unknown_string_product_is_404(string_root: ReleaseRoot, product_id: str) -> None:
    answer = client_of(string_root).get(f"/nns?category_id=shoes&product_id={product_id}")
    assert answer.status == "404 Not Found"


def test_head_answers_like_get_without_the_body(client: Client) -> None:
    for target in ("/nns?category_id=1&product_id=100", "/nns?category_id=1", "/healthz", "/none"):
        get, head = client.get(target), client.get(target, method="HEAD")
        assert (head.status, head.headers) == (get.status, get.headers)
        assert head.body == b""


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", W/{}', "*", " {} "])
def test_if_none_match_of_this_category_is_304(
    client: Client, integer_root: ReleaseRoot, form: str
) -> None:
    condition = form.format(etag_of(integer_root, 1))
    answer = client.get("/nns?category_id=1&product_id=100", HTTP_IF_NONE_MATCH=condition)
    assert answer.status == "304 Not Modified"
    assert answer.body == b""
    assert set(answer.headers) == {"ETag", "Cache-Control"}


@pytest.mark.parametrize("condition", ['"other"', "", "current", 'W/"x", "y"'])
def test_if_none_match_of_another_is_answered_in_full(client: Client, condition: str) -> None:
    answer = client.get("/nns?category_id=1&product_id=100", HTTP_IF_NONE_MATCH=condition)
    assert answer.status == "200 OK"


def test_if_none_match_does_not_hide_what_is_wrong(client: Client) -> None:
    unknown = client.get("/nns?category_id=1&product_id=1", HTTP_IF_NONE_MATCH="*")
    malformed = client.get("/nns?category_id=1", HTTP_IF_NONE_MATCH="*")
    assert (unknown.status[:3], malformed.status[:3]) == ("404", "400")


def test_max_limit_is_the_setting(integer_root: ReleaseRoot) -> None:
    client = client_of(integer_root, max_limit=5)
    assert client.get("/nns?category_id=1&product_id=100&limit=5").status == "200 OK"
    refused = client.get("/nns?category_id=1&product_id=100&limit=6")
    assert refused.status == "400 Bad Request"
    assert "from 1 to 5" in json.loads(refused.body)["detail"]
    assert len(json.loads(client.get("/nns?category_id=1&product_id=100").body)) == 5
