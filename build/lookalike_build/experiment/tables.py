"""The experiment's report as text: the cells of its tables, and the sentences between them."""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from lookalike.experiment import PATTERNS
from lookalike_build.experiment.checks import excerpt
from lookalike_build.experiment.rates import Comparison, Interval
from lookalike_build.experiment.report import MEASURES, N_BEST, Category, Estimate, Report

_MAX_UNDECIDED = 20
_MINUTE = "%Y-%m-%d %H:%M"


class ReportTable(NamedTuple):
    """A table of text: its head, and rows as wide."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def summary(report: Report) -> Iterator[str]:
    """The period and the counts, and what was left out."""
    rows, records = report.patterns.values(), report.records
    if records.period:
        first, last = (datetime.fromtimestamp(at, UTC).strftime(_MINUTE) for at in records.period)
        yield f"from {first} to {last} UTC"
    yield (
        f"{count(sum(row.impressions for row in rows))} impressions"
        + (f" of {count(records.n_visitors)} visitors" if records.n_visitors else "")
        + f", {count(sum(row.clicks for row in rows))} clicks"
        f", {count(sum(row.purchases for row in rows))} purchases"
    )
    left_out = {
        "impressions that nothing answered": report.n_unanswered,
        "records outside the period": records.n_outside,
        "malformed records": records.n_malformed,
        "requests of other things": records.n_other,
        "clicks and purchases without a method": records.n_without_method,
        "records of visitors who were assigned no pattern": records.n_chosen,
    }
    if any(left_out.values()):
        yield f"left out: {', '.join(f'{count(n)} {what}' for what, n in left_out.items() if n)}"
    if records.n_unnamed:
        yield (
            f"taken as of no visitor: {count(records.n_unnamed)} records whose visitor is undefined, "
            "null or the like"
        )
    yield {
        "pattern": "counted by the pattern assigned, whichever method answered",
        "method": "counted by the method that answered, as in Miyake et al. (2017): what one pattern "
        "could not answer counts for the other, so the two are not compared on the same products",
    }[records.count_by]
    yield assignment(report)


def assignment(report: Report) -> str:
    """The result of the check for a sample ratio mismatch."""
    ratio = report.ratio
    units = "visitors" if report.has_visitors else "impressions"
    verdict = "SAMPLE RATIO MISMATCH" if report.mismatch else "no sample ratio mismatch"
    return (
        f"assigned: {count(ratio.a)} {units} to A, {count(ratio.b)} to B, which should have "
        f"{100 * report.question.share:g} %: {verdict} "
        f"(chi-square {ratio.chi_square:.2f}, {probability(ratio.p)})"
    )


def rates_title(report: Report) -> str:
    """The title of table 1."""
    return f"Table 1. Rates by pattern, with {_confidence(report)} intervals"


def rates_table(report: Report) -> ReportTable:
    """Table 1: counts and rates by pattern."""
    all_impressions = sum(row.impressions for row in report.patterns.values())
    return ReportTable(
        ("", "visitors", "impressions", "of all", "clicks", "CTR", "purchases", "CVR"),
        [
            (
                report.records.name_of(pattern),
                count(row.visitors) if row.visitors else "unknown",
                count(row.impressions),
                f"{100 * row.impressions / all_impressions:.2f} %",
                count(row.clicks),
                rate(row.ctr),
                count(row.purchases),
                rate(row.cvr),
            )
            for pattern, row in report.patterns.items()
        ],
    )


def comparisons_table(report: Report) -> ReportTable:
    """How B differs from A, by measure."""
    return ReportTable(
        ("", "B - A, points", "relative", "p"),
        [
            (m.upper(), difference(each), lift(each), probability(each.p))
            if (each := report.comparisons[m])
            else (m.upper(), "none", "none", "")
            for m in MEASURES
        ],
    )


def best_title(report: Report, measure: str, pattern: str) -> str:
    """The title of table 2, of A's best categories, or of table 3, of B's."""
    number = 2 + PATTERNS.index(pattern)
    best = {"lead": "largest lead in", "rate": "highest"}[report.question.best_by]
    name = report.records.name_of(pattern)
    what = f"Categories in which {name} has the {best} {measure.upper()}"
    return f"Table {number}. {what}, at most {N_BEST}"


def best_table(report: Report, measure: str, pattern: str) -> ReportTable:
    """Table 2 or 3: one pattern's best categories by one measure."""
    best = report.best[measure][pattern]
    return categories_table(best, (measure,), "category" if best else "none")


def categories_table(
    categories: Sequence[Category], measures: Sequence[str], name: str
) -> ReportTable:
    """Categories by measures; `name` heads the first column."""
    head = [name]
    for measure in measures:
        head += [f"{measure.upper()} of A", "of B", "B - A, points", "won", "corrected p"]
    return ReportTable(
        head,
        [
            [excerpt(each.category_id), *(cell for m in measures for cell in _cells(each, m))]
            for each in categories
        ],
    )


def _cells(category: Category, measure: str) -> Iterator[str]:
    yield from (rate(getattr(category.patterns[pattern], measure)) for pattern in PATTERNS)
    of_measure = category.measures.get(measure)
    if of_measure is None:
        yield from ("", "undecided", "")
    else:
        yield difference(of_measure.comparison)
        yield (of_measure.won or "equal") + (", certain" if of_measure.certain else "")
        yield probability(of_measure.p_corrected)


def won_title(report: Report) -> str:
    """The title of the number of categories won."""
    impressions, clicks = count(report.question.min_impressions), count(report.question.min_clicks)
    return (
        f"Categories won, of those with {impressions} impressions (CTR) or {clicks} clicks "
        "(CVR) of each pattern or more"
    )


def won_table(report: Report) -> ReportTable:
    """The number of categories that each pattern won."""
    return ReportTable(
        ("", "of", "A", "B", "equal", "A, certain", "B, certain"),
        [(m.upper(), count(sum(report.won[m][:3])), *map(count, report.won[m])) for m in MEASURES],
    )


def won_notes(report: Report) -> Iterator[str]:
    """What "certain" means, and which categories are undecided."""
    level = 1 - report.question.confidence
    yield (
        f"certain: a corrected p (Holm) below {level:.3g}; if no category differs, at most "
        f"{100 * level:.3g} % of experiments name one"
    )
    yield (
        "the best of many owe some of it to luck: expect less of them, and judge by the corrected p, "
        "not by whether an interval contains 0"
    )
    for measure, fewer in (("ctr", "fewer impressions"), ("cvr", "fewer clicks")):
        undecided = report.undecided[measure]
        if undecided:
            shown = [excerpt(each.category_id) for each in undecided[:_MAX_UNDECIDED]]
            more = len(undecided) - len(shown)
            names = ", ".join(shown) + (f" and {count(more)} more" if more else "")
            yield f"undecided by {measure.upper()}, with {fewer}: {count(len(undecided))} ({names})"


TRAFFIC_TITLE = "Impressions by pattern and by what answered"


def traffic_table(report: Report) -> ReportTable:
    """The shares of traffic by pattern and method."""
    return ReportTable(
        ("", "impressions", "of the pattern's", "of all", "clicks", "purchases"),
        [
            (
                f"pattern {each.pattern}, {each.method}",
                count(each.impressions),
                f"{100 * each.share:.2f} %",
                f"{100 * each.share_of_all:.2f} %",
                count(each.clicks),
                count(each.purchases),
            )
            for each in report.traffic
        ],
    )


def count(n: int) -> str:
    """A whole number with commas."""
    return f"{n:,}"


def rate(estimate: Estimate | None) -> str:
    """A rate and its interval in percent."""
    if estimate is None:
        return "none"
    return f"{100 * estimate.value:.2f} % ({_bounds(estimate.interval, '.2f')})"


def difference(comparison: Comparison) -> str:
    """A difference and its interval in percentage points."""
    return f"{100 * comparison.difference:+.2f} ({_bounds(comparison.interval, '+.2f')})"


def lift(comparison: Comparison) -> str:
    """A relative difference and its interval in percent."""
    value = "none" if comparison.lift is None else f"{100 * comparison.lift:+.0f} %"
    return f"{value} ({_bounds(comparison.lift_interval, '+.0f')})"


def probability(p: float) -> str:
    """A p-value."""
    return "p < 0.0001" if p < 0.0001 else f"p {p:.4f}"


def _confidence(report: Report) -> str:
    return f"{100 * report.question.confidence:g} %"


def _bounds(interval: Interval, form: str) -> str:
    low, high = ("any" if math.isinf(bound) else format(100 * bound, form) for bound in interval)
    return f"{low} to {high}"
