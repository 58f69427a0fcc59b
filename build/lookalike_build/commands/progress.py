"""Progress: a bar on a terminal, a plain line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from lookalike.terminal.output import complain

_LOG_EVERY_S = 10.0


@contextmanager
def progress(what: str, total: int, things: str = "products") -> Iterator[Callable[[int], None]]:
    """Show on standard error how much of `total` things is done; call what it gives with more."""
    if sys.stderr.isatty():
        with tqdm(total=total, desc=what, unit=f" {things}", smoothing=0.1) as bar:
            yield lambda n: bar.update(n) and None
        return
    started = shown = time.monotonic()
    done = 0

    def add(n: int) -> None:
        nonlocal done, shown
        done += n
        now = time.monotonic()
        if now - shown >= _LOG_EVERY_S or done == total:
            shown = now
            rate = done / max(now - started, 1e-9)
            left = (total - done) / rate if rate else 0
            complain(f"{what}: {done} of {total} {things}, {rate:.1f}/s, {left:.0f} s left")

    yield add
