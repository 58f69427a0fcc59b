"""Answers with pins and bans are those of brute force over what may be shown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.release.attributes import Values
from lookalike.release.category import Category
from lookalike.release.files import ReleaseError
from lookalike.release.neighbours import nearest, pinned, search
from lookalike.release.rules import Rule, RuleKind, Rules, read_rules
from lookalike.release.selection import Condition, Distinct, Selection
from support import RANDOM_CASES, give, publish, random_features

N, K = 150, 12
GONE = 9999
FEATURES = random_features(N, 7)
_UNIT = FEATURES / np.linalg.norm(FEATURES.astype(np.float64), axis=1)[:, None]
APART = np.sqrt(np.maximum(0, 2 - 2 * (_UNIT @ _UNIT.T)))
VALUES: Mapping[Any, Values] = {
    one: {"hidden": one % 5 == 0, "price": float(one), "seller": f"s{one % 9}"} for one in range(N)
}
PRODUCTS = st.integers(0, N - 1)
OTHERS = PRODUCTS | st.integers(0, 12) | st.just(GONE)
KINDS: st.SearchStrategy[RuleKind] = st.sampled_from(["pin", "ban"])
RULES = st.lists(st.builds(Rule, st.none() | st.integers(0, 3), KINDS, OTHERS), max_size=30)
SELECTIONS = st.builds(
    Selection,
    st.lists(
        st.builds(Condition, st.just("price"), st.sampled_from(["lt", "gte"]), st.floats(0, N))
        | st.just(Condition("seller", "same", False)),
        max_size=2,
    ).map(tuple),
    st.none() | st.builds(Distinct, st.just("seller"), st.integers(1, 3)),
    st.just(np.inf) | st.floats(0.3, 1.2),
    st.none(),
)


@pytest.fixture(scope="module")
def category(tmp_path_factory: pytest.TempPathFactory) -> Category:
    folder = tmp_path_factory.mktemp("rules")
    root = publish(folder / "r", {1: (list(range(N)), FEATURES)}, folder / "f", neighbours=K)
    give(root, {1: VALUES}, {"hidden": "flag", "price": "number", "seller": "text"})
    return root.open(root.chosen()).categories[1]


def expected(product: int, rules: list[Rule], selection: Selection) -> list[int]:
    """What README says of rules, product by product."""
    own = [rule for rule in rules if rule.product_id == product]
    each = [*own, *(rule for rule in rules if rule.product_id is None)]
    bans = {rule.other_id for rule in each if rule.kind == "ban"}
    pins = [rule.other_id for rule in each if rule.kind == "pin"]
    order = np.argsort(APART[product], kind="stable").tolist()
    near = [one for one in order if APART[product, one] <= selection.max_distance]
    answer: list[int] = []
    for one in [*pins, *near]:
        if one in (product, GONE) or one in bans or one in answer or VALUES[one]["hidden"]:
            continue
        values, asked = VALUES[one], VALUES[product]
        price = float(values["price"] or 0)
        for _, op, operand in selection.conditions:
            met = {
                "lt": price < float(operand),  # type: ignore[arg-type]
                "gte": price >= float(operand),  # type: ignore[arg-type]
                "same": values["seller"] != asked["seller"],
            }
            if not met[op]:
                break
        else:
            sellers = [VALUES[other]["seller"] for other in answer]
            most = selection.distinct.most if selection.distinct else N
            if sellers.count(values["seller"]) < most:
                answer.append(one)
    return answer


@settings(max_examples=200 * RANDOM_CASES)
@given(st.integers(0, 3) | PRODUCTS, st.integers(1, 40), RULES, SELECTIONS)
def test_answers_are_full_and_exact_after_what_is_pinned(
    category: Category, product: int, n: int, rules: list[Rule], selection: Selection
) -> None:
    category.rules = Rules.of(rules)
    items, distances = nearest(category, product, n, selection, measured=True)
    assert items.tolist() == expected(product, rules, selection)[:n]
    np.testing.assert_allclose(distances, APART[product, items], atol=1e-3)
    pins = pinned(category, product, n, selection)
    assert items.tolist()[: len(pins)] == pins


@settings(max_examples=50 * RANDOM_CASES)
@given(PRODUCTS, st.integers(1, 40), RULES)
def test_a_vector_is_answered_without_what_is_banned_from_all_answers(
    category: Category, product: int, n: int, rules: list[Rule]
) -> None:
    category.rules = Rules.of(rules)
    items, _ = search(category, _UNIT[product], n)
    of_all = [rule for rule in rules if rule.product_id is None and rule.kind == "ban"]
    # The product itself is the first unless it is banned or hidden.
    shown = not (VALUES[product]["hidden"] or product in {rule.other_id for rule in of_all})
    right = [*([product] if shown else []), *expected(product, of_all, Selection())]
    assert items.tolist() == right[:n]


def test_a_slim_copy_knows_the_distances_of_pins_that_are_near(category: Category) -> None:
    near, far = (category.ids(category.listed(1, K)[0])[place] for place in (0, -1))
    other = next(one for one in np.argsort(-APART[1]).tolist() if not VALUES[one]["hidden"])
    category.rules = Rules.of([Rule(1, "pin", other), Rule(1, "pin", far)])
    vectors, category.vectors = category.vectors, None
    try:
        items, distances = nearest(category, 1, 3, measured=True)
    finally:
        category.vectors = vectors
    assert items.tolist() == [other, far, near]
    assert np.isnan(distances[0])
    assert distances[1] == pytest.approx(APART[1, int(far)], abs=1e-6)


def test_only_products_with_rules_are_concerned(category: Category) -> None:
    rules = Rules.of([Rule(1, "pin", 2), Rule(3, "ban", 2)])
    assert [rules.concern(one) for one in range(5)] == [False, True, False, True, False]
    assert Rules.of([Rule(None, "ban", 2)]).concern(4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "cannot be read: Expected `array` of length >= 1"),
        ('[[1,"pin"]]', "cannot be read: Expected `array`"),
        ('[[1,"pinned",2]]', "cannot be read: Invalid enum value 'pinned'"),
        ('[["a","pin",2]]', "has a product id that must be a whole number from 0 to"),
        ('[[null,"pin",-1]]', "has a product id that must be a whole number from 0 to"),
        ("[[", "cannot be read: Input data was truncated"),
    ],
)
def test_an_invalid_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "rules.json"
    path.write_text(text)
    with pytest.raises(ReleaseError) as raised:
        read_rules(path, "1/rules.json", "integer")
    assert str(raised.value).startswith(f"1/rules.json: {said}")
