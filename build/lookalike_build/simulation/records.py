"""A simulated experiment's records, as a shop would have written them."""

from typing import Final

import numpy as np
import pyarrow as pa

from lookalike.experiment import METHODS, PATTERNS
from lookalike_build.experiment.checks import EVENTS
from lookalike_build.simulation.visitors import Impressions, Integers

START_S: Final = 1_767_225_600
"""2026-01-01 00:00 UTC: a simulated experiment begins on a day that depends on nothing."""
_DAY_S = 86_400
_TO_CLICK_S, _TO_PURCHASE_S = 20, 600
_TIME = pa.timestamp("s", "UTC")


def schema(known: bool) -> pa.Schema:
    """The columns of the records; without `known` visitors, all but theirs."""
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
    """The records of these impressions, over so many days, in the order of their time."""
    n = impressions.visitor.size
    seen_s = START_S + rng.integers(0, days * _DAY_S, n)
    places = [np.arange(n), np.flatnonzero(impressions.clicked), np.flatnonzero(impressions.bought)]
    place = np.concatenate(places)
    event = np.repeat(np.arange(len(EVENTS)), [each.size for each in places])
    after_s = np.array([0, _TO_CLICK_S, _TO_PURCHASE_S])[event]
    at_s = seen_s[place] + after_s
    order = np.argsort(at_s, kind="stable")
    place, event, at_s = place[order], event[order], at_s[order]
    visitors = pa.array(impressions.visitor[place])
    columns = {
        "event": _named(event, EVENTS),
        "pattern": _named(impressions.pattern[place], PATTERNS),
        "method": _named(impressions.method[place], METHODS),
        "category_id": _named(impressions.category[place], category_ids),
        "visitor": visitors.cast(pa.string()),
        "time": pa.array(at_s).cast(_TIME),
    }
    columns = {name: column for name, column in columns.items() if known or name != "visitor"}
    return pa.table(columns, schema=schema(known))


def _named(places: Integers, names: tuple[str, ...]) -> pa.Array:
    return pa.array(names, pa.string()).take(pa.array(places))
