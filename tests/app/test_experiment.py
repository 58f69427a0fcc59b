"""Assigning patterns: even, stable, and anew with another key."""

import math

import pytest

from lookalike.experiment import CHOSEN, Experiment

N = 20_000
VISITORS = [f"visitor {i}" for i in range(N)]


def share_of_b(experiment: Experiment, visitors: list[str] | list[None]) -> float:
    return sum(experiment.pattern_of(visitor) == "B" for visitor in visitors) / N


@pytest.mark.parametrize("b_percent", [1, 50, 90])
def test_the_share_is_as_asked_for(b_percent: int) -> None:
    experiment = Experiment(b"a key", b_percent)
    share = b_percent / 100
    bound = 5 * math.sqrt(share * (1 - share) / N)
    assert abs(share_of_b(experiment, VISITORS) - share) < bound
    assert abs(share_of_b(experiment, [None] * N) - share) < bound


@pytest.mark.parametrize(("b_percent", "pattern"), [(0, "A"), (100, "B")])
def test_all_or_none(b_percent: int, pattern: str) -> None:
    experiment = Experiment(b"a key", b_percent)
    assert {experiment.pattern_of(visitor) for visitor in [*VISITORS, None]} == {pattern}


def test_a_visitor_keeps_the_pattern() -> None:
    first, again = Experiment(b"a key", 50), Experiment(b"a key", 50)
    assert all(first.pattern_of(each) == again.pattern_of(each) for each in VISITORS)


def test_another_key_assigns_anew() -> None:
    first, other = Experiment(b"a key", 50), Experiment(b"another", 50)
    same = sum(first.pattern_of(each) == other.pattern_of(each) for each in VISITORS)
    assert abs(same / N - 0.5) < 5 * math.sqrt(0.25 / N)


def test_with_a_larger_share_nobody_leaves_it() -> None:
    small, large = Experiment(b"a key", 10), Experiment(b"a key", 30)
    kept = [each for each in VISITORS if small.pattern_of(each) == "B"]
    assert all(large.pattern_of(each) == "B" for each in kept)


def test_visitors_alike_but_for_a_letter_are_assigned_apart() -> None:
    experiment = Experiment(b"a key", 50)
    for texts in (["é", "e\u0301"], [f"{i}" for i in range(40)]):
        assert all(experiment.pattern_of(text) in ("A", "B") for text in texts)
    assert {experiment.pattern_of(f"{i}") for i in range(40)} == {"A", "B"}


@pytest.mark.parametrize("holdout_percent", [0, 1, 10, 100])
def test_only_visitors_held_out_are_assigned_and_as_before(holdout_percent: int) -> None:
    before, after = Experiment(b"a key", 30), Experiment(b"a key", 30, holdout_percent)
    patterns = {visitor: after.pattern_of(visitor) for visitor in VISITORS}
    held_out = [visitor for visitor, pattern in patterns.items() if pattern != CHOSEN]
    share = holdout_percent / 100
    assert abs(len(held_out) / N - share) <= 5 * math.sqrt(share * (1 - share) / N)
    assert all(before.pattern_of(each) == patterns[each] for each in held_out)
    by_chance = sum(after.pattern_of(None) != CHOSEN for _ in range(N)) / N
    assert abs(by_chance - share) <= 5 * math.sqrt(share * (1 - share) / N)
    if held_out:
        # Who is held out has nothing to do with the pattern.
        of_b = sum(patterns[each] == "B" for each in held_out) / len(held_out)
        assert abs(of_b - 0.3) < 5 * math.sqrt(0.21 / len(held_out))


def test_with_a_larger_holdout_nobody_leaves_it() -> None:
    small, large = Experiment(b"a key", 50, 10), Experiment(b"a key", 50, 30)
    held_out = [each for each in VISITORS if small.pattern_of(each) != CHOSEN]
    assert all(large.pattern_of(each) != CHOSEN for each in held_out)


@pytest.mark.parametrize(
    "nobody", ["undefined", "null", "NaN", " None ", "(null)", "-", "[object Object]"]
)
def test_a_text_that_names_nobody_is_no_visitor(nobody: str) -> None:
    assert abs(share_of_b(Experiment(b"a key", 50), [nobody] * N) - 0.5) < 5 * math.sqrt(0.25 / N)
