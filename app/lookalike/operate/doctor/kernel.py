"""Checks of memory, limits and the clock, and of the CPU's instructions that Annoy uses."""

import ctypes
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from shutil import disk_usage

from lookalike.operate.amounts import bytes_text, seconds_text
from lookalike.operate.doctor.access import READ, SEARCH, WRITE, User, described, may
from lookalike.operate.doctor.finding import Finding, absent, ok, problem, warning
from lookalike.operate.doctor.host import Host
from lookalike.release.files import BEHAVIOUR_HOT_FILES
from lookalike.release.manifest import Manifest
from lookalike.release.memory import fields_of, locked_bytes, resident_share
from lookalike.release.opened import hot_files_of, is_slim
from lookalike.release.root import stamp_of
from lookalike.serving.metrics import FILE_BYTES, FILE_PREFIX, SHARED_MEMORY
from lookalike.serving.settings import LOCK_MEMORY

OPEN_FILES, OPEN_SLIM = 1, 0
"""The most files that a process holds open for a category: Annoy keeps its file open."""
MAPPED, MAPPED_SLIM = 10, 4
"""The most files that a process maps for a category."""
_OTHER_MAPPINGS = 1024
"""How many other mappings a process has: libraries and memory."""
_OTHER_FILES = 64
"""How many other files a process has open: libraries, sockets, the log."""
_TRIAL_S = 60.0
_AHEAD_S = 60.0
"""How far the clocks of two hosts may be apart."""
_UNSYNCHRONISED, _TIME_ERROR = 0x40, 5

TRIAL = """
import os, random, tempfile
from annoy import AnnoyIndex
rng = random.Random(1)
for n_dims in (3, 130):
    index = AnnoyIndex(n_dims, "angular")
    for item in range(500):
        index.add_item(item, [rng.random() for _ in range(n_dims)])
    index.build(3, n_jobs=1)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "index.ann")
        index.save(path)
        opened = AnnoyIndex(n_dims, "angular")
        opened.load(path)
        for item in (0, 499):
            vector = opened.get_item_vector(item)
            assert opened.get_nns_by_vector(vector, 5, search_k=5000)[0] == item, "a wrong answer"
"""
"""Builds and searches as the builder and the app do, with and without a remainder in a SIMD loop."""


def hot_bytes(manifest: Manifest) -> int:
    """The size of a release's files that belong in memory."""
    return sum(hot_files_of(Path(), manifest).values())


def memory(host: Host) -> Iterator[Finding]:
    """There is memory for the hot files, twice while a release changes."""
    if host.current is None:
        yield absent("not checked: there is no valid current release")
        return
    folder, manifest = host.current
    hot = hot_files_of(folder, manifest)
    # Locked pages do not count as available, pages in the page cache do.
    kept = max(map(locked_bytes, host.processes), default=0)
    available = 1024 * int(fields_of("meminfo")["MemAvailable"][0])
    yield page_cache(sum(hot.values()), available + kept, resident_share(hot))


def page_cache(hot: int, available: int, resident: float | None) -> Finding:
    """Whether `available` memory is enough for `hot` bytes; a part `resident` (0 to 1) is in it now."""
    share = "" if resident is None else f" ({resident:.0%} of that is in memory now)"
    text = f"look-ups touch {bytes_text(hot)}{share}, {bytes_text(available)} is available"
    if available < hot:
        return problem(f"{text}: answers will wait for the disk", "free or add memory")
    if available < 2 * hot:
        return warning(
            f"{text}; twice as much is needed while most of a release changes", "add memory"
        )
    return ok(text)


def locked(host: Host) -> Iterator[Finding]:
    """The limit on locked memory is enough for the hot files, if they are locked."""
    if host.environ.get(LOCK_MEMORY.name) != "true":
        yield ok(f"{LOCK_MEMORY.name} is not set, so the limit does not matter")
    elif host.current is None:
        yield absent("not checked: there is no valid current release")
    else:
        unlimited = host.user is not None and host.user.uid == 0
        limit, whose = limit_of(host.processes, "Max locked memory", resource.RLIMIT_MEMLOCK)
        yield locking(hot_bytes(host.current[1]), None if unlimited else limit, whose)


def locking(hot: int, limit: int | None, whose: str) -> Finding:
    """Whether `limit` bytes (None: no limit) are enough for `hot`, and twice in a change."""
    if limit is None or limit >= 2 * hot:
        most = "any amount" if limit is None else bytes_text(limit)
        return ok(
            f"{whose} may lock {most} of memory, {bytes_text(hot)} is locked, twice in changes"
        )
    text = f"{whose} may lock {bytes_text(limit)} of memory, {bytes_text(hot)} is to be locked"
    remedy = "LimitMEMLOCK=infinity for Unit's service, as deploy/systemd/unit.service.d has it"
    if limit < hot:
        return problem(text, remedy)
    return warning(f"{text}, and twice that while a release changes", remedy)


def descriptors(host: Host) -> Iterator[Finding]:
    """A process may hold open all files of two releases."""
    if host.current is None:
        yield absent("not checked: there is no valid current release")
        return
    folder, manifest = host.current
    each = OPEN_SLIM if is_slim(folder, manifest) else OPEN_FILES
    limit, whose = limit_of(host.processes, "Max open files", resource.RLIMIT_NOFILE)
    yield open_files(each * len(manifest.categories), limit, whose)


def mapped_files(host: Host) -> Iterator[Finding]:
    """A process may map all files of two releases."""
    if host.current is None:
        yield absent("not checked: there is no valid current release")
        return
    folder, manifest = host.current
    each = MAPPED_SLIM if is_slim(folder, manifest) else MAPPED
    behaviour = len(BEHAVIOUR_HOT_FILES) if manifest.behaviour else 0
    columns = sum(len(entry.column_files) for entry in manifest.categories)
    most = int(Path("/proc/sys/vm/max_map_count").read_text())
    yield mappings(each * len(manifest.categories) + columns + behaviour, most)


def mappings(mapped: int, most: int) -> Finding:
    """Whether `most` mappings are enough for `mapped` files, and twice while a release changes."""
    text = f"a process may map {most} files, a release needs up to {mapped}, twice in changes"
    remedy = f"sysctl vm.max_map_count={4 * (mapped + _OTHER_MAPPINGS)}, and in /etc/sysctl.d too"
    if most >= 2 * mapped + _OTHER_MAPPINGS:
        return ok(text)
    return problem(text, remedy) if most < mapped + _OTHER_MAPPINGS else warning(text, remedy)


def open_files(held: int, limit: int | None, whose: str) -> Finding:
    """Whether `limit` open files (None: no limit) are enough for `held`, and twice in a change."""
    text = f"{whose} may hold {'any number of' if limit is None else limit} files open, a release "
    text += f"needs up to {held}, twice in changes"
    remedy = "LimitNOFILE=65536 for Unit's service, as deploy/systemd/unit.service.d has it"
    if limit is None or limit >= 2 * held + _OTHER_FILES:
        return ok(text)
    return problem(text, remedy) if limit < held + _OTHER_FILES else warning(text, remedy)


def limit_of(processes: list[int], name: str, kind: int) -> tuple[int | None, str]:
    """The lowest hard limit of the processes, else our own, and whose it is; None for no limit."""
    found = []
    for pid in processes:
        try:
            text = Path(f"/proc/{pid}/limits").read_text()
        except OSError:  # another user's, or ended
            continue
        line = next(line for line in text.splitlines() if line.startswith(name))
        found.append(line.removeprefix(name).split()[1])
    if found:
        numbers = [int(each) for each in found if each != "unlimited"]
        return min(numbers, default=None), "a process of Unit's"
    hard = resource.getrlimit(kind)[1]
    return None if hard == resource.RLIM_INFINITY else hard, "this shell (Unit's may differ)"


def shared_memory(host: Host) -> Iterator[Finding]:
    """The processes of the app can share their metrics in memory."""
    if not SHARED_MEMORY.is_dir():
        yield warning(f"no {SHARED_MEMORY}: metrics are counted on the disk", "mount a tmpfs there")
        return
    counting = any(SHARED_MEMORY.glob(f"{FILE_PREFIX}*"))
    free = None if counting else disk_usage(SHARED_MEMORY).free
    yield metrics(SHARED_MEMORY, host.user, free)


def metrics(folder: Path, user: User | None, free: int | None) -> Finding:
    """Whether `user` (None: ours) may make the metrics' file in `folder`, and it has space there.

    `free` is in bytes; None if there is such a file already.
    """
    wanted = READ | WRITE | SEARCH
    allowed = may(user, folder.stat(), wanted) if user else os.access(folder, os.W_OK)
    if not allowed:
        return warning(
            f"{user.name if user else 'we'} cannot write to {folder} ({described(folder)}): "
            "metrics are counted on the disk",
            f"chmod 1777 {folder}",
        )
    if free is not None and free < FILE_BYTES:
        return warning(
            f"{folder} has {bytes_text(free)} free, the metrics take {bytes_text(FILE_BYTES)}: "
            "each process would count for itself alone",
            f"remove what fills {folder}",
        )
    return ok(f"{folder} can hold the metrics of all processes")


def annoy(host: Host) -> Iterator[Finding]:
    """Annoy runs on this CPU: it is compiled for the CPU that it is installed on."""
    yield trial([sys.executable, "-c", TRIAL])


def trial(command: list[str]) -> Finding:
    """Whether `command` succeeds, in a process of its own since it may crash."""
    remedy = (
        f"compile it here: {sys.prefix}/bin/pip install --force-reinstall --no-deps "
        "--no-cache-dir --no-binary annoy annoy"
    )
    run = subprocess.run(command, capture_output=True, text=True, timeout=_TRIAL_S, check=False)
    if run.returncode == -signal.SIGILL:
        return problem(
            "Annoy was compiled for another CPU and dies of SIGILL (illegal instruction) on this one",
            remedy,
        )
    if run.returncode < 0:
        return problem(f"Annoy dies of {signal.Signals(-run.returncode).name} here", remedy)
    if run.returncode:
        lines = run.stderr.strip().splitlines() or [f"exit status {run.returncode}"]
        return problem(f"Annoy cannot be used: {lines[-1]}", remedy)
    return ok("Annoy builds and answers on this CPU")


def clock(host: Host) -> Iterator[Finding]:
    """The clock is not behind the newest release, and is synchronised."""
    names: list[str] = []
    with suppress(PermissionError):
        names = host.root.names() if host.root else []
    stamps = [stamp for name in names if (stamp := stamp_of(name))]
    yield right_time(datetime.now(UTC), max(stamps, default=None), is_synchronised())


def right_time(now: datetime, newest: datetime | None, synchronised: bool | None) -> Finding:
    """Whether the time `now` is right; `newest` is when the newest release was made."""
    remedy = "synchronise it: timedatectl set-ntp true (systemd-timesyncd), or install chrony"
    ahead = (newest - now).total_seconds() if newest else 0.0
    if ahead > _AHEAD_S:
        return problem(
            f"the clock is behind: it says {now:%Y-%m-%d %H:%M:%S} UTC, the newest release is of "
            f"{seconds_text(ahead)} later",
            remedy,
        )
    if synchronised is None:
        return ok(
            "the clock is not behind the newest release; the kernel does not say whether it is "
            "synchronised"
        )
    if not synchronised:
        return warning("the clock is not synchronised (NTP), as far as the kernel knows", remedy)
    return ok("the clock is synchronised and not behind the newest release")


class _Timex(ctypes.Structure):
    """``struct timex`` of adjtimex(2); what follows `status` is not used."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror")),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def is_synchronised() -> bool | None:
    """Whether the clock is synchronised as far as the kernel knows; None if it cannot tell."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "adjtimex"):
        return None
    timex = _Timex()  # modes 0: read only
    state = libc.adjtimex(ctypes.byref(timex))
    if state < 0:
        return None
    return state != _TIME_ERROR and not timex.status & _UNSYNCHRONISED
