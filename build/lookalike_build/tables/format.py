"""Which format a table has: SQL by its name, otherwise by what it begins with."""

import re
from pathlib import Path
from typing import Literal

from lookalike_build.tables.error import TableError

Format = Literal["csv", "jsonl", "parquet", "sql", "xml"]

START_BYTES = 4096
"""How much of a file `format_by_start` looks at."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PARQUET_MAGIC = b"PAR1"
_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
_UNREAD = {
    b"\x1f\x8b": "is compressed by gzip; unpack it",
    b"BZh": "is compressed by bzip2; unpack it",
    b"\xfd7zXZ": "is compressed by xz; unpack it",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd; unpack it",
    b"PK\x03\x04": "is a spreadsheet or a ZIP archive; save it as CSV in UTF-8",
    b"SQLite format 3\0": "is an SQLite database; give a .sql file that attaches and queries it",
}


def utf_16(start: bytes) -> str | None:
    """The codec of a text in UTF-16, by its byte order mark or the zero bytes of its first letters."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    codecs = {rb"([^\0]\0){4}": "utf-16-le", rb"(\0[^\0]){4}": "utf-16-be"}
    return next((codec for ascii, codec in codecs.items() if re.match(ascii, start)), None)


def format_of(path: Path) -> Format:
    """The format of a file; TableError if it is one that is not read."""
    if path.suffix.lower() == ".sql":
        return "sql"
    with path.open("rb") as file:
        return format_by_start(path, file.read(START_BYTES))


def format_by_start(path: Path, start: bytes) -> Format:
    """The format of a file that begins with `start`; TableError if it is one that is not read."""
    if start.startswith(_PARQUET_MAGIC):
        return "parquet"
    for magic, problem in _UNREAD.items():
        if start.startswith(magic):
            raise TableError(path, [problem])
    is_json = path.suffix.lower() in _JSON_SUFFIXES
    if utf_16(start):
        if is_json:
            raise TableError(path, ["is in UTF-16; save it in UTF-8"])
        return "csv"
    text = start.removeprefix(BYTE_ORDER_MARK).lstrip()
    if text.startswith(b"<"):
        return "xml"
    if not (is_json or re.match(rb"\[?\s*\{", text)):
        return "csv"
    if text.startswith(b"["):
        problem = (
            "is one JSON array; write it as JSON Lines, an object a line (jq -c '.[]' does it)"
        )
        raise TableError(path, [problem])
    return "jsonl"
