"""Texts and names as SQL of DuckDB has them."""


def literal(text: str) -> str:
    """SQL of a text."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """SQL of the name of a column."""
    return '"' + name.replace('"', '""') + '"'
