"""Guesses: the types that DuckDB takes from the first rows of a CSV file, checked in all of them.

DuckDB reads a column as whole numbers if the first 20,480 rows allow it, and then 00042 as 42 and 12.7
as 13, which as ids are other products.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from lookalike_build.tables.quoting import identifier, literal

if TYPE_CHECKING:
    import duckdb

_WITH_PLAN: Final = ("SELECT", "CREATE", "INSERT")
_NAME = r"""'((?:[^']|'')+)'|"((?:[^"]|"")+)\""""
_CALL: Final = re.compile(rf"read_csv(?:_auto)?\s*\(\s*(?:{_NAME})([^)]*)", re.IGNORECASE)
_FILE: Final = re.compile(r"\.(csv|tsv|txt)(\.gz|\.zst)?$", re.IGNORECASE)
_TYPED: Final = re.compile(r"\b(all_varchar|types|dtypes|column_types|columns)\b", re.IGNORECASE)


class Guesses:
    """Checks the statements of a script on `connection`, each before it is run."""

    def __init__(self, connection: "duckdb.DuckDBPyConnection") -> None:
        self._connection = connection
        self._files: dict[str, None] = {}

    def problem(self, statement: "duckdb.Statement") -> str | None:
        """A value that the statement would read as another number, and what to do, or None."""
        import duckdb

        sql = statement.query
        self._files |= dict.fromkeys(_guessed_files(sql))
        if statement.type.name not in _WITH_PLAN or not self._files:
            return None
        try:
            ((_, plan),) = self._connection.execute(f"EXPLAIN (FORMAT json) {sql}").fetchall()
            columns = set(_scanned(msgspec.json.decode(plan)))
            found = (self._changed(file, columns) for file in self._files)
            return next(filter(None, found), None)
        except duckdb.Error:
            return None  # running it says what is wrong

    def _changed(self, file: str, scanned: set[str]) -> str | None:
        guess = "SELECT Columns, Prompt FROM sniff_csv($file)"
        ((columns, read),) = self._connection.execute(guess, {"file": file}).fetchall()
        texts = ", ".join(f"{literal(each['name'])}: 'VARCHAR'" for each in columns)
        as_text = re.sub(r"columns=\{.*\}", lambda _: f"columns={{{texts}}}", read.rstrip("; \n"))
        for name in (each["name"] for each in columns if each["type"] == "BIGINT"):
            if name not in scanned:
                continue
            column = identifier(name)
            row = self._connection.execute(
                f"SELECT * FROM (SELECT row_number() OVER () AS row, trim({column}) AS value "  # noqa: S608
                f"FROM ({as_text})) WHERE value <> '' "
                "AND TRY_CAST(value AS BIGINT)::VARCHAR IS DISTINCT FROM value ORDER BY row LIMIT 1"
            ).fetchone()
            if row:
                return (
                    f"{file}: row {row[0]}: {name} {row[1]} would be read as a whole number; write "
                    f"read_csv({literal(file)}, all_varchar = true)"
                )
        return None


def _guessed_files(sql: str) -> Iterator[str]:
    """The CSV files in a statement whose types it leaves to DuckDB."""
    typed = set()
    for call in _CALL.finditer(sql):
        name = _unquoted(call[1], call[2])
        if _TYPED.search(call[3]):
            typed.add(name)
        else:
            yield name
    for quoted in re.finditer(_NAME, sql):
        name = _unquoted(quoted[1], quoted[2])
        if _FILE.search(name) and name not in typed:
            yield name


def _scanned(plan: object) -> Iterator[str]:
    """The columns that the scans of CSV files in a plan give."""
    if isinstance(plan, list):
        for each in plan:
            yield from _scanned(each)
    elif isinstance(plan, dict):
        if plan["name"].strip().startswith("READ_CSV"):
            columns = plan["extra_info"].get("Projections", [])
            yield from [columns] if isinstance(columns, str) else columns
        yield from _scanned(plan["children"])


def _unquoted(text: str | None, name: str | None) -> str:
    return text.replace("''", "'") if text else (name or "").replace('""', '"')
