"""Ratings: for each product, the products that its raters have rated too, by SQL that DuckDB runs.

This is user-based collaborative filtering, as in pattern A of the experiment of Miyake et al. (2017):
users who rated a product are similar, and what they rated is related to it, newer ratings more so.
Exactly:

- Several ratings of a product by one user count as one, the newest. Of each user's ratings the newest
  `user_ratings` count (at the same time, those of lower product ids), and of each product's the newest
  `product_ratings` of these (at the same time, those of users whose id, as text, comes first). So bots
  and bestsellers cost no more than others.
- The users of a product p are those whose ratings of p count. Every other product q of the release that
  has a counting rating by one of these users is related to p. Its weight is the sum of their ratings of
  q. A rating weighs 2^(-age / `half_life`); its age is in days before the newest of all ratings.
  Weights are rounded down to whole multiples of 2^-32, at least one, so sums are exact in any order.
- The list of p holds the `neighbours` products of the greatest weight; of equal weights, the lower id
  comes first.

Ids that are text are ordered by their UTF-8 bytes.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lookalike.errors import LookalikeError
from lookalike.release.ids import IdType
from lookalike_build.publishing.ids import Ids

METHOD = 1
"""Increase it when the same ratings and settings give other lists."""
MOST_PRODUCT_RATINGS = 2**20
"""Sums of this many weights are whole numbers that float64 holds exactly."""
_BYTES_A_PAIR = 256
"""Memory for each pair of products that is summed at a time."""


class RatingsError(LookalikeError):
    """Behaviour cannot be made of the ratings; the text says what to do."""


@dataclass(frozen=True)
class RatingSettings:
    """The settings by which ratings become lists; `half_life` is in days."""

    neighbours: int = 100
    half_life: float = 30.0
    user_ratings: int = 100
    product_ratings: int = 1000

    @property
    def made_with(self) -> str:
        """The method and settings, as text for the manifest."""
        settings = (f"{name} {value}" for name, value in asdict(self).items())
        return ", ".join([f"method {METHOD}", *settings])


class Counts(NamedTuple):
    """The number of ratings, the number that count, and the time of the newest (Unix, microseconds)."""

    n_ratings: int
    n_counted: int
    newest: int


class Lists(NamedTuple):
    """The lists of the next n products: their `lengths` (n,), and `related`, the lists end to end."""

    lengths: npt.NDArray[np.int64]
    related: npt.NDArray[np.uint32]


class Ratings:
    """Makes lists: `add` all ratings and the released products, `weigh` them, then read the `lists`.

    DuckDB uses `memory_bytes`, and the disk of `folder` for more. A context manager.
    """

    def __init__(self, folder: Path, id_type: IdType, memory_bytes: int) -> None:
        self._pairs = memory_bytes // _BYTES_A_PAIR
        self._id_type = id_type
        self._duckdb = duckdb.connect(
            config={
                "memory_limit": f"{memory_bytes // 1000}KB",
                "temp_directory": str(folder / "spilled"),
                "preserve_insertion_order": "false",
            }
        )
        self._run("SET enable_progress_bar = false")  # the command has its own
        id_column = "id BIGINT" if id_type == "integer" else "id VARCHAR"
        self._run(f"CREATE TABLE event (user_id VARCHAR, {id_column}, rated_at BIGINT)")
        self._run(f"CREATE TABLE released ({id_column})")

    def __enter__(self) -> "Ratings":
        return self

    def __exit__(self, *_: object) -> None:
        self._duckdb.close()

    def add(self, events: pa.Table) -> None:
        """Add ratings: user_id (string), product_id (int64 or string), rated_at (microseconds)."""
        self._duckdb.register("given", events)
        self._run("INSERT INTO event SELECT * FROM given")

    def add_released(self, product_ids: Ids) -> None:
        """Add product ids (n,) of the release."""
        if self._id_type == "integer":
            ids = pa.array(product_ids)
        else:
            ids = pa.array(product_ids.tolist(), pa.binary()).cast(pa.string())
        self._duckdb.register("given", pa.table([ids], names=["id"]))
        self._run("INSERT INTO released SELECT * FROM given")

    def weigh(self, settings: RatingSettings) -> Counts:
        """Choose the ratings that count and weigh them; there must be at least one."""
        of_all = self._run("SELECT count(*) AS n, max(rated_at) AS newest FROM event").to_pylist()[
            0
        ]
        self._run("""
            CREATE TABLE product AS
            SELECT (row_number() OVER (ORDER BY id) - 1)::UINTEGER AS product, id
            FROM (SELECT DISTINCT id FROM event)""")
        self._run("""
            CREATE TABLE person AS SELECT row_number() OVER (ORDER BY user_id) AS person, user_id
            FROM (SELECT DISTINCT user_id FROM event)""")
        self._run("""
            CREATE TABLE rated AS SELECT person, product, max(rated_at) AS rated_at
            FROM event JOIN product USING (id) JOIN person USING (user_id) GROUP BY ALL""")
        self._run("DROP TABLE event")
        self._run("DROP TABLE person")
        self._run(
            """
            CREATE TABLE kept AS SELECT person, product, rated_at, greatest(1, floor(pow(
                2.0, 32 - (?::BIGINT - rated_at) / 86400e6 / ?::DOUBLE))) AS weight
            FROM rated
            QUALIFY row_number() OVER (PARTITION BY person ORDER BY rated_at DESC, product) <= ?""",
            *(of_all["newest"], settings.half_life, settings.user_ratings),
        )
        self._run("DROP TABLE rated")
        self._run(
            """
            CREATE TABLE rater AS SELECT product, person FROM kept
            QUALIFY row_number() OVER (PARTITION BY product ORDER BY rated_at DESC, person) <= ?""",
            settings.product_ratings,
        )
        self._run("""
            CREATE TABLE mate AS SELECT person, product, weight FROM kept
            WHERE product IN (SELECT product FROM product SEMI JOIN released USING (id))""")
        n_counted = self._run("SELECT count(*) AS n FROM kept")["n"][0].as_py()
        self._run("DROP TABLE kept")
        self._run("DROP TABLE released")
        return Counts(of_all["n"], n_counted, of_all["newest"])

    def product_ids(self) -> Ids | list[str]:
        """All rated products, ascending: product i has list i."""
        ids = self._run("SELECT id FROM product ORDER BY product")["id"]
        numbers: npt.NDArray[np.int64] = ids.to_numpy()
        return numbers if self._id_type == "integer" else ids.to_pylist()

    def lists(self, settings: RatingSettings, n_products: int) -> Iterator[Lists]:
        """The lists of all products in order, as many at a time as fit in memory."""
        found = self._run("""
            SELECT product, sum(n)::BIGINT AS n FROM rater
            JOIN (SELECT person, count(*) AS n FROM mate GROUP BY person) USING (person)
            GROUP BY product""")
        pairs = np.zeros(n_products + 1, np.int64)
        pairs[found["product"].to_numpy().astype(np.int64) + 1] = found["n"].to_numpy()
        before = pairs.cumsum()
        first = 0
        while first < n_products:
            last = int(before.searchsorted(before[first] + self._pairs, "right")) - 1
            last = max(last, first + 1)
            rows = self._run(
                """
                WITH pair AS (
                    SELECT rater.product AS product, mate.product AS other, sum(weight) AS weight
                    FROM rater JOIN mate USING (person)
                    WHERE rater.product >= ? AND rater.product < ? AND rater.product <> mate.product
                    GROUP BY ALL),
                ranked AS (
                    SELECT product, other,
                        row_number() OVER (PARTITION BY product ORDER BY weight DESC, other) AS rank
                    FROM pair QUALIFY rank <= ?)
                SELECT product, other FROM ranked ORDER BY product, rank""",
                *(first, last, settings.neighbours),
            )
            lengths = np.bincount(rows["product"].to_numpy() - first, minlength=last - first)
            yield Lists(lengths, rows["other"].to_numpy())
            first = last

    def _run(self, sql: str, *values: object) -> pa.Table:
        try:
            return self._duckdb.execute(sql, values).to_arrow_table()
        except duckdb.OutOfMemoryException as error:
            reason = str(error).splitlines()[0]
            raise RatingsError(f"{reason}; give more --memory-limit, or room on the disk") from None
        except duckdb.Error as error:
            raise RatingsError(f"DuckDB: {str(error).splitlines()[0]}") from None
        except RuntimeError:
            # Ctrl-C. Unless the query is interrupted too, it goes on and closing waits for its end.
            self._duckdb.interrupt()
            raise KeyboardInterrupt from None
