"""What the load tests have in common: Unit with the app and the ceiling, wrk, memory, verdicts.

Side by side means in turn, round by round, on the same Unit: ratios hold on a machine whose speed
drifts, absolute figures do not. All requests go to 127.0.0.1.
"""

import ctypes
import mmap
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lookalike.operate.unit.config import APPLICATION, configuration
from lookalike.operate.unit.private import PrivateUnit, find_unitd
from lookalike.release.root import ReleaseRoot
from lookalike.serving.settings import ROOT
from servers import SHIPPED, free_port, in_session

HERE = Path(__file__).parent
CEILING = "ceiling"
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)


@dataclass(frozen=True)
class Run:
    """What a client saw in one round; latencies in milliseconds."""

    requests_s: float
    p50: float
    p99: float
    errors: int


@dataclass(frozen=True)
class Served:
    """A running Unit: the app's address, those of the ceiling and of the `others`, the processes."""

    app: str
    ceiling: str
    others: dict[str, str]
    unit: PrivateUnit

    def pids(self, application: str) -> list[int]:
        """The living processes of an application."""
        title = f'unit: "{application}" application'
        return [pid for pid in in_session(self.unit.process.pid) if title in _title(pid)]

    def memory_mb(self, application: str) -> float:
        """Proportional set size of an application's processes, in MB."""
        return sum(map(_pss_mb, self.pids(application)))


@contextmanager
def serving(
    root: ReleaseRoot,
    settings: Mapping[str, str] | None = None,
    threads: int = 1,
    **others: ReleaseRoot,
) -> Iterator[Served]:
    """The shipped configuration on a Unit of our own, with the ceiling's app beside it.

    `settings` are the app's besides; `others` are the app once more, by name, with these releases and
    so many threads a process.
    """
    unitd = find_unitd()
    if unitd is None or not (shutil.which("wrk") and shutil.which("nginx")):
        sys.exit(
            "this needs NGINX Unit (unitd), and wrk and nginx (sudo apt install wrk nginx-light)"
        )
    ceiling, app = (f"127.0.0.1:{free_port()}" for _ in range(2))
    config = configuration(SHIPPED, Path(sys.prefix), root.path.resolve(), [app])
    config["applications"][APPLICATION]["environment"].update(settings or {})
    constant = {**config["applications"][APPLICATION], "module": "constant", "path": str(HERE)}
    config["applications"][CEILING] = constant
    config["listeners"][ceiling] = {"pass": f"applications/{CEILING}"}
    addresses = {}
    for name, other in others.items():
        environment = {**(settings or {}), ROOT.name: str(other.path.resolve())}
        config["applications"][name] = {
            **config["applications"][APPLICATION],
            "environment": environment,
            "threads": threads,
        }
        addresses[name] = f"127.0.0.1:{free_port()}"
        config["listeners"][addresses[name]] = {"pass": f"applications/{name}"}
    with tempfile.TemporaryDirectory() as folder, PrivateUnit(unitd, Path(folder)) as unit:
        unit.control.check_python(config["applications"][APPLICATION])
        unit.control.configure(config)
        yield Served(app, ceiling, addresses, unit)


def wrk(
    address: str,
    seconds: int,
    script: str,
    *arguments: str,
    connections: int = 32,
    pause_ms: int = 0,
) -> Run:
    """One run of wrk with a script of this folder; connections wait for `pause_ms` between requests."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s"]
    command += [str(HERE / script), f"http://{address}", "--", *arguments]
    environment = {**os.environ, "PAUSE_MS": str(pause_ms)}
    text = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment
    ).stdout
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    socket_errors = re.search(r"Socket errors: (.*)", text)
    errors = int(failed[1]) if failed else 0
    errors += sum(map(int, re.findall(r"\d+", socket_errors[1]))) if socket_errors else 0
    return Run(
        requests_s=float(_found(r"Requests/sec:\s+([\d.]+)", text)),
        p50=_milliseconds(_found(r"^\s+50%\s+(\S+)", text)),
        p99=_milliseconds(_found(r"^\s+99%\s+(\S+)", text)),
        errors=errors,
    )


def in_turn(runs: Mapping[str, Callable[[], Run]], rounds: int) -> dict[str, list[Run]]:
    """Do each of `runs` once a round; what each saw."""
    seen: dict[str, list[Run]] = {name: [] for name in runs}
    for number in range(rounds):
        # Each goes first in turn: the machine may be getting slower or faster.
        for name in sorted(runs, reverse=bool(number % 2)):
            seen[name].append(runs[name]())
    return seen


def print_rows(seen: dict[str, list[Run]], memory_mb: dict[str, float]) -> None:
    """A table: for each row the medians over its rounds, all errors, memory if it was measured."""
    width = max(map(len, seen)) + 2
    print(f"{'':{width}}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'errors':>8}{'memory MB':>11}")
    for name, runs in seen.items():
        rate, p50, p99 = (
            statistics.median(getattr(run, what) for run in runs)
            for what in ("requests_s", "p50", "p99")
        )
        errors = sum(run.errors for run in runs)
        memory = f"{memory_mb[name]:11.1f}" if name in memory_mb else f"{'':11}"
        print(f"{name:{width}}{rate:12.0f}{p50:9.2f}{p99:9.2f}{errors:8}{memory}")
    print(flush=True)


@dataclass(frozen=True)
class Verdict:
    """A number to hold: what was seen, whether the median of it holds, the bound in words."""

    what: str
    values: list[float]
    holds: Callable[[float], bool]
    bound: str

    def __str__(self) -> str:
        middle = statistics.median(self.values)
        word = "holds" if self.holds(middle) else "DOES NOT HOLD"
        spread = f" ({min(self.values):.3f} to {max(self.values):.3f})"
        seen = f"{middle:.3f}{spread if len(self.values) > 1 else ''}"
        return f"{word}: {self.what} {seen}, to be {self.bound}"


def resident_bytes(path: Path) -> int:
    """How much of a file of ours is in the page cache (mincore, of a mapping that touches nothing)."""
    with path.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    whole = np.frombuffer(mapped, np.uint8)
    pages = np.zeros(-(-whole.size // mmap.PAGESIZE), np.uint8)
    if _libc.mincore(whole.ctypes.data, whole.size, pages.ctypes.data):
        raise OSError(ctypes.get_errno(), f"mincore of {path}")
    return int((pages & 1).sum()) * mmap.PAGESIZE


def total_bytes(served: Served, folder: Path) -> tuple[int, int]:
    """Memory that serving `folder` takes: of all processes but the others', and of the files.

    The first is the proportional set size of everything that is not a file of the release, the
    second the pages of the release's files in the page cache, mapped or not.
    """
    pids = set(in_session(served.unit.process.pid))
    for name in (CEILING, *served.others):
        pids -= set(served.pids(name))
    processes = sum(_pss_outside(pid, folder) for pid in pids)
    return processes, sum(resident_bytes(path) for path in folder.glob("*/*"))


def _pss_outside(pid: int, folder: Path) -> int:
    total = 0
    counted = True
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                counted = str(folder) not in line
            elif counted and line.startswith("Pss:"):
                total += 1024 * int(line.split()[1])
    return total


def _pss_mb(pid: int) -> float:
    with suppress(FileNotFoundError, ProcessLookupError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return 1024 * int(_found(r"^Pss:\s+(\d+) kB", text)) / 1e6
    return 0.0


def _title(pid: int) -> str:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise ValueError(f"no {pattern} in: {text}")
    return match[1]


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]
