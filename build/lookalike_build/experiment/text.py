"""The experiment's report as plain text, for a terminal or a mail."""

from collections.abc import Iterator

from lookalike.experiment import PATTERNS
from lookalike_build.experiment.report import MEASURES, Report
from lookalike_build.experiment.tables import (
    TRAFFIC_TITLE,
    ReportTable,
    best_table,
    best_title,
    comparisons_table,
    rates_table,
    rates_title,
    summary,
    traffic_table,
    won_notes,
    won_table,
    won_title,
)


def as_text(report: Report) -> str:
    """The whole report, warnings first."""
    sections = [
        [f"WARNING: {warning}" for warning in report.warnings],
        summary(report),
        [rates_title(report), *_lines(rates_table(report))],
        _lines(comparisons_table(report)),
        *(
            [best_title(report, m, p), *_lines(best_table(report, m, p))]
            for m in MEASURES
            for p in PATTERNS
        ),
        [won_title(report), *_lines(won_table(report)), *won_notes(report)],
        [TRAFFIC_TITLE, *_lines(traffic_table(report))],
        [f"malformed: {fault}" for fault in report.records.faults],
    ]
    texts = ("\n".join(section) for section in sections)
    return "\n\n".join(text for text in texts if text) + "\n"


def _lines(table: ReportTable) -> Iterator[str]:
    """Aligned columns: the first to the left, the others to the right."""
    rows = [table.head, *table.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join(cells).rstrip()
