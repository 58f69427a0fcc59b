"""All features of a store by photo: those in its categories' files and those not in one yet."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.release.arrays import Features, Positions
from lookalike_build.extraction.known_photos import GrowingPhotos, KnownPhotos, Locations
from lookalike_build.extraction.unfinished import Unfinished
from lookalike_build.features.store import CATEGORIES, ROW_GROUP, FeatureError, column_features

_UNFINISHED = 0
_ROW_BITS = 32
_GROUPS_KEPT = 8


class PhotoFeatures:
    """The features of one model in the store's `folder`: finds them, saves new ones, feeds the writer.

    `known` are the photos whose features were there at the start. A location is 0 for unfinished
    features, otherwise the file's number, from 1, and below it, in 32 bits, the row: row 5 of file 3 is
    3 * 2^32 + 5.
    """

    def __init__(self, folder: Path, model: str, n_dims: int) -> None:
        """Open the features of earlier runs; FeatureError if a file is damaged or in use."""
        self._model = model
        self._n_dims = n_dims
        self._files: list[_FeatureFile] = []
        self._group = lru_cache(_GROUPS_KEPT)(self._read_group)
        self._unfinished = Unfinished(folder, model)
        try:
            self.known = self._all_known(folder / CATEGORIES)
            self._locations = GrowingPhotos(self.known)
        except BaseException:
            self.close()
            raise

    def save(self, features: Iterable[tuple[str, Features]]) -> None:
        """Save features (n_dims,) by their photo's SHA-256; they survive a kill."""
        self._unfinished.save(features)

    def pieces(self, photo_sha256s: Sequence[str]) -> Iterator[Features]:
        """The features of photos, all of which must be there, in order, `ROW_GROUP` at a time."""
        for first in range(0, len(photo_sha256s), ROW_GROUP):
            yield self._piece(photo_sha256s[first : first + ROW_GROUP])

    def complete(self, path: Path, photo_sha256s: Sequence[str]) -> None:
        """Look up the photos' features in the category's file at `path`, which has them now."""
        if all(file.path != path for file in self._files):
            self._locations.add(*self._add_file(path))
        self._unfinished.remove(photo_sha256s)

    def close(self) -> None:
        """Close; the next run finds the unfinished features."""
        self._unfinished.close()

    def discard_unfinished(self) -> None:
        """Close and remove the unfinished features: the store is complete without them."""
        self._unfinished.discard()

    def _all_known(self, categories: Path) -> KnownPhotos:
        photos: list[str] = []
        locations = []
        for path in sorted(categories.glob("*.parquet")):
            of_file, in_file = self._add_file(path)
            photos += of_file
            locations.append(in_file)
        # Last: a photo's first location counts, and `complete` removes unfinished features.
        unfinished = self._unfinished.photos()
        locations.append(np.full(len(unfinished), _UNFINISHED, np.int64))
        return KnownPhotos().plus(photos + unfinished, np.concatenate(locations))

    def _add_file(self, path: Path) -> tuple[list[str], Locations]:
        """The photos whose features are in a file, and their locations."""
        file = _FeatureFile(path)
        rows, photos = file.photos(self._model)
        self._files.append(file)
        return photos, (len(self._files) << _ROW_BITS) | rows

    def _piece(self, photo_sha256s: Sequence[str]) -> Features:
        features = np.empty((len(photo_sha256s), self._n_dims), np.float32)
        locations = self._locations.locations(photo_sha256s)
        files, rows = locations >> _ROW_BITS, locations & ((1 << _ROW_BITS) - 1)
        for number in np.unique(files[files > _UNFINISHED]).tolist():
            in_file = np.flatnonzero(files == number)
            features[in_file] = self._of_file(number, rows[in_file])
        unfinished = np.flatnonzero(files <= _UNFINISHED).tolist()
        found = self._unfinished.features([photo_sha256s[position] for position in unfinished])
        for position in unfinished:
            features[position] = found[photo_sha256s[position]]
        return features

    def _of_file(self, number: int, rows: Locations) -> Features:
        """The features (n, n_dims) in rows of a file; each row group is read once.

        Example: if groups start at rows 0 and 1024, row 1030 is the 6th after the start of group 1.
        """
        features = np.empty((rows.size, self._n_dims), np.float32)
        starts = self._files[number - 1].starts
        groups = starts.searchsorted(rows, "right") - 1
        for group in np.unique(groups).tolist():
            wanted = groups == group
            features[wanted] = self._group(number, group)[rows[wanted] - starts[group]]
        return features

    def _read_group(self, number: int, group: int) -> Features:
        return self._files[number - 1].group(group, self._n_dims)


class _FeatureFile:
    """A category's file; its features are read one row group at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as file:
            groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        self.starts = np.cumsum([0, *groups])
        """The first row of each group, then the number of rows."""

    def photos(self, model: str) -> tuple[Positions, list[str]]:
        """The rows (n,) that hold features of that model, and their photos' SHA-256."""
        with self._open() as file:
            if "photo_sha256" not in file.schema_arrow.names:
                return np.empty(0, np.int64), []  # written by another program, without photos
            table = file.read(["photo_sha256", "model"])
        of_model = pc.equal(table["model"].cast(pa.string()), model)
        rows = np.flatnonzero(of_model.to_numpy())
        return rows, table["photo_sha256"].take(pa.array(rows)).to_pylist()

    def group(self, group: int, n_dims: int) -> Features:
        """The features (n, n_dims) of one row group."""
        with self._open() as file:
            column = file.read_row_group(group, ["features"])["features"]
            return column_features(column.combine_chunks(), n_dims)

    @contextmanager
    def _open(self) -> Iterator[pq.ParquetFile]:
        try:
            with pq.ParquetFile(self.path, page_checksum_verification=True) as file:
                yield file
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise FeatureError(
                f"{self.path}: cannot be read: {reason}; remove it and extract again"
            ) from None
