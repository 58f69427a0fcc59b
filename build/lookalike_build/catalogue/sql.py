"""A catalogue from a database: a file of SQL statements that DuckDB runs.

The rows of the last statement are the catalogue. The statements before it may attach SQLite,
PostgreSQL or MySQL databases; DuckDB fetches the extensions for that itself. They run in a database
in memory, in the file's folder: that is what relative paths in them are relative to.
"""

import re
import textwrap
from collections.abc import Callable, Sequence
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa

from lookalike.terminal.install import install
from lookalike_build.catalogue.rows import CatalogueError, ColumnNames, typed_rows

if TYPE_CHECKING:
    import duckdb

Taken = TypeVar("Taken")

_MAX_MESSAGE = 400
_SECRET = re.compile(r"pass?w|pwd|secret|token|sig(nature)?=|://\S*@", re.IGNORECASE)


def read_sql(path: Path, names: ColumnNames) -> pa.Table:
    """The rows as `typed_rows` gives them; CatalogueError names every unfit row, or what DuckDB
    says of a statement, without the passwords in it."""
    table = run_sql(path, lambda connection: connection.to_arrow_table())
    check_columns(path, table.column_names, names)
    return typed_rows(path, table, names)


def run_sql(path: Path, take: "Callable[[duckdb.DuckDBPyConnection], Taken]") -> Taken:
    """What `take` makes of the result of the last statement, after all that stand before it.

    CatalogueError has what DuckDB says of a statement, without the passwords in it.
    """
    try:
        import duckdb
    except ModuleNotFoundError:
        problem = f"needs duckdb, which is missing; {install('build')}"
        raise CatalogueError(path, [problem]) from None
    try:
        script = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise CatalogueError(path, ["is not UTF-8"]) from None
    # DuckDB's own setting for this, file_search_path, does not go for ATTACH.
    with chdir(path.parent), duckdb.connect() as connection:
        # A name in the SQL is never a variable of this program.
        connection.execute("SET python_enable_replacements = false")
        return _run(path, script, connection, take)


def _run(
    path: Path,
    script: str,
    connection: "duckdb.DuckDBPyConnection",
    take: "Callable[[duckdb.DuckDBPyConnection], Taken]",
) -> Taken:
    import duckdb

    try:
        statements = connection.extract_statements(script)
    except duckdb.Error as error:
        line = re.search(r"^LINE (\d+):", str(error), re.MULTILINE)
        where = f"line {line[1]}" if line else "cannot be read as SQL"
        raise CatalogueError(path, [f"{where}: {_message(error, script)}"]) from None
    rows = [duckdb.ExpectedResultType.QUERY_RESULT]
    if not statements or statements[-1].expected_result_type != rows:
        raise CatalogueError(path, ["its last statement gives no rows; end it with a SELECT"])
    for number, statement in enumerate(statements, 1):
        try:
            connection.execute(statement)
            if number == len(statements):
                taken = take(connection)
        # What Arrow says of a result that is read piece by piece is an OSError.
        except (duckdb.Error, OSError) as error:
            problem = f"statement {number}: {_message(error, statement.query)}"
            raise CatalogueError(path, [problem]) from None
        except RuntimeError:
            # Ctrl-C. Unless told so too, the query goes on and closing waits for its end.
            connection.interrupt()
            raise KeyboardInterrupt from None
    return taken


def _message(error: Exception, sql: str) -> str:
    """What DuckDB says of `sql`, in one line, without the passwords that `sql` may hold."""
    paragraph = _without_secrets(str(error), sql).strip().split("\n\n")[0]
    return textwrap.shorten(paragraph, _MAX_MESSAGE, placeholder=" …")


def _without_secrets(message: str, sql: str) -> str:
    # DuckDB repeats the connection string, and libpq what it takes a password for: a host, a port.
    if not _SECRET.search(sql):
        return message
    plain = sql.replace("''", "'")
    for literal in re.findall(r"'((?:[^']|'')+)'", sql):
        if _SECRET.search(literal):
            message = message.replace(literal.replace("''", "'"), "…")

    def hidden(quoted: re.Match[str]) -> str:
        return '"…"' if quoted[1] in plain or "@" in quoted[1] else quoted[0]

    return re.sub(r'"([^"]+)"', hidden, message)


def check_columns(path: Path, found: list[str], names: Sequence[str]) -> None:
    """CatalogueError unless each of the columns is among those found, once."""
    problems = [
        f"its last statement gives {found.count(name) or 'no'} column {name}, expected one; "
        f"it gives {textwrap.shorten(', '.join(found), _MAX_MESSAGE, placeholder=' …')}"
        for name in names
        if found.count(name) != 1
    ]
    if problems:
        raise CatalogueError(path, problems)
