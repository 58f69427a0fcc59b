"""SQL: a file of statements that DuckDB runs; the rows of the last one are the table.

The statements before it may attach SQLite, PostgreSQL or MySQL databases; DuckDB fetches the extensions
for that itself. They run in a database in memory, in the file's folder: relative paths in them are
relative to it.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lookalike.terminal.install import install
from lookalike_build.tables import chunks
from lookalike_build.tables.columns import Column, check_names, check_types
from lookalike_build.tables.error import TableError
from lookalike_build.tables.guesses import Guesses

if TYPE_CHECKING:
    import duckdb

_MAX_MESSAGE = 400
_SECRET = re.compile(r"pass?w|pwd|secret|token|sig(nature)?=|://\S*@", re.IGNORECASE)


def read(path: Path, columns: Sequence[Column]) -> chunks.Chunks:
    """The chunks of the last statement's result.

    TableError has what DuckDB says of a statement, without the passwords in it.
    """
    try:
        import duckdb
    except ModuleNotFoundError:
        problem = f"needs duckdb, which is missing; {install('build')}"
        raise TableError(path, [problem]) from None
    try:
        script = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise TableError(path, ["is not UTF-8"]) from None
    # DuckDB's own setting for this, file_search_path, does not go for ATTACH.
    with chdir(path.parent), duckdb.connect() as connection:
        # A name in the SQL is never a variable of this program.
        connection.execute("SET python_enable_replacements = false")
        statements = _statements(path, script, connection)
        guesses = Guesses(connection)
        for number, statement in enumerate(statements, 1):
            with _reported(path, connection, number, statement):
                if guess := guesses.problem(statement):
                    raise TableError(path, [f"statement {number}: {guess}"])
                connection.execute(statement)
                if number == len(statements):
                    yield from _result(path, connection, columns)


def _statements(
    path: Path, script: str, connection: "duckdb.DuckDBPyConnection"
) -> "Sequence[duckdb.Statement]":
    import duckdb

    try:
        statements = connection.extract_statements(script)
    except duckdb.Error as error:
        line = re.search(r"^LINE (\d+):", str(error), re.MULTILINE)
        where = f"line {line[1]}" if line else "cannot be read as SQL"
        raise TableError(path, [f"{where}: {_message(error, script)}"]) from None
    rows = [duckdb.ExpectedResultType.QUERY_RESULT]
    if not statements or statements[-1].expected_result_type != rows:
        raise TableError(path, ["its last statement gives no rows; end it with a SELECT"])
    return statements


@contextmanager
def _reported(
    path: Path, connection: "duckdb.DuckDBPyConnection", number: int, statement: "duckdb.Statement"
) -> Iterator[None]:
    """Raise as TableError what goes wrong with a statement."""
    import duckdb

    try:
        yield
    # What Arrow says of a result that is read piece by piece is an OSError.
    except (duckdb.Error, OSError) as error:
        problem = f"statement {number}: {_message(error, statement.query)}"
        raise TableError(path, [problem]) from None
    except RuntimeError:
        # Ctrl-C. Unless the query is interrupted too, it goes on and closing waits for its end.
        connection.interrupt()
        raise KeyboardInterrupt from None


def _result(
    path: Path, connection: "duckdb.DuckDBPyConnection", columns: Sequence[Column]
) -> chunks.Chunks:
    with connection.to_arrow_reader(chunks.ROWS) as reader:
        found = reader.schema.names
        given = textwrap.shorten(", ".join(found), _MAX_MESSAGE, placeholder=" …")
        has, more = "its last statement gives", f", expected one; it gives {given}"
        check_names(path, found, columns, has, more)
        check_types(path, reader.schema, columns)
        yield from chunks.of_batches(reader, columns)


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
