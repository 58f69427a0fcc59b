"""The Ray engine gives what the local engine gives, whatever dies meanwhile."""

import hashlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from lookalike.release.manifest import Model
from lookalike_build.extraction import ray_engine
from lookalike_build.extraction.known_photos import KnownPhotos
from lookalike_build.extraction.local_engine import LocalEngine
from lookalike_build.extraction.pipeline import Result
from lookalike_build.extraction.ray_engine import (
    CPU_CHUNK,
    GPU_CHUNK,
    WORKER_BYTES,
    RayEngine,
    _n_workers_here,
    _Needs,
)
from lookalike_build.networks.extractor import Extractor, WeightsError
from lookalike_build.photos.decoding import decode_photo
from lookalike_build.photos.reader import PhotoReader, StandIn
from lookalike_build.ray_cluster import ClusterError

# Ray Data warns of its own defaults.
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")]

MODEL = Model("mean-colour", "sha256:1")
CHUNK = 32
MACHINE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


class MeanColour:
    """Stands in for the network, slowly; where `pids` is given, its processes leave their id there.

    A second chunk is not begun until there is a file `gate`, if given.

    Not a subclass of the other tests': Ray sends a class of this module to its workers, which do not
    find other modules of the tests.
    """

    model = MODEL
    n_dims = 4
    batch = 8
    prepare = staticmethod(decode_photo)

    def __init__(
        self, pids: Path | None = None, photo_s: float = 0, gate: Path | None = None
    ) -> None:
        self._photo_s = photo_s
        self._gate, self._before_gate = gate, CHUNK // self.batch
        if pids:
            (pids / str(os.getpid())).touch()

    def stage(self, photos: Sequence[Any]) -> npt.NDArray[np.uint8]:
        return np.stack(photos)

    def features(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        time.sleep(self._photo_s * len(photos))
        self._before_gate -= 1
        while self._before_gate < 0 and self._gate and not self._gate.exists():
            time.sleep(0.01)
        features = np.ones((len(photos), 4), np.float32)
        features[:, :3] = photos.mean(axis=(1, 2))
        return features


def no_weights() -> Extractor:
    raise WeightsError("no weights file nowhere.h5")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray cluster of two machines with a CPU each, one of which asks."""
    ray_engine._silence_before_import()
    from ray.cluster_utils import Cluster

    soon = {"health_check_period_ms": 200, "health_check_failure_threshold": 3}
    head = {**MACHINE, "include_dashboard": False, "_system_config": soon}
    started = Cluster(initialize_head=True, head_node_args=head)
    started.add_node(**MACHINE)
    yield started
    started.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(50):
        Image.new("RGB", (4, 4), (i, 2 * i, 255 - i)).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "1.png").read_bytes()[:-20])
    return tmp_path


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Ten chunks and a bit; some photos cannot be used."""
    monkeypatch.setattr(ray_engine, "CPU_CHUNK", CHUNK)
    images = [*(f"{i}.png" for i in range(50)), "broken.png", "missing.png"]
    return [(row, images[7 * row % len(images)]) for row in range(10 * CHUNK + 3)]


def by_row(lists: list[list[Result]]) -> dict[int, tuple[str, str]]:
    """Digest and reason of each row, after a check that no row comes twice."""
    results = [result for one in lists for result in one]
    found = {result.row: (result.photo_sha256, result.reason) for result in results}
    assert len(found) == len(results)
    return found


def by_photo(lists: list[list[Result]]) -> dict[str, list[float]]:
    return {
        result.photo_sha256: result.features.tolist()
        for results in lists
        for result in results
        if result.features is not None
    }


def test_it_gives_what_the_local_engine_gives(
    cluster: Any, folder: Path, rows: list[tuple[int, str]], capfd: pytest.CaptureFixture[str]
) -> None:
    known_photo = hashlib.sha256((folder / "3.png").read_bytes()).hexdigest()
    reader, known = PhotoReader(folder), KnownPhotos([known_photo], [0])
    expected = list(LocalEngine(MeanColour())(rows, reader, known))
    found = list(RayEngine(MeanColour, MODEL, cluster.address)(rows, reader, known))
    assert by_row(found) == by_row(expected)
    assert by_photo(found) == by_photo(expected)
    assert known_photo not in by_photo(found)
    assert capfd.readouterr().err == ""


class Cache(PhotoReader):
    """Has cached photos only, of some."""

    def read(self, image: str) -> bytes:
        data = super().read(image)
        return StandIn(data) if image.startswith("1") else data


def test_cached_photos_are_told_from_others(
    cluster: Any, folder: Path, rows: list[tuple[int, str]]
) -> None:
    engine = RayEngine(MeanColour, MODEL, cluster.address)
    for results in engine(rows[:CHUNK], Cache(folder), KnownPhotos()):
        for result in results:
            assert result.is_stand_in == rows[result.row][1].startswith("1")


@pytest.mark.parametrize("n", [0, 1])
def test_few_rows_are_enough(
    cluster: Any, folder: Path, rows: list[tuple[int, str]], n: int
) -> None:
    engine = RayEngine(MeanColour, MODEL, cluster.address)
    found = list(engine(rows[:n], PhotoReader(folder), KnownPhotos()))
    assert sorted(by_row(found)) == list(range(n))


def test_a_killed_worker_is_replaced_and_its_chunk_done_again(
    cluster: Any, folder: Path, rows: list[tuple[int, str]]
) -> None:
    pids = folder / "pids"
    pids.mkdir()
    reader, known = PhotoReader(folder), KnownPhotos()
    gate = folder / "gate"  # whichever worker is killed, it has not done all of its chunks
    engine = RayEngine(partial(MeanColour, pids, 0, gate), MODEL, cluster.address)
    found: list[list[Result]] = []
    for results in engine(rows, reader, known):
        if not found:
            (killed, *_) = pids.iterdir()
            os.kill(int(killed.name), signal.SIGKILL)
            gate.touch()
        found.append(results)
    assert len(list(pids.iterdir())) == 3
    expected = list(LocalEngine(MeanColour())(rows, reader, known))
    assert by_row(found) == by_row(expected)
    assert by_photo(found) == by_photo(expected)


def test_a_machine_that_is_lost_takes_no_row_with_it(
    cluster: Any, folder: Path, rows: list[tuple[int, str]]
) -> None:
    machine = cluster.add_node(**MACHINE)
    reader, known = PhotoReader(folder), KnownPhotos()
    found: list[list[Result]] = []
    for results in RayEngine(partial(MeanColour, None, 0.02), MODEL, cluster.address)(
        rows, reader, known
    ):
        if not found:
            cluster.remove_node(machine, allow_graceful=False)
        found.append(results)
    expected = list(LocalEngine(MeanColour())(rows, reader, known))
    assert by_row(found) == by_row(expected)
    assert by_photo(found) == by_photo(expected)


@pytest.mark.parametrize(
    ("make", "model", "error", "text"),
    [
        (no_weights, MODEL, WeightsError, "no weights file nowhere.h5"),
        (MeanColour, Model("mean-colour", "sha256:2"), ClusterError, "sha256:1"),
    ],
)
def test_what_is_wrong_in_a_worker_is_said_as_it_is(
    cluster: Any,
    folder: Path,
    rows: list[tuple[int, str]],
    capfd: pytest.CaptureFixture[str],
    make: Callable[[], Extractor],
    model: Model,
    error: type[Exception],
    text: str,
) -> None:
    engine = RayEngine(make, model, cluster.address)
    with pytest.raises(error, match=text) as raised:
        list(engine(rows, PhotoReader(folder), KnownPhotos()))
    assert "\n" not in str(raised.value)
    assert capfd.readouterr().err == ""


def test_a_cluster_without_room_for_a_worker_is_not_waited_for(
    cluster: Any, folder: Path, rows: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "WORKER_BYTES", 2**60)
    engine = RayEngine(MeanColour, MODEL, cluster.address)
    with pytest.raises(ClusterError, match="no machine of the Ray cluster has room"):
        list(engine(rows, PhotoReader(folder), KnownPhotos()))


@pytest.mark.parametrize(
    ("machines", "needs"),
    [
        ([{"CPU": 8.0}, {"CPU": 4.0}], _Needs(1, 0, 12, CPU_CHUNK)),
        ([{"CPU": 8.0}, {"CPU": 12.0, "GPU": 2.0}], _Needs(6, 1, 2, GPU_CHUNK)),
        ([{"CPU": 16.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 2.0}], _Needs(1, 1, 3, GPU_CHUNK)),
        ([{"CPU": 8.0, "memory": 2.5 * WORKER_BYTES}, {"CPU": 1.0}], _Needs(1, 0, 3, CPU_CHUNK)),
        ([{"CPU": 8.0, "GPU": 2.0, "memory": WORKER_BYTES}], _Needs(4, 1, 1, GPU_CHUNK)),
        ([{"CPU": 0.0}, {"CPU": 4.0, "memory": 2.0**30}], _Needs(1, 0, 0, CPU_CHUNK)),
    ],
)
def test_a_worker_takes_a_gpu_with_its_part_of_the_cpus_or_a_cpu(
    machines: list[dict[str, float]], needs: _Needs
) -> None:
    memory = 100.0 * WORKER_BYTES
    nodes = [{"Alive": True, "Resources": {"memory": memory, **machine}} for machine in machines]
    dead = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0, "memory": memory}}
    assert _Needs.of([*nodes, dead]) == needs


@pytest.mark.parametrize(
    ("machine", "n"),
    [
        ({"CPU": 8.0, "memory": 100.0 * WORKER_BYTES}, 8),
        ({"CPU": 8.0, "memory": 3.5 * WORKER_BYTES}, 3),
        ({"CPU": 8.0, "GPU": 2.0, "memory": 100.0 * WORKER_BYTES}, 2),
        ({"CPU": 8.0, "memory": 0.5 * WORKER_BYTES}, 1),
    ],
)
def test_workers_of_a_machine_share_its_memory(machine: dict[str, float], n: int) -> None:
    other = {"NodeID": "other", "Resources": {"CPU": 64.0, "memory": 100.0 * WORKER_BYTES}}
    assert _n_workers_here([other, {"NodeID": "here", "Resources": machine}], "here") == n
