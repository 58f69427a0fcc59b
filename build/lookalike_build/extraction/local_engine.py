"""The local engine: extracts features in this process."""

import hashlib
import os
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from queue import SimpleQueue
from threading import BoundedSemaphore
from typing import Any, NamedTuple

import numpy as np

from lookalike.release.arrays import Features
from lookalike_build.extraction.known_photos import GrowingPhotos, KnownPhotos
from lookalike_build.extraction.pipeline import ImageRows, Reader, Result
from lookalike_build.networks.extractor import Extractor
from lookalike_build.photos.decoding import PhotoError, host_error
from lookalike_build.photos.reader import StandIn

_NONE = "the network gives no features for it"
_AHEAD = 4
"""Batches of photos to read and decode ahead of the network."""
_RECENT = 65_536
"""Photos that are kept in a dict before they are packed."""


class _Loaded(NamedTuple):
    """A photo that was read; `prepared` is None if it is known already or rejected for `reason`."""

    photo_sha256: str
    prepared: Any
    reason: str
    is_stand_in: bool = False


class LocalEngine:
    """The `Engine` of one process: threads read and decode ahead while the network works.

    `n_readers` photos are read at a time, at least one for each CPU; more help where reading is mostly
    waiting. `n_cpus` photos are decoded at a time.
    """

    def __init__(self, extractor: Extractor, n_readers: int = 0, n_cpus: int | None = None) -> None:
        n_cpus = n_cpus or os.cpu_count() or 1
        self._extractor = extractor
        self._n_readers = max(n_readers, n_cpus)
        # Until it is shrunk, a decoded photo takes up to a gigabyte.
        self._decoding = BoundedSemaphore(n_cpus)

    def __call__(
        self, rows: ImageRows, reader: Reader, known: KnownPhotos
    ) -> Generator[list[Result]]:
        """As `Engine` says."""
        loading, staging = ThreadPoolExecutor(self._n_readers), ThreadPoolExecutor(1)
        batches = _Batches(self._extractor, staging)
        try:
            for row, loaded in self._loaded(loading, rows, reader, known):
                batches.put(row, loaded)
                if batches.is_full():
                    yield batches.work()
                elif len(batches.results) >= self._extractor.batch:
                    yield batches.take_results()
            yield batches.work()  # on the staged batch; stages the last one
            yield batches.work()
        finally:
            loading.shutdown(cancel_futures=True)
            staging.shutdown()

    def _loaded(
        self, pool: ThreadPoolExecutor, rows: ImageRows, reader: Reader, known: KnownPhotos
    ) -> Iterator[tuple[int, _Loaded]]:
        """Photos in the order in which they finish, so that a slow one does not delay the others."""
        finished: SimpleQueue[tuple[int, Future[_Loaded]]] = SimpleQueue()
        most = max(_AHEAD * self._extractor.batch, 2 * self._n_readers)
        remaining = iter(rows)
        n_loading = 0
        while True:
            for row, image in islice(remaining, most - n_loading):
                try:
                    future = pool.submit(self._load, image, reader, known)
                except RuntimeError as error:
                    raise host_error(error) or error from error
                future.add_done_callback(lambda done, row=row: finished.put((row, done)))  # type: ignore[misc]
                n_loading += 1
            if not n_loading:
                return
            row, future = finished.get()
            n_loading -= 1
            yield row, future.result()

    def _load(self, image: str, reader: Reader, known: KnownPhotos) -> _Loaded:
        try:
            data = reader.read(image)
            digest = hashlib.sha256(data).hexdigest()
            with self._decoding:
                prepared = None if digest in known else self._extractor.prepare(data)
        except PhotoError as error:
            return _Loaded("", None, error.reason)
        return _Loaded(digest, prepared, "", isinstance(data, StandIn))


class _Waiting(NamedTuple):
    """A photo in a batch, and the rows of the products that show it."""

    prepared: Any
    rows: list[int]


_Batch = dict[str, _Waiting]
"""Photos by their SHA-256."""


class _Batches:
    """Photos on their way through the network: a batch being filled, and the staged one before it.

    Rows with the same photo share one extraction.
    """

    def __init__(self, extractor: Extractor, pool: ThreadPoolExecutor) -> None:
        self.results: list[Result] = []
        """Those that `take_results` has not returned yet."""
        self._extractor = extractor
        self._pool = pool
        self._filling: _Batch = {}
        self._staged: _Batch = {}
        self._input: Future[Any] | None = None  # what the network takes of the staged batch
        self._stand_ins: set[int] = set()
        self._recent: dict[str, bool] = {}  # whether the network gave valid features for a photo
        self._older = GrowingPhotos()  # the same, as 1 or 0: a fifth of the memory, slower look-up

    def put(self, row: int, loaded: _Loaded) -> None:
        """Take the photo of a row."""
        digest = loaded.photo_sha256
        if loaded.is_stand_in:
            self._stand_ins.add(row)
        waiting = self._filling.get(digest) or self._staged.get(digest)
        if loaded.prepared is None:
            self.results.append(Result(row, digest, None, loaded.reason))
        elif waiting:
            waiting.rows.append(row)
        elif (is_valid := self._is_valid(digest)) is not None:
            self.results.append(_result(row, digest, is_valid))
        else:
            self._filling[digest] = _Waiting(loaded.prepared, [row])

    def is_full(self) -> bool:
        """Whether the batch is complete: call `work`."""
        return len(self._filling) == self._extractor.batch

    def work(self) -> list[Result]:
        """Stage the full batch while the network works on the one before; return all results so far.

        Example: of batches A and B, the first call stages A and returns nothing of it, the second
        stages B and returns A, and a third, with nothing to stage, returns B.
        """
        batch, given = self._staged, self._input
        self._staged, self._filling = self._filling, {}
        prepared = [waiting.prepared for waiting in self._staged.values()]
        self._input = self._pool.submit(self._extractor.stage, prepared) if prepared else None
        if given:
            self._take(batch, self._extractor.features(given.result()))
        return self.take_results()

    def take_results(self) -> list[Result]:
        """Return the results so far and forget them."""
        results, self.results = self.results, []
        return [one._replace(is_stand_in=one.row in self._stand_ins) for one in results]

    def _take(self, batch: _Batch, features: Features) -> None:
        valid = np.isfinite(features).all(axis=1) & np.any(features, axis=1)
        is_valid = dict(zip(batch, valid.tolist(), strict=True))
        self._recent |= is_valid
        if len(self._recent) >= _RECENT:
            self._older.add(list(self._recent), list(self._recent.values()))
            self._recent = {}
        for digest, feature in zip(batch, features, strict=True):
            first, *others = batch[digest].rows
            self.results.append(_result(first, digest, is_valid[digest], feature))
            self.results += [_result(row, digest, is_valid[digest]) for row in others]

    def _is_valid(self, digest: str) -> bool | None:
        """Whether the network gave valid features for a photo; None if it was not extracted here."""
        if digest in self._recent:
            return self._recent[digest]
        location = int(self._older.locations([digest])[0])
        return None if location < 0 else bool(location)


def _result(row: int, digest: str, is_valid: bool, feature: Features | None = None) -> Result:
    """The result of a row; the feature goes with the first row of its photo."""
    return Result(row, digest, feature, "") if is_valid else Result(row, "", None, _NONE)
