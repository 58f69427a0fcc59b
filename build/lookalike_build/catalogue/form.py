"""What a file of rows is: Parquet, JSON Lines or CSV, by what it begins with."""

from pathlib import Path
from typing import Literal

from lookalike_build.catalogue.rows import CatalogueError

Form = Literal["parquet", "jsonl", "csv"]

_PARQUET_MAGIC = b"PAR1"
_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
_UNREAD = {
    b"\x1f\x8b": "is compressed by gzip; unpack it",
    b"BZh": "is compressed by bzip2; unpack it",
    b"\xfd7zXZ": "is compressed by xz; unpack it",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd; unpack it",
    b"PK\x03\x04": "is a spreadsheet or a ZIP archive; save it as CSV in UTF-8",
    b"\xff\xfe": "is in UTF-16; save it in UTF-8",
    b"\xfe\xff": "is in UTF-16; save it in UTF-8",
    b"SQLite format 3\0": "is an SQLite database; give a .sql file that attaches and queries it",
}
_START_BYTES = 4096


def form_of(path: Path) -> Form:
    """The form of a file; CatalogueError if it is of one that is not read."""
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
    if start.startswith(_PARQUET_MAGIC):
        return "parquet"
    for magic, problem in _UNREAD.items():
        if start.startswith(magic):
            raise CatalogueError(path, [problem])
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    json = path.suffix.lower() in _JSON_SUFFIXES
    if json and text.startswith(b"["):
        problem = (
            "is one JSON array; write it as JSON Lines, an object a line (jq -c '.[]' does it)"
        )
        raise CatalogueError(path, [problem])
    return "jsonl" if json or text.startswith(b"{") else "csv"
