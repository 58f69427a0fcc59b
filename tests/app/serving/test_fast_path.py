"""The fast path and the full path give the same answer, or the fast path leaves it to the full one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.release.root import ReleaseRoot
from lookalike.release.rules import Rule
from lookalike.serving.application import AnswerLimits, Application
from lookalike.serving.fast_path import fast_body
from lookalike.serving.selections import Selections
from lookalike.serving.source import ReleaseSource
from support import RANDOM_CASES, Client, integer_catalogue, ruled

PRODUCTS = [
    (category_id, product_id)
    for category_id, (product_ids, _) in integer_catalogue().items()
    for product_id in product_ids
]
TEXTS = st.sampled_from(
    ["", "0", "00", "1", "-1", "+1", " 1", "1.0", "١", "%31", "x", "9" * 18, "9" * 19]
)
NUMBERS = st.integers(0, 400).map(str) | TEXTS


@st.composite
def queries(draw: st.DrawFn) -> str:
    """Queries near the form of the fast path: ids known or not, any limit, in any order, and worse."""
    category_id, product_id = draw(st.sampled_from(PRODUCTS))
    parts = [
        f"category_id={draw(st.just(str(category_id)) | NUMBERS)}",
        f"product_id={draw(st.just(str(product_id)) | NUMBERS)}",
    ]
    if draw(st.booleans()):
        parts.append(f"limit={draw(NUMBERS)}")
    if draw(st.integers(0, 9)) == 0:
        more = [
            "exclude_self=true",
            "distances=true",
            "max_distance=1.1",
            "closer_than=20",
            "distinct=photo",
            "distinct=photo&max_distance=1.2",
            "hidden=true",
            "hidden__not=true&closer_than=50",
            "hidden__in=true",
            "defaults=false",
            "limit=3",
            "x=1",
            "",
            "product_id=5",
            "limit",
        ]
        parts.append(draw(st.sampled_from(more)))
    if draw(st.integers(0, 9)) == 0:
        parts = draw(st.permutations(parts))
    return "&".join(parts)


@pytest.fixture(scope="module")
def source(integer_root: ReleaseRoot) -> ReleaseSource:
    found = ReleaseSource(integer_root)
    found.look()
    return found


class FullPath(Application):
    """The app without the fast path."""

    def _fast_nns(self, environ: object) -> None:
        return None


# One query in 52 has a given text as its limit, one in 70 a given further parameter: 500 miss it once
# in 1,300 runs.
@settings(max_examples=500 * RANDOM_CASES)
@given(queries(), st.sampled_from([1, 7, 1000]))
@pytest.mark.slow
def test_no_answer_differs_between_the_two_paths(
    source: ReleaseSource, query: str, max_limit: int
) -> None:
    limits = AnswerLimits(max_limit)
    answer = Client(Application(source, limits)).get(f"/nns?{query}")
    assert answer == Client(FullPath(source, limits)).get(f"/nns?{query}")
    assert source.release is not None
    fast = fast_body(source.release, query, max_limit, Selections())
    assert fast is None or (*fast, answer.status) == (answer.headers["ETag"], answer.body, "200 OK")


@pytest.mark.parametrize("limit", ["", "&limit=1", "&limit=12", "&limit=101", "&limit=000012"])
def test_every_product_is_answered_by_the_fast_path(source: ReleaseSource, limit: str) -> None:
    release = source.release
    assert release is not None
    for category_id, product_id in PRODUCTS:
        query = f"category_id={category_id}&product_id={product_id}{limit}"
        assert fast_body(release, query, 1000, Selections()) is not None


def test_pins_and_bans_are_the_same_by_both_paths(root: ReleaseRoot) -> None:
    rules = [Rule(100, "pin", 155), Rule(101, "ban", 100), Rule(102, "pin", 4)]
    ruled(root, {1: rules, 2: [Rule(None, "pin", 7), Rule(None, "ban", 3)]})
    source = ReleaseSource(root)
    source.look()
    assert source.release is not None
    fast, full = (Client(each(source)) for each in (Application, FullPath))
    for category_id, product_id in PRODUCTS[:70]:
        query = f"category_id={category_id}&product_id={product_id}&limit=9"
        answer = full.get(f"/nns?{query}")
        assert fast.get(f"/nns?{query}") == answer
        found = fast_body(source.release, query, 1000, Selections())
        assert found == (answer.headers["ETag"], answer.body)


@pytest.mark.parametrize(
    "query",
    [
        "category_id=shoes&product_id=100",
        "category_id=1&product_id=100",
        "product_id=100&category_id=1",
    ],
)
def test_string_ids_are_left_to_the_full_path(string_root: ReleaseRoot, query: str) -> None:
    strings = ReleaseSource(string_root)
    strings.look()
    assert strings.release is not None
    assert fast_body(strings.release, query, 1000, Selections()) is None


def test_more_than_the_table_holds_is_left_to_the_full_path(source: ReleaseSource) -> None:
    release = source.release
    assert release is not None
    assert (
        fast_body(release, "category_id=40&product_id=5000&limit=102", 1000, Selections()) is None
    )
    assert (
        fast_body(release, "category_id=1&product_id=100&limit=102", 1000, Selections()) is not None
    )
