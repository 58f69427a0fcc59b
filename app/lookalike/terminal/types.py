"""Types of command-line arguments: a value that is refused is answered with what it may be."""

from contextlib import suppress
from pathlib import Path

import click
from click.shell_completion import CompletionItem


class PathType(click.ParamType[Path, str]):
    """The path of a file or a folder, which a shell completes; with `exists` it must be there."""

    def __init__(self, name: str, exists: bool = False) -> None:
        self.name = name
        self._exists = exists

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path."""
        path = Path(value)
        if self._exists and not (path.is_file() if self.name == "file" else path.is_dir()):
            raise click.BadParameter(f"no such {self.name}: {value}", ctx, param)
        return path

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Have the shell complete it."""
        return [CompletionItem(incomplete, type="file" if self.name == "file" else "dir")]


FILE, FOLDER = PathType("file"), PathType("folder")
PRESENT_FILE, PRESENT_FOLDER = PathType("file", exists=True), PathType("folder", exists=True)


class WholeNumber(click.ParamType[int, str | int]):
    """A whole number from `least` to `most`."""

    name = "n"

    def __init__(self, least: int, most: int = 2**31 - 1) -> None:
        self._least, self._most = least, most

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """The number."""
        text = str(value)
        plain = text.isascii() and text.isdigit() and len(text) <= 10
        if plain and self._least <= int(text) <= self._most:
            return int(text)
        allowed = f"a whole number from {self._least} to {self._most}"
        raise click.BadParameter(f'must be {allowed}, not "{text:.40}"', ctx, param)


class Number(click.ParamType[float, str | float]):
    """A number from `least` to `most`."""

    name = "number"

    def __init__(self, least: float, most: float) -> None:
        self._least, self._most = least, most

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number."""
        with suppress(ValueError):
            if self._least <= float(value) <= self._most:
                return float(value)
        allowed = f"a number from {self._least:g} to {self._most:g}"
        raise click.BadParameter(f'must be {allowed}, not "{value!s:.40}"', ctx, param)


def url(text: str) -> str:
    """Where something is served over HTTP."""
    if text.startswith(("http://", "https://")):
        return text
    raise click.BadParameter(f'must begin with http://, not "{text:.40}"')


def percentage(text: str) -> float:
    """A percentage from 0 to 100, as a number from 0 to 1."""
    return Number(0, 100).convert(text, None, None) / 100
