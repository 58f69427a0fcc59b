"""Metrics over all processes of the app, in Prometheus's text format."""

import hashlib
import logging
import os
import tempfile
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path

from lookalike.experiment import METHODS, PATTERNS, Method, Pattern
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
    *(
        1e-5,
        2.5e-5,
        5e-5,
        1e-4,
        2.5e-4,
        5e-4,
        1e-3,
        2.5e-3,
        5e-3,
        1e-2,
        2.5e-2,
        5e-2,
        0.1,
        0.25,
        1.0,
    ),
)
"""Upper bounds of the latency histogram, seconds."""

_SWAPS, _REFUSALS = 1, 2  # column 0 is not for counting
_RELATED = {pair: 3 + i for i, pair in enumerate(product(PATTERNS, METHODS))}
_FIRST_ROUTE = 3 + len(_RELATED)
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
        sums, processes = self.sums()
        lines = [*_counters(sums, processes), *_ready(release is not None)]
        if release:
            lines += _of_process(release, self._resident)
            lines.append(self._of_manifest(release.manifest))
        if journal:
            lines += _of_journal(journal)
        return "\n".join([*lines, ""])

    def _of_manifest(self, manifest: Manifest) -> str:
        """What stays the same for as long as a release is served: thousands of lines."""
        if self._described[0] != manifest.release:
            self._described = (manifest.release, "\n".join(_of_manifest(manifest)))
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
    layout = repr((ROUTES, STATUSES, BUCKETS_S, list(_RELATED), _SWAPS, _REFUSALS))
    return f"{FILE_PREFIX}{os.getuid()}-{_digest(str(Path(root).resolve()))}-{_digest(layout)}"


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]


def _counters(sums: list[int], processes: int) -> Iterator[str]:
    of_route = {route: sums[first : first + _LATENCY_SUM + 1] for route, first in _ROUTE.items()}
    yield "# HELP lookalike_requests_total Requests answered, by route and status."
    yield "# TYPE lookalike_requests_total counter"
    for route, columns in of_route.items():
        for status, column in _STATUS.items():
            if columns[column]:
                labels = f'route="{route}",status="{status[:3]}"'
                yield f"lookalike_requests_total{{{labels}}} {columns[column]}"
    yield "# HELP lookalike_request_seconds Time the app took to answer, by route."
    yield "# TYPE lookalike_request_seconds histogram"
    for route, columns in of_route.items():
        if sum(columns):
            yield from _histogram(route, columns)
    yield "# HELP lookalike_related_total Related products answered, by pattern and method."
    yield "# TYPE lookalike_related_total counter"
    for (pattern, method), column in _RELATED.items():
        labels = f'pattern="{pattern}",method="{method}"'
        yield f"lookalike_related_total{{{labels}}} {sums[column]}"
    for name, column, text in (
        ("swaps", _SWAPS, "Releases taken up, each process counting for itself."),
        ("refusals", _REFUSALS, "Releases refused, each process counting for itself."),
    ):
        yield f"# HELP lookalike_{name}_total {text}"
        yield f"# TYPE lookalike_{name}_total counter"
        yield f"lookalike_{name}_total {sums[column]}"
    yield "# HELP lookalike_processes Processes that serve."
    yield "# TYPE lookalike_processes gauge"
    yield f"lookalike_processes {processes}"


def _histogram(route: str, columns: list[int]) -> Iterator[str]:
    total = 0
    for i, bound in enumerate([*map(str, BUCKETS_S), "+Inf"]):
        total += columns[_LATENCY + i]
        yield f'lookalike_request_seconds_bucket{{route="{route}",le="{bound}"}} {total}'
    seconds = columns[_LATENCY_SUM] / 1e9
    yield f'lookalike_request_seconds_sum{{route="{route}"}} {seconds}'
    yield f'lookalike_request_seconds_count{{route="{route}"}} {total}'


def _ready(ready: bool) -> Iterator[str]:
    yield "# HELP lookalike_ready Whether a release is open."
    yield "# TYPE lookalike_ready gauge"
    yield f"lookalike_ready {int(ready)}"


def _of_process(release: Release, resident: float | None) -> Iterator[str]:
    with suppress(OSError):  # pruned since it was opened
        made_at = (release.folder / MANIFEST).stat().st_mtime
        yield "# HELP lookalike_release_timestamp_seconds When the release was made, Unix time."
        yield "# TYPE lookalike_release_timestamp_seconds gauge"
        yield f"lookalike_release_timestamp_seconds {made_at:.3f}"
    yield "# HELP lookalike_locked_bytes Memory that this process has locked."
    yield "# TYPE lookalike_locked_bytes gauge"
    yield f"lookalike_locked_bytes {locked_bytes()}"
    if resident is not None:
        yield "# HELP lookalike_resident_share Share of what look-ups touch that is in memory."
        yield "# TYPE lookalike_resident_share gauge"
        yield f"lookalike_resident_share {resident:.4f}"


def _of_manifest(manifest: Manifest) -> Iterator[str]:
    labels = f'release="{manifest.release}",model="{_escaped(manifest.model.name)}"'
    yield "# HELP lookalike_release_info The release served."
    yield "# TYPE lookalike_release_info gauge"
    yield f"lookalike_release_info{{{labels}}} 1"
    yield "# HELP lookalike_items Products served, by category."
    yield "# TYPE lookalike_items gauge"
    for entry in manifest.categories:
        label = _escaped(str(entry.category_id))
        yield f'lookalike_items{{category_id="{label}"}} {entry.n_items}'
    yield "# HELP lookalike_recall Recall of a vector's answer, measured at the build."
    yield "# TYPE lookalike_recall gauge"
    for entry in manifest.categories:
        if entry.recall is not None:
            label = _escaped(str(entry.category_id))
            yield f'lookalike_recall{{category_id="{label}"}} {entry.recall}'


def _of_journal(status: Status) -> Iterator[str]:
    settled = {'{state="live"}': status.n_live, '{state="rejected"}': status.n_rejected}
    batches = {"_sum": round(status.batches_s, 3), "_count": status.n_batches}
    for name, kind, text, value in (
        ("changes_pending", "gauge", "Changes that wait to be settled.", status.n_pending),
        (
            "oldest_pending_change_seconds",
            "gauge",
            "How long the oldest of them has waited, 0 where there is none.",
            round(status.oldest_pending_s, 3),
        ),
        (
            "changes_pending_bytes",
            "gauge",
            "What the photos of changes that wait take.",
            status.pending_bytes,
        ),
        ("changes_total", "counter", "Changes settled, by what became of them.", settled),
        ("follow_batch_seconds", "summary", "Time that batches of changes took.", batches),
        (
            "follow_last_batch_seconds",
            "gauge",
            "Time that the last batch took.",
            round(status.last_batch_s, 3),
        ),
        (
            "follow_last_batch_changes",
            "gauge",
            "Changes in the last batch.",
            status.last_batch_changes,
        ),
        (
            "follow_last_batch_timestamp_seconds",
            "gauge",
            "When the last batch was done, Unix time, 0 for never.",
            round(status.last_batch_at, 3),
        ),
    ):
        yield f"# HELP lookalike_{name} {text}"
        yield f"# TYPE lookalike_{name} {kind}"
        for suffix, number in (value if isinstance(value, dict) else {"": value}).items():
            yield f"lookalike_{name}{suffix} {number}"


def _escaped(text: str) -> str:
    """A label's value as Prometheus wants it."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
