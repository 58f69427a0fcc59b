"""Rates of events per impression: intervals, differences, tests. Pure functions of counts.

Visitors are what is assigned at random, and one visitor's impressions are not independent: some click
on everything, some on nothing. So a rate's variance is that of a ratio of sums over visitors (the
delta method, as for clusters in a survey), and says how many independent impressions would have told
as much, the effective number. With that number in place of the impressions come Wilson's interval for
a rate (Wilson 1927; for clusters Korn and Graubard 1998), the interval for a difference that Newcombe
(1998) makes of two such, and the one for a ratio that Donner and Zou (2012) make of them in the same
way. A p-value is 1 less the confidence at which the interval of the difference ends at 0, so tests and
both intervals never contradict one another. Without visitors every impression stands for itself, and
the intervals are Wilson's and Newcombe's own.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Final, NamedTuple

MIN_UNITS: Final = 5
"""With fewer visitors than this, nothing is said of how much they differ."""
_MOST_Z = 38.0  # beyond it, the normal tail is no number any more
_STEPS = 45  # of halving that: a p-value to eleven digits


class Sums(NamedTuple):
    """What units add up to: visitors, and impressions of which no visitor is known, each a unit.

    `impressions` n and `events` x are summed over the units, and so are `n_n` (n²), `n_x` (n x) and
    `x_x` (x²). `independent` says that no unit is a visitor.
    """

    units: int
    impressions: int
    events: int
    n_n: int
    n_x: int
    x_x: int
    independent: bool = False

    @classmethod
    def of_impressions(cls, impressions: int, events: int) -> "Sums":
        """The sums of impressions without visitors, each its own unit."""
        return cls(impressions, impressions, events, impressions, events, events, independent=True)


class Interval(NamedTuple):
    """From `low` to `high`; `high` may be infinite."""

    low: float
    high: float


@dataclass(frozen=True)
class Rate:
    """Events per impression: `sums` of at least one impression."""

    sums: Sums

    @property
    def value(self) -> float:
        """Events over impressions; above 1 where there are more events than impressions."""
        return self.sums.events / self.sums.impressions

    @cached_property
    def design_effect(self) -> float:
        """How many times the variance is that of independent impressions; at least 1.

        Visitors do not make a rate more certain than independent impressions would: what is below 1
        is chance, as where a handful of clicks come from as many visitors.
        """
        units, n, x, n_n, n_x, x_x, independent = self.sums
        plain = x * (n - x) if x < n else x * n  # n³ times the variance of independent impressions
        if independent or units < 2 or plain == 0:
            return 1.0
        residual = (
            n * n * x_x - 2 * x * n * n_x + x * x * n_n
        )  # n² Σ(x - n rate)², exact in integers
        return max(1.0, units / (units - 1) * residual / (n * plain))

    def interval(self, z: float) -> Interval:
        """The interval whose confidence is that of -`z` to `z` for a normal variable."""
        p = self.value
        units, independent = self.sums.units, self.sums.independent
        if not independent and units < MIN_UNITS:
            return Interval(0.0, 1.0 if p < 1 else math.inf)
        t = z if independent else student(z, units - 1)
        n = self.sums.impressions / self.design_effect
        if p > 1:  # not a share of the impressions: the same of a Poisson number
            centre, half = p + t * t / (2 * n), t * math.sqrt(p / n + t * t / (4 * n * n))
        else:
            shrink = 1 + t * t / n
            centre = (p + t * t / (2 * n)) / shrink
            half = t / shrink * math.sqrt(p * (1 - p) / n + t * t / (4 * n * n))
        low = max(0.0, centre - half) if self.sums.events else 0.0
        return Interval(min(low, p), max(centre + half, p) if p != 1 else 1.0)


class Comparison(NamedTuple):
    """How B differs from A: `difference` B - A with its interval, `lift` (B - A) / A with its own.

    `lift` is None where A is 0. `p` is the probability of a difference at least this large where
    there is none, both sides.
    """

    difference: float
    interval: Interval
    lift: float | None
    lift_interval: Interval
    p: float


def compare(a: Rate, b: Rate, z: float) -> Comparison:
    """Compare two rates of different units, at the confidence of `z`."""
    difference = b.value - a.value
    lift = difference / a.value if a.value else None
    ratio = _ratio(a, b, z)
    return Comparison(
        difference,
        _difference(a, b, z),
        lift,
        Interval(ratio.low - 1, ratio.high - 1),
        _p_value(a, b),
    )


def _difference(a: Rate, b: Rate, z: float) -> Interval:
    of_a, of_b = a.interval(z), b.interval(z)
    difference = b.value - a.value
    return Interval(
        difference - math.hypot(b.value - of_b.low, of_a.high - a.value),
        difference + math.hypot(of_b.high - b.value, a.value - of_a.low),
    )


def _ratio(a: Rate, b: Rate, z: float) -> Interval:
    """The r for which the interval of B - r A ends at 0: the roots of a quadratic equation each."""
    p, q = a.value, b.value
    of_a, of_b = a.interval(z), b.interval(z)
    low = _root(of_b.low * (2 * q - of_b.low), p * q, of_a.high * (2 * p - of_a.high))
    inverse = _root(of_a.low * (2 * p - of_a.low), p * q, of_b.high * (2 * q - of_b.high))
    return Interval(low, 1 / inverse if inverse else math.inf)


def _root(c: float, half_b: float, a: float) -> float:
    """The smaller root of a r² - 2 half_b r + c, in the form that divides by nothing small."""
    if c == 0 or math.isinf(a):
        return 0.0
    return c / (half_b + math.sqrt(max(0.0, half_b * half_b - a * c)))


def _p_value(a: Rate, b: Rate) -> float:
    if a.value == b.value:
        return 1.0

    def reaches_0(z: float) -> bool:
        interval = _difference(a, b, z)
        return interval.low <= 0 <= interval.high

    if not reaches_0(_MOST_Z):
        return 0.0
    return math.erfc(_bisect(reaches_0, 0.0, _MOST_Z) / math.sqrt(2))


def _bisect(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Where, from `low` to `high`, it begins to hold."""
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def z_of(confidence: float) -> float:
    """The z for which a normal variable is between -z and z with that probability."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def student(z: float, degrees: int) -> float:
    """Student's t with the tail probability that `z` has for a normal variable.

    The expansion of Abramowitz and Stegun, 26.7.5: with 4 degrees of freedom and z up to 2.6 within
    1 %, with 9 within 0.05 %.
    """
    z2, n = z * z, degrees
    terms = (
        (z2 + 1) / 4,
        ((5 * z2 + 16) * z2 + 3) / 96,
        (((3 * z2 + 19) * z2 + 17) * z2 - 15) / 384,
        ((((79 * z2 + 776) * z2 + 1482) * z2 - 1920) * z2 - 945) / 92160,
    )
    return z * (1 + math.fsum(term / n**power for power, term in enumerate(terms, 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number, after Holm (1979), in the order given.

    The probability that any of those at most α is of a difference that is not there is at most α,
    however the tests depend on one another; here they do, as categories share visitors.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected = [0.0] * len(p_values)
    most = 0.0
    for rank, place in enumerate(order):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = most
    return corrected


class SampleRatio(NamedTuple):
    """How many units have pattern A and B, what chi-square says of that, and its p-value."""

    a: int
    b: int
    chi_square: float
    p: float


def sample_ratio(a: int, b: int, share: float) -> SampleRatio:
    """Whether `b` of a + b units (at least one) is what a `share` of them would give by chance."""
    n = a + b
    chi_square = (b - n * share) ** 2 / (n * share * (1 - share))
    # With one degree of freedom it is the square of a normal variable.
    return SampleRatio(a, b, chi_square, math.erfc(math.sqrt(chi_square / 2)))
