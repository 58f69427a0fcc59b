"""An experiment's records, added up: out of core, for any number of them.

DuckDB goes once through each file and adds up by pattern, method, category and visitor. What each
visitor has is then added up to the sums, squares and products that all estimates are made of. What
does not fit in the memory given goes to a temporary folder. A visitor is known by a hash of 64 bits:
among ten million, two are taken for one with a probability of 3 in a million.
"""

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from lookalike.errors import LookalikeError
from lookalike.experiment import METHODS, PATTERNS
from lookalike.release.root import named
from lookalike_build.experiment.checks import (
    OTHER,
    OUTSIDE,
    STATES,
    VALID,
    Fault,
    Period,
    checked,
    first_faults,
    is_refused,
)
from lookalike_build.experiment.files import MACROS, EventFile
from lookalike_build.experiment.rates import Rate, Sums

if TYPE_CHECKING:
    import duckdb

MAX_NAMED: Final = 10
"""How many malformed records are named."""
_REJECTS = "rejects"
_WORDS: Final = {"state": STATES, "pattern": PATTERNS, "method": ("", *METHODS)}


class EventError(LookalikeError):
    """Records that no report can be made of; the text names the place and what to do."""


class Tally(NamedTuple):
    """What one pattern's visitors add up to, in all or in one category.

    `visitors` are those with impressions, `anonymous` the impressions of which no visitor is known.
    n are a visitor's impressions, x its clicks, y its purchases; in the sums of squares and products
    an anonymous impression is a visitor of its own.
    """

    visitors: int = 0
    anonymous: int = 0
    impressions: int = 0
    clicks: int = 0
    purchases: int = 0
    n_n: int = 0
    n_x: int = 0
    x_x: int = 0
    n_y: int = 0
    y_y: int = 0

    def plus(self, other: "Tally") -> "Tally":
        """The sums of the visitors of both."""
        return Tally(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def units(self) -> int:
        """What was assigned the pattern: visitors, and impressions without one."""
        return self.visitors + self.anonymous

    def ctr(self) -> Rate:
        """Clicks per impression, of which there must be one."""
        return self._rate(self.clicks, self.n_x, self.x_x)

    def cvr(self) -> Rate:
        """Purchases per impression, of which there must be one."""
        return self._rate(self.purchases, self.n_y, self.y_y)

    def _rate(self, events: int, products: int, squares: int) -> Rate:
        n, independent = self.impressions, self.visitors == 0
        return Rate(Sums(self.units, n, events, self.n_n, products, squares, independent))


class MethodTally(NamedTuple):
    """The records of one pattern that one method answered."""

    pattern: str
    method: str
    impressions: int
    clicks: int
    purchases: int


@dataclass(frozen=True)
class Records:
    """All that a report is made of.

    `patterns` has a tally for each pattern, `categories` for each category one for each pattern;
    `methods` counts also what no tally has, the method none. `assigned` are, for each pattern, the
    units that have no impression of the other, `n_in_both` the visitors that have. `period` is the
    first and the last moment of what counts, in Unix seconds; None where no record has a time.
    `faults` are the first malformed records.
    """

    patterns: dict[str, Tally]
    categories: dict[str, dict[str, Tally]]
    methods: list[MethodTally]
    assigned: dict[str, int]
    n_in_both: int
    period: tuple[float, float] | None
    n_outside: int
    n_other: int
    n_malformed: int
    faults: list[str]


@dataclass(frozen=True)
class Memory:
    """What DuckDB may use: memory (as it writes it, such as 4GB), and a folder for what is beyond."""

    limit: str = "4GB"
    folder: Path | None = None


def read_records(
    files: Sequence[EventFile],
    period: Period,
    memory: Memory,
    done: Callable[[int], object],
) -> Records:
    """Add up the records of all files, calling `done` with 1 after each.

    Malformed records are left out. Raises EventError where a record has an event, pattern or method
    that nobody knows, and where DuckDB cannot read a file or has no room.
    """
    import duckdb

    states: dict[str, int] = defaultdict(int)
    faults: list[str] = []
    with _room(memory), _database(memory) as database:
        for number, file in enumerate(files):
            try:
                with named(file.path):
                    found, few = _add(database, number, file, period, MAX_NAMED - len(faults))
            except duckdb.OutOfMemoryException:
                raise
            except duckdb.Error as error:
                raise EventError(f"{file.path}: {str(error).splitlines()[0]}") from None
            faults += few
            for state, n in found.items():
                states[state] += n
            done(1)
        try:
            return _added_up(database, states, faults)
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            raise EventError(str(error).splitlines()[0]) from None


@contextmanager
def _room(memory: Memory) -> Iterator[None]:
    """Say what to give more of where DuckDB has no room, whichever file it was reading."""
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException as error:
        reason = str(error).splitlines()[0].rstrip(".")
        folder = memory.folder or tempfile.gettempdir()
        raise EventError(
            f"{reason}; give more --memory-limit, or room in {folder} (--temporary)"
        ) from None


@contextmanager
def _database(memory: Memory) -> Iterator["duckdb.DuckDBPyConnection"]:
    """A database of its own in a folder of its own, with an empty table of what is seen."""
    import duckdb

    with (
        tempfile.TemporaryDirectory(prefix="lookalike-", dir=memory.folder) as folder,
        duckdb.connect() as database,
    ):
        database.execute("SET python_enable_replacements = false")
        database.execute("SET TimeZone = 'UTC'")
        database.execute("SET enable_progress_bar = false")  # it would stand in the report
        database.execute("SET preserve_insertion_order = false")
        database.execute("SET memory_limit = $limit", {"limit": memory.limit})
        database.execute("SET temp_directory = $folder", {"folder": folder})
        for macro in MACROS:
            database.execute(macro)
        # A byte each in a table of as many rows as there are visitors, times categories.
        for name, values in _WORDS.items():
            listed = ", ".join(f"'{value}'" for value in values)
            database.execute(f"CREATE TYPE {name} AS ENUM ({listed})")
        database.execute(
            "CREATE TABLE seen (file INTEGER, state state, pattern pattern, method method, "
            "category_id VARCHAR, visitor UBIGINT, records BIGINT, clicks BIGINT, "
            "purchases BIGINT, first DOUBLE, last DOUBLE)"
        )
        yield database


def _add(
    database: "duckdb.DuckDBPyConnection", number: int, file: EventFile, period: Period, n: int
) -> tuple[dict[str, int], list[str]]:
    """Add a file's records to what is seen: how many there are of each state, its first `n` faults."""
    rejects = f"{_REJECTS}_{number}"
    kept = "state IN ('counted', 'unanswered')"
    database.execute(
        f"""
        INSERT INTO seen
        SELECT {number}, state::state,
            CASE WHEN {kept} THEN pattern::pattern END,
            CASE WHEN {kept} THEN coalesce(method, '')::method END,
            CASE WHEN state = 'counted' THEN category_id END,
            CASE WHEN state = 'counted' AND visitor <> '' THEN hash(visitor) END,
            count(*),
            count(*) FILTER (WHERE event = 'click'),
            count(*) FILTER (WHERE event = 'purchase'),
            min(at_s), max(at_s)
        FROM ({checked(file, file.scan(rejects), period)})
        GROUP BY ALL
        """  # noqa: S608
    )
    states = dict(
        database.execute(
            "SELECT state, sum(records)::BIGINT FROM seen WHERE file = $number GROUP BY ALL",
            {"number": number},
        ).fetchall()
    )
    for state in states:
        if is_refused(file, state):
            _refuse(database, file, period, state)
    not_rows: list[Fault] = []
    if file.kind == "csv":
        states["no row"], not_rows = _not_rows(database, rejects, n)
    wrong = {state for state, count in states.items() if count} - set(VALID)
    if wrong:
        file.check_whole()
    faults = first_faults(database, file, period, wrong - {"no row"}, n)
    faults = sorted(faults + not_rows)[:n]
    return states, [f"{file.place(fault.line)}: {fault.problem}" for fault in faults]


def _refuse(
    database: "duckdb.DuckDBPyConnection", file: EventFile, period: Period, state: str
) -> None:
    (fault,) = first_faults(database, file, period, [state], 1)
    raise EventError(
        f"{file.place(fault.line)}: {fault.problem}; change it, or leave such records out"
    )


def _not_rows(
    database: "duckdb.DuckDBPyConnection", rejects: str, n: int
) -> tuple[int, list[Fault]]:
    """How many lines are no row of CSV, and the first `n` of them."""
    ((count,),) = database.execute(f"SELECT count(DISTINCT line) FROM {rejects}").fetchall()  # noqa: S608
    rows = database.execute(
        f"SELECT line, min(error_type) FROM {rejects} GROUP BY line ORDER BY line LIMIT {n}"  # noqa: S608
    ).fetchall()
    for table in (rejects, f"{rejects}_scan"):
        database.execute(f"DROP TABLE {table}")
    return count, [Fault(line, f"is no row of CSV ({kind.lower()})") for line, kind in rows]


def _added_up(
    database: "duckdb.DuckDBPyConnection", states: dict[str, int], faults: list[str]
) -> Records:
    database.execute(
        "CREATE VIEW counted AS SELECT pattern, category_id, visitor, "
        "records - clicks - purchases AS n, clicks AS x, purchases AS y "
        "FROM seen WHERE state = 'counted'"
    )
    patterns, n_in_both = _visitors(database)
    categories = _visitors_by_category(database)
    for pattern, category_id, n, x, y in database.execute(
        "SELECT pattern, category_id, sum(n)::BIGINT, sum(x)::BIGINT, sum(y)::BIGINT "
        "FROM counted WHERE visitor IS NULL GROUP BY ALL"
    ).fetchall():
        anonymous = Tally(0, n, n, x, y, n, x, x, y, y)
        patterns[pattern] = patterns[pattern].plus(anonymous)
        of_category = categories[category_id]
        of_category[pattern] = of_category[pattern].plus(anonymous)
    ((first, last),) = database.execute(
        "SELECT min(first), max(last) FROM seen WHERE state = 'counted'"
    ).fetchall()
    return Records(
        patterns,
        dict(categories),
        _by_method(database),
        {pattern: tally.units - n_in_both for pattern, tally in patterns.items()},
        n_in_both,
        None if first is None else (first, last),
        states.get(OUTSIDE, 0),
        states.get(OTHER, 0),
        sum(n for state, n in states.items() if state not in VALID),
        faults,
    )


def _visitors(database: "duckdb.DuckDBPyConnection") -> tuple[dict[str, Tally], int]:
    """The tally of each pattern's visitors, and how many visitors have impressions of both."""
    sums = ", ".join(
        f"coalesce(sum({term}) FILTER (WHERE pattern = '{pattern}'), 0)::BIGINT AS {pattern}_{term}"
        for pattern in PATTERNS
        for term in "nxy"
    )
    tallies = ", ".join(_tally(f"{pattern}_") for pattern in PATTERNS)
    both = " AND ".join(f"{pattern}_n > 0" for pattern in PATTERNS)
    ((*found, n_in_both),) = database.execute(
        f"SELECT {tallies}, count(*) FILTER (WHERE {both}) FROM "  # noqa: S608
        f"(SELECT {sums} FROM counted WHERE visitor IS NOT NULL GROUP BY visitor)"
    ).fetchall()
    width = len(Tally._fields)
    return {
        pattern: Tally(*found[place * width : (place + 1) * width])
        for place, pattern in enumerate(PATTERNS)
    }, n_in_both


def _visitors_by_category(
    database: "duckdb.DuckDBPyConnection",
) -> defaultdict[str, dict[str, Tally]]:
    """The tally of each category's and pattern's visitors."""
    rows = database.execute(
        f"SELECT category_id, pattern, {_tally()} FROM "  # noqa: S608
        "(SELECT category_id, pattern, visitor, sum(n)::BIGINT AS n, sum(x)::BIGINT AS x, "
        "sum(y)::BIGINT AS y FROM counted WHERE visitor IS NOT NULL GROUP BY ALL) GROUP BY ALL"
    ).fetchall()
    categories: defaultdict[str, dict[str, Tally]] = defaultdict(
        lambda: dict.fromkeys(PATTERNS, Tally())
    )
    for category_id, pattern, *tally in rows:
        categories[category_id][pattern] = Tally(*tally)
    return categories


def _tally(prefix: str = "") -> str:
    """SQL of a `Tally` of visitors, from a table of them with the columns n, x and y."""
    n, x, y = (f"{prefix}{term}" for term in "nxy")
    terms = (n, x, y, f"{n} * {n}", f"{n} * {x}", f"{x} * {x}", f"{n} * {y}", f"{y} * {y}")
    sums = [f"coalesce(sum({term}), 0)::HUGEINT" for term in terms]
    return ", ".join([f"count(*) FILTER (WHERE {n} > 0)", "0", *sums])


def _by_method(database: "duckdb.DuckDBPyConnection") -> list[MethodTally]:
    rows = database.execute(
        "SELECT pattern, method, sum(records - clicks - purchases)::BIGINT, sum(clicks)::BIGINT, "
        "sum(purchases)::BIGINT FROM seen WHERE state IN ('counted', 'unanswered') "
        "GROUP BY ALL ORDER BY pattern, method"
    ).fetchall()
    return [MethodTally(*row) for row in rows]
