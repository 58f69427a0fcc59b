"""The experiment's report: the three tables of Miyake et al. (2017), with their certainty.

They compare patterns A and B by click-through rate (CTR, clicks per impression) and conversion rate
(CVR, purchases per click): the rates, the categories in which each did best, the number of
categories each won. A record counts for its assigned pattern, whichever method answered, or, as in the
paper, for the method that answered. Impressions that nothing answered are left out, as in the paper.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from lookalike.errors import LookalikeError
from lookalike.experiment import METHODS, PATTERNS
from lookalike_build.experiment.rates import (
    Comparison,
    Interval,
    Rate,
    SampleRatio,
    compare,
    holm,
    sample_ratio,
    z_of,
)
from lookalike_build.experiment.records import MethodTally, Records, Tally

BestBy = Literal["lead", "rate"]
MEASURES: Final = ("ctr", "cvr")
N_BEST: Final = 5
MISMATCH_P: Final = 0.001
"""Below this p-value the assignment is judged wrong; by chance, one experiment in a thousand is."""
_RATE: Final[dict[str, Callable[[Tally], Rate | None]]] = {"ctr": Tally.ctr, "cvr": Tally.cvr}


@dataclass(frozen=True)
class Question:
    """The report's settings.

    `confidence` is that of the intervals; tests have the level 1 - `confidence`. `share` is the share
    of visitors that should have pattern B. With fewer than `min_impressions` of either pattern, a
    category is undecided by CTR, with fewer than `min_clicks` by CVR. `best_by`: a pattern did best
    where its lead, or its rate, is highest.
    """

    confidence: float = 0.95
    share: float = 0.5
    min_impressions: int = 1000
    min_clicks: int = 100
    best_by: BestBy = "lead"


class Estimate(NamedTuple):
    """A rate with its interval."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class PatternRates:
    """One pattern's counts and rates, overall or in one category.

    There is no CTR without impressions, and no CVR without clicks.
    """

    visitors: int
    impressions: int
    clicks: int
    purchases: int
    ctr: Estimate | None
    cvr: Estimate | None


@dataclass(frozen=True)
class CategoryMeasure:
    """One category by one measure, with enough impressions or clicks of both patterns.

    `won` is the pattern with the higher rate, None if they are equal. `p_corrected` is the comparison's
    p-value, corrected for the number of categories; the result is `certain` if it is below the level.
    """

    comparison: Comparison
    p_corrected: float
    won: str | None
    certain: bool


@dataclass(frozen=True)
class Category:
    """One category: its rates by pattern, and the measures by which it is decided."""

    category_id: str
    patterns: dict[str, PatternRates]
    measures: dict[str, CategoryMeasure]


class Won(NamedTuple):
    """How many categories each pattern won by one measure, and how many of these are certain."""

    a: int
    b: int
    equal: int
    a_certain: int
    b_certain: int


class Traffic(NamedTuple):
    """A pattern's impressions that one method answered, as a share of the pattern's and of all."""

    pattern: str
    method: str
    impressions: int
    share: float
    share_of_all: float
    clicks: int
    purchases: int


@dataclass(frozen=True)
class Report:
    """Everything that a report shows.

    `comparisons` are of B with A over all categories, by measure; None where a pattern has no such
    rate. `categories` are sorted by impressions, most first. `best` holds a pattern's best categories,
    by measure and pattern; `won` is by measure, as are the `undecided` categories, which have too few
    impressions or clicks. `ratio` is the check of the assignment, `mismatch` whether it failed.
    `warnings` must be read.
    """

    question: Question
    records: Records
    patterns: dict[str, PatternRates]
    comparisons: dict[str, Comparison | None]
    categories: list[Category]
    best: dict[str, dict[str, list[Category]]]
    won: dict[str, Won]
    undecided: dict[str, list[Category]]
    traffic: list[Traffic]
    ratio: SampleRatio
    mismatch: bool
    warnings: list[str]

    @property
    def has_visitors(self) -> bool:
        """Whether any record names a visitor."""
        return any(row.visitors for row in self.patterns.values())

    @property
    def n_unanswered(self) -> int:
        """The impressions that nothing answered."""
        return sum(each.impressions for each in self.traffic if each.method == "none")


class NoExperiment(LookalikeError):  # noqa: N818
    """The records hold no experiment; the text says what is missing."""


def report_of(records: Records, question: Question) -> Report:
    """The report; NoExperiment if a pattern has no impressions."""
    for pattern, tally in records.patterns.items():
        if tally.impressions == 0:
            raise NoExperiment(_nothing(records, pattern))
    z = z_of(question.confidence)
    categories = _categories(records, question, z)
    decided = {m: [each for each in categories if m in each.measures] for m in MEASURES}
    ratio = sample_ratio(records.assigned["A"], records.assigned["B"], question.share)
    mismatch = ratio.p < MISMATCH_P
    return Report(
        question,
        records,
        {pattern: _rates(tally, z) for pattern, tally in records.patterns.items()},
        {measure: _comparison(records.patterns, measure, z) for measure in MEASURES},
        categories,
        {m: {p: _best(decided[m], m, p, question.best_by) for p in PATTERNS} for m in MEASURES},
        {measure: _won(decided[measure], measure) for measure in MEASURES},
        {m: [each for each in categories if m not in each.measures] for m in MEASURES},
        _traffic(records.methods),
        ratio,
        mismatch,
        _warnings(records, question, ratio, mismatch),
    )


def _nothing(records: Records, pattern: str) -> str:
    problem = f"no impressions of {records.name_of(pattern)} that were answered"
    left_out = {
        "malformed": records.n_malformed,
        "outside the period": records.n_outside,
        "requests of other things": records.n_other,
        "of visitors who were assigned no pattern": records.n_chosen,
    }
    if any(left_out.values()):
        problem += f"; left out: {', '.join(f'{n} {what}' for what, n in left_out.items() if n)}"
    return "; the first: ".join([problem, *records.faults[:1]])


def _rates(tally: Tally, z: float) -> PatternRates:
    ctr, cvr = (
        Estimate(found.value, found.interval(z)) if (found := rate(tally)) else None
        for rate in _RATE.values()
    )
    return PatternRates(tally.visitors, tally.impressions, tally.clicks, tally.purchases, ctr, cvr)


def _comparison(
    tallies: dict[str, Tally], measure: str, z: float, least: int = 1
) -> Comparison | None:
    """B compared with A; None if one has fewer than `least` impressions (CTR) or clicks (CVR)."""
    a, b = (_RATE[measure](tallies[pattern]) for pattern in PATTERNS)
    if a is None or b is None or min(a.sums.trials, b.sums.trials) < least:
        return None
    return compare(a, b, z)


def _categories(records: Records, question: Question, z: float) -> list[Category]:
    """All categories, those with most impressions first."""
    measures = _measures(records, question, z)
    categories = [
        Category(
            category_id,
            {pattern: _rates(tally, z) for pattern, tally in tallies.items()},
            measures[category_id],
        )
        for category_id, tallies in records.categories.items()
    ]
    return sorted(categories, key=lambda each: (-_impressions(each), each.category_id))


def _measures(
    records: Records, question: Question, z: float
) -> dict[str, dict[str, CategoryMeasure]]:
    """By category, and by measure where there are enough impressions or clicks."""
    measures: dict[str, dict[str, CategoryMeasure]] = {each: {} for each in records.categories}
    for measure, least in (("ctr", question.min_impressions), ("cvr", question.min_clicks)):
        compared = {
            category_id: comparison
            for category_id, tallies in records.categories.items()
            if (comparison := _comparison(tallies, measure, z, least))
        }
        corrected = holm([comparison.p for comparison in compared.values()])
        for (category_id, comparison), p in zip(compared.items(), corrected, strict=True):
            won = PATTERNS[comparison.difference > 0] if comparison.difference else None
            certain = p < 1 - question.confidence
            measures[category_id][measure] = CategoryMeasure(comparison, p, won, certain)
    return measures


def _impressions(category: Category) -> int:
    return sum(row.impressions for row in category.patterns.values())


def _best(decided: list[Category], measure: str, pattern: str, best_by: BestBy) -> list[Category]:
    """The pattern's best categories, the best first; by lead only those in which it leads."""

    def good(category: Category) -> float:
        if best_by == "lead":
            return abs(category.measures[measure].comparison.difference)
        estimate: Estimate = getattr(category.patterns[pattern], measure)
        return estimate.value

    able = [each for each in decided if best_by == "rate" or each.measures[measure].won == pattern]
    return sorted(able, key=good, reverse=True)[:N_BEST]


def _won(decided: list[Category], measure: str) -> Won:
    measures = [category.measures[measure] for category in decided]
    won = Counter(each.won for each in measures)
    certain = Counter(each.won for each in measures if each.certain)
    return Won(won["A"], won["B"], won[None], certain["A"], certain["B"])


def _traffic(methods: list[MethodTally]) -> list[Traffic]:
    """By pattern and method, if there are impressions; clicks without a method are not counted."""
    totals: dict[str, int] = {
        p: sum(each.impressions for each in methods if each.pattern == p) for p in PATTERNS
    }
    return [
        Traffic(
            each.pattern,
            each.method,
            each.impressions,
            each.impressions / totals[each.pattern],
            each.impressions / sum(totals.values()),
            each.clicks,
            each.purchases,
        )
        for each in sorted(methods, key=lambda each: (each.pattern, _order(each.method)))
        if each.impressions
    ]


def _order(method: str) -> int:
    return METHODS.index(method) if method in METHODS else len(METHODS)


def _warnings(
    records: Records, question: Question, ratio: SampleRatio, mismatch: bool
) -> list[str]:
    warnings = []
    visitors = any(tally.visitors for tally in records.patterns.values())
    units = "visitors" if visitors else "impressions"
    if mismatch:
        warnings.append(
            f"sample ratio mismatch: {ratio.b} of {ratio.a + ratio.b} {units} have pattern B where "
            f"{100 * question.share:g} % should (p {ratio.p:.1e}). Believe no figure until you know "
            "why. Perhaps records of one pattern were lost or counted twice, bots came, --share is "
            "wrong, or the experiment's key was changed"
            + (", or one pattern has the records of no visitor" if records.n_unnamed else "")
        )
    if records.n_in_both:
        warnings.append(
            f"{records.n_in_both} visitors have impressions of both patterns and count for both: the "
            "experiment's key was changed, or visitors share an id"
        )
    if not visitors:
        warnings.append(
            "no record names a visitor: intervals and tests count every impression as independent, and "
            "are too certain if visitors with several impressions keep their pattern"
        )
    for pattern, tally in records.patterns.items():
        counts = {name: getattr(tally, name) for name in ("impressions", "clicks", "purchases")}
        for (of, trials), (what, n) in pairwise(counts.items()):
            if n > trials:
                warnings.append(
                    f"{records.name_of(pattern)} has more {what} ({n}) than {of} ({trials}): "
                    f"{of} are missing, or {what} are repeated"
                )
    return [*warnings, *records.doubts]
