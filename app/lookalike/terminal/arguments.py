"""Command-line arguments that say what they may be when they are not."""

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from lookalike.terminal.output import printable


def parsed(parser: ArgumentParser, arguments: Sequence[str] | None) -> Namespace:
    """The options; exits with status 2 where an argument is not UTF-8: libraries take no such paths."""
    given = sys.argv[1:] if arguments is None else arguments
    for text in given:
        if not is_utf8(text):
            parser.error(f"an argument is not UTF-8: {text}; rename the file or folder")
    return parser.parse_args(given)


def is_utf8(text: str) -> bool:
    """Whether text, such as a file's name, has no bytes that were not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
