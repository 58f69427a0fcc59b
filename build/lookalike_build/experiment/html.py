"""The experiment's report as one page of HTML that loads nothing: tables, and plots as inline SVG."""

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import NamedTuple

from lookalike.experiment import PATTERNS
from lookalike_build.experiment.checks import excerpt
from lookalike_build.experiment.rates import Interval
from lookalike_build.experiment.report import MEASURES, Category, Report
from lookalike_build.experiment.tables import (
    TRAFFIC_TITLE,
    Table,
    best_table,
    best_title,
    categories_table,
    comparisons_table,
    count,
    difference,
    rate,
    rates_table,
    rates_title,
    summary,
    traffic_table,
    won_notes,
    won_table,
    won_title,
)

_MAX_PLOTTED = 100
_WIDTH, _LABEL, _ROW, _RIGHT, _AXIS = 400, 105, 20, 14, 24
_TICKS = 5
_MAX_LABEL = 15
_STYLE = """
:root { color-scheme: light dark; --a: light-dark(#b45309, #fbbf24); --b: light-dark(#1d4ed8, #93c5fd);
  --edge: color-mix(in srgb, currentColor 20%, transparent); }
* { box-sizing: border-box; }
body { margin: 0; font: 1rem/1.45 system-ui, sans-serif; }
main { max-width: 64rem; margin: auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; } h3 { font-size: 1rem; }
p { margin: .4rem 0; overflow-wrap: anywhere; }
.warning { border: 2px solid light-dark(#b91c1c, #f87171); border-radius: .4rem; padding: .5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--edge); text-align: right;
  white-space: nowrap; }
th { font-weight: 600; } tbody th { font-weight: 400; }
th:first-child { text-align: left; white-space: normal; overflow-wrap: break-word;
  min-width: 7.5rem; max-width: 16rem; }
svg { width: 100%; height: auto; display: block; max-width: 36rem; }
svg text { font: 11px system-ui, sans-serif; fill: currentColor; }
svg line { stroke: currentColor; } svg .grid { opacity: .2; } svg .zero { opacity: .7; }
.A line { stroke: var(--a); } .A circle { fill: var(--a); }
.B line { stroke: var(--b); } .B circle { fill: var(--b); }
.equal circle { fill: currentColor; } svg .bar { stroke-width: 2.5; }
.uncertain :is(line, circle) { opacity: .45; }
summary { cursor: pointer; padding: .5rem 0; }
"""


class Mark(NamedTuple):
    """One line of a plot: a value with its interval, drawn in the colour of a class."""

    label: str
    value: float
    interval: Interval
    style: str
    said: str


def as_html(report: Report) -> bytes:
    """The whole report as one document, which needs no network and runs no script."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>The experiment · Lookalike</title><style>{_STYLE}</style></head>\n"
        f"<body><main>{''.join(_sections(report))}</main></body></html>\n"
    ).encode()


def _sections(report: Report) -> Iterable[str]:
    yield "<h1>Pattern A against pattern B</h1>"
    for warning in report.warnings:
        yield f'<p class="warning" role="alert">{escape(warning)}</p>'
    yield _sentences(summary(report))
    yield _heading(rates_title(report)) + _table(rates_table(report))
    for measure in MEASURES:
        yield f"<h3>{measure.upper()}, percent</h3>{_rate_plot(report, measure)}"
    yield f"<h3>B against A</h3>{_table(comparisons_table(report))}"
    for measure in MEASURES:
        yield _heading(best_title(report, measure))
        for pattern in PATTERNS:
            yield _table(best_table(report, measure, pattern))
    yield _heading(won_title(report)) + _table(won_table(report)) + _sentences(won_notes(report))
    decided = [each for each in report.categories if each.measures]
    for measure in MEASURES if decided else ():
        yield _heading(f"{measure.upper()}, B - A by category") + _difference_plot(decided, measure)
    yield _heading(TRAFFIC_TITLE) + _table(traffic_table(report))
    every = _table(categories_table(report.categories, MEASURES, "category"))
    n = count(len(report.categories))
    yield f"{_heading('All categories')}<details><summary>{n} categories</summary>{every}</details>"
    if report.records.faults:
        yield _heading("Malformed records") + _sentences(report.records.faults)


def _heading(text: str) -> str:
    return f"<h2>{escape(text)}</h2>"


def _sentences(texts: Iterable[str]) -> str:
    return "".join(f"<p>{escape(text)}</p>" for text in texts)


def _table(table: Table) -> str:
    heads = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.head)
    rows = (
        f'<tr><th scope="row">{escape(first)}</th>'
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in others)}</tr>"
        for first, *others in table.rows
    )
    return (
        f'<div class="wide" tabindex="0"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _rate_plot(report: Report, measure: str) -> str:
    marks = []
    for pattern, row in report.patterns.items():
        estimate = getattr(row, measure)
        name = f"pattern {pattern}"
        said = f"{name}: {rate(estimate)}"
        marks.append(Mark(name, estimate.value, estimate.interval, pattern, said))
    return _plot(marks, f"{measure.upper()} by pattern")


def _difference_plot(decided: Sequence[Category], measure: str) -> str:
    """The categories with most impressions, by how much B is ahead."""
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
        said = f"{label}: {difference(comparison)} points"
        marks.append(Mark(label, comparison.difference, comparison.interval, style, said))
    which = "" if len(shown) == len(decided) else f" The {len(shown)} with most impressions."
    said = f"In points of a percent; right of 0 B is ahead, faint where that is not certain.{which}"
    title = f"{measure.upper()}, B - A by category"
    return f"<p>{escape(said)}</p>{_plot(marks, title)}"


def _plot(marks: Sequence[Mark], title: str) -> str:
    """Values with their intervals, a line each, over one axis in percent that has 0 on it."""
    ends = [100 * bound for mark in marks for bound in mark.interval if math.isfinite(bound)]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    step = _step(high - low)
    first, last = math.floor(low / step), max(math.ceil(high / step), 1)

    def x(percent: float) -> float:
        along = (percent / step - first) / (last - first)
        return _LABEL + min(max(along, 0.0), 1.0) * (_WIDTH - _LABEL - _RIGHT)

    bottom = len(marks) * _ROW
    parts = []
    for tick in range(first, last + 1):
        at = f"{x(tick * step):.1f}"
        kind = "grid" if tick else "zero"
        parts.append(f'<line class="{kind}" x1="{at}" x2="{at}" y1="0" y2="{bottom}"/>')
        parts.append(
            f'<text x="{at}" y="{bottom + 15}" text-anchor="middle">{tick * step:.4g}</text>'
        )
    parts += [_drawn(mark, (place + 0.5) * _ROW, x) for place, mark in enumerate(marks)]
    return (
        f'<svg viewBox="0 0 {_WIDTH} {bottom + _AXIS}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def _drawn(mark: Mark, y: float, x: Callable[[float], float]) -> str:
    low, high = (f"{x(100 * bound):.1f}" for bound in mark.interval)
    label = mark.label if len(mark.label) <= _MAX_LABEL else f"{mark.label[: _MAX_LABEL - 1]}…"
    return (
        f'<g class="{mark.style}"><title>{escape(mark.said)}</title>'
        f'<text x="{_LABEL - 10}" y="{y + 4}" text-anchor="end">{escape(label)}</text>'
        f'<line class="bar" x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>'
        f'<circle cx="{x(100 * mark.value):.1f}" cy="{y}" r="4"/></g>'
    )


def _step(span: float) -> float:
    """A round distance of the axis's ticks, for 3 to 7 of them."""
    if span == 0:
        return 1.0
    rough = span / _TICKS
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(power * round_ for round_ in (1, 2, 5, 10) if power * round_ >= rough * 0.9999)
