"""``make bench-follow``: how soon a change is live, with a server under load, and that all is right.

31,667 products, whose features are mixed of those of drawn photos; the real network, with fixed
weights, takes the features of new ones. Unit serves all that one wrk asks for, which shares the cores
with the rest, then half as much. Two clients note answers, one of products at random, one of those
that change, which must never be unknown. In the end the answers noted are held to brute force over
the features of the releases that they came from, and the last release to a table made from nothing.

Then a category of 440,000 products, the paper's largest, without load: how soon a change is live there,
and what it writes. Its features have the 2048 numbers of the network, but only 16 directions, and come
in groups so far apart that a table of them is made group by group; those of products that change are
the network's.
"""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from itertools import islice
from multiprocessing import Manager, get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt

from load.asking import Asked, Noted, ask
from load.made_release import product_id
from load.serving import Run, Served, Verdict, serving, wrk
from lookalike.journal import Journal
from lookalike.operate.unit.config import APPLICATION
from lookalike.release.files import FEATURES
from lookalike.release.ids import category_folder
from lookalike.release.manifest import Manifest
from lookalike.release.root import ReleaseRoot
from lookalike.serving.settings import TOKEN
from lookalike_build.catalogue.reader import read_catalogue
from lookalike_build.demo.drawing import draw_catalogue
from lookalike_build.extraction.known_photos import KnownPhotos
from lookalike_build.extraction.local_engine import LocalEngine
from lookalike_build.indexing.build import index
from lookalike_build.indexing.category import IndexSettings, index_features
from lookalike_build.indexing.live import LiveCategory
from lookalike_build.indexing.neighbours import exact_neighbours
from lookalike_build.indexing.table import widths
from lookalike_build.networks.extractor import UNTRAINED
from lookalike_build.networks.inception import Network
from lookalike_build.networks.settings import ExtractorSettings, warm_up
from lookalike_build.photos.decoding import decode_photo, read_photo
from lookalike_build.publishing.ids import positions_of
from lookalike_build.publishing.staging import Staging
from support import Catalogue, etag_of, write_store
from waiting import wait_until

N_ITEMS, CATEGORY, LIMIT = 31_667, 1, 12
SECRET = "bench-follow-0123456789"
NEW_ID = 1_000_000
BATCH = 100
SAMPLE = 500
MOST_S = 60.0
_TAKEN_UP = re.compile(r"lookalike\[(\d+)\] INFO serving release (\S+)")
CONNECTIONS = 32
NEW = "new products, one by one, full load"
CHANGED = "changed photos, one by one, full load"
REMOVED = "removals, one by one, full load"
BATCH_FULL = f"{BATCH} new products at once, full load"
BATCHES = f"{BATCH} new products at once, half load"
ALONE = f"{BATCH} new photos extracted alone, full load"
LIVE_S, MEDIAN_S, BATCH_S, OVER_EXTRACTION = 2.0, 0.5, 10.0, 1.25
N_LARGE, N_DIRECTIONS, N_GROUP = 440_000, 16, 440
WRITTEN_MB = 5.0

Features = npt.NDArray[np.float32]
Address = tuple[str, int]


def main() -> None:
    """Run the phases and say what holds."""
    parser = argparse.ArgumentParser(prog="make bench-follow", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    parser.add_argument("--singles", type=int, default=30)
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--large", type=int, default=N_LARGE, help="products of the large category")
    parser.add_argument("--only-large", action="store_true")
    options = parser.parse_args()
    if not options.only_large:
        at_load(options)
    if options.large:
        in_large(options.folder, options.large, options.singles)


def at_load(options: argparse.Namespace) -> None:
    """31,667 products with a server under load."""
    root, photos = prepared(options.folder)
    context = get_context("spawn")
    with (
        serving(root, {TOKEN.name: SECRET}) as served,
        following(root, options.folder / "follow.log"),
        ProcessPoolExecutor(2, context) as pool,
        ProcessPoolExecutor(1, context, load_network) as extracting,
        Manager() as manager,
        closing(Journal(root.journal)) as journal,
    ):
        shop = Shop(root, served, journal)
        changing = [product_id(item) for item in range(0, N_ITEMS, N_ITEMS // 50)]
        everything = [product_id(item) for item in range(N_ITEMS)]
        stop = manager.Event()
        clients = [
            pool.submit(ask, shop.address, ids, stop, LIMIT, SAMPLE)
            for ids in (everything, changing)
        ]
        extracting.submit(extraction_s, []).result()
        n, many = options.singles, range(1, options.batches + 1)
        seen: dict[str, list[float]] = {}
        with loaded(served) as full:
            seen[NEW] = [shop.put(NEW_ID + i, next(photos)) for i in range(n)]
            seen[CHANGED] = [shop.put(one, next(photos)) for one in changing[:n]]
            seen[REMOVED] = [shop.delete(NEW_ID + i) for i in range(n)]
            seen[ALONE], seen[BATCH_FULL] = [], []
            for i in many:
                alone = extracting.submit(extraction_s, list(islice(photos, BATCH)))
                seen[ALONE].append(alone.result())
                seen[BATCH_FULL].append(shop.put_many(NEW_ID + 100_000 + 1000 * i, photos))
        pause_ms = round(1e3 * CONNECTIONS / (full[0].requests_s / 2))
        with loaded(served, pause_ms) as half:
            seen[BATCHES] = [shop.put_many(NEW_ID + 1000 * i, photos) for i in many]
        stop.set()
        noted = [client.result() for client in clients]
    noted[1].problems.extend(shop.problems)
    print_seen(seen, full, half, noted)
    judge(root, seen, sum(run.errors for run in [*full, *half]), noted)


def prepared(folder: Path) -> tuple[ReleaseRoot, Iterator[bytes]]:
    """A fresh root with a release of all products, and photos that are not in it, without end."""
    old, new = folder / "photos" / "catalogue.csv", folder / "new photos" / "catalogue.csv"
    for path, seed in ((old, 0), (new, 1)):
        if not path.exists():
            print("drawing photos ...", flush=True)
            draw_catalogue(path.parent, seed)
    features = folder / "mixed.npy"
    network = Network(UNTRAINED)
    if not features.exists():
        print("mixing features ...", flush=True)
        np.save(features, mixed(network, old))
    root = ReleaseRoot(folder / "follow")
    shutil.rmtree(root.path, ignore_errors=True)
    print(f"indexing {N_ITEMS} products ...", flush=True)
    products = [product_id(item) for item in range(N_ITEMS)]
    catalogue: Catalogue = {CATEGORY: (products, np.load(features))}
    store = write_store(folder / "follow store", catalogue, network.model)
    index(store, root, IndexSettings())
    return root, without_end(new)


def mixed(network: Network, catalogue: Path) -> Features:
    """Features (N_ITEMS, n_dims), each between those of two drawn photos, and a little off."""
    return mixed_of(features_of(network, catalogue), N_ITEMS)


def features_of(network: Network, catalogue: Path) -> Features:
    """The features (n, n_dims) of a catalogue's photos."""
    read = read_catalogue(catalogue)
    images = read.rows["image"].to_pylist()
    photos = [decode_photo(read_photo(read.folder / image)) for image in images]
    return np.concatenate(
        [
            network.features(network.stage(photos[first : first + network.batch]))
            for first in range(0, len(photos), network.batch)
        ]
    )


def mixed_of(drawn: Features, n_items: int) -> Features:
    """Features (n_items, n_dims), each between two of those drawn, and a little off."""
    rng = np.random.default_rng(3)
    one, other = (drawn[rng.integers(0, len(drawn), n_items)] for _ in range(2))
    share = rng.random((n_items, 1), np.float32)
    noise = rng.standard_normal((n_items, drawn.shape[1]), np.float32) * drawn.std(axis=0) / 10
    return np.asarray(share * one + (1 - share) * other + noise, np.float32)


class Bytes:
    """A reader of photos that are in memory."""

    def __init__(self, photos: list[bytes]) -> None:
        self._photos = photos

    def read(self, image: str) -> bytes:
        """The photo of that number."""
        return self._photos[int(image)]


def load_network() -> None:
    """Have this process extract as `following`'s does."""
    network = ExtractorSettings(weights=UNTRAINED).make()
    warm_up(network)
    _engine.append(LocalEngine(network))


_engine: list[LocalEngine] = []


def extraction_s(photos: list[bytes]) -> float:
    """How long extracting photos takes, in this process."""
    started = time.perf_counter()
    rows = [(number, str(number)) for number in range(len(photos))]
    found = sum(map(len, _engine[0](rows, Bytes(photos), KnownPhotos())))
    assert found == len(photos)
    return time.perf_counter() - started


def in_large(folder: Path, n_items: int, singles: int) -> None:
    """A category of so many products: seconds until a change is live, and megabytes written."""
    root, photos = prepared_large(folder, n_items)
    seen: dict[str, list[float]] = {name: [] for name in (NEW, CHANGED, REMOVED)}
    written: list[float] = []
    with (
        serving(root, {TOKEN.name: SECRET}) as served,
        following(root, folder / "follow.log") as follower,
        closing(Journal(root.journal)) as journal,
    ):
        shop = Shop(root, served, journal)
        for i in range(singles):
            new, old = product_id(n_items + i), product_id(i * n_items // singles)
            for name in (NEW, CHANGED, REMOVED):
                before = written_mb(follower.pid)
                if name == REMOVED:
                    seen[name].append(shop.delete(new))
                else:
                    seen[name].append(shop.put(new if name == NEW else old, next(photos)))
                written.append(written_mb(follower.pid) - before)
    print(
        f"\n{n_items} products, no load, seconds from 202 to served"
        f"{'':7}{'n':>5}{'median':>9}{'most':>9}"
    )
    for name, seconds in seen.items():
        what = name.partition(",")[0]
        print(f"  {what:54}{len(seconds):5}{statistics.median(seconds):9.2f}{max(seconds):9.2f}")
    print(
        f"written by a change, MB: median {statistics.median(written):.2f}, most {max(written):.2f}"
    )
    for problem in shop.problems[:5]:
        print(f"  {problem}")
    print(f"the first change of all: {seen[NEW][0]:.2f} s")
    slowest = max(one for seconds in seen.values() for one in seconds)
    for verdict in (
        Verdict("slowest change, s", [slowest], lambda s: s <= LIVE_S, f"{LIVE_S:g} or less"),
        Verdict("written by a change, MB", written, lambda mb: mb <= WRITTEN_MB, "5 or less"),
        Verdict("problems", [float(len(shop.problems))], lambda n: n == 0, "0"),
    ):
        print(verdict)


def written_mb(pid: int) -> float:
    """What a process has written so far, in MB."""
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(fields["wchar"]) / 1e6


def prepared_large(folder: Path, n_items: int) -> tuple[ReleaseRoot, Iterator[bytes]]:
    """A root with a release of one large category, made once, and photos that are not in it."""
    old, new = folder / "photos" / "catalogue.csv", folder / "new photos" / "catalogue.csv"
    for path, seed in ((old, 0), (new, 1)):
        if not path.exists():
            draw_catalogue(path.parent, seed)
    root = ReleaseRoot(folder / f"follow {n_items}")
    made = root.path / "made"
    if not made.exists():
        shutil.rmtree(root.path, ignore_errors=True)
        print(f"indexing {n_items} products ...", flush=True)
        network = Network(UNTRAINED)
        drawn = features_of(network, old)
        directions = np.linalg.svd(drawn, full_matrices=False)[2][:N_DIRECTIONS]
        centres = mixed_of(drawn @ directions.T, n_items // N_GROUP)
        make_large(root, network, grouped(centres), directions)
        made.touch()
    with root.lock():
        root.switch(root.names()[0])
        root.prune(keep=0)
    shutil.rmtree(root.journal.parent, ignore_errors=True)
    return root, without_end(new)


def grouped(centres: Features) -> Features:
    """Features (n_groups, N_GROUP, n_dims) around centres (n_groups, n_dims), all of length 1.

    Whoever is in a group is nearer to all others of it than to anybody else.
    """
    centres = centres / np.linalg.norm(centres, axis=1)[:, None]
    apart = 2 - 2 * centres @ centres.T
    np.fill_diagonal(apart, np.inf)
    radius = np.sqrt(apart.min(axis=1).clip(1e-8)) / 8
    away = np.random.default_rng(4).standard_normal((len(centres), N_GROUP, centres.shape[1]))
    away *= (radius[:, None] / np.linalg.norm(away, axis=2).max(axis=1, keepdims=True))[:, :, None]
    found = centres[:, None] + away
    return np.asarray(found / np.linalg.norm(found, axis=2)[:, :, None], np.float32)


def make_large(root: ReleaseRoot, network: Network, groups: Features, directions: Features) -> None:
    """Publish a release of a category with features in groups, (n_groups, n, n_directions) directions.

    The distances between them are those of the whole features, as the directions are at right angles.
    """
    settings = IndexSettings()
    n_groups, n_group, _ = groups.shape
    within = groups.reshape(n_groups * n_group, -1)
    k, width = widths(len(within), settings.neighbours)
    table = np.empty((len(within), width), np.uint32), np.empty((len(within), width), np.float32)
    for number, group in enumerate(groups):
        rows = slice(number * n_group, (number + 1) * n_group)
        items, table[1][rows] = exact_neighbours(group, k, spare=width - k)
        table[0][rows] = items + rows.start
    root.create()
    with root.lock():
        staging = Staging(root, root.staging)
        writer = staging.category(CATEGORY)
        features = writer.begin(len(within), network.n_dims)
        for first in range(0, len(within), 4096):
            features[first : first + 4096] = within[first : first + 4096] @ directions
        writer.add_ids(np.array([product_id(item) for item in range(len(within))], np.int64))
        written = index_features(features, settings, writer, table=table)
        draft = Manifest("draft", network.model, network.n_dims, "integer", "integer", (), None)
        staging.publish(draft, [written])


def without_end(catalogue: Path) -> Iterator[bytes]:
    """The catalogue's photos; again and again, each time a byte longer, which no decoder minds."""
    read = read_catalogue(catalogue)
    more = 0
    while True:
        for image in read.rows["image"].to_pylist():
            yield read_photo(read.folder / image) + bytes(more)
        more += 1


@contextmanager
def following(root: ReleaseRoot, log: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """`lookalike-build follow`, as a person starts it, once it is ready."""
    command = [sys.executable, "-m", "lookalike_build", "follow", "--root", str(root.path)]
    command += ["--weights", UNTRAINED, "--keep", "10000"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: "following" in log.read_text(), process, log)
        yield process
    finally:
        process.terminate()
        if process.wait() != 0:
            print(log.read_text())


@contextmanager
def loaded(served: Served, pause_ms: int = 0) -> Iterator[list[Run]]:
    """Load by wrk as long as this lasts, after a run without any change; what each run saw.

    Each of its connections waits for `pause_ms` between requests.
    """
    runs: list[Run] = []
    over = threading.Event()

    def load() -> None:
        while not over.is_set():
            arguments = [f"&limit={LIMIT}", str(N_ITEMS)]
            runs.append(wrk(served.app, 5, "random_ids.lua", *arguments, pause_ms=pause_ms))

    thread = threading.Thread(target=load)
    thread.start()
    try:
        wait_until(lambda: runs, thread)
        yield runs
    finally:
        over.set()
        thread.join()


class Shop:
    """Sends changes and sees when they are served: by every process of the app, as its log says."""

    def __init__(self, root: ReleaseRoot, served: Served, journal: Journal) -> None:
        host, _, port = served.app.partition(":")
        self.address = (host, int(port))
        self.problems: list[str] = []
        self._root = root
        self._log = served.unit.log
        self._pids = set(served.pids(APPLICATION))
        self._journal = journal

    def put(self, product: int, photo: bytes) -> float:
        """Seconds from the 202 of a PUT until the product is served and is in others' lists."""
        number = send(self.address, "PUT", product, photo)
        acknowledged = time.perf_counter()
        release = self._served(number)
        seconds = time.perf_counter() - acknowledged
        if etag_at(self.address, product) != etag_of(self._root, CATEGORY, release):
            self.problems.append(f"product {product} is not of {release}")
        other = one_that_lists(self._root, release, product)
        if other is not None and product not in neighbours(self.address, other, 101):
            self.problems.append(f"product {product} is not in the list of {other}")
        return seconds

    def put_many(self, first: int, photos: Iterator[bytes]) -> float:
        """Seconds from the last 202 of a hundred PUTs until all are served."""
        numbers = [send(self.address, "PUT", first + i, next(photos)) for i in range(BATCH)]
        acknowledged = time.perf_counter()
        self._served(numbers[-1])
        seconds = time.perf_counter() - acknowledged
        for i in range(BATCH):
            if etag_at(self.address, first + i) is None:
                self.problems.append(f"product {first + i} is unknown")
        return seconds

    def delete(self, product: int) -> float:
        """Seconds from the 202 of a DELETE until the product is unknown."""
        number = send(self.address, "DELETE", product, b"")
        acknowledged = time.perf_counter()
        self._served(number)
        seconds = time.perf_counter() - acknowledged
        if etag_at(self.address, product) is not None:
            self.problems.append(f"product {product} is still there")
        return seconds

    def _served(self, number: int) -> str:
        """Wait until all processes serve the release that a change came with; that."""
        until = time.perf_counter() + MOST_S
        while time.perf_counter() < until:
            outcome = self._journal.outcome(number)
            if outcome and outcome.reason:
                sys.exit(f"change {number} is rejected: {outcome.reason}")
            release = outcome.release if outcome else None
            if release:
                logged = re.findall(
                    r"lookalike\[(\d+)\] INFO serving release (\S+)", self._log.read_text()
                )
                if self._pids <= {int(pid) for pid, name in logged if name >= release}:
                    return release
            time.sleep(0.005)
        sys.exit(
            f"change {number} is not live within {MOST_S:g} s; the log of the follower has more"
        )


def send(address: Address, method: str, product: int, photo: bytes) -> int:
    """Send a change; its number."""
    status, body, _ = request(address, method, f"/products/{CATEGORY}/{product}", photo)
    if status != 202:
        sys.exit(f"{method} of product {product}: {status} {body!r}")
    return int(json.loads(body)["change"])


def etag_at(address: Address, product: int) -> str | None:
    """The ETag of a product's answer; None if it is unknown."""
    target = f"/nns?category_id={CATEGORY}&product_id={product}"
    status, _, etag = request(address, "GET", target)
    return etag if status == 200 else None


def neighbours(address: Address, product: int, limit: int) -> list[int]:
    """A product's answer."""
    target = f"/nns?category_id={CATEGORY}&product_id={product}&limit={limit}"
    return list(json.loads(request(address, "GET", target)[1]))


def request(
    address: Address, method: str, target: str, body: bytes | None = None
) -> tuple[int, bytes, str]:
    """Status, body and ETag."""
    connection = HTTPConnection(*address, timeout=30)
    try:
        connection.request(method, target, body, {"Authorization": f"Bearer {SECRET}"})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers["ETag"] or ""
    finally:
        connection.close()


def one_that_lists(root: ReleaseRoot, release: str, product: int) -> int | None:
    """A product in whose list the release has this one."""
    live = read(root, release)
    table = live.table.folded()
    (item,), _ = positions_of(table.product_ids, np.array([product]))
    listed = (table.items[:, : table.k] == item).any(axis=1)
    listed[item] = False
    return int(table.product_ids[np.argmax(listed)]) if listed.any() else None


def read(root: ReleaseRoot, release: str) -> LiveCategory:
    """The category in a release."""
    entry = root.manifest(release).categories[0]
    return LiveCategory.read(root.folder(release) / category_folder(CATEGORY), entry)


def print_seen(
    seen: dict[str, list[float]], full: list[Run], half: list[Run], noted: list[Noted]
) -> None:
    """The tables."""
    print(
        f"\n{N_ITEMS} products, seconds from 202 to served{'':16}{'n':>5}{'median':>9}{'most':>9}"
    )
    for name, seconds in seen.items():
        middle, most = statistics.median(seconds), max(seconds)
        print(f"  {name:54}{len(seconds):5}{middle:9.2f}{most:9.2f}")
    before, *during = (run.requests_s for run in full)
    print(f"\nfull load: {before:.0f} requests/s, {statistics.median(during):.0f} during changes")
    rate = statistics.median(run.requests_s for run in half)
    print(
        f"half load: {rate:.0f} requests/s, p99 {statistics.median(run.p99 for run in half):.1f} ms"
    )
    for name, one in zip(("any product", "those that change"), noted, strict=True):
        p99 = statistics.quantiles(one.latencies, n=100)[98]
        print(f"  {name}: {len(one.latencies)} answers noted, p99 {p99:.1f} ms")
        for problem in one.problems[:5]:
            print(f"    {problem}")


def judge(root: ReleaseRoot, seen: dict[str, list[float]], errors: int, noted: list[Noted]) -> None:
    """Hold all to what it is to be."""
    print(f"\nchecking answers of {len(root.names())} releases ...\n", flush=True)
    failed = errors + sum(len(one.problems) for one in noted)
    wrong = sum(wrong_answers(root, [asked for one in noted for asked in one.sample]))
    same = as_from_nothing(read(root, str(root.current())))
    single = max(seen[NEW] + seen[CHANGED] + seen[REMOVED])
    batch = max(seen[BATCHES])
    over = [one / alone for one, alone in zip(seen[BATCH_FULL], seen[ALONE], strict=True)]
    what = f"{BATCH} at once / their extraction alone, full load"
    for verdict in (
        Verdict("a new product, s", seen[NEW], lambda s: s <= MEDIAN_S, f"{MEDIAN_S:g} or less"),
        Verdict("slowest change, s", [single], lambda s: s <= LIVE_S, f"{LIVE_S:g} or less"),
        Verdict(what, over, lambda ratio: ratio <= OVER_EXTRACTION, f"{OVER_EXTRACTION:g} or less"),
        Verdict(f"slowest {BATCH}, s", [batch], lambda s: s <= BATCH_S, f"{BATCH_S:g} or less"),
        Verdict("failed answers, or a product unknown", [float(failed)], lambda n: n == 0, "0"),
        Verdict("wrong answers of those noted", [float(wrong)], lambda n: n == 0, "0"),
        Verdict("lists as in a table made from nothing", [same], lambda share: share == 1, "1"),
    ):
        print(verdict)


def wrong_answers(root: ReleaseRoot, sample: Sequence[Asked]) -> Iterator[int]:
    """For each release asked, how many answers are not the nearest by brute force over its features."""
    directions: dict[str, npt.NDArray[np.float64]] = {}
    releases = {etag_of(root, CATEGORY, name): name for name in root.names()}
    for etag in sorted({asked.etag for asked in sample}):
        live = read(root, releases[etag])
        base = live.entry.files[FEATURES].sha256
        if base not in directions:
            directions = {base: unit(live.features.base)}
        added = unit(live.features.added)
        table = live.table.folded()
        rows = table.rows
        asked = [one for one in sample if one.etag == etag]
        ids = np.array([one.product_ids for one in asked])
        items, known = positions_of(table.product_ids, ids)
        own = unit(live.features.of(rows[items[:, 0]].astype(np.intp)))
        cosines = np.concatenate([own @ directions[base].T, own @ added.T], axis=1)[:, rows]
        squared = 2 - 2 * cosines
        np.put_along_axis(squared, items[:, :1], -1, axis=1)
        nearest = np.sort(np.partition(squared, LIMIT, axis=1)[:, :LIMIT], axis=1)
        given = np.take_along_axis(squared, items, axis=1)
        right = np.isclose(given, nearest, rtol=0, atol=1e-9).all(axis=1) & known.all(axis=1)
        distinct = [len(set(one.product_ids)) == LIMIT for one in asked]
        yield len(asked) - int(np.sum(right & distinct))


def unit(features: Features) -> npt.NDArray[np.float64]:
    """Features scaled to length 1."""
    wide = features.astype(np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=1)[:, None])


def as_from_nothing(live: LiveCategory) -> float:
    """The share of the lists that are those of a table made of the features anew."""
    table = live.table.folded()
    features = live.features.of(table.rows.astype(np.intp))
    items, _ = exact_neighbours(features, table.k)
    return float((items == table.items[:, : table.k]).all(axis=1).mean())


if __name__ == "__main__":
    main()
