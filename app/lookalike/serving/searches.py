"""Bounds the time of searches: answers to a vector, or to a limit or conditions beyond the table.

A look-up takes microseconds, a search milliseconds, and the next request waits for it. So one request
may take only a few searches, and all searches only a percentage of a process's time. Further ones are
refused at once, and look-ups go on.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from lookalike.serving.errors import TooManyRequests

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

GIVEN_UP_S: Final = 2.0
"""How long deploy/nginx waits for an answer: nobody waits for a search that begins later."""
_CLOCKS_DIFFER_S: Final = 60.0
"""No request waits for so long: if one seems to, the proxy's clock is wrong."""
_SAVED_S: Final = 0.25
"""How much time may be saved up while there are no searches, to be spent without a pause."""


class Searches:
    """The searches of one process: `max_per_request`, and `percent` of all time by `clock` (s).

    `count` is called for each.
    """

    def __init__(
        self,
        max_per_request: int = 4,
        percent: int = 100,
        clock: Callable[[], float] = time.perf_counter,
        count: Callable[[], object] = lambda: None,
    ) -> None:
        self.max_per_request = max_per_request
        self._fraction = percent / 100
        self._clock = clock
        self._count = count
        self._saved_s = _SAVED_S
        self._counted_at = clock()

    @contextmanager
    def allowed(self, environ: "WSGIEnvironment") -> Iterator[None]:
        """Count the time of the `with` block as spent on searches; TooManyRequests if none is left.

        Also raises TooManyRequests if the request is so late that nobody waits for its answer.
        """
        waited_s = _waited_s(environ)
        if GIVEN_UP_S < waited_s < _CLOCKS_DIFFER_S:
            raise TooManyRequests(
                f"the request waited for {waited_s:.1f} s before it was looked at"
            )
        started = self._clock()
        earned_s = self._fraction * (started - self._counted_at)
        self._saved_s = min(_SAVED_S, self._saved_s + earned_s)
        self._counted_at = started
        if self._saved_s <= 0 and self._fraction < 1:
            raise TooManyRequests(
                "searches (a vector, or a limit or conditions beyond the table) take all the time that "
                "they may; ask again later, or for no more than the table holds"
            )
        self._count()
        try:
            yield
        finally:
            self._saved_s -= self._clock() - started


def _waited_s(environ: "WSGIEnvironment") -> float:
    """How long ago the proxy on this host passed the request on; 0 if it does not say."""
    try:
        return time.time() - float(environ.get("HTTP_X_REQUEST_START", "").removeprefix("t="))
    except ValueError:
        return 0.0
