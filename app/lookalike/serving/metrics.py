"""Metrics over all processes of the app, in Prometheus's text format."""

import hashlib
import logging
import os
import tempfile
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from itertools import accumulate, product
from pathlib import Path

from lookalike.experiment import CHOSEN, METHODS, PATTERNS, Method, Pattern
from lookalike.journal import Status
from lookalike.release.files import MANIFEST
from lookalike.release.manifest import Manifest
from lookalike.release.memory import locked_bytes
from lookalike.release.opened import Release
from lookalike.serving.counters import Counters, file_bytes, remove_stale

logger = logging.getLogger(__name__)

POST_NNS = "POST /nns"
RELATED_PATH = "/related"
ROUTES = (
    "/nns",
    POST_NNS,
    RELATED_PATH,
    "/healthz",
    "/readyz",
    "/release",
    "/metrics",
    "/openapi.json",
    "PUT /products",
    "PATCH /products",
    "DELETE /products",
    "/changes",
    "/browse",
    "other",
)
STATUSES = (
    "200 OK",
    "202 Accepted",
    "304 Not Modified",
    "400 Bad Request",
    "401 Unauthorized",
    "404 Not Found",
    "405 Method Not Allowed",
    "413 Content Too Large",
    "429 Too Many Requests",
    "501 Not Implemented",
    "503 Service Unavailable",
)
BUCKETS_S = (
    *(1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2),
    *(0.1, 0.25, 1.0),
)
"""Upper bounds of the latency histogram, seconds."""

_SWAPS, _REFUSALS, _SEARCHES = 1, 2, 3  # column 0 is not for counting
_RELATED = {pair: 4 + i for i, pair in enumerate(product((*PATTERNS, CHOSEN), METHODS))}
_FIRST_ROUTE = 4 + len(_RELATED)
# Then, for each route: requests by status, requests by latency, the sum of the latencies.
_LATENCY = len(STATUSES)
_LATENCY_SUM = _LATENCY + len(BUCKETS_S) + 1
_ROUTE = {route: _FIRST_ROUTE + (_LATENCY_SUM + 1) * i for i, route in enumerate(ROUTES)}
_STATUS = {status: i for i, status in enumerate(STATUSES)}
_NNS = _ROUTE["/nns"]
_NNS_OK = _NNS + _STATUS["200 OK"]
_NNS_LATENCY = _NNS + _LATENCY
_NNS_SUM = _NNS + _LATENCY_SUM
_COLUMNS = _FIRST_ROUTE + (_LATENCY_SUM + 1) * len(ROUTES)
_BUCKETS_NS = [round(bound * 1e9) for bound in BUCKETS_S]

RESIDENT_S = 60.0
"""How often `lookalike_resident_share` is measured."""

FILE_BYTES = file_bytes(_COLUMNS)
FILE_PREFIX = "lookalike-counters-"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # what is opened there must be ours

_HELP = {
    "requests_total": "Requests answered, by route and status.",
    "request_seconds": "Time the app took to answer, by route.",
    "related_total": "Related products answered, by pattern and method.",
    "searches_total": "Searches: for a vector, or for a limit or conditions beyond the table.",
    "swaps_total": "Releases taken up, each process counting for itself.",
    "refusals_total": "Releases refused, each process counting for itself.",
    "processes": "Processes that serve.",
    "ready": "Whether a release is open.",
    "release_timestamp_seconds": "When the release was made, Unix time.",
    "locked_bytes": "Memory that this process has locked.",
    "resident_share": "Share of what look-ups touch that is in memory.",
    "release_info": "The release served.",
    "attribute_info": "The attributes that products may have.",
    "items": "Products served, by category.",
    "hidden_items": "Products that are in no list, by category.",
    "recall": "Recall of a vector's answer, measured at the build.",
    "changes_pending": "Changes that wait to be settled.",
    "oldest_pending_change_seconds": "How long the oldest of them has waited, 0 where there is none.",
    "changes_pending_bytes": "What the photos of changes that wait take.",
    "changes_total": "Changes settled, by what became of them.",
    "follow_batch_seconds": "Time that batches of changes took.",
    "follow_last_batch_seconds": "Time that the last batch took.",
    "follow_last_batch_changes": "Changes in the last batch.",
    "follow_last_batch_timestamp_seconds": "When the last batch was done, Unix time, 0 for never.",
}
_KINDS = {"request_seconds": "histogram", "follow_batch_seconds": "summary"}
"""The kinds of metrics that are neither counters, whose names end in ``_total``, nor gauges."""

# By metric: its value, or its values by the suffix and labels of each.
_Values = dict[str, float | str | dict[str, float]]


class Metrics(Counters):
    """The metrics of one process, and their sums over all that share the counters at `path`."""

    def __init__(self, path: Path | None = None) -> None:
        super().__init__(_COLUMNS, path)
        self._described = ("", "")
        self._resident: float | None = None
        self._measure_at = 0.0

    def answered_nns(self, nanoseconds: int) -> None:
        """`answered` for a 200 of ``/nns``, the most frequent answer, without its look-ups."""
        row = self.row
        row[_NNS_OK] += 1
        row[_NNS_LATENCY + bisect_left(_BUCKETS_NS, nanoseconds)] += 1
        row[_NNS_SUM] += nanoseconds

    def answered(self, route: str, status: str, nanoseconds: int) -> None:
        """Count one answer and how long it took; what is not one of `ROUTES` counts as "other"."""
        row, first = self.row, _ROUTE.get(route, _ROUTE["other"])
        row[first + _STATUS[status]] += 1
        row[first + _LATENCY + bisect_left(_BUCKETS_NS, nanoseconds)] += 1
        row[first + _LATENCY_SUM] += nanoseconds

    def related(self, pattern: Pattern, method: Method) -> None:
        """Count an answer of ``/related`` by the pattern assigned and the method that answered."""
        self.row[_RELATED[pattern, method]] += 1

    def searched(self) -> None:
        """Count a search."""
        self.row[_SEARCHES] += 1

    def swapped(self) -> None:
        """Count a release taken up."""
        self.row[_SWAPS] += 1

    def refused(self) -> None:
        """Count a release refused."""
        self.row[_REFUSALS] += 1

    def measure(self, release: Release) -> None:
        """See what share of `release` is in memory, if that was not seen within `RESIDENT_S`.

        Not for requests: with thousands of categories it takes a tenth of a second.
        """
        now = time.monotonic()
        if now >= self._measure_at:
            self._measure_at, self._resident = now + RESIDENT_S, release.resident_share()

    def text(self, release: Release | None, journal: Status | None = None) -> str:
        """All metrics in Prometheus's text format; those of the release are this process's."""
        lines = [*_lines({**_counted(*self.sums()), "ready": int(release is not None)})]
        if release:
            lines += _lines(_of_process(release, self._resident))
            lines.append(self._of_manifest(release.manifest))
        if journal:
            lines += _lines(_of_journal(journal))
        return "\n".join([*lines, ""])

    def _of_manifest(self, manifest: Manifest) -> str:
        """What stays the same for as long as a release is served: thousands of lines."""
        if self._described[0] != manifest.release:
            self._described = (manifest.release, "\n".join(_lines(_of_manifest(manifest))))
        return self._described[1]


def route_of(method: str, path: str) -> str:
    """What a request is counted as: without what its path says of products and changes."""
    if (method, path) == ("POST", "/nns"):
        return POST_NNS
    if path.startswith("/products/"):
        return f"{method} /products"
    if path.startswith("/browse/"):
        return "/browse"
    return "/changes" if path.startswith("/changes/") else path


def shared_metrics(root: str) -> Metrics:
    """The metrics that all processes share which this user has serve the release root `root`.

    Removes what ended processes that served other roots left. Never raises.
    """
    try:
        folder = SHARED_MEMORY
        if not os.access(folder, os.W_OK):
            folder = Path(tempfile.gettempdir())
        path = folder / file_name(root)
        remove_stale(folder, f"{FILE_PREFIX}{os.getuid()}-", path)
    except (OSError, RuntimeError) as error:  # no temporary folder, a root that is a loop of links
        logger.warning("metrics are of this process alone: %s", error)
        return Metrics()
    return Metrics(path)


def file_name(root: str) -> str:
    """The name of the counters' file: of this user, of a release root and of the columns.

    So whoever counts otherwise, such as another version during an upgrade, has a file of its own.
    """
    layout = repr((ROUTES, STATUSES, BUCKETS_S, list(_RELATED), _SWAPS, _REFUSALS, _SEARCHES))
    return f"{FILE_PREFIX}{os.getuid()}-{_digest(str(Path(root).resolve()))}-{_digest(layout)}"


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]


def _lines(values: _Values) -> Iterator[str]:
    for name, samples in values.items():
        kind = _KINDS.get(name, "counter" if name.endswith("_total") else "gauge")
        yield f"# HELP lookalike_{name} {_HELP[name]}"
        yield f"# TYPE lookalike_{name} {kind}"
        for suffix, value in (samples if isinstance(samples, dict) else {"": samples}).items():
            yield f"lookalike_{name}{suffix} {value}"


def _counted(sums: list[int], processes: int) -> _Values:
    of_route = {route: sums[first : first + _LATENCY_SUM + 1] for route, first in _ROUTE.items()}
    seconds: dict[str, float] = {}
    for route, columns in of_route.items():
        if sum(columns):
            seconds |= _histogram(route, columns)
    return {
        "requests_total": {
            f'{{route="{route}",status="{status[:3]}"}}': columns[column]
            for route, columns in of_route.items()
            for status, column in _STATUS.items()
            if columns[column]
        },
        "request_seconds": seconds,
        "related_total": {
            f'{{pattern="{pattern}",method="{method}"}}': sums[column]
            for (pattern, method), column in _RELATED.items()
        },
        "searches_total": sums[_SEARCHES],
        "swaps_total": sums[_SWAPS],
        "refusals_total": sums[_REFUSALS],
        "processes": processes,
    }


def _histogram(route: str, columns: list[int]) -> dict[str, float]:
    totals = list(accumulate(columns[_LATENCY:_LATENCY_SUM]))
    return {
        **{
            f'_bucket{{route="{route}",le="{bound}"}}': total
            for bound, total in zip([*BUCKETS_S, "+Inf"], totals, strict=True)
        },
        f'_sum{{route="{route}"}}': columns[_LATENCY_SUM] / 1e9,
        f'_count{{route="{route}"}}': totals[-1],
    }


def _of_process(release: Release, resident: float | None) -> _Values:
    values: _Values = {}
    with suppress(OSError):  # pruned since it was opened
        made_at = (release.folder / MANIFEST).stat().st_mtime
        values["release_timestamp_seconds"] = f"{made_at:.3f}"
    values["locked_bytes"] = locked_bytes()
    if resident is not None:
        values["resident_share"] = f"{resident:.4f}"
    return values


def _of_manifest(manifest: Manifest) -> _Values:
    labels = f'{{release="{manifest.release}",model="{_escaped(manifest.model.name)}"}}'
    categories = {
        f'{{category_id="{_escaped(str(entry.category_id))}"}}': entry
        for entry in manifest.categories
    }
    recalls = {label: entry.recall for label, entry in categories.items()}
    return {
        "release_info": {labels: 1},
        "attribute_info": {
            f'{{attribute="{name}",type="{one}"}}': 1
            for name, one in manifest.known_attributes.items()
        },
        "items": {label: entry.n_items for label, entry in categories.items()},
        "hidden_items": {label: entry.n_hidden for label, entry in categories.items()},
        "recall": {label: recall for label, recall in recalls.items() if recall is not None},
    }


def _of_journal(status: Status) -> _Values:
    return {
        "changes_pending": status.n_pending,
        "oldest_pending_change_seconds": round(status.oldest_pending_s, 3),
        "changes_pending_bytes": status.pending_bytes,
        "changes_total": {'{state="live"}': status.n_live, '{state="rejected"}': status.n_rejected},
        "follow_batch_seconds": {"_sum": round(status.batches_s, 3), "_count": status.n_batches},
        "follow_last_batch_seconds": round(status.last_batch_s, 3),
        "follow_last_batch_changes": status.last_batch_changes,
        "follow_last_batch_timestamp_seconds": round(status.last_batch_at, 3),
    }


def _escaped(text: str) -> str:
    """A label's value as Prometheus wants it."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
