"""What makes an experiment's records doubtful, in words for the report's warnings; it stops nothing."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lookalike_build.experiment.checks import excerpt
from lookalike_build.experiment.clock import DAY_S, far_days, furthest_back, times_in_order
from lookalike_build.experiment.files import EventFile

if TYPE_CHECKING:
    import duckdb

N_HEAVIEST: Final = 3
_MIN_SHARE = 0.01
_TIMES_MEAN = 20
_MIN_TWICE = 0.5
_MIN_STRAY = 0.01


def heavy_visitors(
    database: "duckdb.DuckDBPyConnection",
    files: Sequence[EventFile],
    folder: Path | None,
    heaviest: Sequence[tuple[int, int]],
    n_visitors: int,
    n_impressions: int,
) -> Iterator[str]:
    """Each visitor of `heaviest`, hashes with impressions, that has a large share of all impressions.

    That is a hundredth of all, and twenty times as many as the others have on average.
    """
    for key, n in heaviest:
        others = (n_impressions - n) / max(1, n_visitors - 1)
        if n >= max(_MIN_SHARE * n_impressions, _TIMES_MEAN * max(1.0, others)):
            name = excerpt(_name(database, files, folder, key))
            yield (
                f'visitor "{name}" has {100 * n / n_impressions:.1f} % of all impressions ({n}): a '
                "program, or one id for many visitors. Leave its records out, or their visitor"
            )


def _name(
    database: "duckdb.DuckDBPyConnection",
    files: Sequence[EventFile],
    folder: Path | None,
    key: int,
) -> str:
    """The visitor whose hash that is."""
    for number, file in enumerate(files):
        rejects = f"named_{number}"
        with file.readable(folder) as readable:
            found = database.execute(
                f"SELECT visitor FROM (SELECT {file.select()} FROM {readable.scan(rejects)}) "  # noqa: S608
                f"WHERE hash(visitor) = {key} LIMIT 1"
            ).fetchone()
        for table in (rejects, f"{rejects}_scan"):
            database.execute(f"DROP TABLE IF EXISTS {table}")
        if found:
            return str(found[0])
    return ""


def counted_twice(
    database: "duckdb.DuckDBPyConnection", files: Sequence[EventFile]
) -> Iterator[str]:
    """Files with the same records, and impressions both of `/related` and of `/shown`."""
    sums = (
        "SELECT list(file ORDER BY file) FROM (SELECT file, sum(hash(state, pattern, method, "
        "category_id, visitor, records, clicks, purchases, first, last)) AS all_records "
        "FROM seen GROUP BY file) GROUP BY all_records HAVING count(*) > 1 ORDER BY 1"
    )
    for (numbers,) in database.execute(sums).fetchall() if len(files) > 1 else ():
        names = " and ".join(str(files[number].path) for number in numbers)
        yield f"{names} hold the same records, which count {len(numbers)} times: give one of them"
    ((any_shown,),) = database.execute("SELECT bool_or(is_shown) FROM counted").fetchall()
    if not any_shown:
        return
    ((shown, twice),) = database.execute(
        "SELECT sum(shown)::BIGINT, sum(least(shown, others))::BIGINT FROM ("
        "SELECT coalesce(sum(n) FILTER (WHERE is_shown), 0) AS shown, "
        "coalesce(sum(n) FILTER (WHERE NOT is_shown), 0) AS others "
        "FROM counted WHERE n > 0 GROUP BY category_id, visitor)"
    ).fetchall()
    if shown and twice >= _MIN_TWICE * shown:
        paths = files[0].paths
        yield (
            f"{twice} of {shown} impressions of {paths.shown} are of visitors and categories that "
            f"{paths.related} has impressions of, too: if they are of the same pages, these count "
            "twice. Log one of the two, or leave one out by another --related-path or --shown-path"
        )


def strays(clicks: int, purchases: int, without: tuple[int, int]) -> Iterator[str]:
    """Clicks without an impression, and purchases without a click, if these are many."""
    for n, total, what, before in (
        (without[0], clicks, "clicks", "impression"),
        (without[1], purchases, "purchases", "click"),
    ):
        if n > _MIN_STRAY * total:
            yield (
                f"{n} of {total} {what} are of a visitor without {_a(before)} in that pattern and "
                f"category: {before}s are missing, or {what} name another visitor, pattern or category "
                "than the page"
            )


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def wrong_clocks(
    database: "duckdb.DuckDBPyConnection", files: Sequence[EventFile]
) -> Iterator[str]:
    """Times that are far from the others, and logs in which time goes back."""
    days = database.execute(
        f"SELECT floor(at_s / {DAY_S})::BIGINT, count(*) FROM ("  # noqa: S608
        "SELECT first AS at_s FROM seen WHERE category_id IS NOT NULL UNION ALL "
        "SELECT last FROM seen WHERE category_id IS NOT NULL AND last <> first) "
        "WHERE at_s IS NOT NULL GROUP BY ALL"
    ).fetchall()
    for first, last, n in far_days(dict(days)):
        between = _day(first) if first == last else f"{_day(first)} to {_day(last)}"
        yield (
            f"{n} or more records are from {between}, far from all others: a clock was wrong, or they "
            "are of something else. --from and --until leave them out"
        )
    for file in files:
        if file.kind != "log":
            continue
        moments = database.execute(
            "SELECT moment(time) FROM (SELECT unnest($times) AS time, unnest(range(len($times))) AS i) "
            "ORDER BY i",
            {"times": times_in_order(file)},
        ).fetchall()
        back = furthest_back([moment for (moment,) in moments if moment is not None])
        if back:
            later, earlier = (datetime.fromtimestamp(at, UTC) for at in back)
            yield (
                f"{file.path}: time goes back from {later:%Y-%m-%d %H:%M:%S} to "
                f"{earlier:%Y-%m-%d %H:%M:%S}: a clock jumped, or the log is of several hosts"
            )


def _day(number: int) -> str:
    """A day since 1970, as people write it."""
    return datetime.fromtimestamp(number * DAY_S, UTC).strftime("%Y-%m-%d")
