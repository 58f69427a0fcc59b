"""A record of the log is a line and what is indented below it, whatever a client has sent."""

import logging

from lookalike.serving.log import Lines


def test_nobody_writes_lines_or_terminal_escapes_of_their_own() -> None:
    sent = "x\r\nlookalike[1] ERROR forged\x1b[2J\x9b2J\u2028\u202e\x00 é"
    logger = logging.getLogger("test")
    try:
        raise ValueError(sent)
    except ValueError as error:
        given = (type(error), error, error.__traceback__)
        record = logger.makeRecord("test", logging.ERROR, "f", 1, "defect: %s", (sent,), given)
    text = Lines().format(record)
    first, *others = text.split("\n")
    assert first.startswith("lookalike[")
    assert first.endswith(r" ERROR defect: x\r")
    assert others[0] == r"    lookalike[1] ERROR forged\u001b[2J\u009b2J\u2028\u202e\u0000 é"
    assert "    Traceback (most recent call last):" in others
    assert [line for line in others if not line.startswith("    ")] == []
    assert [
        character for character in text if not (character.isprintable() or character == "\n")
    ] == []
