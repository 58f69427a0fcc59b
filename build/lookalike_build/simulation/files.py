"""Simulated experiments on disk: the records, and beside them the truth about them as JSON."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from lookalike_build.experiment.writer import event_writer
from lookalike_build.files.whole import whole_file
from lookalike_build.simulation.records import records_of, schema
from lookalike_build.simulation.shop import (
    Ask,
    Seen,
    Shelf,
    Taste,
    browse,
    impressions_of,
    truth_of,
)
from lookalike_build.simulation.visitors import Simulation

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
        n_pages = int(rng.geometric(1 / mean_pages))
        pages += browse(shelf, ask, taste, rng, visitor, n_pages)
        done(1)
    category_ids = tuple(map(str, shelf.category_ids))
    records = records_of(rng, impressions_of(pages), category_ids, sample.days, known=True)
    with event_writer(out, schema(known=True)) as write:
        write(records)
    _write_truth(out, truth_of(pages, shelf.category_ids, taste))
    return int(records.num_rows)


def truth_path(out: Path) -> Path:
    """The path of the truth about the records in `out`."""
    return out.with_suffix(".truth.json")


def _write_truth(out: Path, truth: dict[str, Any]) -> None:
    with whole_file(truth_path(out)) as part:
        part.write_bytes(msgspec.json.format(msgspec.json.encode(truth)) + b"\n")
