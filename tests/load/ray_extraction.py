"""The Ray engine for ``make bench-extract``: the real network in workers that have one core each."""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np

from lookalike.release.arrays import Features
from lookalike.release.manifest import Model
from lookalike_build.extraction import ray_engine
from lookalike_build.extraction.known_photos import KnownPhotos
from lookalike_build.networks.extractor import UNTRAINED, Extractor
from lookalike_build.networks.settings import ExtractorSettings
from lookalike_build.photos.reader import PhotoReader

# Smaller chunks than the engine's own tell finer how fast they come; on one core they cost no more.
CHUNK = 64
CHUNKS = 8


def extract_on_ray(
    n_workers: int, images: Sequence[str], folder: Path, model: Model
) -> tuple[Features, float]:
    """Features (n, n_dims) of the images in `folder`, and photos a second of that many workers.

    Start-up is not counted, of Ray, of the processes or of TensorFlow and the network's compilation:
    the time is that from the chunk that makes as many as there are workers to the last but as many
    less one, while all of them work.
    """
    rows = enumerate(islice(cycle(images), n_workers * CHUNKS * CHUNK))
    found: dict[int, Features] = {}
    came: list[float] = []
    with TemporaryDirectory() as cores, patch.object(ray_engine, "CPU_CHUNK", CHUNK):
        engine = ray_engine.RayEngine(
            partial(_on_a_core, Path(cores)), model, "local", n_workers=n_workers
        )
        for results in engine(rows, PhotoReader(folder.resolve()), KnownPhotos()):
            came.append(time.perf_counter())
            found |= {one.row: one.features for one in results if one.features is not None}
    first, last = n_workers - 1, len(came) - n_workers
    rate = (last - first) * CHUNK / (came[last] - came[first])
    return np.stack([found[row] for row in range(len(images))]), rate


def _on_a_core(taken: Path) -> Extractor:
    """The network in a process that has one core to itself, as a machine would be."""
    for core in sorted(os.sched_getaffinity(0)):
        with suppress(FileExistsError):
            (taken / str(core)).touch(exist_ok=False)
            os.sched_setaffinity(0, {core})
            break
    return ExtractorSettings(weights=UNTRAINED).make()
