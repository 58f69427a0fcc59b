"""Answers by a selection are those of brute force over the products that it has."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.release.attributes import AttributeTypes, Value
from lookalike.release.category import Category
from lookalike.release.columns import NO_FLAG, NO_TEXT, Columns, Part, Texts, texts_dtype
from lookalike.release.neighbours import nearest, search
from lookalike.release.selection import Condition, Distinct, Op, Selection
from support import RANDOM_CASES, Catalogue, Features, publish, random_features

N, K, N_DIMS = 900, 20, 24
N_COPIES = 60
SAME_PHOTO = 0.02
TYPES: AttributeTypes = {"price": "number", "sale": "flag", "seller": "text"}
Row = dict[str, Value | None]


def made_features() -> Features:
    """Features of which 60 show one photo and some others nearly the same as another."""
    features = random_features(N, 3, N_DIMS)
    features[100 : 100 + N_COPIES] = features[100]
    features[400:420] = features[300:320] + 0.001 * random_features(20, 4, N_DIMS)
    return features


def made_rows() -> list[Row]:
    rng = np.random.default_rng(5)
    return [
        {
            "price": None if rng.random() < 0.1 else float(rng.integers(1, 100)),
            "sale": None if rng.random() < 0.3 else bool(rng.random() < 0.5),
            "seller": None if rng.random() < 0.1 else f"s{rng.integers(0, 40)}é",
        }
        for _ in range(N)
    ]


def columns_of(rows: list[Row]) -> Columns:
    """The columns that have these values, in one part."""
    raw = sorted({str(row["seller"]).encode() for row in rows if row["seller"] is not None})
    record = np.zeros((), texts_dtype(len(raw), sum(map(len, raw))))
    record["ends"], record["utf8"] = np.cumsum([len(one) for one in raw]), list(b"".join(raw))
    codes = {one.decode(): code for code, one in enumerate(raw)}
    columns = {
        "price": np.array([np.nan if row["price"] is None else row["price"] for row in rows]),
        "sale": np.array([NO_FLAG if row["sale"] is None else row["sale"] for row in rows], "|i1"),
        "seller": np.array([codes.get(str(row["seller"]), NO_TEXT) for row in rows], "<u4"),
    }
    return Columns(TYPES, (Part(columns, Texts(record)),), len(rows))


FEATURES, ROWS = made_features(), made_rows()
_UNIT = FEATURES / np.linalg.norm(FEATURES.astype(np.float64), axis=1)[:, None]
APART = np.sqrt(np.maximum(0, 2 - 2 * (_UNIT @ _UNIT.T)))


@pytest.fixture(scope="module")
def category(tmp_path_factory: pytest.TempPathFactory) -> Category:
    folder = tmp_path_factory.mktemp("selection")
    catalogue: Catalogue = {1: (list(range(N)), FEATURES)}
    share = SAME_PHOTO / float(np.median(APART[np.triu_indices(N, 1)]))
    root = publish(folder / "root", catalogue, folder / "features", neighbours=K, same_photo=share)
    found = root.open(root.chosen()).categories[1]
    found.columns = columns_of(ROWS)
    return found


def meets(condition: Condition, row: Row, asked: Row) -> bool:
    """What README says of conditions, without arrays."""
    value, (name, op, operand) = row[condition.attribute], condition
    if op == "missing":
        return (value is None) == operand
    if op == "same":
        return (value is not None and value == asked[name]) == operand
    if isinstance(operand, tuple):
        return (value in operand) == (op == "in") if value is not None else op == "notin"
    if value is None:
        return False
    number = float(value)
    return {
        "lt": number < operand,
        "lte": number <= operand,
        "gt": number > operand,
        "gte": number >= operand,
    }[op]


def expected(item: int, selection: Selection) -> list[int]:
    """All items that a selection has for one, nearest first; ties by item."""
    picked: list[int] = []
    for other in np.argsort(APART[item], kind="stable").tolist():
        row = ROWS[other]
        if other == item:
            continue
        if not all(meets(each, row, ROWS[item]) for each in selection.conditions):
            continue
        if distinct := selection.distinct:
            if distinct.of == "photo":
                if np.any(APART[other, [item, *picked]] <= SAME_PHOTO):
                    continue
            elif row[distinct.of] is not None:
                same = sum(ROWS[one][distinct.of] == row[distinct.of] for one in picked)
                if same >= distinct.most:
                    continue
        picked.append(other)
    return picked


NUMBERS = st.integers(0, 100).map(float)
SELLERS = st.integers(0, 45).map(lambda n: f"s{n}é")


def conditions() -> st.SearchStrategy[Condition]:
    """Conditions on each type, with values that are there and that are not."""
    lists: st.SearchStrategy[Op] = st.sampled_from(["in", "notin"])
    compared: st.SearchStrategy[Op] = st.sampled_from(["lt", "lte", "gt", "gte"])
    of_any: st.SearchStrategy[Op] = st.sampled_from(["missing", "same"])
    return (
        st.builds(Condition, st.just("price"), lists, st.lists(NUMBERS, max_size=9).map(tuple))
        | st.builds(Condition, st.just("price"), compared, NUMBERS)
        | st.builds(Condition, st.just("sale"), lists, st.tuples(st.booleans()))
        | st.builds(Condition, st.just("seller"), lists, st.lists(SELLERS, max_size=9).map(tuple))
        | st.builds(Condition, st.sampled_from([*TYPES]), of_any, st.booleans())
    )


SELECTIONS = st.builds(
    Selection,
    st.lists(conditions(), max_size=3).map(tuple),
    st.none()
    | st.just(Distinct("photo"))
    | st.builds(Distinct, st.sampled_from([*TYPES]), st.integers(1, 3)),
    st.just(math.inf),
    st.none(),
)
ITEMS = st.integers(0, N - 1) | st.integers(95, 165) | st.integers(300, 320)


@settings(max_examples=200 * RANDOM_CASES)
@given(ITEMS, st.integers(1, 150), SELECTIONS)
def test_answers_by_item_are_full_and_exact(
    category: Category, item: int, n: int, selection: Selection
) -> None:
    items, distances = nearest(category, item, n, selection)
    right = expected(item, selection)[:n]
    assert items.size == len(right)
    # Copies are equally near, and one stands for the others.
    np.testing.assert_allclose(distances, APART[item, right], atol=2e-4)
    assert np.all(np.diff(distances) >= 0)
    assert item not in items
    assert len(set(items.tolist())) == items.size
    for one in items.tolist():
        assert all(meets(each, ROWS[one], ROWS[item]) for each in selection.conditions)
    if selection.distinct and selection.distinct.of == "photo":
        apart = APART[np.ix_(items, items)][np.triu_indices(items.size, 1)]
        assert not np.any(apart <= SAME_PHOTO - 1e-3)


@settings(max_examples=100 * RANDOM_CASES)
@given(ITEMS, st.integers(1, 150), SELECTIONS)
def test_answers_to_a_vector_are_those_of_its_item_and_the_item(
    category: Category, item: int, n: int, selection: Selection
) -> None:
    conditions = tuple(each for each in selection.conditions if each.op != "same")
    selection = selection._replace(conditions=conditions, distinct=None)
    items, distances = search(category, _UNIT[item], n, selection)
    own = all(meets(each, ROWS[item], ROWS[item]) for each in conditions)
    right = [*([item] if own else []), *expected(item, selection)][:n]
    assert items.size == len(right)
    if conditions:  # which are ranked exactly; without any a search may miss some
        np.testing.assert_allclose(distances, APART[item, right], atol=2e-4)


def test_a_distance_that_random_pairs_have_is_the_same_cut_off_in_any_category(
    category: Category,
) -> None:
    pairs = APART[np.triu_indices(N, 1)]
    for percent in (0.1, 1.0, 30.0):
        most = np.quantile(pairs, percent / 100)
        items, distances = nearest(category, 700, N, Selection(closer_than=percent))
        n = int(np.count_nonzero(np.sort(APART[700])[1:] <= most))
        assert abs(items.size - n) <= 2 + 0.1 * n
        assert items.size == 0 or distances[-1] <= 1.05 * most


def test_a_slim_copy_takes_what_the_table_has(category: Category) -> None:
    vectors, category.vectors = category.vectors, None
    try:
        for item in (7, 110, 300, 405):
            for selection in (
                Selection((Condition("price", "lte", 50.0),)),
                Selection(distinct=Distinct("photo")),
            ):
                items, _ = nearest(category, item, 12, selection)
                table = category.neighbours[item].tolist()
                assert set(items.tolist()) <= set(table)
                right = [one for one in expected(item, selection) if one in table][:12]
                if selection.conditions:
                    assert items.tolist() == right
                else:
                    assert items.size >= len(right) > 0 or 100 <= item < 100 + N_COPIES
    finally:
        category.vectors = vectors
