"""The source of the release that the app serves: follows the root's `current` in a thread."""

import logging
import resource
import threading
import time
from collections.abc import Callable
from weakref import ref

from lookalike.release.files import MANIFEST, ReleaseError
from lookalike.release.opened import Release
from lookalike.release.root import CURRENT, ReleaseRoot, RootError
from lookalike.serving.errors import NotReady
from lookalike.serving.limits import raise_limit
from lookalike.serving.metrics import Metrics
from lookalike.terminal.output import printable

logger = logging.getLogger(__name__)

POLL_S = 0.1
"""How often `current` is looked at: a new release is to be served within a second."""
RETRY_S = 10.0
"""How often a refused release is tried again: somebody may have repaired it."""


class ReleaseSource:
    """Holds the release to serve: the last `current` that passed its checks.

    Attributes: `release`, replaced by one assignment, so a request that reads it once sees one release;
    `problem`, why `current` is not served, or None; `metrics`, which counts both; `each_look`, what
    else to call at each look. With `lock_memory`, hot files are locked in memory.
    """

    def __init__(
        self, root: ReleaseRoot, metrics: Metrics | None = None, lock_memory: bool = False
    ) -> None:
        self.metrics = metrics or Metrics()
        self.release: Release | None = None
        self.problem: str | None = None
        self.each_look: list[Callable[[], None]] = []
        self._root = root
        self._lock_memory = lock_memory
        self._seen: tuple[object, ...] | None = None
        self._retry_at = 0.0

    def served(self, otherwise: str | None = "no release is open") -> Release:
        """The release; NotReady, for the reason `otherwise`, if none is open."""
        release = self.release
        if release is None:
            raise NotReady(otherwise)
        return release

    def start(self) -> None:
        """Look once, so that the first request is answered; then keep looking in a thread.

        The thread ends when the source is no longer used.
        """
        self.look()
        try:
            follow = threading.Thread(
                target=_follow, args=[ref(self)], name="lookalike-follow", daemon=True
            )
            follow.start()
        except RuntimeError as error:
            deaf = f"no release from now on is taken up: {error}; restart the app"
            self.problem = f"{self.problem}; {deaf}" if self.problem else deaf
            logger.error("%s", deaf)

    def look(self) -> None:
        """Take up `current` if it is new. Never raises: `problem` and the log say what is wrong.

        The slow parts of the metrics are measured here too, off the request path.
        """
        self._look_at_current()
        try:
            self.metrics.join()
            if self.release:
                self.metrics.measure(self.release)
            for each in self.each_look:
                each()
        except Exception:
            logger.exception("defect in what is done off the request path")

    def _look_at_current(self) -> None:
        seen = self._identity()
        waiting = self.problem is None or time.monotonic() < self._retry_at
        if seen == self._seen and waiting:
            return
        self._seen = seen
        try:
            self._take_up()
        except (ReleaseError, RootError, OSError) as error:
            self._refuse(str(error))
        except Exception as error:  # the thread must live on, to take up a repaired release
            logger.exception("defect while opening a release")
            self._refuse(f"{type(error).__name__}: {error}")

    def _identity(self) -> tuple[object, ...]:
        """A value that changes when `current` does; it takes three system calls."""
        link = self._root.path / CURRENT
        try:
            status = (link / MANIFEST).stat()
            # With the link's own inode: switching to the same release must have it opened again.
            return (link.readlink(), link.lstat().st_ino, status.st_ino, status.st_mtime_ns)
        except OSError as error:
            return (error.errno,)

    def _take_up(self) -> None:
        name = self._root.chosen()
        started = time.monotonic()
        release = self._root.open(name, self.release)
        if self._lock_memory:
            _lock(release)
        self.release, self.problem = release, None
        self.metrics.swapped()
        manifest = release.manifest
        logger.info(
            "serving release %s (products: %d, categories: %d), opened in %.2f s",
            *(name, manifest.n_items, len(manifest.categories), time.monotonic() - started),
        )

    def _refuse(self, reason: str) -> None:
        reason = printable(reason)
        self._retry_at = time.monotonic() + RETRY_S
        if reason != self.problem:
            served = self.release.manifest.release if self.release else "nothing"
            self.metrics.refused()
            logger.error("refused the current release: %s; still serving %s", reason, served)
        self.problem = reason


def _follow(source: "ref[ReleaseSource]") -> None:
    """Look again and again, as long as the source is used elsewhere."""
    while True:
        time.sleep(POLL_S)
        held = source()
        if held is None:
            return
        held.look()
        del held


def _lock(release: Release) -> None:
    limit = raise_limit(resource.RLIMIT_MEMLOCK)
    try:
        release.lock()
    except OSError as error:
        logger.error(
            "cannot lock the hot files in memory: %s; the limit is %s bytes, and twice the files' "
            "size is needed while a release changes: raise it (LimitMEMLOCK in systemd, ulimit -l)",
            *(error.strerror, limit),
        )


class NoSource(ReleaseSource):
    """Stands in for a source without a root: never ready, because of `problem`."""

    def __init__(self, problem: str, metrics: Metrics) -> None:
        self.metrics = metrics
        self.release = None
        self.each_look = []
        self.problem = printable(problem)
