"""What searches may cost: the answers that no table holds, to a vector or to a limit beyond the table.

A look-up takes microseconds, a search milliseconds, and whatever a process does, the next request waits
for. So a request may take few searches, and all searches together a share of a process's time: what
is beyond that is refused at once, and look-ups go on.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from lookalike.serving.errors import TooManyRequests

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

GIVEN_UP_S: Final = 2.0
"""How long deploy/nginx waits for an answer: a search that has waited longer is for nobody."""
_CLOCKS_DIFFER_S: Final = 60.0
"""No request waits for so long: one that seems to has its time from a wrong clock."""
_SAVED_S: Final = 0.25
"""So much time may be saved up while there are no searches, and then be spent without a pause."""


class Searches:
    """The searches of one process: at most `most` a request, in `percent` of the process's time.

    `clock` gives seconds, from any start.
    """

    def __init__(
        self, most: int = 4, percent: int = 100, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.most = most
        self._share = percent / 100
        self._clock = clock
        self._saved_s = _SAVED_S
        self._counted_at = clock()

    @contextmanager
    def allowed(self, environ: "WSGIEnvironment") -> Iterator[None]:
        """Count the time within as spent on searches. Raises TooManyRequests if none is left.

        So it does where the request has waited for so long that nobody waits for its answer.
        """
        waited_s = _waited_s(environ)
        if GIVEN_UP_S < waited_s < _CLOCKS_DIFFER_S:
            raise TooManyRequests(
                f"the request waited for {waited_s:.1f} s before it was looked at"
            )
        started = self._clock()
        earned_s = self._share * (started - self._counted_at)
        self._saved_s = min(_SAVED_S, self._saved_s + earned_s)
        self._counted_at = started
        if self._saved_s <= 0 and self._share < 1:
            raise TooManyRequests(
                "searches (a vector, or a limit beyond the table) take all the time that they may; "
                "ask again later, or for no more than the table holds"
            )
        try:
            yield
        finally:
            self._saved_s -= self._clock() - started


def _waited_s(environ: "WSGIEnvironment") -> float:
    """How long ago the proxy on this host passed the request on; 0 where none says."""
    try:
        return time.time() - float(environ.get("HTTP_X_REQUEST_START", "").removeprefix("t="))
    except ValueError:
        return 0.0
