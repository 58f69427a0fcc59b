"""Ratings: who rated (favourited, bought) which product when, perhaps more than memory holds.

A table with the columns `user_id`, `product_id` and `rated_at` (or others that `RatingColumns` names).
"""

import reprlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa

from lookalike.release.ids import IdType
from lookalike_build.behaviour.times import TIMES, Times
from lookalike_build.catalogue.ids import ReleasedIds, invalid_id, valid_ids
from lookalike_build.tables.chunks import Chunk, Problem
from lookalike_build.tables.columns import WHOLE_OR_STRINGS, Column
from lookalike_build.tables.csv import Dialect
from lookalike_build.tables.error import TableError
from lookalike_build.tables.reader import Table, open_table

_MAX_PROBLEMS = 1000


class RatingColumns(NamedTuple):
    """What a table of ratings calls its columns."""

    user_id: str = "user_id"
    product_id: str = "product_id"
    rated_at: str = "rated_at"


RATING_COLUMNS: Final = RatingColumns()
"""What Lookalike calls them."""

Take = Callable[[pa.Table], object]
"""Takes some rows: user_id (string), product_id (int64 or string), rated_at (int64, microseconds)."""


def read_ratings(
    path: Path, names: RatingColumns, dialect: Dialect, id_type: IdType, take: Take
) -> None:
    """Give all ratings to `take`, some at a time; product ids are of `id_type`.

    Raises TableError with the malformed rows by line number, the first thousand, or OSError if the
    file cannot be read; by then `take` has had what came before.
    """
    products = ReleasedIds(names.product_id, id_type, "product")
    columns = (
        Column(names.user_id, WHOLE_OR_STRINGS),
        products.column,
        Column(names.rated_at, TIMES),
    )
    with (
        open_table(path, columns, dialect) as table,
        closing(Times()) as times,
    ):
        ratings = _Ratings(table, names, products, times, take)
        for chunk in table.chunks:
            ratings.add(chunk)
        ratings.finish()


class _Ratings:
    """Checks ratings by the chunk and hands them on; only a chunk with a problem is read by row."""

    def __init__(
        self,
        table: Table,
        names: RatingColumns,
        products: ReleasedIds,
        times: Times,
        take: Take,
    ) -> None:
        self._table = table
        self._names = names
        self._products = products
        self._times = times
        self._take = take
        self._problems: list[Problem] = []
        self._n_taken = 0

    def add(self, chunk: Chunk) -> None:
        """Check the next chunk and hand on its ratings, or raise its problems if they are too many."""
        self._problems += chunk.problems
        users, products, rated = chunk.arrays()
        products = self._products.array(products)
        instants = self._times.instants(rated, chunk.columns[2])
        if valid_ids(users) and products is not None and not instants.null_count:
            columns = [users.cast(pa.string()), products, instants]
        else:
            columns = self._valid_rows(chunk, instants)
        if len(self._problems) >= _MAX_PROBLEMS:
            raise self._table.error(sorted(self._problems)[:_MAX_PROBLEMS])
        if not self._problems:  # otherwise nothing comes of it
            self._take(pa.table(columns, names=list(RATING_COLUMNS)))
            self._n_taken += len(columns[0])

    def finish(self) -> None:
        """Raise TableError with all problems, or for no ratings."""
        if self._problems:
            raise self._table.error(self._problems)
        if not self._n_taken:
            raise TableError(self._table.path, ["holds no ratings"])

    def _valid_rows(self, chunk: Chunk, instants: pa.Array) -> list[pa.Array]:
        """The columns of the valid rows; the problems of others are noted."""
        rows = []
        for row, instant in zip(chunk.rows(), instants.to_pylist(), strict=True):
            number, user, product, rated = row
            if problem := self._invalid_row(user, product, rated, instant):
                self._problems.append((number, problem))
            else:
                rows.append((str(user), self._products.valid(product), instant))
        columns = list(zip(*rows, strict=True)) or [(), (), ()]
        types = (
            pa.string(),
            pa.int64() if self._products.id_type == "integer" else pa.string(),
            pa.int64(),
        )
        return list(map(pa.array, columns, types))

    def _invalid_row(
        self, user: object, product: object, rated: object, instant: int | None
    ) -> str | None:
        """What makes a row invalid, or None; `instant` is its time, None if that is none."""
        names = self._names
        if problem := invalid_id(names.user_id, user) or self._products.problem(product):
            return problem
        if rated is None or rated == "":
            return f"{names.rated_at} is empty"
        if instant is None:
            return (
                f"{names.rated_at} must be a date, a timestamp or Unix seconds, of 1973 to 9999, not "
                f"{reprlib.repr(rated)}"
            )
        return None
