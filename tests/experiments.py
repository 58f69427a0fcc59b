"""What tests of the experiment need: records, their tallies by another way, reports by the command."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.experiment import METHODS, PATTERNS
from lookalike.release.arrays import Flags
from lookalike_build.commands.cli import main
from lookalike_build.experiment.records import Records, Tally
from lookalike_build.simulation.visitors import Impressions

Record = Mapping[str, Any]


def tally(impressions: Impressions, chosen: Flags, known: bool = True) -> Tally:
    """The tally of the chosen impressions (n,), straight from its definition."""
    visitor, clicked, bought = (
        each[chosen] for each in (impressions.visitor, impressions.clicked, impressions.bought)
    )
    if not known:
        visitor = np.arange(visitor.size)
    n, x, y = (
        np.bincount(visitor, weight, visitor.max(initial=0) + 1).astype(np.int64)
        for weight in (np.ones(visitor.size), clicked, bought)
    )
    units = (int((n > 0).sum()), int((x + y > 0).sum()))
    sums = (n, x, y, n * n, n * x, x * x, x * y, y * y)
    return Tally(*(*units, 0, 0) if known else (0, 0, *units), *(int(each.sum()) for each in sums))


def records_in(
    impressions: Impressions, category_ids: Iterable[str], known: bool = True
) -> Records:
    """What `read_records` says of these impressions' records, without any on disk."""
    answered = impressions.method != METHODS.index("none")
    of = {p: answered & (impressions.pattern == place) for place, p in enumerate(PATTERNS)}
    patterns: dict[str, Tally] = {
        pattern: tally(impressions, chosen, known) for pattern, chosen in of.items()
    }
    return Records(
        patterns=patterns,
        categories={
            category_id: {
                pattern: tally(impressions, chosen & (impressions.category == place), known)
                for pattern, chosen in of.items()
            }
            for place, category_id in enumerate(category_ids)
        },
        methods=[],
        n_visitors=sum(each.visitors for each in patterns.values()),
        assigned={pattern: its.units for pattern, its in patterns.items()},
        n_in_both=0,
        period=None,
        n_outside=0,
        n_other=0,
        n_malformed=0,
        faults=[],
    )


def event(
    event: str = "impression",
    pattern: str = "A",
    method: str | None = None,
    category_id: object = 1,
    **more: object,
) -> dict[str, object]:
    """A record; the method is the pattern's own unless given."""
    own = {"A": "behaviour", "B": "image"}.get(pattern)
    columns = {"event": event, "pattern": pattern, "method": method or own}
    return {**columns, "category_id": category_id, **more}


def write_jsonl(path: Path, records: Iterable[Record]) -> Path:
    """The records as JSON Lines."""
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def report(*arguments: object) -> dict[str, Any]:
    """The report of the command, as JSON; the folder is that of the first file."""
    out = Path(str(arguments[0])).parent / "report.json"
    assert main(["report", *map(str, arguments), "--json", str(out)]) == 0
    document: dict[str, Any] = json.loads(out.read_bytes())
    return document
