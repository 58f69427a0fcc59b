"""Simulated experiments on disk: the records, and beside them the truth about them as JSON."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from lookalike.experiment import CHOSEN, METHODS, PATTERNS
from lookalike_build.experiment.checks import EVENTS
from lookalike_build.experiment.writer import event_writer
from lookalike_build.files.whole import whole_file
from lookalike_build.simulation.shop import Ask, Seen, Shelf, Taste, arrays_of, browse, truth_of
from lookalike_build.simulation.visitors import Impressions, Integers, Simulation

START_S: Final = 1_767_225_600
"""2026-01-01 00:00 UTC: a fixed beginning, so that results can be repeated."""
_DAY_S = 86_400
_TO_CLICK_S, _TO_PURCHASE_S = 20, 600
_TIME = pa.timestamp("s", "UTC")
_PIECE = 100_000
"""The number of visitors whose records are in memory at a time."""


@dataclass(frozen=True)
class Sample:
    """The number of visitors, the days over which they come, and the seed that draws them."""

    n_visitors: int
    days: int
    seed: int


def simulate(
    simulation: Simulation, sample: Sample, out: Path, done: Callable[[int], object]
) -> int:
    """Write the records of an experiment to `out` and its truth beside it; return how many records."""
    rng = np.random.default_rng(sample.seed)
    category_ids = simulation.preferences.category_ids
    n = 0
    with event_writer(out, schema(simulation.known)) as write:
        for first in range(0, sample.n_visitors, _PIECE):
            n_here = min(_PIECE, sample.n_visitors - first)
            drawn = simulation.draw(rng, first, n_here)
            records = records_of(rng, drawn, category_ids, sample.days, simulation.known)
            write(records)
            n += records.num_rows
            done(n_here)
    _write_truth(out, simulation.truth())
    return n


def simulate_shop(
    shelf: Shelf,
    ask: Ask,
    taste: Taste,
    mean_pages: float,
    sample: Sample,
    out: Path,
    done: Callable[[int], object],
) -> int:
    """As `simulate`, with visitors that browse a running shop; ShopError if it does not answer."""
    rng = np.random.default_rng(sample.seed)
    pages: list[Seen] = []
    for visitor in range(sample.n_visitors):
        pages += browse(shelf, ask, taste, rng, visitor, int(rng.geometric(1 / mean_pages)))
        done(1)
    category_ids = tuple(map(str, shelf.category_ids))
    records = records_of(rng, arrays_of(pages), category_ids, sample.days, known=True)
    with event_writer(out, schema(known=True)) as write:
        write(records)
    _write_truth(out, truth_of(pages, shelf.category_ids, taste))
    return int(records.num_rows)


def schema(known: bool) -> pa.Schema:
    """The columns of the records; `visitor` is one of them only if visitors are `known`."""
    names = ["event", "pattern", "method", "category_id", *(["visitor"] if known else [])]
    return pa.schema([*((name, pa.string()) for name in names), ("time", _TIME)])


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
    happened = np.ones(n, np.bool_), impressions.clicked, impressions.bought
    by_event = [np.flatnonzero(each) for each in happened]
    row = np.concatenate(by_event)
    event = np.repeat(np.arange(len(EVENTS)), [rows.size for rows in by_event])
    after_s = np.array([0, _TO_CLICK_S, _TO_PURCHASE_S])[event]
    at_s = seen_s[row] + after_s
    order = np.argsort(at_s, kind="stable")
    row, event, at_s = row[order], event[order], at_s[order]
    columns = {
        "event": _named(event, EVENTS),
        "pattern": _named(impressions.pattern[row], (*PATTERNS, CHOSEN)),
        "method": _named(impressions.method[row], METHODS),
        "category_id": _named(impressions.category[row], category_ids),
        "visitor": pa.array(impressions.visitor[row]).cast(pa.string()),
        "time": pa.array(at_s).cast(_TIME),
    }
    return pa.table(columns).select(schema(known).names)


def _named(indices: Integers, names: tuple[str, ...]) -> pa.Array:
    return pa.array(names, pa.string()).take(pa.array(indices))


def truth_path(out: Path) -> Path:
    """The path of the truth about the records in `out`."""
    return out.with_suffix(".truth.json")


def _write_truth(out: Path, truth: dict[str, Any]) -> None:
    with whole_file(truth_path(out)) as part:
        part.write_bytes(msgspec.json.format(msgspec.json.encode(truth)) + b"\n")
