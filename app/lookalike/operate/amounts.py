"""Bytes and seconds for people to read, in three digits with a unit."""

_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB"))
_SECONDS = ((86400.0, "days"), (3600.0, "h"), (60.0, "min"))


def bytes_text(n: float) -> str:
    """`n` bytes, such as ``1.56 GB`` (decimal, as disks are sold)."""
    for size, unit in _BYTES:
        if n >= 0.9995 * size:
            return f"{_three_digits(n / size)} {unit}"
    return f"{n:.0f} bytes"


def seconds_text(s: float) -> str:
    """`s` seconds, such as ``2.5 h``."""
    for size, unit in _SECONDS:
        if s >= 2 * size:
            return f"{_three_digits(s / size)} {unit}"
    return f"{_three_digits(s)} s"


def _three_digits(number: float) -> str:
    return f"{number:.3g}" if number < 99.95 else f"{number:.0f}"
