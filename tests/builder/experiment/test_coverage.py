"""The report's intervals and tests, held to their stated rates over simulated experiments."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from experiments import records_in
from lookalike_build.experiment.rates import Interval, Rate, Sums, sample_ratio, z_of
from lookalike_build.experiment.report import MEASURES, MISMATCH_P, Question, report_of
from lookalike_build.simulation.visitors import PAPER_CTR, PAPER_CVR, Preferences, Simulation

pytestmark = pytest.mark.slow

N = 500
"""Experiments of each kind."""
_BOUND_Z = 3.3
"""What a count of a binomial variable stays within, in standard deviations, but for 1 in 1000."""


def within(n: int, p: float) -> tuple[float, float]:
    half = _BOUND_Z * (n * p * (1 - p)) ** 0.5
    return n * p - half, n * p + half


def simulation(ctr: tuple[float, float], cvr: tuple[float, float], **more: Any) -> Simulation:
    spread, differ = more.pop("spread", 1.0), more.pop("differ", 0.3)
    rng = np.random.default_rng(7)
    likes = Preferences.drawn(rng, 4, ctr, cvr, spread, differ)
    return Simulation(likes, **more)


CVR = (0.2, 0.25)
"""The paper's, of which no purchase comes of 100 clicks, would make every interval hold the truth."""
PAPER = simulation(PAPER_CTR, CVR, fallback=(0.1, 0.02), unanswered=0.02)
"""The paper's rates; visitors that differ as much as they click, and fallbacks."""
EAGER = simulation((0.05, 0.06), (0.1, 0.12), spread=2.0)
"""Visitors of which a few click and buy much and most not at all."""
UNKNOWN = simulation(PAPER_CTR, CVR, known=False, unanswered=0.02)
ALIKE = simulation((0.02, 0.02), (0.1, 0.1), spread=2.0, differ=0.0)
"""Patterns between which there is no difference, in any category."""
ALIKE_UNKNOWN = simulation((0.02, 0.02), (0.2, 0.2), known=False, differ=0.0)

VISITORS = {"paper": 6000, "eager": 1600, "unknown": 6000, "alike": 3000, "alike unknown": 1500}
KINDS = dict(zip(VISITORS, (PAPER, EAGER, UNKNOWN, ALIKE, ALIKE_UNKNOWN), strict=True))


def covered(made: Simulation, n_visitors: int) -> Counter[str]:
    """In how many of N experiments each interval holds the truth, and each test finds something."""
    truth: Mapping[str, Any] = made.truth()["patterns"]
    rng = np.random.default_rng(11)
    question = Question(min_impressions=100, min_clicks=10)
    counts: Counter[str] = Counter()

    def count(name: str, interval: Interval, value: float) -> None:
        counts[name] += interval.low <= value <= interval.high

    for _ in range(N):
        drawn = made.draw(rng, 0, n_visitors)
        records = records_in(drawn, made.preferences.category_ids, made.known)
        report = report_of(records, question)
        for measure in MEASURES:
            a, b = (truth[pattern][measure] for pattern in "AB")
            for pattern in "AB":
                estimate = getattr(report.patterns[pattern], measure)
                count(f"{measure} {pattern}", estimate.interval, truth[pattern][measure])
            comparison = report.comparisons[measure]
            assert comparison is not None
            count(f"{measure} difference", comparison.interval, b - a)
            count(f"{measure} lift", comparison.lift_interval, b / a - 1)
            counts[f"{measure} found"] += comparison.p < 0.05
            won = report.won[measure]
            counts[f"{measure} won for certain"] += won.a_certain + won.b_certain > 0
        counts["mismatch"] += report.mismatch
        clicked = records.patterns["A"]
        plain = Rate(Sums.of_trials(clicked.impressions, clicked.clicks))
        count("ctr A, visitors forgotten", plain.interval(z_of(0.95)), truth["A"]["ctr"])
        plain = Rate(Sums.of_trials(clicked.clicks, clicked.purchases))
        count("cvr A, visitors forgotten", plain.interval(z_of(0.95)), truth["A"]["cvr"])
    return counts


@pytest.fixture(scope="module")
def counts() -> dict[str, Counter[str]]:
    return {kind: covered(made, VISITORS[kind]) for kind, made in KINDS.items()}


@pytest.mark.parametrize("what", ["A", "B", "difference", "lift"])
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("kind", KINDS)
def test_intervals_hold_the_truth_at_their_stated_rate(
    counts: dict[str, Counter[str]], kind: str, measure: str, what: str
) -> None:
    low, high = within(N, 0.95)
    assert low <= counts[kind][f"{measure} {what}"] <= high


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("kind", ["alike", "alike unknown"])
def test_where_nothing_differs_tests_find_it_at_their_stated_rate(
    counts: dict[str, Counter[str]], kind: str, measure: str
) -> None:
    low, high = within(N, 0.05)
    assert low <= counts[kind][f"{measure} found"] <= high
    # Holm's correction keeps the level, and may stay below it.
    assert counts[kind][f"{measure} won for certain"] <= high


def test_a_difference_as_large_as_the_papers_is_found(counts: dict[str, Counter[str]]) -> None:
    assert counts["paper"]["ctr found"] > 0.5 * N


@pytest.mark.parametrize(("measure", "most"), [("ctr", 0.8), ("cvr", 0.9)])
def test_intervals_that_forget_the_visitors_promise_too_much(
    counts: dict[str, Counter[str]], measure: str, most: float
) -> None:
    assert counts["eager"][f"{measure} A, visitors forgotten"] < most * N


def test_the_papers_few_purchases_are_no_surer_than_stated() -> None:
    found = covered(simulation(PAPER_CTR, PAPER_CVR), 2000)
    for what in ("A", "B", "difference", "lift"):
        assert found[f"cvr {what}"] >= within(N, 0.95)[0]
    assert found["cvr found"] <= within(N, 0.05)[1]


def test_an_even_assignment_is_flagged_at_the_stated_rate(counts: dict[str, Counter[str]]) -> None:
    n = 100_000
    drawn = np.random.default_rng(3).binomial(20_000, 0.3, n)
    p_values = np.array([sample_ratio(20_000 - int(b), int(b), 0.3).p for b in drawn])
    for level in (0.05, MISMATCH_P):
        low, high = within(n, level)
        assert low <= (p_values < level).sum() <= high
    assert (
        sum(each["mismatch"] for each in counts.values()) <= within(len(counts) * N, MISMATCH_P)[1]
    )
