"""Files of ratings: who rated (favourited, bought) which product when, perhaps more than memory holds.

A CSV, Parquet or JSON Lines file, or an SQL query, with the columns `user_id`, `product_id` and
`rated_at` (or others that `RatingColumns` names), read as catalogues are. `rated_at` is a date, a
timestamp (without a zone: UTC) or Unix seconds.
"""

import re
import reprlib
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.release.ids import IdType
from lookalike.release.manifest import MAX_UNIX_TIME
from lookalike.release.root import named
from lookalike_build.catalogue import parquet, sql
from lookalike_build.catalogue.csv import INTEGER, csv_rows
from lookalike_build.catalogue.form import form_of
from lookalike_build.catalogue.jsonl import jsonl_rows
from lookalike_build.catalogue.rows import (
    CHUNK,
    CatalogueError,
    id_fault,
    ids_fit,
    ids_of,
    is_whole,
    strings_of,
    values_of,
)

if TYPE_CHECKING:
    Columns = tuple[pa.Array, pa.Array, pa.Array]

MIN_UNIX_TIME: Final = 100_000_000
"""In 1973: what is less is no time in seconds but, say, the date 20240105."""
_MICRO = 1_000_000
_MOST_PROBLEMS = 1000
_A_TYPE: dict[IdType, str] = {"integer": "a whole number", "string": "a string"}
# Of the other texts, what DuckDB can read.
_INSTANTS = r"""
    SELECT CASE WHEN regexp_full_match(text, '[0-9]{1,12}(\.[0-9]+)?')
        THEN (text::DOUBLE * 1000000)::BIGINT
        ELSE epoch_us(TRY_CAST(text AS TIMESTAMPTZ)) END
    FROM texts
"""


class RatingColumns(NamedTuple):
    """What a file of ratings calls its columns."""

    user_id: str = "user_id"
    product_id: str = "product_id"
    rated_at: str = "rated_at"


RATING_COLUMNS: Final = RatingColumns()
"""What Lookalike calls them."""

Take = Callable[[pa.Table], object]
"""Takes some rows: user_id (string), product_id (int64 or string), rated_at (int64, microseconds)."""


def read_ratings(path: Path, names: RatingColumns, id_type: IdType, take: Take) -> None:
    """Give all ratings to `take`, some at a time; product ids are of `id_type`.

    Raises CatalogueError with the malformed rows by line number, the first thousand, or OSError if the
    file cannot be read; by then `take` has had what came before.
    """
    with named(path), closing(_RatingRows(path, names, id_type, take)) as rows:
        if path.suffix.lower() == ".sql":
            sql.run_sql(path, lambda connection: _from_sql(connection, path, names, rows))
        elif (form := form_of(path)) == "parquet":
            _from_parquet(path, names, rows)
        else:
            (csv_rows if form == "csv" else jsonl_rows)(path, names, rows)
            rows.finish()


def _from_parquet(path: Path, names: RatingColumns, rows: "_RatingRows") -> None:
    try:
        with pq.ParquetFile(path) as file:
            parquet.check_columns(path, file.schema_arrow, names)
            for batch in file.iter_batches(CHUNK, columns=list(names)):
                # Arrow takes the file's word for it that strings are UTF-8.
                batch.validate(full=True)
                rows.take_typed(pa.Table.from_batches([batch]))
    except pa.ArrowInvalid as error:
        problem = f"cannot be read as Parquet: {error}".splitlines()[0]
        raise CatalogueError(path, [problem]) from None
    rows.finish()


def _from_sql(
    connection: duckdb.DuckDBPyConnection, path: Path, names: RatingColumns, rows: "_RatingRows"
) -> None:
    with connection.to_arrow_reader(CHUNK) as reader:
        sql.check_columns(path, reader.schema.names, names)
        for batch in reader:
            rows.take_typed(pa.Table.from_batches([batch]))
    rows.finish()


class _RatingRows:
    """Checks rows by the chunk and hands them on; only a chunk with a fault is gone through by row."""

    def __init__(self, path: Path, names: RatingColumns, id_type: IdType, take: Take) -> None:
        self._path = path
        self._names = names
        self._id_type = id_type
        self._hand_on = take
        self._waiting: list[tuple[Any, ...]] = []
        self._problems: list[tuple[int, str]] = []
        self._n_typed = self._n_given = 0
        self._duckdb = duckdb.connect()
        self._duckdb.execute("SET TimeZone = 'UTC'")

    def close(self) -> None:
        """Close the database that reads times."""
        self._duckdb.close()

    def add(self, line: int, *row: object) -> None:
        """Take a row of text: user_id, product_id and rated_at, in line `line`."""
        self._waiting.append((line, *row))
        if len(self._waiting) == CHUNK:
            self._take_texts()

    def refuse(self, line: int, problem: str) -> None:
        """Take note of a line that holds no fit row."""
        self._problems.append((line, problem))
        self._give_up("line", _MOST_PROBLEMS)

    def take_typed(self, table: pa.Table) -> None:
        """Take rows of columns that have types."""
        users, products = (ids_of(self._path, table, name) for name in self._names[:2])
        rated = table[self._names.rated_at]
        if is_whole(products.type) != (self._id_type == "integer") and len(products):
            raise CatalogueError(
                self._path,
                [
                    f"column {self._names.product_id} holds {products.type}, and product ids are "
                    f"{_A_TYPE[self._id_type]} each in the release"
                ],
            )
        instants = self._typed_instants(rated)
        if ids_fit(users) and ids_fit(products) and not instants.null_count:
            product_type = pa.int64() if self._id_type == "integer" else pa.string()
            self._give(users.cast(pa.string()), products.cast(product_type), instants)
        else:
            values = [values_of(column) for column in (users, products, rated, instants)]
            for number, row in enumerate(zip(*values, strict=True), self._n_typed + 1):
                if problem := self._problem(*row):
                    self._problems.append((number, problem))
        self._n_typed += table.num_rows
        self._give_up("row", _MOST_PROBLEMS)

    def finish(self) -> None:
        """Raise CatalogueError with all that is wrong, in the order of the lines, or for no rows."""
        self._take_texts()
        self._give_up("row" if self._n_typed else "line", 1)
        if not self._n_given:
            raise CatalogueError(self._path, ["holds no ratings"])

    def _give_up(self, place: str, most: int) -> None:
        if len(self._problems) >= most:
            problems = [
                f"{place} {number}: {problem}" for number, problem in sorted(self._problems)
            ]
            raise CatalogueError(self._path, problems)

    def _take_texts(self) -> None:
        rows, self._waiting = self._waiting, []
        if not rows:
            return
        _, users, products, rated = zip(*rows, strict=True)
        instants = self._instants(rated)
        columns = self._columns(users, products)
        if columns and all(map(ids_fit, columns)) and not instants.null_count:
            self._give(*columns, instants)
            return
        fit = []
        for row, instant in zip(rows, instants.to_pylist(), strict=True):
            line, user, product, when = row
            if problem := self._problem(user, product, when, instant):
                self.refuse(line, problem)
            else:
                fit.append((str(user), self._product(product), instant))
        if fit:  # of two kinds of users, say
            self._give(*map(pa.array, zip(*fit, strict=True)))

    def _columns(
        self, users: Sequence[object], products: Sequence[object]
    ) -> tuple[pa.Array, pa.Array] | None:
        """Both as what they are to be, or None where they cannot all be."""
        try:
            user_ids, product_ids = pa.array(users), pa.array(products)
            if self._id_type == "integer" and pa.types.is_string(product_ids.type):
                if not pc.all(pc.match_substring_regex(product_ids, INTEGER)).as_py():
                    return None
                product_ids = product_ids.cast(pa.int64())
        except (pa.ArrowException, OverflowError, UnicodeEncodeError):
            return None
        kinds = pa.string(), pa.int64()
        fit = user_ids.type in kinds and product_ids.type == kinds[self._id_type == "integer"]
        return (user_ids.cast(pa.string()), product_ids) if fit else None

    def _product(self, value: object) -> object:
        """A fit product id, as the release has it."""
        return int(str(value)) if self._id_type == "integer" else value

    def _problem(
        self, user: object, product: object, rated: object, instant: int | None
    ) -> str | None:
        """What makes a row unfit; `instant` is when it was rated, None if that is no time."""
        names = self._names
        if problem := id_fault(names.user_id, user):
            return problem
        if self._id_type == "integer" and isinstance(product, str):
            if not re.fullmatch(INTEGER, product):
                return (
                    f"{names.product_id} must be a whole number as in the release, not {product!r}"
                )
            product = int(product)
        if problem := id_fault(names.product_id, product):
            return problem
        if isinstance(product, int) != (self._id_type == "integer"):
            kind = _A_TYPE[self._id_type]
            return f"{names.product_id} must be {kind} as in the release, not {product!r}"
        if rated is None or rated == "":
            return f"{names.rated_at} is empty"
        if instant is None:
            return (
                f"{names.rated_at} must be a date, a timestamp or Unix seconds, of 1973 to 9999, not "
                f"{reprlib.repr(rated)}"
            )
        return None

    def _instants(self, rated: Sequence[object]) -> pa.Array:
        """The times as microseconds (int64), null where one is none."""
        texts = [one if isinstance(one, str) else _number_text(one) for one in rated]
        try:
            return self._read(pa.array(texts))
        except UnicodeEncodeError:
            return self._read(pa.array([one if one.isprintable() else "" for one in texts]))

    def _read(self, texts: pa.Array) -> pa.Array:
        self._duckdb.register("texts", pa.table({"text": texts}))
        (instants,) = self._duckdb.execute(_INSTANTS).to_arrow_table().columns
        return _within(instants)

    def _typed_instants(self, column: pa.ChunkedArray) -> pa.Array:
        type_ = column.type
        if (texts := strings_of(column)) is not None:
            return self._read(texts)
        if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
            zone = getattr(type_, "tz", None)
            return _within(column.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64()))
        if is_whole(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_):
            seconds = column.cast(pa.float64(), safe=False)
            micros = pc.round(pc.multiply(seconds, float(_MICRO)))
            fit = pc.and_(pc.greater(micros, 0), pc.less(micros, 2.0**63))
            return _within(pc.if_else(fit, micros, 0).cast(pa.int64()))
        raise CatalogueError(
            self._path,
            [f"column {self._names.rated_at} holds {type_}, expected timestamps, dates or numbers"],
        )

    def _give(self, users: pa.Array, products: pa.Array, instants: pa.Array) -> None:
        if not self._problems:  # else nothing comes of it
            names = RATING_COLUMNS
            self._n_given += len(instants)
            self._hand_on(pa.table([users, products, instants], names=list(names)))


def _within(instants: pa.ChunkedArray) -> pa.Array:
    """Instants in microseconds, null where they are none that are meant."""
    least, most = MIN_UNIX_TIME * _MICRO, (MAX_UNIX_TIME + 1) * _MICRO
    fit = pc.and_(pc.greater_equal(instants, least), pc.less(instants, most))
    return pc.if_else(fit, instants, pa.scalar(None, pa.int64()))


def _number_text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value)
