"""The experiment's report as one page of HTML that loads nothing: tables, and plots as inline SVG.

``report.html``, a template of Jinja beside this, says what is where; here is what its plots show.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from lookalike.experiment import PATTERNS
from lookalike_build.experiment import tables
from lookalike_build.experiment.checks import excerpt
from lookalike_build.experiment.rates import Interval
from lookalike_build.experiment.report import MEASURES, Report

_MAX_PLOTTED = 100
_WIDTH, _LEFT, _RIGHT = 400, 105, 386
_TICKS = 5


class Mark(NamedTuple):
    """One line of a plot: a value with its interval, drawn in the colour of a class."""

    label: str
    value: float
    interval: Interval
    style: str
    message: str


class Plot(NamedTuple):
    """Values with their intervals, a line each, over one axis in percent that has 0 on it.

    The axis has ticks at `first` to `last` times `step`. `n` is how many values there are, with those
    that are not drawn.
    """

    title: str
    n: int
    marks: Sequence[Mark]
    step: float
    first: int
    last: int
    width: int = _WIDTH
    left: int = _LEFT

    @classmethod
    def of(cls, marks: Sequence[Mark], title: str, n: int) -> "Plot":
        """The plot, with an axis that all finite ends of intervals are on."""
        ends = [100 * bound for mark in marks for bound in mark.interval if math.isfinite(bound)]
        low, high = min([0.0, *ends]), max([0.0, *ends])
        step = _step(high - low)
        return cls(title, n, marks, step, math.floor(low / step), max(math.ceil(high / step), 1))

    def x(self, percent: float) -> str:
        """Where a value is, from the left; one that is not on the axis is at its end."""
        along = (percent / self.step - self.first) / (self.last - self.first)
        return f"{_LEFT + min(max(along, 0.0), 1.0) * (_RIGHT - _LEFT):.1f}"


def as_html(report: Report) -> bytes:
    """The whole report as one document, which needs no network and runs no script."""
    templates = Environment(
        loader=PackageLoader("lookalike_build.experiment", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = templates.get_template("report.html").render(
        report=report,
        tables=tables,
        measures=MEASURES,
        patterns=PATTERNS,
        rate_plot=_rate_plot,
        difference_plot=_difference_plot,
    )
    return page.strip().encode() + b"\n"


def _rate_plot(report: Report, measure: str) -> Plot:
    marks = []
    for pattern, row in report.patterns.items():
        estimate = getattr(row, measure)
        if estimate:
            name = report.records.name_of(pattern)
            message = f"{name}: {tables.rate(estimate)}"
            marks.append(Mark(name, estimate.value, estimate.interval, pattern, message))
    return Plot.of(marks, f"{measure.upper()} by pattern", len(marks))


def _difference_plot(report: Report, measure: str) -> Plot:
    """The decided categories with most impressions, by how much B is ahead."""
    decided = [each for each in report.categories if measure in each.measures]
    shown = sorted(
        decided[:_MAX_PLOTTED],
        key=lambda each: each.measures[measure].comparison.difference,
        reverse=True,
    )
    marks = []
    for category in shown:
        of_measure = category.measures[measure]
        comparison = of_measure.comparison
        style = (of_measure.won or "equal") + ("" if of_measure.certain else " uncertain")
        label = excerpt(category.category_id)
        message = f"{label}: {tables.difference(comparison)} points"
        marks.append(Mark(label, comparison.difference, comparison.interval, style, message))
    return Plot.of(marks, f"{measure.upper()}, B - A by category", len(decided))


def _step(span: float) -> float:
    """A round distance of the axis's ticks, for 3 to 7 of them."""
    if span == 0:
        return 1.0
    rough = span / _TICKS
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(power * round_ for round_ in (1, 2, 5, 10) if power * round_ >= rough * 0.9999)
