"""A simulated experiment's records, as a shop would have written them."""

from typing import Final

import numpy as np
import pyarrow as pa

from lookalike.experiment import METHODS, PATTERNS
from lookalike_build.experiment.checks import EVENTS
from lookalike_build.simulation.visitors import Impressions, Integers

START_S: Final = 1_767_225_600
"""2026-01-01 00:00 UTC: a fixed beginning, so that results can be repeated."""
_DAY_S = 86_400
_TO_CLICK_S, _TO_PURCHASE_S = 20, 600
_TIME = pa.timestamp("s", "UTC")


def schema(known: bool) -> pa.Schema:
    """The columns of the records; `visitor` is one of them only if visitors are `known`."""
    fields = [
        ("event", pa.string()),
        ("pattern", pa.string()),
        ("method", pa.string()),
        ("category_id", pa.string()),
        ("visitor", pa.string()),
        ("time", _TIME),
    ]
    return pa.schema([field for field in fields if known or field[0] != "visitor"])


def records_of(
    rng: np.random.Generator,
    impressions: Impressions,
    category_ids: tuple[str, ...],
    days: int,
    known: bool,
) -> pa.Table:
    """The records of these impressions, spread over `days`, in the order of time."""
    n = impressions.visitor.size
    seen_s = START_S + rng.integers(0, days * _DAY_S, n)
    by_event = [
        np.arange(n),
        np.flatnonzero(impressions.clicked),
        np.flatnonzero(impressions.bought),
    ]
    row = np.concatenate(by_event)
    event = np.repeat(np.arange(len(EVENTS)), [rows.size for rows in by_event])
    after_s = np.array([0, _TO_CLICK_S, _TO_PURCHASE_S])[event]
    at_s = seen_s[row] + after_s
    order = np.argsort(at_s, kind="stable")
    row, event, at_s = row[order], event[order], at_s[order]
    visitors = pa.array(impressions.visitor[row])
    columns = {
        "event": _named(event, EVENTS),
        "pattern": _named(impressions.pattern[row], PATTERNS),
        "method": _named(impressions.method[row], METHODS),
        "category_id": _named(impressions.category[row], category_ids),
        "visitor": visitors.cast(pa.string()),
        "time": pa.array(at_s).cast(_TIME),
    }
    columns = {name: column for name, column in columns.items() if known or name != "visitor"}
    return pa.table(columns, schema=schema(known))


def _named(indices: Integers, names: tuple[str, ...]) -> pa.Array:
    return pa.array(names, pa.string()).take(pa.array(indices))
