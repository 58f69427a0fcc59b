"""The machine that a plan is for: the reference machine, or this one, measured in a second."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lookalike.operate.plan import measured

_PRODUCT_S, _PARTITION_S = 0.6, 0.2


@dataclass(frozen=True)
class Machine:
    """The speed of a machine with `cores`.

    `gflops` are those of a float32 matrix product on each core. Other work takes `slower` times as long
    as on the reference machine. `bfloat16` says whether the CPU multiplies it, `measured` whether this
    is a measurement.
    """

    cores: int
    gflops: float
    slower: float
    bfloat16: bool
    measured: bool

    @classmethod
    def reference(cls, cores: int | None = None) -> "Machine":
        """The reference machine, optionally with another number of cores."""
        return cls(cores or measured.REFERENCE_CORES, measured.PRODUCT, 1.0, True, False)

    @classmethod
    def measure(cls, cores: int | None = None) -> "Machine":
        """This machine, optionally with another number of cores."""
        own = len(os.sched_getaffinity(0))
        rng = np.random.default_rng(0)
        rows = rng.random((4096, 2048), np.float32)
        columns = rng.random((4096, 2048), np.float32)
        product_s = seconds_of(lambda: rows @ columns.T, _PRODUCT_S)
        gflops = 2 * 4096 * 4096 * 2048 / product_s / 1e9
        scores = rng.random((512, 4224), np.float32)
        partition_s = seconds_of(lambda: np.argpartition(scores, -128, axis=1), _PARTITION_S)
        slower = partition_s / scores.size * 1e9 / measured.PARTITION
        return cls(cores or own, gflops / own, slower, has_bfloat16(), True)


def seconds_of(work: Callable[[], object], least_s: float) -> float:
    """The shortest time that `work` takes, tried for `least_s` and at least twice after a first run."""
    work()
    taken: list[float] = []
    while len(taken) < 2 or sum(taken) < least_s:
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)


def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU has instructions that multiply bfloat16."""
    flags = set(cpuinfo.read_text().split())
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})
