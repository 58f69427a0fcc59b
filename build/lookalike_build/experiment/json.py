"""The experiment's report as a JSON document, for programs."""

import math
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from lookalike_build.experiment.report import Report


def as_json(report: Report) -> bytes:
    """The whole report. Rates are numbers of 0 and more, not percent; a missing value is null.

    Keys: confidence, share, min_impressions, min_clicks, best_by, count_by; period (first and last
    moment); left_out (numbers of records); visitors_in_both and unnamed (how many there are); patterns
    (for A and B: visitors, impressions, clicks, purchases, and ctr and cvr with value and interval);
    comparisons (of B with A, by ctr and cvr); categories (with patterns and the measures by which they
    are decided); best (category ids by measure and pattern); won (by measure); undecided (category ids
    by measure); traffic; ratio and mismatch; warnings; faults.
    """
    question, records = report.question, report.records
    period = [datetime.fromtimestamp(at, UTC).isoformat() for at in records.period or ()]
    document = {
        **_plain(question),
        "count_by": records.count_by,
        "period": period or None,
        "left_out": {
            "unanswered": report.n_unanswered,
            "outside": records.n_outside,
            "malformed": records.n_malformed,
            "other": records.n_other,
            "without_method": records.n_without_method,
            "chosen": records.n_chosen,
        },
        "visitors_in_both": records.n_in_both,
        "unnamed": records.n_unnamed,
        "patterns": report.patterns,
        "comparisons": report.comparisons,
        "categories": report.categories,
        "best": {
            measure: {pattern: [each.category_id for each in best] for pattern, best in by.items()}
            for measure, by in report.best.items()
        },
        "won": report.won,
        "undecided": {m: [each.category_id for each in its] for m, its in report.undecided.items()},
        "traffic": report.traffic,
        "ratio": report.ratio,
        "mismatch": report.mismatch,
        "warnings": report.warnings,
        "faults": records.faults,
    }
    return msgspec.json.format(msgspec.json.encode(_plain(document))) + b"\n"


def _plain(value: Any) -> Any:
    """The value as JSON has it: dataclasses and named tuples as objects, infinity as null."""
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and math.isinf(value) else value
