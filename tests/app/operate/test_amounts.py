"""Amounts for people: three digits and a fitting unit."""

import pytest

from lookalike.operate.amounts import bytes_text, seconds_text


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 KB"),
        (999_999, "1 MB"),
        (1_556_000_000, "1.56 GB"),
        (31.1e9, "31.1 GB"),
        (380e9, "380 GB"),
        (2.5e15, "2500 TB"),
    ],
)
def test_bytes(n: float, text: str) -> None:
    assert bytes_text(n) == text


@pytest.mark.parametrize(
    ("s", "text"),
    [
        (0.0316, "0.0316 s"),
        (90, "90 s"),
        (119, "119 s"),
        (180, "3 min"),
        (9000, "2.5 h"),
        (6e5, "6.94 days"),
    ],
)
def test_seconds(s: float, text: str) -> None:
    assert seconds_text(s) == text
