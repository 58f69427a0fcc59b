"""What tests of following share: a stand-in for the network, and when the background works."""

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.journal import Journal
from lookalike.release.root import ReleaseRoot
from lookalike_build.extraction.local_engine import LocalEngine
from lookalike_build.extraction.pipeline import PhotoPipeline
from lookalike_build.following.background import Background, in_background
from lookalike_build.following.follower import Follower
from lookalike_build.photos.decoding import PhotoError
from support import MODEL, Features

BAD = b"no photo"
DEADLY = b"deadly"
IN_NO_FORMAT = "is in no format"


class Numbers:
    """Stands in for the network: a photo's bytes are its features, float32."""

    model = MODEL
    batch = 4

    def __init__(self, n_dims: int) -> None:
        self.n_dims = n_dims

    def prepare(self, data: bytes) -> Features:
        if data == BAD:
            raise PhotoError(IN_NO_FORMAT)
        if data == DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)  # as for the memory that it takes
        return np.frombuffer(data, "<f4")

    def stage(self, prepared: Sequence[Features]) -> Features:
        return np.stack(prepared)

    def features(self, staged: Features) -> Features:
        return staged


class Shelf:
    """Reads the photos it is given, by their image."""

    def __init__(self, photos: Mapping[str, bytes]) -> None:
        self._photos = photos

    def read(self, image: str) -> bytes:
        if image not in self._photos:
            raise PhotoError("is missing")
        return self._photos[image]


class AtOnce:
    """A background that has a job done when it is given."""

    def __call__(self, job: Callable[[], Any]) -> Future[Any]:
        return _done(Future(), job)


class Later:
    """A background whose jobs are done one at a time, when `work` is called."""

    def __init__(self) -> None:
        self._jobs: list[tuple[Future[Any], Callable[[], Any]]] = []

    def __call__(self, job: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        self._jobs.append((future, job))
        return future

    def work(self) -> None:
        """Do the job that has waited for longest, if there is one."""
        if self._jobs:
            _done(*self._jobs.pop(0))


def _done(future: Future[Any], job: Callable[[], Any]) -> Future[Any]:
    try:
        future.set_result(job())
    except Exception as error:
        future.set_exception(error)
    return future


def follower_of(
    root: ReleaseRoot,
    journal: Journal,
    n_dims: int,
    background: Background | None = None,
    photos: Mapping[str, bytes] | None = None,
    **others: Any,
) -> Follower:
    """A follower that has begun, with the stand-in for a network."""
    network = Numbers(n_dims)
    engine = LocalEngine(network, n_cpus=2)
    pipeline = PhotoPipeline(Shelf(photos or {}), engine, MODEL, n_dims)
    follower = Follower(root, journal, pipeline, background or AtOnce(), **others)
    follower.begin()
    return follower


def follow_until_killed(path: Path, n_dims: int) -> None:
    """Follow the root at `path`, as the command does."""
    root = ReleaseRoot(path)
    with root.follow_lock(), closing(Journal(root.journal)) as journal:
        follower = follower_of(root, journal, n_dims, in_background, keep=2)
        while True:
            if not follower.step():
                time.sleep(0.002)
