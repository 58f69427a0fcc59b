"""Files that are there whole or not at all, whatever happens while they are written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lookalike.root import sync


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write what is to be at `path`: at the end it comes there, on disk; on errors it goes."""
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        sync(part)
        part.replace(path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)
