"""Command-line arguments that say what they may be when they are not."""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from lookalike.output import printable


class Parser(ArgumentParser):
    """A parser whose errors are one line, whatever the arguments hold."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and the message."""
        super().error(printable(message))


def url(text: str) -> str:
    """An argparse type: where something is served over HTTP."""
    if text.startswith(("http://", "https://")):
        return text
    raise ArgumentTypeError(f'must begin with http://, not "{text:.40}"')


def share(text: str) -> float:
    """An argparse type: a percentage, as a share from 0 to 1."""
    with suppress(ValueError):
        if 0 <= float(text) <= 100:
            return float(text) / 100
    raise ArgumentTypeError(f'must be a number from 0 to 100, not "{text:.40}"')


def whole_number(least: int, most: int = 2**31 - 1) -> Callable[[str], int]:
    """An argparse type: a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) <= 10 and least <= int(text) <= most:
            return int(text)
        raise ArgumentTypeError(f'must be a whole number from {least} to {most}, not "{text:.40}"')

    return parse


port = whole_number(1, 65535)
