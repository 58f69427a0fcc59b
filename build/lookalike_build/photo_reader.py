"""Photos' bytes."""

from pathlib import Path

from lookalike_build.photo import read_photo


class PhotoReader:
    """Reads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, image: str) -> bytes:
        """Read."""
        return read_photo(self._folder / image)
