"""The features of categories that are not complete yet, in SQLite: ``unfinished.sqlite``.

Each batch is saved in one transaction before the next begins, so a killed run loses only the batch that
the network was working on. Features are removed once they are in a category's file.

The table ``photos`` has ``sha256`` (blob, 32 bytes, of the photo) and ``features`` (blob, little-endian
float32). The table ``model`` has one row, the model's text. ``PRAGMA user_version`` is `_FORMAT`.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from lookalike.release.arrays import Features
from lookalike_build.features.store import FeatureError

_NAME = "unfinished.sqlite"
_FORMAT = 1
_BUSY_S = 1.0


class Unfinished:
    """Features by their photo's SHA-256; only one process at a time can open those of a folder."""

    def __init__(self, folder: Path, model: str) -> None:
        """Open or create the folder's file; features of another model are dropped.

        This and every method raises FeatureError if SQLite fails, for example on a full disk.
        """
        self._folder = folder
        with self._errors():
            self._database = sqlite3.connect(folder / _NAME, _BUSY_S)
        try:
            with self._errors():
                self._database.executescript(
                    "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;"
                    "PRAGMA synchronous = NORMAL;"
                )
                self._begin(model)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code == sqlite3.SQLITE_BUSY:
                message = f"another extraction is at work on {self._folder}; wait for it to end"
            elif code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                message = f"{self._folder / _NAME}: {error}; remove it and extract again"
            else:
                message = f"{self._folder / _NAME}: {error}"
            raise FeatureError(message) from error

    def _begin(self, model: str) -> None:
        with self._database as database:
            database.execute("BEGIN IMMEDIATE")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            same = version == _FORMAT and database.execute("SELECT * FROM model").fetchone()
            if same == (model,):
                return
            for table in ("photos", "model"):
                database.execute(f"DROP TABLE IF EXISTS {table}")
            database.execute(
                "CREATE TABLE photos (sha256 BLOB PRIMARY KEY, features BLOB NOT NULL)"
            )
            database.execute("CREATE TABLE model (model TEXT NOT NULL)")
            database.execute("INSERT INTO model VALUES (?)", [model])
            database.execute(f"PRAGMA user_version = {_FORMAT}")

    def photos(self) -> list[str]:
        """The SHA-256 of all photos, hexadecimal."""
        with self._errors(), closing(self._database.execute("SELECT sha256 FROM photos")) as rows:
            return [digest.hex() for (digest,) in rows]

    def save(self, features: Iterable[tuple[str, Features]]) -> None:
        """Save features (n_dims,) by their photo's SHA-256, all of them or none."""
        rows = [
            (bytes.fromhex(digest), feature.astype("<f4").tobytes()) for digest, feature in features
        ]
        if rows:
            with self._errors(), self._database as database:
                database.executemany("INSERT OR REPLACE INTO photos VALUES (?, ?)", rows)

    def features(self, photo_sha256s: Sequence[str]) -> dict[str, Features]:
        """The features (n_dims,) of the photos; unknown photos are left out."""
        found = {}
        with self._errors():
            for digest in photo_sha256s:
                row = self._database.execute(
                    "SELECT features FROM photos WHERE sha256 = ?", [bytes.fromhex(digest)]
                ).fetchone()
                if row:
                    found[digest] = np.frombuffer(row[0], "<f4")
        return found

    def remove(self, photo_sha256s: Iterable[str]) -> None:
        """Remove photos whose features are in a category's file; SQLite reuses the space."""
        with self._errors(), self._database as database:
            database.executemany(
                "DELETE FROM photos WHERE sha256 = ?",
                ([bytes.fromhex(digest)] for digest in photo_sha256s),
            )

    def close(self) -> None:
        """Close; the file stays for the next run."""
        self._database.close()

    def discard(self) -> None:
        """Close and remove the file: the store is complete."""
        self.close()
        (self._folder / _NAME).unlink()
