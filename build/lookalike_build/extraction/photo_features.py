"""All features of a store by photo: those in its categories' files and those not in one yet."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.release.arrays import Features
from lookalike_build.extraction.known_photos import GrowingPhotos, KnownPhotos, Locations
from lookalike_build.extraction.unfinished import Unfinished
from lookalike_build.features.store import CATEGORIES, ROW_GROUP, FeatureError, column_features

_UNFINISHED = 0
_ROW_BITS = 32
_GROUPS_KEPT = 8


class PhotoFeatures:
    """The features of one model in the store's `folder`: finds them and feeds the writer.

    `known` are the photos whose features were there at the start, in categories' files or `unfinished`.
    A location is 0 for unfinished features, otherwise the number of a row group, from 1 over all files,
    and below it, in 32 bits, the row: row 5 of group 3 is 3 * 2^32 + 5.
    """

    def __init__(self, folder: Path, unfinished: Unfinished, model: str, n_dims: int) -> None:
        """Find the features of earlier runs; FeatureError if a file is damaged."""
        self.unfinished = unfinished
        self._model = model
        self._n_dims = n_dims
        self._groups: list[tuple[Path, int]] = []
        self._group = lru_cache(_GROUPS_KEPT)(self._read_group)
        photos: list[str] = []
        locations = []
        for path in sorted((folder / CATEGORIES).glob("*.parquet")):
            of_file, in_file = self._add_file(path)
            photos += of_file
            locations.append(in_file)
        # Last: a photo's first location counts, and `complete` removes unfinished features.
        remaining = unfinished.photos()
        locations.append(np.full(len(remaining), _UNFINISHED, np.int64))
        self.known = KnownPhotos(photos + remaining, np.concatenate(locations))
        self._locations = GrowingPhotos(self.known)

    def pieces(self, photo_sha256s: Sequence[str]) -> Iterator[Features]:
        """The features of photos, all of which must be there, in order, `ROW_GROUP` at a time."""
        for first in range(0, len(photo_sha256s), ROW_GROUP):
            yield self._piece(photo_sha256s[first : first + ROW_GROUP])

    def complete(self, path: Path, photo_sha256s: Sequence[str]) -> None:
        """Look up the photos' features in the category's file at `path`, which has them now."""
        if (path, 0) not in self._groups:
            self._locations.add(*self._add_file(path))
        self.unfinished.remove(photo_sha256s)

    def _add_file(self, path: Path) -> tuple[list[str], Locations]:
        """The photos whose features are in a file, and their locations."""
        with _opened(path) as file:
            if "photo_sha256" not in file.schema_arrow.names:
                return [], np.empty(0, np.int64)  # written by another program, without photos
            groups = range(file.num_row_groups)
            sizes = np.array([file.metadata.row_group(group).num_rows for group in groups], np.intp)
            table = file.read(["photo_sha256", "model"])
        numbers = len(self._groups) + 1 + np.array(groups, np.int64)
        self._groups += [(path, group) for group in groups]
        rows = np.arange(table.num_rows) - np.repeat(sizes.cumsum() - sizes, sizes)
        locations = (np.repeat(numbers, sizes) << _ROW_BITS) | rows
        of_model = pc.equal(table["model"].cast(pa.string()), self._model)
        found = table.append_column("location", pa.array(locations)).filter(of_model)
        return found["photo_sha256"].to_pylist(), found["location"].to_numpy()

    def _piece(self, photo_sha256s: Sequence[str]) -> Features:
        features = np.empty((len(photo_sha256s), self._n_dims), np.float32)
        locations = self._locations.locations(photo_sha256s)
        groups, rows = locations >> _ROW_BITS, locations & ((1 << _ROW_BITS) - 1)
        for number in np.unique(groups[groups > _UNFINISHED]).tolist():
            in_group = groups == number
            features[in_group] = self._group(number)[rows[in_group]]
        unfinished = np.flatnonzero(groups <= _UNFINISHED).tolist()
        found = self.unfinished.features([photo_sha256s[position] for position in unfinished])
        for position in unfinished:
            features[position] = found[photo_sha256s[position]]
        return features

    def _read_group(self, number: int) -> Features:
        path, group = self._groups[number - 1]
        with _opened(path) as file:
            column = file.read_row_group(group, ["features"])["features"]
            return column_features(column.combine_chunks(), self._n_dims)


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise FeatureError(
            f"{path}: cannot be read: {reason}; remove it and extract again"
        ) from None
