"""Exports of shop systems as they come: an SQL file says which of their rows are products.

An SQL file in ``exports/``, or a shop's own, has two statements that DuckDB runs:

- ``CREATE TABLE feed (…)`` with the columns that are read, all VARCHAR. An export must have those that
  are NOT NULL; of the others what is missing is empty. Names match whatever their case, with blanks or
  underscores. The column `line` is added.
- A SELECT of `line`, `product_id`, `categories` (VARCHAR[][]: for each category the path to it),
  `image` and `left_out` (VARCHAR: NULL for a product, for other rows what they are).
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pyarrow as pa

from lookalike_build.tables.chunks import Chunk, Problem
from lookalike_build.tables.columns import STRINGS, Column
from lookalike_build.tables.csv import Dialect, misread
from lookalike_build.tables.error import TableError
from lookalike_build.tables.reader import Table, column_names, open_table

if TYPE_CHECKING:
    import duckdb

EXPORTS: Final = {path.stem: path for path in sorted((Path(__file__).parent / "exports").iterdir())}
"""The SQL files that come with Lookalike, by name."""
_COLUMNS = "SELECT column_name, NOT is_nullable FROM duckdb_columns() WHERE table_name = 'feed'"
# A category that is in several paths counts once; of a product's the deepest is taken.
_PRODUCTS = """
    SELECT line, product_id, path[coalesce(least($level, len(path)), len(path))] AS category_id, image,
        array_to_string(path[:coalesce($level, len(path))], ' > ') AS path, n_further
    FROM (
        SELECT *, list_transform(list_filter(paths, lambda path: len(path) = depth)[1],
            lambda part: trim(part)) AS path, greatest(len(paths) - 1, 0) AS n_further
        FROM (
            SELECT *, list_filter(categories, lambda path: path[-1] <> '') AS paths,
                list_max(list_transform(paths, lambda path: len(path))) AS depth
            FROM labelled WHERE left_out IS NULL))
"""


@dataclass(frozen=True)
class Export:
    """How an export is read: by the SQL file `mapping`, the category being part `level` of its path.

    Parts count from 1, at the top. None is the last one, as is a level that a path does not have.
    """

    mapping: Path
    level: int | None = None


class Products(NamedTuple):
    """The products of an export.

    `chunk` has their product_id, category_id and image, all text; `left_out` counts the other rows, and
    further categories, by what they are; `ambiguous` has the paths of each category that has several.
    """

    chunk: Chunk
    left_out: dict[str, int]
    ambiguous: dict[str, list[str]]


def recognised(path: Path, dialect: Dialect) -> str | None:
    """The name in `EXPORTS` of what a file is an export of; None if it is of none."""
    found = set(map(_key, column_names(path, dialect)))
    for name, mapping in EXPORTS.items():
        with _database(mapping) as (_, columns, _):
            if found.issuperset(_key(column) for column, required in columns.items() if required):
                return name
    return None


@contextmanager
def open_export(path: Path, export: Export, dialect: Dialect) -> Iterator[tuple[Table, Products]]:
    """The table of an export, for its errors, and its products.

    Raises TableError if it is no such export or has malformed rows, or if the mapping fails; OSError if
    it cannot be read.
    """
    with _database(export.mapping) as (database, columns, select):
        wanted = {_key(column): column for column in columns}
        names = {
            name: wanted[_key(name)] for name in column_names(path, dialect) if _key(name) in wanted
        }
        if missing := [
            name for name, required in columns.items() if required and name not in names.values()
        ]:
            problem = (
                f"is no export for {export.mapping.stem}: it has no column {', '.join(missing)}"
            )
            raise TableError(path, [problem])
        problems: list[Problem] = []
        with open_table(path, [Column(name, STRINGS) for name in names], dialect) as table:
            for chunk in table.chunks:
                problems += [*chunk.problems, *_misread(chunk, names)]
                if not problems:  # otherwise nothing comes of it
                    _insert(database, columns, list(names.values()), chunk)
        if problems:
            raise table.error(problems)
        with _reported(export.mapping):
            database.execute(f"CREATE TABLE labelled AS {select}")
            products = _products(database, export.level)
        yield table, products


def _misread(chunk: Chunk, names: Iterable[str]) -> Iterator[Problem]:
    """The texts that are not in the encoding of the file: these have no array."""
    for name, column, array in zip(names, chunk.columns, chunk.arrays(), strict=True):
        if not pa.types.is_null(array.type):
            continue
        for number, text in zip(chunk.numbers, column, strict=True):
            if isinstance(text, str) and (problem := misread(text)):
                yield number, f"{name} {problem}"


def _insert(
    database: "duckdb.DuckDBPyConnection", columns: dict[str, bool], names: list[str], chunk: Chunk
) -> None:
    found = dict(zip(names, chunk.arrays(), strict=True))
    empty = pa.array([""] * len(chunk.numbers), pa.string())
    texts = {name: found.get(name, empty).fill_null("") for name in columns}
    database.register("chunk", pa.table({**texts, "line": pa.array(chunk.numbers, pa.int64())}))
    database.execute("INSERT INTO feed BY NAME FROM chunk")
    database.unregister("chunk")


def _products(database: "duckdb.DuckDBPyConnection", level: int | None) -> Products:
    left_out: dict[str, int] = dict(
        database.execute(
            "SELECT left_out, count(*) FROM labelled WHERE left_out IS NOT NULL GROUP BY 1 ORDER BY 1"
        ).fetchall()
    )
    database.execute(f"CREATE TABLE product AS {_PRODUCTS}", {"level": level})
    ((n_further,),) = database.execute("SELECT sum(n_further)::BIGINT FROM product").fetchall()
    if n_further:
        left_out["further category"] = n_further
    ambiguous = database.execute(
        "SELECT category_id, list_sort(list(DISTINCT path)) FROM product "
        "GROUP BY category_id HAVING count(DISTINCT path) > 1 ORDER BY category_id"
    ).fetchall()
    rows = database.execute(
        "SELECT line, product_id, category_id, image FROM product ORDER BY line"
    ).to_arrow_table()
    line, *texts = (column.combine_chunks() for column in rows.columns)
    return Products(Chunk(line.to_pylist(), texts), left_out, dict(ambiguous))


@contextmanager
def _database(
    mapping: Path,
) -> "Iterator[tuple[duckdb.DuckDBPyConnection, dict[str, bool], str]]":
    """A database with the empty table of a mapping, its columns (whether required) and the SELECT."""
    import duckdb

    with duckdb.connect() as database:
        database.execute("SET python_enable_replacements = false")
        with _reported(mapping):
            statements = database.extract_statements(mapping.read_text(encoding="utf-8"))
            if len(statements) != 2:
                raise TableError(
                    mapping, ["must have two statements: CREATE TABLE feed and SELECT"]
                )
            database.execute(statements[0])
            columns = dict(database.execute(_COLUMNS).fetchall())
            database.execute("ALTER TABLE feed ADD COLUMN line BIGINT")
            yield database, columns, statements[1].query.rstrip().rstrip(";")


@contextmanager
def _reported(mapping: Path) -> Iterator[None]:
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise TableError(mapping, [str(error).splitlines()[0]]) from None


def _key(name: str) -> str:
    return re.sub("[ _]+", " ", name).casefold()
