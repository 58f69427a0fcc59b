"""``GET /related``: which pattern, what answers, and what never does."""

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.choice import ANSWERING, Answering, Choice
from lookalike.experiment import Experiment
from lookalike.release.root import ReleaseRoot
from lookalike.release.rules import Rule
from lookalike.serving.application import AnswerLimits, Application
from lookalike.serving.source import ReleaseSource
from support import (
    RANDOM_CASES,
    Client,
    Response,
    client_of,
    integer_catalogue,
    publish,
    rate,
    ruled,
    string_catalogue,
)

T = 1_700_000_000
UNSEEN = 424242
"""Rated, but not in the catalogue: a product whose photo is not indexed yet."""
# Who rated 100 rated 5000, 120 and 130 too, more of them 5000; who rated 140 rated nothing else.
RATINGS: list[tuple[str, Any, int]] = [
    *((user, product_id, T) for user in ("u", "v") for product_id in (100, 5000, UNSEEN)),
    ("u", 120, T),
    ("v", 130, T - 86_400),
    ("w", 140, T),
]


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> ReleaseRoot:
    """A root with one release of `integer_catalogue` and behaviour; tests must not change it."""
    folder = tmp_path_factory.mktemp("rated")
    root = publish(folder / "root", integer_catalogue(), folder / "features")
    rate(root, RATINGS)
    return root


def ask(client: Client, query: str) -> dict[str, Any]:
    answer = client.get(f"/related?{query}")
    assert answer.status == "200 OK"
    body = dict(json.loads(answer.body))
    check_headers(answer, body)
    return body


def check_headers(answer: Response, body: dict[str, Any]) -> None:
    assert answer.headers["X-Lookalike-Pattern"] == body["pattern"]
    assert answer.headers["X-Lookalike-Method"] == body["method"]
    assert answer.headers["Cache-Control"] == "no-store"


def similar(client: Client, category_id: int, product_id: int, limit: int = 12) -> list[int]:
    target = f"/nns?category_id={category_id}&product_id={product_id}&exclude_self=true"
    return list(json.loads(client.get(f"{target}&limit={limit}").body))


def test_pattern_b_answers_with_similar_images(rated: ReleaseRoot) -> None:
    client = client_of(rated, b_percent=100)
    expected = {"product_ids": similar(client, 1, 100), "pattern": "B", "method": "image"}
    assert len(expected["product_ids"]) == 12
    assert ask(client, "product_id=100&category_id=1") == expected
    assert ask(client, "category_id=1&product_id=100&visitor=v") == expected


def test_pattern_a_answers_with_what_the_same_people_rated(rated: ReleaseRoot) -> None:
    expected = {"product_ids": [5000, 120, 130], "pattern": "A", "method": "behaviour"}
    client = client_of(rated, b_percent=0)
    assert ask(client, "product_id=100&category_id=1") == expected
    assert ask(client, "category_id=1&product_id=100&visitor=v") == expected


def test_similar_images_are_no_further_away_than_asked(rated: ReleaseRoot) -> None:
    client = client_of(rated, b_percent=100)
    target = "/nns?category_id=1&product_id=100&limit=13&distances=true"
    near = json.loads(client.get(target).body)
    fifth = near["distances"][5]
    expected = {"product_ids": near["product_ids"][1:6], "pattern": "B", "method": "image"}
    assert ask(client, f"product_id=100&category_id=1&max_distance={fifth}") == expected
    # Where none is near enough, what others rated answers, and nothing where there is none of that.
    expected = {"product_ids": [5000, 120, 130], "pattern": "B", "method": "behaviour"}
    assert ask(client, "product_id=100&category_id=1&max_distance=0") == expected
    assert ask(client, "product_id=123&category_id=1&max_distance=0")["method"] == "none"


def test_pins_and_bans_hold_whichever_method_answers(tmp_path: Path) -> None:
    root = publish(tmp_path / "root", integer_catalogue(), tmp_path / "features")
    rate(root, RATINGS)
    near = similar(client_of(root), 1, 100)
    bans = [Rule(100, "ban", 5000), Rule(None, "ban", near[0])]
    ruled(root, {1: [Rule(None, "pin", near[3]), Rule(100, "pin", 130), *bans]})
    a, b = (client_of(root, b_percent=share) for share in (0, 100))
    expected = {"product_ids": [130, near[3], 120], "pattern": "A", "method": "behaviour"}
    assert ask(a, "product_id=100&category_id=1") == expected
    others = [one for one in near[1:] if one not in (near[3], 130)]
    found = ask(b, "product_id=100&category_id=1&limit=9")
    assert found["method"] == "image"
    assert found["product_ids"][:9] == [130, near[3], *others][:9]
    assert ask(b, "product_id=100&category_id=1&limit=1")["product_ids"] == [130]
    found = ask(b, "product_id=100&category_id=1&limit=2&exclude=130")
    assert found["product_ids"] == [near[3], others[0]]
    # Pins do not stand for an answer: the other method is asked, and none may have any.
    found = ask(b, "product_id=100&category_id=1&max_distance=0")
    assert found == expected | {"pattern": "B"}
    found = ask(b, "product_id=123&category_id=1&max_distance=0")
    assert found == {"product_ids": [near[3]], "pattern": "B", "method": "none"}
    assert ask(a, "product_id=424242&category_id=1")["product_ids"][0] == near[3]
    assert ask(a, "product_id=100&category_id=2")["product_ids"] == [5000, 120, 130]


def test_what_one_pattern_cannot_answer_the_other_does(rated: ReleaseRoot) -> None:
    a, b = (client_of(rated, b_percent=share) for share in (0, 100))
    expected = {"product_ids": similar(a, 1, 140), "pattern": "A", "method": "image"}
    assert ask(a, "product_id=140&category_id=1") == expected
    expected = {"product_ids": [100, 5000, 120, 130], "pattern": "B", "method": "behaviour"}
    assert ask(b, f"product_id={UNSEEN}&category_id=1") == expected
    # A category that there is none of, or another than the product's, has no image for it either.
    assert ask(b, "product_id=100&category_id=77")["method"] == "behaviour"
    assert ask(b, "product_id=100&category_id=2")["method"] == "behaviour"
    # The only product of its category has no neighbours.
    assert ask(b, "product_id=77&category_id=3")["method"] == "none"


@pytest.mark.parametrize("b_percent", [0, 100])
def test_what_neither_can_answer_is_empty(rated: ReleaseRoot, b_percent: int) -> None:
    pattern = "AB"[b_percent // 100]
    expected = {"product_ids": [], "pattern": pattern, "method": "none"}
    assert ask(client_of(rated, b_percent=b_percent), "product_id=1&category_id=1") == expected


def test_without_behaviour_images_answer_all(integer_root: ReleaseRoot) -> None:
    client = client_of(integer_root, b_percent=0)
    expected = {"product_ids": similar(client, 1, 100), "pattern": "A", "method": "image"}
    assert ask(client, "product_id=100&category_id=1") == expected


def test_excluded_products_make_room_for_further_ones(rated: ReleaseRoot) -> None:
    a, b = (client_of(rated, b_percent=share) for share in (0, 100))
    near = similar(b, 1, 100, limit=20)
    excluded = [near[0], near[5], near[11], 100, 31]
    query = "product_id=100&category_id=1" + "".join(f"&exclude={one}" for one in excluded)
    expected = [one for one in near if one not in excluded][:12]
    assert len(expected) == 12
    assert ask(b, query)["product_ids"] == expected
    assert ask(a, "product_id=100&category_id=1&exclude=5000")["product_ids"] == [120, 130]
    query = "product_id=100&category_id=1&exclude=5000&exclude=120&exclude=130"
    assert ask(a, query)["method"] == "image"


@pytest.mark.parametrize("limit", [1, 3, 59, 60, 200])
def test_the_limit_is_kept_and_used(rated: ReleaseRoot, limit: int) -> None:
    client = client_of(rated, b_percent=100)
    found = ask(client, f"product_id=100&category_id=1&limit={limit}")["product_ids"]
    assert found == similar(client, 1, 100, limit)
    assert len(found) == min(limit, 59)


def test_beyond_the_table_the_index_goes_on(rated: ReleaseRoot) -> None:
    client = client_of(rated, b_percent=100)
    found = ask(client, "product_id=5000&category_id=40&limit=150")["product_ids"]
    assert found == similar(client, 40, 5000, 150)
    assert len(found) > 100


def test_a_visitor_gets_one_pattern_whatever_is_asked(rated: ReleaseRoot) -> None:
    client = client_of(rated)
    patterns: Counter[str] = Counter()
    for visitor in [f"v{i}" for i in range(40)] + ["%C3%A9", "a.b"]:
        seen = {
            ask(client, f"product_id={one}&category_id={other}&visitor={visitor}{more}")["pattern"]
            for one, other in ((100, 1), (140, 1), (5000, 40), (1, 1))
            for more in ("", "&limit=3", "&exclude=7")
        }
        assert len(seen) == 1
        patterns.update(seen)
    assert set(patterns) == {"A", "B"}


@pytest.mark.parametrize("product_id", [100, 140, UNSEEN, 1])
def test_without_a_visitor_the_draw_is_even_whatever_answers(
    rated: ReleaseRoot, product_id: int
) -> None:
    client, n = client_of(rated), 2000
    drawn = Counter(
        ask(client, f"product_id={product_id}&category_id=1")["pattern"] for _ in range(n)
    )
    assert abs(drawn["B"] - n / 2) < 5 * math.sqrt(n) / 2


def test_string_ids(tmp_path: Path) -> None:
    root = publish(tmp_path / "root", string_catalogue(), tmp_path / "features")
    rate(root, [("u", "A-1", T), ("u", "ü/3", T), ("u", "a&b=c", T - 1)])
    a, b = (client_of(root, b_percent=share) for share in (0, 100))
    assert ask(a, "product_id=A-1&category_id=shoes")["product_ids"] == ["ü/3", "a&b=c"]
    query = "product_id=A-1&category_id=shoes&exclude=a%26b%3Dc"
    assert ask(a, query)["product_ids"] == ["ü/3"]
    found = ask(b, query)
    assert found["method"] == "image"
    assert len(found["product_ids"]) == 9
    assert "a&b=c" not in found["product_ids"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("category_id=1", "product_id is missing"),
        ("product_id=1", "category_id is missing"),
        ("product_id=x&category_id=1", "product_id must be a whole number"),
        ("product_id=1&category_id=x", "category_id must be a whole number"),
        ("product_id=1&category_id=1&limit=0", "limit must be a whole number from 1 to 1000"),
        ("product_id=1&category_id=1&exclude=x", "exclude must be a whole number"),
        ("product_id=1&category_id=1&exclude", "exclude has no value"),
        ("product_id=1&category_id=1" + 51 * "&exclude=1", "exclude may be given 50 times, not 51"),
        ("product_id=1&category_id=1&visitor=", "visitor must have from 1 to 256 characters"),
        ("product_id=1&category_id=1&visitor=" + 257 * "v", "visitor must have from 1 to 256"),
        ("product_id=1&category_id=1&visitor=a&visitor=b", "visitor is given more than once"),
        ("product_id=1&category_id=1&visitor=%ff", "visitor is not UTF-8"),
        ("product_id=1&category_id=1&pattern=B", 'unknown parameter "pattern"'),
    ],
)
def test_what_is_unfit_is_named(rated: ReleaseRoot, query: str, said: str) -> None:
    answer = client_of(rated).get(f"/related?{query}")
    assert answer.status == "400 Bad Request"
    assert said in json.loads(answer.body)["detail"]


def test_without_a_release_it_is_not_ready(tmp_path: Path) -> None:
    answer = client_of(ReleaseRoot(tmp_path)).get("/related?product_id=1&category_id=1")
    assert answer.status == "503 Service Unavailable"


def test_other_methods(rated: ReleaseRoot) -> None:
    client = client_of(rated)
    target = "/related?product_id=100&category_id=1&visitor=v"
    got, head = client.get(target), client.get(target, "HEAD")
    assert (head.status, head.headers, head.body) == (got.status, got.headers, b"")
    assert client.get(target, "POST").status == "405 Method Not Allowed"
    assert client.get(target, HTTP_IF_NONE_MATCH="*").status == "200 OK"


def test_answers_are_counted_by_pattern_and_method(rated: ReleaseRoot) -> None:
    client = client_of(rated, b_percent=100)
    for query, times in (("product_id=100", 3), (f"product_id={UNSEEN}", 2), ("product_id=1", 1)):
        for _ in range(times):
            ask(client, f"{query}&category_id=1")
    text = client.get("/metrics").body.decode()
    counted = re.findall(r'lookalike_related_total\{pattern="B",method="(\w+)"\} (\d+)', text)
    assert dict(counted) == {"image": "3", "behaviour": "2", "none": "1"}
    assert 'lookalike_requests_total{route="/related",status="200"} 6' in text


def chosen(root: ReleaseRoot, categories: dict[str, Answering], default: Answering) -> Client:
    """The app with a choice that all visitors get."""
    source = ReleaseSource(root)
    source.look()
    experiment = Experiment(holdout_percent=0)
    return Client(Application(source, experiment=experiment, choice=Choice(default, categories)))


def test_what_was_chosen_for_a_category_answers(rated: ReleaseRoot) -> None:
    image, behaviour = (chosen(rated, {"1": of}, "image") for of in ANSWERING[::-1])
    for query in ("product_id=100&category_id=1", "category_id=1&product_id=100&visitor=v"):
        expected = {"product_ids": similar(image, 1, 100), "pattern": "chosen", "method": "image"}
        assert ask(image, query) == expected
        expected = {"product_ids": [5000, 120, 130], "pattern": "chosen", "method": "behaviour"}
        assert ask(behaviour, query) == expected
    # Of what it cannot answer, the other does.
    assert ask(behaviour, "product_id=140&category_id=1")["method"] == "image"
    assert ask(image, f"product_id={UNSEEN}&category_id=1")["method"] == "behaviour"
    assert ask(image, "product_id=1&category_id=1")["method"] == "none"


@pytest.mark.parametrize("default", ANSWERING)
def test_in_all_other_categories_the_default_answers(
    rated: ReleaseRoot, default: Answering
) -> None:
    client = chosen(rated, {"2": "image", "1 ": "image", "01": "image"}, default)
    assert ask(client, "product_id=100&category_id=1")["method"] == default
    assert ask(client, "category_id=1&product_id=100&visitor=a.b")["method"] == default


def test_string_categories_are_chosen_for(tmp_path: Path) -> None:
    root = publish(tmp_path / "root", string_catalogue(), tmp_path / "features")
    rate(root, [("u", "A-1", T), ("u", "ü/3", T)])
    for method in ANSWERING:
        client = chosen(root, {"shoes": method}, "image")
        assert ask(client, "product_id=A-1&category_id=shoes")["method"] == method


def test_what_was_chosen_is_counted_apart(rated: ReleaseRoot) -> None:
    client = chosen(rated, {}, "image")
    ask(client, "product_id=100&category_id=1")
    text = client.get("/metrics").body.decode()
    assert 'lookalike_related_total{pattern="chosen",method="image"} 1' in text
    assert 'lookalike_related_total{pattern="B",method="image"} 0' in text


class FullPath(Application):
    """The app without the fast path."""

    def _fast_related(self, environ: object) -> None:
        return None


@pytest.fixture(scope="module")
def both_paths(rated: ReleaseRoot) -> tuple[Client, Client]:
    source = ReleaseSource(rated)
    source.look()
    experiment = Experiment(b"key", 50, holdout_percent=50)
    choice = Choice("image", {"1": "behaviour", "9": "behaviour"})
    fast, full = (
        Client(kind(source, AnswerLimits(max_limit=200), experiment=experiment, choice=choice))
        for kind in (Application, FullPath)
    )
    return fast, full


@st.composite
def queries(draw: st.DrawFn) -> str:
    """Near the form of the fast path, always with a visitor, so that the pattern is certain."""
    category_id, product_ids = draw(
        st.sampled_from(
            [(1, [100, 140, 150]), (2, [5, 0]), (3, [77]), (40, [5000, 5010]), (9, [1])]
        )
    )
    parts = [
        f"product_id={draw(st.sampled_from([*product_ids, UNSEEN, '007', '-1', '9' * 19]))}",
        f"category_id={draw(st.sampled_from([category_id, category_id, 'x', '9' * 19]))}",
        f"visitor={draw(st.sampled_from(['a', 'b', 'c-_9', 'v' * 64, 'v' * 65, 'a%20b', '%ff', 'é']))}",
    ]
    if draw(st.booleans()):
        parts.append(f"limit={draw(st.sampled_from([0, 1, 12, 99, 100, 101, 200, 201, 'x']))}")
    if draw(st.integers(0, 4)) == 0:
        parts.append(draw(st.sampled_from(["exclude=5000", "limit=3", "x=1", "", "visitor=b"])))
    if draw(st.integers(0, 4)) == 0:
        parts = draw(st.permutations(parts))
    return "&".join(parts).encode().decode("latin-1")


@settings(max_examples=500 * RANDOM_CASES)
@given(query=queries())
@pytest.mark.slow
def test_the_fast_path_answers_as_the_full_one(
    both_paths: tuple[Client, Client], query: str
) -> None:
    fast, full = (client.get(f"/related?{query}") for client in both_paths)
    assert (fast.status, fast.headers) == (full.status, full.headers)
    assert json.loads(fast.body) == json.loads(full.body)
    assert fast.body == full.body
