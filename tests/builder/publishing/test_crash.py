"""kill -9 of a writer at every call that changes the root: it stays servable, the next run succeeds.

The driver is this file run as a program, with `kill_shim.c` loaded before libc. It first lets a
scenario's writer run to its end to learn the calls it makes. Then, for every one of them, it lays the
root out anew, forks a writer that dies at that call, and forks a process that looks at what is left
and runs the writer again.
"""

import ctypes
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple
from unittest import mock

import numpy as np
import pytest

import lookalike_build.following.follower
import lookalike_build.indexing.table
from following import BAD, follower_of
from lookalike.journal import DELETE, PUT, SET, Change, Journal
from lookalike.release.attributes import HIDDEN, Values
from lookalike.release.files import BEHAVIOUR, BEHAVIOUR_FILES, GONE, PRODUCT_IDS, RELATED
from lookalike.release.ids import Id
from lookalike.release.root import (
    AT_WORK,
    CURRENT,
    FOLLOW_LOCK,
    JOURNAL,
    RELEASES,
    STAGING,
    ReleaseRoot,
)
from lookalike_build.features.store import FeatureStore
from lookalike_build.indexing.build import IndexSettings, index
from support import (
    REPOSITORY,
    Catalogue,
    Client,
    Rating,
    brute_force,
    client_of,
    give,
    random_features,
    rate,
    updates_beside,
    values_in,
    write_store,
)
from waiting import HUNG_S

pytestmark = pytest.mark.slow

SHIM: Final = REPOSITORY / "tests/data/kill_shim.c"
LANES: Final = 2
SETTINGS: Final = IndexSettings(n_trees=2, neighbours=5)
WRITES: Final = ("write", "pwrite", "writev", "fwrite")
BYTES: Final = {"write", "fwrite", "fclose", "fsync"}
LOCKS: Final = (".build.lock", FOLLOW_LOCK, ".lock")
NAMES: Final = {"open", "mkdir", "rename", "link", "symlink", "unlink", "rmdir"}


def _catalogue(seed: int) -> Catalogue:
    """Two categories, of 12 and 9 products; the second is the same whatever the seed."""
    return {
        1: (list(range(100, 112)), random_features(12, seed, n_dims=4)),
        2: (list(range(200, 209)), random_features(9, 99, n_dims=4)),
    }


NEW_PHOTOS: Final = random_features(2, 5, n_dims=4)
CATALOGUES: Final = {"older": _catalogue(1), "old": _catalogue(2), "new": _catalogue(3)}


def _put(category_id: Id, product_id: Id, photo: bytes) -> Change:
    return Change(PUT, category_id, product_id, None, photo)


CHANGES: Final = [
    *(Change(DELETE, 1, product_id) for product_id in (100, 101, 102)),
    Change(SET, 1, 103, values={"price": 7.0, "title": None}),
    _put(1, 103, NEW_PHOTOS[0].tobytes()),
    _put(1, 104, BAD),
    _put(1, 112, NEW_PHOTOS[1].tobytes()),
    _put(3, 200, CATALOGUES["old"][2][1][0].tobytes()),  # moved there
    _put(3, 300, NEW_PHOTOS[0].tobytes()),
    Change(SET, 3, 300, values={"title": "new", HIDDEN: False}),
    *(Change(DELETE, 2, product_id) for product_id in CATALOGUES["old"][2][0]),
    Change(DELETE, 2, 999),
]
"""Some are removed, one is new, one has another photo, one moves; a category comes and one goes."""
BATCH: Final = 9
"""In two batches, that is; sets do not count."""
GIVEN: Final[dict[Id, dict[Id, Values]]] = {
    1: {product_id: {"price": product_id / 2, "title": "é"} for product_id in (100, 103, 111)}
}
SET_IN: Final[dict[Id, dict[Id, Values]]] = {
    1: {103: {"price": 7.0}, 111: {"price": 55.5, "title": "é"}},
    3: {300: {"title": "new", HIDDEN: False}},
}
"""What `CHANGES` make of these values."""


def _changed(n: int) -> Catalogue:
    """What the first so many of `CHANGES` make of the old catalogue."""
    categories = {
        category_id: dict(zip(ids, features, strict=True))
        for category_id, (ids, features) in CATALOGUES["old"].items()
    }
    for change in CHANGES[:n]:
        products = categories.setdefault(change.category_id, {})
        if change.op == DELETE:
            products.pop(change.product_id, None)
        elif change.photo and change.photo != BAD:
            products[change.product_id] = np.frombuffer(change.photo, np.float32)
    return {
        category_id: (list(products), np.stack(list(products.values())))
        for category_id, products in categories.items()
        if products
    }


RATED_AT_FIRST: Final = {one for ids, _ in CATALOGUES["old"].values() for one in ids}
"""What may be in lists made beside the old catalogue."""
CATALOGUES["changed"] = _changed(len(CHANGES))
COUNTED: Final = [n for n, change in enumerate(CHANGES, 1) if change.op != SET]
BETWEEN: Final = {
    f"changed by {n}": _changed(n) for n in COUNTED[BATCH - 1 :: BATCH] if n < len(CHANGES)
}
CATALOGUES.update(BETWEEN)

RATINGS: Final[list[Rating]] = [
    ("all", product_id, 1_700_000_000 - place)
    for place, product_id in enumerate([*range(100, 113), *range(200, 209), 300, 999])
]
"""Of one user, so that all are related to each, the newest first."""

# What is done to a root, given the folder of the feature stores.
Work = Callable[[ReleaseRoot, Path], object]


def _publish(catalogue: str, keep: int) -> Work:
    def work(root: ReleaseRoot, stores: Path) -> None:
        index(FeatureStore.open(stores / catalogue), root, SETTINGS)
        with root.lock():
            root.prune(keep)

    return work


def _nothing(root: ReleaseRoot, stores: Path) -> None:
    pass


def _two_releases(root: ReleaseRoot, stores: Path) -> None:
    for catalogue in ("older", "old"):
        _publish(catalogue, keep=2)(root, stores)


def _rate(root: ReleaseRoot, stores: Path) -> None:
    rate(root, RATINGS)
    with root.lock():
        root.prune(keep=2)


def _two_with_behaviour(root: ReleaseRoot, stores: Path) -> None:
    _two_releases(root, stores)
    _rate(root, stores)


def _give(root: ReleaseRoot, stores: Path) -> None:
    give(root, GIVEN)
    with root.lock():
        root.prune(keep=2)


def _two_with_all(root: ReleaseRoot, stores: Path) -> None:
    _two_with_behaviour(root, stores)
    _give(root, stores)


def _valued(root: ReleaseRoot, values: Mapping[Id, Mapping[Id, Values]]) -> None:
    """Products have these values, others none."""
    found = values_in(root.open(str(root.current())))
    assert {
        category_id: {one: each for one, each in products.items() if each}
        for category_id, products in found.items()
        if any(products.values())
    } == values


def _related_and_given(root: ReleaseRoot) -> None:
    _related(root)
    _valued(root, GIVEN)


def _related(root: ReleaseRoot) -> None:
    """Of what users rated just that is related which is there now."""
    release = root.open(str(root.current()))
    categories = release.categories.values()
    present = {one for category in categories for one in category.ids(category.items())}
    rated = [product_id for _, product_id, _ in RATINGS]
    assert release.behaviour
    expected = [one for one in rated if one in present and one in RATED_AT_FIRST]
    for product_id in rated:
        others = [one for one in expected if one != product_id]
        assert release.behaviour.related(product_id, 99) == others


def _what_killed_writers_left(root: ReleaseRoot, stores: Path) -> None:
    _two_with_all(root, stores)
    oldest = root.releases / root.names()[0]
    shutil.copytree(oldest, root.staging)
    (root.scratch / "spilled").mkdir(parents=True)
    (root.scratch / "spilled" / "duckdb_temp_storage.tmp").write_bytes(b"x")
    shutil.copytree(oldest / "1", root.before / "1")
    shutil.copytree(oldest / "1", root.releases / ".removed-20200101T000000.000Z-0" / "1")
    (root.path / ".current").symlink_to(Path(RELEASES, oldest.name))


def _roll_back(root: ReleaseRoot, stores: Path) -> None:
    with root.lock():
        root.switch(root.names()[0])


def _changes_after_killed_followers(root: ReleaseRoot, stores: Path) -> None:
    _two_with_all(root, stores)
    newest = root.releases / root.names()[-1]
    shutil.copytree(newest / "1", root.updating / "1")
    shutil.copytree(newest / "2", root.rebasing / "2")
    with closing(Journal(root.journal)) as journal:
        journal.add(CHANGES)


def _send(root: ReleaseRoot, stores: Path) -> None:
    """Add `CHANGES` in batches, as a feed that goes on where it was; count what is acknowledged."""
    with (
        closing(Journal(root.journal)) as journal,
        (root.journal.parent / "acknowledged").open("ab", buffering=0) as acknowledged,
    ):
        sent = journal.position("feed")
        assert sent >= BATCH * acknowledged.tell()
        for place in range(sent, len(CHANGES), BATCH):
            journal.add(CHANGES[place : place + BATCH], ("feed", place + BATCH))
            acknowledged.write(b".")


def _all_pending(root: ReleaseRoot) -> None:
    """Each change is in the journal, once and in its place, with its photo."""
    with closing(Journal(root.journal)) as journal:
        pending = journal.pending(2 * len(CHANGES))
        assert [number for number, _ in pending] == list(range(1, len(CHANGES) + 1))
        sent = [change._replace(photo=journal.photo(number)) for number, change in pending]
        assert sent == CHANGES


def _follow(root: ReleaseRoot, stores: Path) -> None:
    """Publish the first batch, the second with indexes made anew, and those made anew after it."""
    with (
        mock.patch.object(lookalike_build.following.follower, "BATCH", BATCH),
        root.follow_lock(),
        closing(Journal(root.journal)) as journal,
    ):
        follower = follower_of(root, journal, n_dims=4, keep=1)
        while follower.step():
            pass


def _beside(work: Work) -> Work:
    """Work in which updates come beside tables, which are folded in the background at once."""

    def patched(root: ReleaseRoot, stores: Path) -> None:
        spares = mock.patch.object(lookalike_build.indexing.table, "N_SPARE", 1)
        with spares, updates_beside(_MOST_UPDATES=1):
            work(root, stores)

    return patched


def _all_settled(root: ReleaseRoot) -> None:
    """Each change is settled, once, as it is to be; related is what is there now."""
    _related(root)
    _valued(root, SET_IN)
    with closing(Journal(root.journal)) as journal:
        for number, change in enumerate(CHANGES, 1):
            outcome = journal.outcome(number)
            assert outcome is not None
            assert outcome.state == ("rejected" if change.photo == BAD else "live"), (
                change,
                outcome,
            )
        status = journal.status()
        assert (status.n_pending, status.n_live, status.n_rejected) == (0, len(CHANGES) - 1, 1)


class Scenario(NamedTuple):
    """How the root is laid out, what the writer does, and whose answers are served before and after.

    `before` is None where no release is current yet; each of `between` is served after one more
    release, too. `judge` looks at the rest, in the end.
    """

    lay_out: Work
    work: Work
    before: str | None
    after: str
    judge: Callable[[ReleaseRoot], object] = lambda _: None
    between: Sequence[str] = ()


SCENARIOS: Final = {
    "first publication": Scenario(_nothing, _publish("new", keep=1), None, "new"),
    "change": Scenario(_two_releases, _publish("new", keep=1), "old", "new"),
    "change after kills": Scenario(
        _what_killed_writers_left, _publish("new", keep=1), "old", "new", _related_and_given
    ),
    "no change": Scenario(_two_releases, _publish("old", keep=1), "old", "old"),
    "rollback": Scenario(_two_releases, _roll_back, "old", "older"),
    "following": Scenario(
        _beside(_changes_after_killed_followers),
        _beside(_follow),
        "old",
        "changed",
        _all_settled,
        list(BETWEEN),
    ),
    "behaviour": Scenario(_two_releases, _rate, "old", "old", _related),
    "attributes": Scenario(_two_releases, _give, "old", "old", lambda root: _valued(root, GIVEN)),
    "sending changes": Scenario(_two_releases, _send, "old", "old", _all_pending),
}


class Call(NamedTuple):
    """A line of the shim's journal; paths are relative to the root, which itself is ``.``."""

    kind: str
    path: str
    to: str


@dataclass(frozen=True)
class Report:
    """What the driver found: the writer's calls, the kills there were, and what went wrong."""

    calls: list[Call]
    kills: int
    failures: list[str]


# Tests


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not sys.platform.startswith("linux"):
        pytest.skip("LD_PRELOAD and /proc are Linux's")
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc or clang) on PATH to build kill_shim.c with")
    library = tmp_path_factory.mktemp("shim") / "kill_shim.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]
    subprocess.run([*command, str(library), str(SHIM), "-ldl"], check=True)
    return library


@pytest.fixture(scope="module")
def reports(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    """The driver's report of every scenario, by one driver: its imports take longest."""
    # Where there is one, in memory: no disk is looked at, only what a kill leaves.
    memory = Path("/dev/shm")
    base = memory if os.access(memory, os.W_OK) else tmp_path_factory.mktemp("crash")
    environment = {
        **os.environ,
        "LD_PRELOAD": str(shim),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        # A thread of BLAS would not live on in a fork.
        "OPENBLAS_NUM_THREADS": "1",
    }
    with tempfile.TemporaryDirectory(dir=base) as folder:
        work = Path(folder).resolve()
        subprocess.run([sys.executable, __file__, str(work)], env=environment, check=True)
        return {scenario: _read(work / f"{scenario}.json") for scenario in SCENARIOS}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_writer_killed_at_any_call_leaves_a_sound_root(
    reports: dict[str, Report], scenario: str
) -> None:
    report = reports[scenario]
    failures = report.failures
    assert not failures, "\n".join([f"{len(failures)} of {report.kills}, first:", *failures[:3]])
    assert report.kills == len(report.calls) + sum(call.kind in WRITES for call in report.calls)


def test_the_calls_of_every_kind_are_seen(reports: dict[str, Report]) -> None:
    calls = reports["change after kills"].calls
    assert {call.kind for call in calls} == BYTES | NAMES
    assert len(calls) > 80
    # By whom: a file of Python's, an array, Annoy's own.
    assert Call("write", f"{RELEASES}/{STAGING}/manifest.json", "") in calls
    assert Call("write", f"{RELEASES}/{STAGING}/1/neighbours.npy", "") in calls
    assert Call("fwrite", f"{RELEASES}/{STAGING}/1/index.ann", "") in calls
    assert Call("link", f"{RELEASES}/{STAGING}/2/index.ann", "") in calls
    assert Call("rename", ".current", CURRENT) in calls


def test_what_behaviour_writes_and_takes_over_is_seen(reports: dict[str, Report]) -> None:
    made = reports["behaviour"].calls
    staging = f"{RELEASES}/{STAGING}"
    for file in BEHAVIOUR_FILES:
        assert Call("write", f"{staging}/{BEHAVIOUR}/{file}", "") in made
        assert Call("fsync", f"{staging}/{BEHAVIOUR}/{file}", "") in made
    assert Call("fsync", f"{staging}/{BEHAVIOUR}", "") in made
    assert Call("link", f"{staging}/2/index.ann", "") in made
    assert Call("link", f"{RELEASES}/.before/2/{PRODUCT_IDS}", "") in made
    indexed = reports["change after kills"].calls
    assert Call("link", f"{staging}/{BEHAVIOUR}/{RELATED}", "") in indexed
    followed = reports["following"].calls
    assert Call("link", f"{RELEASES}/.updating/{BEHAVIOUR}/{RELATED}", "") in followed
    assert Call("write", f"{RELEASES}/.updating/{BEHAVIOUR}/{GONE}", "") in followed


def test_what_the_journal_does_is_seen(reports: dict[str, Report]) -> None:
    """By SQLite: from the first file to the last, which goes when it is closed."""
    sent, followed = (reports[scenario].calls for scenario in ("sending changes", "following"))
    log = f"{JOURNAL}-wal"
    for kind, path in (("open", JOURNAL), ("open", log), ("pwrite", log), ("fdatasync", log)):
        assert Call(kind, str(path), "") in sent
    assert sent.count(Call("fdatasync", log, "")) >= len(CHANGES) / BATCH
    for kind, path in (("pwrite", log), ("pwrite", JOURNAL), ("unlink", log)):
        assert Call(kind, str(path), "") in followed


def test_changes_are_settled_when_their_release_is_current(reports: dict[str, Report]) -> None:
    calls = reports["following"].calls
    current = calls.index(Call("rename", ".current", CURRENT))
    durable = calls.index(Call("fsync", ".", ""), current)
    write, sync = (Call(kind, f"{JOURNAL}-wal", "") for kind in ("pwrite", "fdatasync"))
    rejected = calls.index(sync, calls.index(write))
    settled = calls.index(write, current)
    assert rejected < current < durable < settled < calls.index(sync, settled)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_power_cut_at_any_call_finds_on_disk_what_has_a_name(
    reports: dict[str, Report], scenario: str
) -> None:
    """What a kill cannot show, for it leaves the kernel alive: the order of fsyncs and names."""
    files: set[Path] = set()  # whose bytes may not be on disk yet
    names: set[Path] = set()  # that may not be on disk yet, or may still be
    for kind, name, to in reports[scenario].calls:
        path = Path(name)
        if path.is_relative_to(JOURNAL.parent):
            # SQLite looks after its own; what it says of a release is to be true by then.
            assert kind != "pwrite" or not {Path(CURRENT), Path(RELEASES)} & names
        elif path.stem == AT_WORK:
            continue  # not synced: a power cut is no photo's doing
        elif kind == "fsync":
            files.discard(path)
            names = {one for one in names if one.parent != path}
        elif kind in BYTES:
            files.add(path)
        else:
            if kind == "rename":
                half_made = {one for one in files | names - {path} if one.is_relative_to(path)}
                assert not half_made, f"{name} is renamed to {to}"
            if kind == "unlink":
                files.discard(path)  # its bytes are nobody's any more
            if to == CURRENT:
                assert not {one for one in names if one.parent == Path(RELEASES)}
            if kind in ("unlink", "rmdir") and ".removed-" in name:
                assert Path(*path.parts[:2]) not in names, f"{kind} {name}"
            names |= {path, Path(to)} - {Path()}
    assert Path(CURRENT) not in names


def _read(path: Path) -> Report:
    document = json.loads(path.read_text())
    return Report(**document | {"calls": [Call(*call) for call in document["calls"]]})


# The driver


class Driver:
    """Sweeps over one scenario in `folder`, with the feature stores in `stores`."""

    def __init__(self, folder: Path, scenario: Scenario, stores: Path) -> None:
        self._folder = folder
        self._scenario = scenario
        self._stores = stores
        self._laid_out = folder / "laid out"
        self._shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
        self._shim.journal.restype = ctypes.c_char_p
        self._calls: list[Call] = []

    def sweep(self) -> Report:
        """Learn the writer's calls, then kill it at each of them."""
        self._folder.mkdir()
        lay_out = self._scenario.lay_out
        _expect(0, lambda: lay_out(ReleaseRoot(self._laid_out), self._stores))
        _expect(0, self._learn)
        journal = json.loads((self._folder / "journal").read_text())
        self._calls = [Call(*line.split("\t")) for line in journal]
        kills = [(n, False) for n in range(1, len(self._calls) + 1)]
        kills += [(n, True) for n, call in enumerate(self._calls, 1) if call.kind in WRITES]
        lanes = [
            (lane, _fork(partial(self._lane, lane, kills[lane::LANES]))) for lane in range(LANES)
        ]
        failures: list[str] = []
        for lane, process in lanes:
            assert _wait(process) == 0
            failures += json.loads((self._folder / f"failures {lane}").read_text())
        return Report(self._calls, len(kills), failures)

    def _learn(self) -> None:
        root = self._fresh_root("learn")
        self._write(root, 0, half=False)
        lines = self._shim.journal().decode().splitlines()
        within = [line.replace(f"{root.path}/", "").replace(str(root.path), ".") for line in lines]
        (self._folder / "journal").write_text(json.dumps(within))

    def _lane(self, lane: int, kills: list[tuple[int, bool]]) -> None:
        failures = []
        log = self._folder / f"log {lane}"
        for n, half in kills:
            root = self._fresh_root(f"root {lane}")
            try:
                _expect(-signal.SIGKILL, partial(self._write, root, n, half), log)
                _expect(0, partial(self._judge, root, n), log)
            except AssertionError:
                where = "half-way in" if half else "before"
                call = " ".join(self._calls[n - 1])
                failures.append(f"killed {where} call {n}, {call}:\n{log.read_text()}")
        (self._folder / f"failures {lane}").write_text(json.dumps(failures))

    def _fresh_root(self, name: str) -> ReleaseRoot:
        path = self._folder / name
        shutil.rmtree(path, ignore_errors=True)
        if self._laid_out.exists():
            shutil.copytree(self._laid_out, path, symlinks=True)
        return ReleaseRoot(path)

    def _write(self, root: ReleaseRoot, n: int, half: bool) -> None:
        self._shim.watch(os.fsencode(root.path))
        self._shim.arm(ctypes.c_long(n), half)
        self._scenario.work(root, self._stores)

    def _judge(self, root: ReleaseRoot, n: int) -> None:
        """Hold what a writer killed at call n left, then what the next one makes of it."""
        # Nothing is to be killed, nor to wait for a disk.
        self._shim.watch(os.fsencode(root.path))
        stages = [self._scenario.before, *self._scenario.between, self._scenario.after]
        n_switched = sum(call.to == CURRENT for call in self._calls[: n - 1])
        served = _served(root)
        assert served == stages[min(n_switched, len(stages) - 1)], served
        self._scenario.work(root, self._stores)
        served = _served(root)
        assert served == self._scenario.after, served
        self._scenario.judge(root)
        files = {CURRENT, RELEASES, AT_WORK, root.feed_key.name, *LOCKS}
        files |= {*JOURNAL.parts[: root.journal.exists()]}
        assert set(_listing(root.path)) <= files
        assert set(_listing(root.releases)) - {root.rebasing.name} == set(root.names())
        assert not root.rebasing.exists() or not _listing(root.rebasing)


def _listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _served(root: ReleaseRoot) -> str | None:
    """Whose answers the app gives, once every release in the root has passed the full check."""
    for release in root.names():
        deque(root.check(release), maxlen=0)
    current = root.current()
    client = client_of(root)
    if current is None:
        assert client.get("/readyz").status == "503 Service Unavailable"
        return None
    served = json.loads(client.get("/release").body)
    assert (served["release"], served["problem"]) == (current, None)
    return _catalogue_of(client)


def _catalogue_of(client: Client) -> str:
    """The one catalogue whose every answer is what the client gets."""
    (name,) = (
        name
        for name, expected in ANSWERS.items()
        if all(_ask(client, target) == expected.get(target) for target in TARGETS)
    )
    return name


def _answers(catalogue: Catalogue) -> dict[str, list[Id]]:
    """Every target and its answer: the product, then its k nearest by brute force."""
    answers = {}
    for category_id, (product_ids, features) in catalogue.items():
        for item, product_id in enumerate(product_ids):
            order, _ = brute_force(features, item)
            nearest = [product_ids[other] for other in order[: SETTINGS.neighbours]]
            target = f"/nns?category_id={category_id}&product_id={product_id}"
            limit = SETTINGS.neighbours + 1
            answers[f"{target}&limit={limit}"] = [product_id, *nearest]
    return answers


def _ask(client: Client, target: str) -> list[Id] | None:
    answer = client.get(target)
    return None if answer.status == "404 Not Found" else json.loads(answer.body)


ANSWERS: Final = {name: _answers(catalogue) for name, catalogue in CATALOGUES.items()}
TARGETS: Final = {target for expected in ANSWERS.values() for target in expected}


def _expect(status: int, work: Callable[[], object], log: Path | None = None) -> None:
    """Do `work` in a fork, which is to exit with `status`, below zero for a signal."""
    found = _wait(_fork(work, log, round(HUNG_S)))
    if found != status and log:
        with log.open("a") as file:
            file.write(f"exit status {found}, expected {status}\n")
    assert found == status


def _fork(work: Callable[[], object], log: Path | None = None, timeout_s: int = 0) -> int:
    """Start `work` in a fork; a traceback goes to the log or, without one, to standard error."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        signal.alarm(timeout_s)
        if log:
            log.write_text("")
        work()
        status = 0
    except BaseException:
        with log.open("a") if log else nullcontext(sys.stderr) as file:
            traceback.print_exc(file=file)
    finally:
        os._exit(status)


def _wait(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _drive(work: Path) -> None:
    logging.disable()
    stores = work / "stores"
    for name, catalogue in CATALOGUES.items():
        _expect(0, partial(write_store, stores / name, catalogue))
    for name, scenario in SCENARIOS.items():
        report = Driver(work / name, scenario, stores).sweep()
        (work / f"{name}.json").write_text(json.dumps(asdict(report)))
    # Forks are sound only of a process with one thread of Python's, and quick only of a light one.
    assert threading.active_count() == 1
    assert "tensorflow" not in sys.modules


if __name__ == "__main__":
    _drive(Path(sys.argv[1]))
