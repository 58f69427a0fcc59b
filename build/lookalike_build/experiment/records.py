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
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from lookalike.errors import LookalikeError
from lookalike.experiment import CHOSEN, METHODS, NOBODY, PATTERNS
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
from lookalike_build.experiment.doubts import (
    N_HEAVIEST,
    counted_twice,
    heavy_visitors,
    strays,
    wrong_clocks,
)
from lookalike_build.experiment.files import MACROS, EventFile
from lookalike_build.experiment.rates import Rate, Sums

if TYPE_CHECKING:
    import duckdb

MAX_NAMED: Final = 10
"""How many malformed records are named."""
CountBy = Literal["pattern", "method"]
"""What a record counts for: the pattern assigned, or the method that answered."""
_COUNTED_FOR: Final[dict[CountBy, str]] = {
    "pattern": "pattern",
    "method": "CASE method WHEN 'behaviour' THEN 'A' WHEN 'image' THEN 'B' END::pattern",
}
_REJECTS = "rejects"
_NOBODY: Final = [
    f"{before}{text}{after}"
    for each in (*NOBODY, "NaN", "[object Object]")
    for text in {each, each.upper(), each.capitalize()}
    for before in ("", " ")
    for after in ("", " ")
]
_WORDS: Final = {"state": STATES, "pattern": PATTERNS, "method": ("", *METHODS)}


class EventError(LookalikeError):
    """Records that no report can be made of; the text names the place and what to do."""


class Tally(NamedTuple):
    """What one pattern's visitors add up to, in all or in one category.

    `visitors` are those with impressions, `clickers` those with clicks or purchases. `anonymous` are
    the impressions of which no visitor is known, `anonymous_clicks` the clicks. n are a visitor's
    impressions, x its clicks, y its purchases; in the sums of squares and products an anonymous
    impression, and an anonymous click, is a visitor of its own.
    """

    visitors: int = 0
    clickers: int = 0
    anonymous: int = 0
    anonymous_clicks: int = 0
    impressions: int = 0
    clicks: int = 0
    purchases: int = 0
    n_n: int = 0
    n_x: int = 0
    x_x: int = 0
    x_y: int = 0
    y_y: int = 0

    def plus(self, other: "Tally") -> "Tally":
        """The sums of the visitors of both."""
        return Tally(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def units(self) -> int:
        """What was assigned the pattern: visitors, and impressions without one."""
        return self.visitors + self.anonymous

    def ctr(self) -> Rate | None:
        """The click-through rate, clicks per impression; None without impressions."""
        n, x, of_visitors = self.impressions, self.clicks, self.visitors > 0
        sums = Sums(self.units, n, x, self.n_n, self.n_x, self.x_x, not of_visitors)
        return Rate(sums) if n else None

    def cvr(self) -> Rate | None:
        """The conversion rate, purchases per click; None without clicks."""
        x, y, of_visitors = self.clicks, self.purchases, self.clickers > 0
        units = self.clickers + self.anonymous_clicks
        sums = Sums(units, x, y, self.x_x, self.x_y, self.y_y, not of_visitors)
        return Rate(sums) if x else None


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

    `patterns` has a tally for each pattern, `categories` for each category one for each pattern; if
    records count by method, A is behaviour and B image. `methods` counts also what no tally has, the
    method none. `n_visitors` have impressions that count. `assigned` are, for each pattern, the units
    that were assigned it and not the other, `n_in_both` the visitors that were assigned both. `period`
    is the first and the last moment of what counts, in Unix seconds; None where no record has a time.
    `n_without_method` are clicks and purchases that do not count as they name no method, `n_unnamed`
    records that count and whose visitor is a text that names nobody, `n_chosen` records of visitors who
    were assigned no pattern. `faults` are the first malformed records, `doubts` what cannot be believed
    of all.
    """

    patterns: dict[str, Tally]
    categories: dict[str, dict[str, Tally]]
    methods: list[MethodTally]
    n_visitors: int
    assigned: dict[str, int]
    n_in_both: int
    period: tuple[float, float] | None
    n_outside: int
    n_other: int
    n_malformed: int
    faults: list[str]
    count_by: CountBy = "pattern"
    n_without_method: int = 0
    n_unnamed: int = 0
    n_chosen: int = 0
    doubts: Sequence[str] = ()

    def name_of(self, pattern: str) -> str:
        """What a pattern's tallies are of."""
        if self.count_by == "pattern":
            return f"pattern {pattern}"
        return f"{METHODS[PATTERNS.index(pattern)]} ({pattern})"


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
    count_by: CountBy = "pattern",
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
                with named(file.path), file.readable(memory.folder) as readable:
                    found, few = _add(database, number, readable, period, MAX_NAMED - len(faults))
            except duckdb.OutOfMemoryException:
                raise
            except duckdb.Error as error:
                file.check_whole()  # which says more
                raise EventError(f"{file.path}: {str(error).splitlines()[0]}") from None
            faults += few
            for state, n in found.items():
                states[state] += n
            done(1)
        try:
            return _added_up(database, files, memory.folder, states, faults, count_by)
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
            "CREATE TABLE seen (file INTEGER, state state, is_shown BOOLEAN, pattern pattern, "
            "method method, "
            "category_id VARCHAR, visitor UBIGINT, records BIGINT, clicks BIGINT, purchases BIGINT, "
            "first DOUBLE, last DOUBLE)"
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
        SELECT {number}, state::state, is_shown,
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
    faults = first_faults(database, file, period, [state], 1)
    # DuckDB and Python read a few lines differently, such as an object with a key twice.
    where = [f"{file.place(fault.line)}: {fault.problem}" for fault in faults]
    problem = where[0] if where else f"{file.path}: a record has an {state}"
    raise EventError(f"{problem}; change it, or leave such records out")


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
    database: "duckdb.DuckDBPyConnection",
    files: Sequence[EventFile],
    folder: Path | None,
    states: dict[str, int],
    faults: list[str],
    count_by: CountBy,
) -> Records:
    database.execute(
        f"CREATE VIEW counted AS SELECT {_COUNTED_FOR[count_by]} AS counts_for, pattern, category_id, "  # noqa: S608
        "visitor, is_shown, records - clicks - purchases AS n, clicks AS x, purchases AS y "
        "FROM seen WHERE state = 'counted'"
    )
    # By hash: to compare each record's text would take a fifth more time.
    nobody = "visitor IN (SELECT hash(unnest($nobody)))"
    ((n_unnamed,),) = database.execute(
        f"SELECT coalesce(sum(records), 0)::BIGINT FROM seen WHERE {nobody}",  # noqa: S608
        {"nobody": _NOBODY},
    ).fetchall()
    database.execute(f"UPDATE seen SET visitor = NULL WHERE {nobody}", {"nobody": _NOBODY})  # noqa: S608
    patterns, n_of_both, heaviest = _tallies(database, "counts_for")
    assigned, n_in_both = patterns, n_of_both
    if count_by != "pattern":
        assigned, n_in_both, _ = _tallies(database, "pattern")
    categories, without = _tallies_by_category(database)
    n_visitors = sum(tally.visitors for tally in patterns.values()) - n_of_both
    impressions, clicks, purchases = (
        sum(getattr(tally, name) for tally in patterns.values())
        for name in ("impressions", "clicks", "purchases")
    )
    ((first, last, n_without_method),) = database.execute(
        "SELECT min(first), max(last), "
        "coalesce(sum(records) FILTER (WHERE method = ''), 0)::BIGINT "
        "FROM seen WHERE state = 'counted'"
    ).fetchall()
    return Records(
        patterns,
        categories,
        _by_method(database),
        n_visitors,
        {pattern: tally.units - n_in_both for pattern, tally in assigned.items()},
        n_in_both,
        None if first is None else (first, last),
        states.get(OUTSIDE, 0),
        states.get(OTHER, 0),
        sum(n for state, n in states.items() if state not in VALID),
        faults,
        count_by,
        n_without_method if count_by == "method" else 0,
        n_unnamed,
        states.get(CHOSEN, 0),
        [
            *heavy_visitors(database, files, folder, heaviest, n_visitors, impressions),
            *counted_twice(database, files),
            *strays(clicks, purchases, without),
            *wrong_clocks(database, files),
        ],
    )


def _tallies(
    database: "duckdb.DuckDBPyConnection", column: str
) -> tuple[dict[str, Tally], int, list[tuple[int, int]]]:
    """The tally of each pattern in a column, and how many visitors have impressions of both.

    Third, the visitors with most impressions, and how many these are.
    """
    sums = ", ".join(
        f"coalesce(sum({term}) FILTER (WHERE {column} = '{pattern}'), 0)::BIGINT AS {pattern}_{term}"
        for pattern in PATTERNS
        for term in "nxy"
    )
    tallies = ", ".join(_tally(f"{pattern}_") for pattern in PATTERNS)
    both = " AND ".join(f"{pattern}_n > 0" for pattern in PATTERNS)
    all_n = " + ".join(f"{pattern}_n" for pattern in PATTERNS)
    ((*found, n_in_both, heaviest, most),) = database.execute(
        f"SELECT {tallies}, count(*) FILTER (WHERE {both}), "  # noqa: S608
        f"arg_max(visitor, {all_n}, {N_HEAVIEST}), max({all_n}, {N_HEAVIEST}) FROM "
        f"(SELECT visitor, {sums} FROM counted WHERE visitor IS NOT NULL GROUP BY visitor)"
    ).fetchall()
    width = len(Tally._fields)
    by_pattern: dict[str, Tally] = {
        pattern: Tally(*found[place * width : (place + 1) * width])
        for place, pattern in enumerate(PATTERNS)
    }
    for pattern, tally in _anonymous(database, column):
        by_pattern[pattern] = by_pattern[pattern].plus(tally)
    return by_pattern, n_in_both, list(zip(heaviest or (), most or (), strict=True))


def _tallies_by_category(
    database: "duckdb.DuckDBPyConnection",
) -> tuple[dict[str, dict[str, Tally]], tuple[int, int]]:
    """The tally of each category and pattern.

    Second, how many clicks are of a visitor without an impression there, and purchases without a click.
    """
    rows = database.execute(
        "SELECT category_id, counts_for, coalesce(sum(x) FILTER (WHERE n = 0), 0)::BIGINT, "  # noqa: S608
        f"coalesce(sum(y) FILTER (WHERE x = 0), 0)::BIGINT, {_tally()} FROM "
        "(SELECT category_id, counts_for, visitor, sum(n)::BIGINT AS n, sum(x)::BIGINT AS x, "
        "sum(y)::BIGINT AS y FROM counted WHERE visitor IS NOT NULL AND counts_for IS NOT NULL "
        "GROUP BY ALL) GROUP BY ALL"
    ).fetchall()
    categories: defaultdict[str, dict[str, Tally]] = defaultdict(
        lambda: dict.fromkeys(PATTERNS, Tally())
    )
    without_impression = without_click = 0
    for category_id, pattern, clicks, purchases, *sums in rows:
        without_impression += clicks
        without_click += purchases
        categories[category_id][pattern] = Tally(*sums)
    for category_id, pattern, tally in _anonymous(database, "category_id, counts_for"):
        without_impression += 0 if tally.impressions else tally.clicks
        without_click += 0 if tally.clicks else tally.purchases
        of_category = categories[category_id]
        of_category[pattern] = of_category[pattern].plus(tally)
    return dict(categories), (without_impression, without_click)


def _anonymous(database: "duckdb.DuckDBPyConnection", columns: str) -> Iterator[Any]:
    """The tally of what no visitor is known of, after the values of each of these columns."""
    rows = database.execute(
        f"SELECT {columns}, sum(n)::BIGINT, sum(x)::BIGINT, sum(y)::BIGINT FROM counted "  # noqa: S608
        "WHERE visitor IS NULL AND counts_for IS NOT NULL GROUP BY ALL"
    ).fetchall()
    for *values, n, x, y in rows:
        yield *values, Tally(0, 0, n, x, n, x, y, n, x, x, y, y)


def _tally(prefix: str = "") -> str:
    """SQL of a `Tally` of visitors, from a table of them with the columns n, x and y."""
    n, x, y = (f"{prefix}{term}" for term in "nxy")
    counts = [f"count(*) FILTER (WHERE {which} > 0)" for which in (n, f"{x} + {y}")]
    squares = [f"{a} * {b}" for a, b in ((n, n), (n, x), (x, x), (x, y), (y, y))]
    sums = [f"coalesce(sum({term}), 0)::HUGEINT" for term in (n, x, y, *squares)]
    return ", ".join([*counts, "0", "0", *sums])


def _by_method(database: "duckdb.DuckDBPyConnection") -> list[MethodTally]:
    rows = database.execute(
        "SELECT pattern, method, sum(records - clicks - purchases)::BIGINT, sum(clicks)::BIGINT, "
        "sum(purchases)::BIGINT FROM seen WHERE state IN ('counted', 'unanswered') "
        "GROUP BY ALL ORDER BY pattern, method"
    ).fetchall()
    return [MethodTally(*row) for row in rows]
