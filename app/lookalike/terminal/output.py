"""What the commands print: lines that a terminal shows and does not obey, whoever's text is in them."""

import json
import os
import sys
from contextlib import suppress
from typing import TextIO


def printable(text: str) -> str:
    r"""`text` with every character that is not printable escaped as in JSON, such as ``\u202e``.

    These are control characters, those that set a direction or are invisible, and bytes of a file's
    name that are not UTF-8. A JSON document without line breaks keeps its value.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def is_utf8(text: str) -> bool:
    """Whether text, such as a file's name, has no bytes that were not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def say(*lines: str) -> None:
    """Print lines to standard output; OSError names it where they cannot be written."""
    try:
        _print(sys.stdout, lines)
    except OSError as error:
        # What is left in its buffer would fail once more when Python ends.
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
        error.filename = "standard output"
        raise


def say_json(document: object) -> None:
    """Print a document, of anything that msgspec encodes, as indented JSON."""
    import msgspec  # not at the top: the app's log must work without it

    say(*msgspec.json.format(msgspec.json.encode(document)).decode().split("\n"))


def complain(*lines: str) -> None:
    """Print lines to standard error. Where that is not possible, work goes on without them."""
    with suppress(OSError):
        _print(sys.stderr, lines)


def _print(file: TextIO, lines: tuple[str, ...]) -> None:
    text = "".join(f"{printable(line)}\n" for line in lines)
    # A character that the locale does not have is no reason to fail.
    encoding = file.encoding or "utf-8"
    file.write(text.encode(encoding, "backslashreplace").decode(encoding))
    file.flush()
