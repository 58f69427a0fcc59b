"""Files that are there whole or not at all, whatever happens while they are written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lookalike.release.root import named, sync


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write what is to be at `path`: at the end it comes there, on disk; on errors it goes.

    A link is followed; a pipe or a device is written to as it is. OSError names `path`.
    """
    if path.exists() and not path.is_file():
        with named(path):
            yield path
        return
    real = path.resolve()
    part = real.with_name(f".{real.name}.part")
    try:
        with named(path):
            yield part
        sync(part)
        part.replace(real)
        sync(real.parent)
    except OSError as error:
        if error.filename == str(part):
            error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)
