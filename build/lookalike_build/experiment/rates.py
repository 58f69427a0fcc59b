"""Rates of events per trial: intervals, differences, tests. Pure functions of counts.

A trial is an impression, which a click may follow, or a click, which a purchase may follow. Visitors
are assigned at random, and the trials of one visitor are not independent: some visitors click on
everything, some on nothing. So the variance of a rate is that of a ratio of sums over visitors
(the delta method, as for clusters in a survey). Dividing the number of trials by the design effect
gives the effective number: how many independent trials would have that variance. With it come
Wilson's interval for a rate (Wilson 1927; for clusters Korn and Graubard 1998), Newcombe's (1998)
interval for a difference, made of two such, and Donner and Zou's (2012) for a ratio, made in the same
way. A p-value is 1 less the confidence at which the interval of the difference ends at 0, so the test
and both intervals always agree. Without visitors every trial is independent, and the intervals are
Wilson's and Newcombe's own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Final, NamedTuple

MIN_UNITS: Final = 5
"""With fewer visitors than this, their spread is unknown: intervals hold every possible rate."""
_MAX_Z = 35.0
"""Beyond it, Student's t of few visitors overflows; a p-value below 1e-267 is given as 0."""


class Sums(NamedTuple):
    """What units add up to: visitors, and trials of which no visitor is known, each a unit.

    `trials` n and `events` x are summed over the units, and so are `n_n` (n²), `n_x` (n x) and
    `x_x` (x²). `independent` says that no unit is a visitor.
    """

    units: int
    trials: int
    events: int
    n_n: int
    n_x: int
    x_x: int
    independent: bool = False

    @classmethod
    def of_trials(cls, trials: int, events: int) -> "Sums":
        """The sums of trials without visitors, each its own unit."""
        return cls(trials, trials, events, trials, events, events, independent=True)


class Interval(NamedTuple):
    """From `low` to `high`; `high` may be infinite."""

    low: float
    high: float


@dataclass(frozen=True)
class Rate:
    """Events per trial: `sums` of at least one trial."""

    sums: Sums

    @property
    def value(self) -> float:
        """Events over trials; above 1 where there are more events than trials."""
        return self.sums.events / self.sums.trials

    @cached_property
    def design_effect(self) -> float:
        """How many times the variance is that of independent trials; at least 1.

        Visitors do not make a rate more certain than independent trials would: what is below 1
        is chance, as where a handful of clicks come from as many visitors.
        """
        units, n, x, n_n, n_x, x_x, independent = self.sums
        plain = x * (n - x) if x < n else x * n  # n³ times the variance of independent trials
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
        n = self.sums.trials / self.design_effect
        if p > 1:  # not a share of the trials: the same of a Poisson number
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
    """The interval of B / A. It ends where that of A / B begins, upside down."""
    inverse = _lowest_ratio(b, a, z)
    return Interval(_lowest_ratio(a, b, z), 1 / inverse if inverse else math.inf)


def _lowest_ratio(a: Rate, b: Rate, z: float) -> float:
    """The lower end of the interval of B / A: the r for which that of B - r A begins at 0.

    With p in (., u) for A and q in (l, .) for B, the interval of q - r p begins at 0 where

        q - r p = √((q - l)² + r² (u - p)²)

    Squared, that is a r² - 2 p q r + c = 0 with a = u (2p - u) and c = l (2q - l). The left side is
    c > 0 at r = 0 and not above 0 at r = q / p, so r is the least root above 0. Written as
    c / (p q + √(p² q² - a c)) it needs no division by a, which may be 0 or negative; the square root is
    real, as a ≤ p² and c ≤ q².

    Of 20 and 40 in 1000, p = 0.02, u = 0.03069, q = 0.04, l = 0.02951: a = 0.0002857, c = 0.001490,
    r = 0.001490 / (0.0008 + √(0.00000064 - 0.0000004257)) = 1.180, a lift of 18 % at least.
    """
    p, q = a.value, b.value
    u, l = a.interval(z).high, b.interval(z).low  # noqa: E741  # as in the formula
    if l == 0 or math.isinf(u):
        return 0.0
    c = l * (2 * q - l)
    root = math.sqrt(max(0.0, p * p * q * q - u * (2 * p - u) * c))  # rounding may go below 0
    return c / (p * q + root)


def _p_value(a: Rate, b: Rate) -> float:
    from scipy.optimize import brentq  # loaded only where a report is made

    def distance(z: float) -> float:
        """From 0 to the near end of the interval, negative where the interval holds 0."""
        low, high = _difference(a, b, z)
        return max(low, -high)

    if distance(0.0) <= 0:
        return 1.0
    if distance(_MAX_Z) > 0:
        return 0.0
    return math.erfc(brentq(distance, 0.0, _MAX_Z) / math.sqrt(2))


def z_of(confidence: float) -> float:
    """The z for which a normal variable is between -z and z with that probability."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def student(z: float, degrees: int) -> float:
    """Student's t with the tail probability that `z` has for a normal variable."""
    from scipy.special import ndtr, stdtrit  # loaded only where a report is made

    # By the lower tail: a probability near 0 is exact, one near 1 is not.
    return -float(stdtrit(degrees, ndtr(-z)))


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
