"""The Ray engine: a Ray Data job that runs the local engine in each worker of a Ray cluster.

Every machine of the cluster needs the same version of Lookalike and the same paths for photos (a shared
folder, or URLs) and for a weights file. Features come back through Ray to the calling process, which
alone writes the store.

The rows are cut into chunks. A worker returns a chunk completely or not at all: if it dies, Ray starts
another worker, which repeats the chunk, so no row is lost or comes twice. Losing a machine means losing
its workers, unless it is the calling one.
"""

import logging
import os
import pickle
import socket
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NamedTuple

import pyarrow as pa

from lookalike.release.manifest import Model
from lookalike_build.extraction.known_photos import KnownPhotos
from lookalike_build.extraction.local_engine import LocalEngine
from lookalike_build.extraction.pipeline import ImageRows, Reader, Result
from lookalike_build.networks.extractor import Extractor
from lookalike_build.networks.runtime import quiet
from lookalike_build.photos.decoding import HostError
from lookalike_build.photos.memory_budget import DECODING
from lookalike_build.ray_cluster import ClusterError, ray_cluster

# Rows of a chunk. Eight batches: a last batch that is not full, or a chunk to repeat, costs little.
CPU_CHUNK = 256
GPU_CHUNK = 1024
# A worker was seen to need 2.7 GB, most of it for TensorFlow.
WORKER_BYTES = 3 * 2**30

_CHUNK = pa.schema({"row": pa.int64(), "image": pa.string()})
_OUTCOME = "outcome"
"""The column of a worker's answer: one cell, the pickled results of a chunk, or its exception."""

_NO_ROOM = (
    "no machine of the Ray cluster has room for a worker, which takes a CPU or GPU and "
    f"{WORKER_BYTES // 2**30} GiB of memory; if the cluster adds machines on demand, give --workers N"
)
_STALLED = (
    "no worker has finished any work for half an hour: either the cluster has no free worker (see "
    "`ray status`) or a photo kills every worker"
)


@dataclass(frozen=True)
class RayEngine:
    """The `Engine` of the Ray cluster at `address`; see `lookalike_build.ray_cluster`.

    `make_extractor` is pickled and called in each worker; its extractor must be of `model`. `n_workers`
    work at a time: by default one for each GPU of the cluster or, without any, for each CPU, if memory
    suffices. A worker computes on its own CPUs only and reads `n_readers` photos at a time, as
    `LocalEngine` does.
    """

    make_extractor: Callable[[], Extractor]
    model: Model
    address: str | None = None
    n_workers: int | None = None
    n_readers: int = 0

    def __call__(
        self, rows: ImageRows, reader: Reader, known: KnownPhotos
    ) -> Generator[list[Result]]:
        """As `Engine` says, a chunk at a time.

        Raises ClusterError, and what `make_extractor` raises in a worker.
        """
        _silence_before_import()
        with ExitStack() as stack:
            with quiet():
                stack.enter_context(ray_cluster(self.address))
            yield from self._work(rows, reader, known)

    def _work(self, rows: ImageRows, reader: Reader, known: KnownPhotos) -> Iterator[list[Result]]:
        import ray
        from ray.data.exceptions import ExecutionTimeoutError
        from ray.exceptions import RayError

        _silence()
        worker = _Needs.of(ray.nodes())  # type: ignore[no-untyped-call]
        chunks = list(_chunks(rows, worker.chunk))
        if not chunks:
            return
        blocks = self._blocks(chunks, worker, ray.put((reader, known)))
        try:
            # Closed before the connection: running work of Ray Data would connect again.
            with closing(blocks):
                yield from map(_results, blocks)
        except ExecutionTimeoutError as error:
            raise ClusterError(_STALLED) from error
        except RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ClusterError(f"Ray's workers failed: {reason}") from error

    def _blocks(self, chunks: list[pa.Table], worker: "_Needs", data: Any) -> Generator[pa.Table]:
        from ray.data import ActorPoolStrategy, from_arrow

        n_workers = self.n_workers or worker.n_workers
        if not n_workers:
            raise ClusterError(_NO_ROOM)
        yield from (
            from_arrow(chunks)
            .map_batches(
                _Worker,
                fn_constructor_args=(self, data, worker.n_cpus),
                batch_size=None,  # one chunk, for which the worker returns one block
                batch_format="pyarrow",
                compute=ActorPoolStrategy(size=min(n_workers, len(chunks))),
                num_cpus=worker.n_cpus,
                num_gpus=worker.n_gpus,
                memory=WORKER_BYTES,
            )
            .iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        )


class _Worker:
    """A process of the cluster with its own extractor; `data` refers to the reader and known photos."""

    def __init__(self, engine: RayEngine, data: Any, n_cpus: int) -> None:
        # Read by TensorFlow at its start; without them it takes all CPUs of the machine.
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            os.environ[name] = str(n_cpus)
        # An exception that leaves a worker would come out of Ray as another, in pages of traceback.
        self._failure: Exception | None = None
        try:
            import ray

            nodes = ray.nodes()  # type: ignore[no-untyped-call]
            DECODING.divide(_n_workers_here(nodes, ray.get_runtime_context().get_node_id()))
            self._reader, self._known = ray.get(data)
            extractor = engine.make_extractor()
            if extractor.model != engine.model:
                raise ClusterError(
                    f"{socket.gethostname()} makes features of {extractor.model}, not of "
                    f"{engine.model}; it needs the same lookalike and the same weights as this machine"
                )
            self._engine = LocalEngine(extractor, engine.n_readers, n_cpus)
        except Exception as error:
            self._failure = error

    def __call__(self, chunk: pa.Table) -> pa.Table:
        """The results of a chunk's rows, or the failure."""
        rows = zip(chunk["row"].to_pylist(), chunk["image"].to_pylist(), strict=True)
        outcome: list[Result] | Exception
        try:
            if self._failure:
                raise self._failure
            results = chain.from_iterable(self._engine(rows, self._reader, self._known))
            outcome = sorted(results, key=lambda result: result.row)
        except Exception as error:
            host = isinstance(error, HostError)
            outcome = HostError(f"{socket.gethostname()}: {error}") if host else error
            outcome.add_note(traceback.format_exc())
        return pa.table({_OUTCOME: [pickle.dumps(outcome)]})


class _Needs(NamedTuple):
    """What one worker takes of a cluster, how many workers have room, and the rows of a chunk."""

    n_cpus: int
    n_gpus: int
    n_workers: int
    chunk: int

    @classmethod
    def of(cls, nodes: Iterable[dict[str, Any]]) -> "_Needs":
        """For the machines of ``ray.nodes()``."""
        machines = [node["Resources"] for node in nodes if node["Alive"]]
        with_gpu = [machine for machine in machines if machine.get("GPU")]
        if not with_gpu:
            return cls(1, 0, sum(_room(machine, "CPU") for machine in machines), CPU_CHUNK)
        # The GPUs of a machine divide its CPUs.
        n_cpus = min(machine.get("CPU", 0) // machine["GPU"] for machine in with_gpu)
        n_workers = sum(_room(machine, "GPU") for machine in with_gpu)
        return cls(max(1, int(n_cpus)), 1, n_workers, GPU_CHUNK)


def _room(machine: dict[str, float], unit: str) -> int:
    """How many workers a machine has room for if each takes one `unit`."""
    return int(min(machine.get(unit, 0), machine.get("memory", 0) // WORKER_BYTES))


def _n_workers_here(nodes: Iterable[dict[str, Any]], node_id: str) -> int:
    """How many workers the machine `node_id` of ``ray.nodes()`` has room for, at least 1."""
    for node in nodes:
        if node["NodeID"] == node_id:
            machine = node["Resources"]
            return max(1, _room(machine, "GPU" if machine.get("GPU") else "CPU"))
    return 1


def _chunks(rows: ImageRows, size: int) -> Iterator[pa.Table]:
    remaining = iter(rows)
    while chunk := list(islice(remaining, size)):
        yield pa.table(list(zip(*chunk, strict=True)), _CHUNK)


def _results(block: pa.Table) -> list[Result]:
    outcome: list[Result] | Exception
    outcome = pickle.loads(block[_OUTCOME][0].as_py())  # noqa: S301  # of our own worker
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _silence_before_import() -> None:
    """Keep Ray's output off the terminal; it has its own log files."""
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # drop no line as repeated
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")


def _silence() -> None:
    import ray.data

    log = logging.getLogger(ray.data.__name__)
    for handler in [*log.handlers]:
        if handler.name == "console":
            log.removeHandler(handler)
