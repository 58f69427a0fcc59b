"""Metrics over all processes of the app: a file of counters that each of them maps.

The file is a table of unsigned 64-bit numbers, a row a process. A process adds to its own row only,
without a lock; whoever answers ``/metrics`` sums the rows. A row's first two columns are its owner's
process id and start time (clock ticks since boot); 0 is nobody. Row 0 holds what ended processes left:
a new process that takes over a dead one's row adds it there first, so no count is lost or goes back,
however a process ended. Rows change hands under a lock on the file.

The file is named for the parent process, which all processes of an app under Unit or the embedded
server have in common, and lies in memory (/dev/shm). When that parent is gone the next app removes it.
"""

import fcntl
import logging
import mmap
import os
import tempfile
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path

from lookalike.experiment import METHODS, PATTERNS, Method, Pattern
from lookalike.journal import Status
from lookalike.manifest import MANIFEST
from lookalike.memory import locked_bytes, resident_share
from lookalike.release import Release

logger = logging.getLogger(__name__)

POST_NNS = "POST /nns"
RELATED = "/related"
ROUTES = (
    "/nns",
    POST_NNS,
    RELATED,
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

MAX_PROCESSES = 256

_OWNER, _STARTED, _SWAPS, _REFUSALS = range(4)
_RELATED = {pair: 4 + i for i, pair in enumerate(product(PATTERNS, METHODS))}
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
_ROW_BYTES = 8 * _COLUMNS
FILE_BYTES = _ROW_BYTES * (MAX_PROCESSES + 1)
_BUCKETS_NS = [round(bound * 1e9) for bound in BUCKETS_S]


class Metrics:
    """The counters of one process, and the sums over all that share the file at `path`.

    Without a path the process counts for itself alone. So it does, and says so in the log, where the
    file cannot be had or `MAX_PROCESSES` living processes share it already: serving goes on.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        if path is not None:
            try:
                self._map_shared(path)
                return
            except OSError as error:
                logger.warning("metrics are of this process alone: %s: %s", path, error)
                self._path = None
        self._table = memoryview(mmap.mmap(-1, FILE_BYTES)).cast("Q")
        self._row = self._take_row()

    def answered_nns(self, nanoseconds: int) -> None:
        """`answered` for a 200 of ``/nns``, the most frequent answer, without its look-ups."""
        row = self._row
        row[_NNS_OK] += 1
        row[_NNS_LATENCY + bisect_left(_BUCKETS_NS, nanoseconds)] += 1
        row[_NNS_SUM] += nanoseconds

    def answered(self, route: str, status: str, nanoseconds: int) -> None:
        """Count one answer and how long it took; what is not one of `ROUTES` counts as "other"."""
        row, first = self._row, _ROUTE.get(route, _ROUTE["other"])
        row[first + _STATUS[status]] += 1
        row[first + _LATENCY + bisect_left(_BUCKETS_NS, nanoseconds)] += 1
        row[first + _LATENCY_SUM] += nanoseconds

    def related(self, pattern: Pattern, method: Method) -> None:
        """Count an answer of ``/related`` by the pattern assigned and the method that answered."""
        self._row[_RELATED[pattern, method]] += 1

    def swapped(self) -> None:
        """Count a release taken up."""
        self._row[_SWAPS] += 1

    def refused(self) -> None:
        """Count a release refused."""
        self._row[_REFUSALS] += 1

    def text(self, release: Release | None, journal: Status | None = None) -> str:
        """All metrics in Prometheus's text format; those of the release are this process's."""
        with self._locked():
            rows = [
                self._table[i * _COLUMNS :][:_COLUMNS].tolist() for i in range(MAX_PROCESSES + 1)
            ]
        sums = [sum(column) for column in zip(*rows, strict=True)]
        processes = sum(_is_alive(row[_OWNER], row[_STARTED]) for row in rows[1:])
        lines = [*_counters(sums, processes), *_gauges(release)]
        if journal:
            lines += _of_journal(journal)
        return "\n".join([*lines, ""])

    def _map_shared(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        try:
            with _flock(descriptor):
                status = os.fstat(descriptor)
                if status.st_uid != os.getuid():
                    raise OSError("it belongs to another user")
                if status.st_size != FILE_BYTES:
                    os.ftruncate(descriptor, 0)
                    os.ftruncate(descriptor, FILE_BYTES)
                self._table = memoryview(mmap.mmap(descriptor, FILE_BYTES)).cast("Q")
                self._row = self._take_row()
        finally:
            os.close(descriptor)

    def _take_row(self) -> "memoryview[int]":
        left = self._table[:_COLUMNS]
        for i in range(1, MAX_PROCESSES + 1):
            row = self._table[i * _COLUMNS : (i + 1) * _COLUMNS]
            if _is_alive(row[_OWNER], row[_STARTED]):
                continue
            for column in range(_STARTED + 1, _COLUMNS):
                left[column] += row[column]
                row[column] = 0
            row[_STARTED] = _start_time(os.getpid()) or 0
            row[_OWNER] = os.getpid()
            return row
        raise OSError(f"{MAX_PROCESSES} processes share it already")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep rows from changing hands, which would count one twice or not at all."""
        if self._path is None:
            yield
            return
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with _flock(descriptor):
                yield
        finally:
            os.close(descriptor)


def route_of(method: str, path: str) -> str:
    """What a request is counted as: without what its path says of products and changes."""
    if (method, path) == ("POST", "/nns"):
        return POST_NNS
    if path.startswith("/products/"):
        return f"{method} /products"
    if path.startswith("/browse/"):
        return "/browse"
    return "/changes" if path.startswith("/changes/") else path


def shared_path() -> Path:
    """Where the processes of this app share their metrics; removes what ended apps left there."""
    memory = Path("/dev/shm")  # noqa: S108  # opened below only if it is ours
    folder = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    prefix = f"lookalike-metrics-{os.getuid()}-"
    for path in folder.glob(f"{prefix}*"):
        parent, _, started = path.name.removeprefix(prefix).partition("-")
        if not (parent.isdigit() and started.isdigit() and _is_alive(int(parent), int(started))):
            with suppress(OSError):
                path.unlink()
    parent_id = os.getppid()
    return folder / f"{prefix}{parent_id}-{_start_time(parent_id) or 0}"


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


def _gauges(release: Release | None) -> Iterator[str]:
    yield "# HELP lookalike_ready Whether a release is open."
    yield "# TYPE lookalike_ready gauge"
    yield f"lookalike_ready {int(release is not None)}"
    if release is None:
        return
    manifest = release.manifest
    labels = f'release="{manifest.release}",model="{_escaped(manifest.model.name)}"'
    yield "# HELP lookalike_release_info The release served."
    yield "# TYPE lookalike_release_info gauge"
    yield f"lookalike_release_info{{{labels}}} 1"
    with suppress(OSError):  # pruned since it was opened
        made_at = (release.folder / MANIFEST).stat().st_mtime
        yield "# HELP lookalike_release_timestamp_seconds When the release was made, Unix time."
        yield "# TYPE lookalike_release_timestamp_seconds gauge"
        yield f"lookalike_release_timestamp_seconds {made_at:.3f}"
    yield "# HELP lookalike_locked_bytes Memory that this process has locked."
    yield "# TYPE lookalike_locked_bytes gauge"
    yield f"lookalike_locked_bytes {locked_bytes()}"
    share = resident_share(release.hot_files())
    if share is not None:
        yield "# HELP lookalike_resident_share Share of what look-ups touch that is in memory."
        yield "# TYPE lookalike_resident_share gauge"
        yield f"lookalike_resident_share {share:.4f}"
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


@contextmanager
def _flock(descriptor: int) -> Iterator[None]:
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is none of that id."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = status.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _is_alive(pid: int, started: int) -> bool:
    """Whether the process with this id is still the one that started then."""
    return pid != 0 and _start_time(pid) == started
