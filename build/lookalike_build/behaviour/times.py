"""Times in the columns of a table: dates, timestamps (without a zone: UTC) or Unix seconds."""

from collections.abc import Sequence
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.release.manifest import MAX_UNIX_TIME
from lookalike_build.tables.columns import Kind, is_number

MIN_UNIX_TIME: Final = 100_000_000
"""In 1973: a smaller number is no time in seconds but, say, the date 20240105."""
_MICRO = 1_000_000
# A text is Unix seconds, or whatever else DuckDB can read.
_INSTANTS = r"""
    SELECT CASE WHEN regexp_full_match(text, '[0-9]{1,12}(\.[0-9]+)?')
        THEN (text::DOUBLE * 1000000)::BIGINT
        ELSE epoch_us(TRY_CAST(text AS TIMESTAMPTZ)) END
    FROM texts
"""


def _is_moment(type_: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(type_) or pa.types.is_date(type_))


TIMES: Final = Kind(
    "timestamps, dates or numbers",
    lambda type_: pa.types.is_string(type_) or _is_moment(type_) or is_number(type_),
)


class Times:
    """Reads times; texts by a database of its own, to be closed."""

    def __init__(self) -> None:
        self._duckdb = duckdb.connect()
        self._duckdb.execute("SET TimeZone = 'UTC'")

    def close(self) -> None:
        """Close the database."""
        self._duckdb.close()

    def instants(self, array: pa.Array, values: Sequence[object]) -> pa.Array:
        """A column in microseconds since 1970 (int64), null where a value is no time.

        `array` is the column as Arrow has it, of nulls if it cannot; `values` are the same.
        """
        if pa.types.is_string(array.type):
            return self._of_texts(array)
        if _is_moment(array.type):
            zone = getattr(array.type, "tz", None)
            return _within(array.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64()))
        if is_number(array.type):
            micros = pc.round(pc.multiply(array.cast(pa.float64(), safe=False), float(_MICRO)))
            is_int64 = pc.and_(pc.greater(micros, 0), pc.less(micros, 2.0**63))
            return _within(pc.if_else(is_int64, micros, 0).cast(pa.int64()))
        return self._of_texts(pa.array(map(_text, values), pa.string()))

    def _of_texts(self, texts: pa.Array) -> pa.Array:
        self._duckdb.register("texts", pa.table({"text": texts}))
        (instants,) = self._duckdb.execute(_INSTANTS).to_arrow_table().columns
        return _within(instants)


def _within(instants: pa.ChunkedArray) -> pa.Array:
    """Instants in microseconds, null where they are none that are meant."""
    least, most = MIN_UNIX_TIME * _MICRO, (MAX_UNIX_TIME + 1) * _MICRO
    is_meant = pc.and_(pc.greater_equal(instants, least), pc.less(instants, most))
    return pc.if_else(is_meant, instants, pa.scalar(None, pa.int64()))


def _text(value: object) -> str:
    """A value of JSON or CSV as text, "" if it is no time."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # Arrow takes no surrogates
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value)
