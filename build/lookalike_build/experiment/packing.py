"""Compressed text, such as a rotated log: how it is packed, by what it begins with, and its text.

DuckDB reads gzip and zstd itself. What else Python or Arrow can read is unpacked first.
"""

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, Final, Literal, cast

import pyarrow as pa

from lookalike_build.tables.error import TableError

Packing = Literal["", "gzip", "zstd", "bzip2", "xz", "zip"]
"""How text is compressed; "" if it is not."""

BY_DUCKDB: Final = ("", "gzip", "zstd")
_MAGIC: Final[dict[bytes, Packing]] = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
}
_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
_UNREAD = {
    b"\x04\x22\x4d\x18": "is compressed by lz4",
    b"\x1f\x9d": "is compressed by compress",
    b"7z\xbc\xaf\x27\x1c": "is a 7-Zip archive",
    b"Rar!": "is a RAR archive",
    b"LZIP": "is compressed by lzip",
}
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", 257
_WAY_OUT = "unpack it, or leave it out"


def packing_of(path: Path) -> Packing:
    """How a file is packed; TableError, which says what to do, if nothing here reads that."""
    with path.open("rb") as file:
        start = file.read(8)
    for magic, problem in _UNREAD.items():
        if start.startswith(magic):
            raise TableError(path, [f"{problem}; {_WAY_OUT}"])
    # A spreadsheet is a ZIP archive of several files.
    if start.startswith(_ZIP_MAGIC) and path.suffix.lower() == ".zip":
        return "zip"
    return next((packing for magic, packing in _MAGIC.items() if start.startswith(magic)), "")


def check_one(path: Path, start: bytes) -> None:
    """TableError if what the unpacked file begins with is an archive of files."""
    if start.startswith(_TAR_MAGIC, _TAR_MAGIC_AT):
        raise TableError(path, [f"is a tar archive; {_WAY_OUT}"])


def check_text(path: Path, start: bytes) -> None:
    """TableError if what the unpacked file begins with is no text."""
    if b"\0" in start:
        raise TableError(path, ["is neither text nor Parquet; leave it out"])


@contextmanager
def unpacked(path: Path, packing: Packing) -> Iterator[IO[bytes]]:
    """The text of a file; TableError, in the block too, if it is damaged or cut short."""
    try:
        with ExitStack() as stack:
            yield stack.enter_context(_opened(path, packing, stack))
    # RuntimeError is a ZIP archive with a password, NotImplementedError a rare method in it.
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError) as error:
        raise _damaged(path, packing, error) from None
    except OSError as error:
        if error.errno is not None:  # of the file system, not of the text
            raise
        raise _damaged(path, packing, error) from None


def _damaged(path: Path, packing: Packing, error: Exception) -> TableError:
    return TableError(path, [f"cannot be read as {packing}: {error}; leave it out, or repair it"])


def _opened(path: Path, packing: Packing, stack: ExitStack) -> IO[bytes]:
    if packing == "gzip":
        return cast(IO[bytes], gzip.open(path))
    if packing == "bzip2":
        return bz2.open(path)
    if packing == "xz":
        return lzma.open(path)
    if packing == "zstd":
        return BufferedReader(pa.input_stream(path, compression="zstd"))
    if packing == "zip":
        archive = stack.enter_context(zipfile.ZipFile(path))
        names = [each.filename for each in archive.infolist() if not each.is_dir()]
        if len(names) != 1:
            problem = f"holds {len(names)} files ({', '.join(names)[:200]}), expected one"
            raise TableError(path, [f"{problem}; {_WAY_OUT}"])
        return archive.open(names[0])
    return path.open("rb")
