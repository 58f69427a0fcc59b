"""Rates, by hand and by published examples."""

import math
import subprocess
import sys
from statistics import NormalDist

import pytest

from lookalike_build.experiment.rates import (
    Interval,
    Rate,
    Sums,
    compare,
    holm,
    sample_ratio,
    student,
    z_of,
)

Z = z_of(0.95)


def rate(events: int, impressions: int) -> Rate:
    return Rate(Sums.of_trials(impressions, events))


def rate_of_visitors(visitors: list[tuple[int, int]]) -> Rate:
    """Of visitors with (impressions, events) each."""
    n, x = zip(*visitors, strict=True)
    products = (sum(a * b for a, b in pairs) for pairs in (zip(n, n), zip(n, x), zip(x, x)))  # noqa: B905
    return Rate(Sums(len(visitors), sum(n), sum(x), *products))


@pytest.mark.parametrize(
    ("events", "impressions", "low", "high"),
    # Newcombe (1998), Statistics in Medicine 17, 857-872, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_without_visitors_the_interval_is_wilsons(
    events: int, impressions: int, low: float, high: float
) -> None:
    assert rate(events, impressions).interval(Z) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("b", "a", "low", "high"),
    # Newcombe (1998), Statistics in Medicine 17, 873-890, table II, method 10.
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 10), 0.6075, 1.0),
        ((0, 10), (0, 20), -0.1611, 0.2775),
    ],
)
def test_without_visitors_the_interval_of_a_difference_is_newcombes(
    b: tuple[int, int], a: tuple[int, int], low: float, high: float
) -> None:
    found = compare(rate(*a), rate(*b), Z)
    assert found.interval == pytest.approx((low, high), abs=5e-5)


def test_visitors_that_differ_make_a_rate_less_certain() -> None:
    # 4 events in 20 impressions, all of the one visitor with 10. Residuals x - 0.2 n are -0.2, -0.4,
    # -0.6, -0.8 and 2, their squares sum to 5.2; 5/4 · 5.2 / 20² is 0.01625; 0.2 · 0.8 / 20 is 0.008.
    found = rate_of_visitors([(1, 0), (2, 0), (3, 0), (4, 0), (10, 4)])
    assert found.value == 0.2
    assert found.design_effect == pytest.approx(0.01625 / 0.008)
    # Wilson's with 20 · 0.008 / 0.01625 impressions, and Student's t with 4 degrees of freedom.
    n, t = 20 * 0.008 / 0.01625, 2.776445
    centre, half = 0.2 + t * t / (2 * n), t * math.sqrt(0.16 / n + t * t / (4 * n * n))
    expected = [(centre + sign * half) / (1 + t * t / n) for sign in (-1, 1)]
    assert found.interval(Z) == pytest.approx(expected)


def test_visitors_never_make_a_rate_more_certain_than_independent_impressions() -> None:
    # Residuals -0.2, 0.6, -0.6, 0.2 and 0: a variance of 0.0025, below 0.008.
    assert rate_of_visitors([(1, 0), (2, 1), (3, 0), (4, 1), (10, 2)]).design_effect == 1


def test_visitors_with_one_impression_each_are_independent_impressions() -> None:
    visitors = [(1, 1)] * 40 + [(1, 0)] * 960
    found, plain = rate_of_visitors(visitors), rate(40, 1000)
    assert found.design_effect == pytest.approx(1000 / 999)
    assert found.interval(Z) == pytest.approx(plain.interval(Z), rel=0.002)


def test_of_few_visitors_nothing_is_known() -> None:
    assert rate_of_visitors([(100, 3)] * 4).interval(Z) == (0, 1)
    assert rate_of_visitors([(10, 30)] * 4).interval(Z) == (0, math.inf)
    few, many = rate_of_visitors([(100, 0)] * 4), rate_of_visitors([(100, 50)] * 99)
    assert compare(few, many, Z).p == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("events", [0, 1, 9, 10, 11, 50])
def test_an_interval_holds_its_rate_and_keeps_its_bounds(events: int) -> None:
    found = rate(events, 10)
    low, high = found.interval(Z)
    assert 0 <= low <= found.value <= high
    assert (low == 0) == (events == 0)
    assert (high == 1) == (events == 10)
    assert math.isfinite(high)


def test_more_events_than_impressions_are_a_poisson_number() -> None:
    # By hand: 1.2 + z²/20 ± z √(0.12 + z²/400), n = 10.
    z2 = Z * Z
    half = Z * math.sqrt(0.12 + z2 / 400)
    expected = (1.2 + z2 / 20 - half, 1.2 + z2 / 20 + half)
    assert rate(12, 10).interval(Z) == pytest.approx(expected)


def test_lift_and_its_interval() -> None:
    found = compare(rate(510, 100_000), rate(760, 100_000), Z)
    assert found.lift == pytest.approx(250 / 510)
    # Katz's logarithm, an approximation of its own: log(760/510) ± z √(1/510 - 1/n + 1/760 - 1/n).
    half = Z * math.sqrt(1 / 510 + 1 / 760 - 2 / 100_000)
    katz = [760 / 510 * math.exp(sign * half) - 1 for sign in (-1, 1)]
    assert found.lift_interval == pytest.approx(katz, abs=0.002)


# Wilson's intervals of 0 and of 5 in 100 end at 0.0370 and begin at 0.0215. With A at 0, that of
# B - r A ends at 0 where 0.0370 r = √(0.05² - (0.05 - 0.0215)²), so r is 1.1113.
@pytest.mark.parametrize(
    ("a", "b", "lift", "low", "high"),
    [
        ((0, 100), (5, 100), None, 0.1113, math.inf),
        ((5, 100), (0, 100), -1.0, -1.0, 1 / 1.1113 - 1),
        ((0, 100), (0, 100), None, -1.0, math.inf),
    ],
)
def test_lift_where_a_rate_is_0(
    a: tuple[int, int], b: tuple[int, int], lift: float | None, low: float, high: float
) -> None:
    found = compare(rate(*a), rate(*b), Z)
    assert found.lift == lift
    assert found.lift_interval == pytest.approx((low, high), abs=5e-5)


def test_the_interval_of_a_ratio_is_the_worked_example() -> None:
    found = compare(rate(20, 1000), rate(40, 1000), Z)
    assert found.lift_interval == pytest.approx((0.180, 2.376), abs=5e-4)
    # 1 / (1 + lift) is the same of A against B.
    other_way = compare(rate(40, 1000), rate(20, 1000), Z)
    turned = [1 / (1 + end) - 1 for end in reversed(other_way.lift_interval)]
    assert found.lift_interval == pytest.approx(turned)


@pytest.mark.parametrize("events", range(0, 60, 3))
def test_both_intervals_and_the_test_agree(events: int) -> None:
    found = compare(rate(20, 1000), rate(events, 900), Z)
    certain = not found.interval.low <= 0 <= found.interval.high
    assert certain == (not found.lift_interval.low <= 0 <= found.lift_interval.high)
    assert certain == (found.p < 0.05)


def test_the_p_value_is_where_the_interval_ends_at_0() -> None:
    a, b = rate(20, 1000), rate(38, 900)
    p = compare(a, b, Z).p
    at_p = compare(a, b, z_of(1 - p)).interval
    assert min(map(abs, at_p)) == pytest.approx(0, abs=1e-9)


def test_the_p_value_of_many_is_that_of_the_two_proportion_z_test() -> None:
    a, b = rate(5100, 1_000_000), rate(5400, 1_000_000)
    pooled = 10_500 / 2_000_000
    z = 0.0003 / math.sqrt(pooled * (1 - pooled) * 2 / 1_000_000)
    assert compare(a, b, Z).p == pytest.approx(2 * (1 - NormalDist().cdf(z)), rel=0.02)


def test_p_values_at_their_ends() -> None:
    assert compare(rate(0, 1000), rate(0, 900), Z).p == 1
    assert compare(rate(10, 1000), rate(9, 900), Z).p == 1
    assert compare(rate(0, 10**9), rate(10**8, 10**9), Z).p == 0


@pytest.mark.parametrize(
    ("degrees", "p", "t"),
    # A table of Student's t, both sides.
    [
        (4, 0.05, 2.7764),
        (4, 0.01, 4.6041),
        (9, 0.05, 2.2622),
        (9, 0.01, 3.2498),
        (29, 0.05, 2.0452),
        (29, 0.001, 3.6594),
        (10**6, 0.05, 1.96),
        (4, 0.001, 8.6103),
    ],
)
def test_students_t(degrees: int, p: float, t: float) -> None:
    assert student(z_of(1 - p), degrees) == pytest.approx(t, abs=5e-5)


@pytest.mark.parametrize("z", [0.5, 2.0, 4.5, 8.0])
def test_students_t_of_five_visitors_in_closed_form(z: float) -> None:
    t = student(z, 4)
    # The integral of its density, (3/8) (1 + t²/4)^(-5/2): with u = t/√(4 + t²), the density is
    # (3/4) (1 - u²) du, and from u to 1, on both sides, that is (1 - u)² (2 + u) / 2.
    u = t / math.sqrt(4 + t * t)
    assert (1 - u) ** 2 * (2 + u) / 2 == pytest.approx(math.erfc(z / math.sqrt(2)))


def test_students_t_far_out() -> None:
    # By that formula: a normal variable is beyond 4.5 with probability 6.795e-6, so 1 - u is 0.0021292.
    assert student(4.5, 4) == pytest.approx(30.599, abs=5e-4)
    assert student(0, 4) == 0


@pytest.mark.slow
def test_scipy_is_loaded_for_a_report_only() -> None:
    program = """if True:
        import contextlib, sys
        import lookalike_build.__main__
        with contextlib.suppress(SystemExit):
            lookalike_build.__main__.main()
        from lookalike_build.experiment.rates import Rate, Sums, compare
        assert "scipy" not in sys.modules
        compare(Rate(Sums(9, 10, 1, 10, 1, 1)), Rate(Sums(9, 10, 2, 10, 2, 2)), 1.96)
        assert "scipy" in sys.modules
    """
    subprocess.run([sys.executable, "-c", program, "--help"], check=True)


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04, and never down.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.5]) == [1, 1]
    assert holm([]) == []


def test_sample_ratio_by_hand() -> None:
    # (5100 - 5000)² / 5000 twice is 4, the square of z = 2.
    found = sample_ratio(4900, 5100, 0.5)
    assert found.chi_square == pytest.approx(4)
    assert found.p == pytest.approx(0.0455, abs=5e-5)
    # 10 % of 1000 are 100 and 900: 20²/100 + 20²/900.
    assert sample_ratio(880, 120, 0.1).chi_square == pytest.approx(4 + 400 / 900)
    assert sample_ratio(5, 0, 0.5).p == pytest.approx(0.0253, abs=5e-5)


def test_z_of_a_confidence() -> None:
    assert z_of(0.95) == pytest.approx(1.96, abs=5e-5)
    assert z_of(0.99) == pytest.approx(2.5758, abs=5e-5)


def test_an_interval_of_more_confidence_is_wider() -> None:
    narrow, wide = (compare(rate(20, 1000), rate(30, 1000), z_of(c)) for c in (0.8, 0.99))
    assert isinstance(narrow.interval, Interval)
    assert wide.interval.low < narrow.interval.low < narrow.interval.high < wide.interval.high
    assert wide.p == narrow.p
