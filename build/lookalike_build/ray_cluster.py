"""Ray, connected for as long as it is needed; it is imported only then."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from lookalike.errors import LookalikeError
from lookalike.terminal.install import install

_ANSWER_S = 10.0
_LOCAL = "local"


class ClusterError(LookalikeError):
    """Ray is not there to be used; the text says what to do."""


@contextmanager
def ray_cluster(address: str | None) -> Iterator[None]:
    """Have this process connected to the Ray cluster at `address`, as ``ray.init`` takes it.

    With None it is the cluster that the environment variable ``RAY_ADDRESS`` names, else a Ray of this
    machine alone, started here and ended with the context. ``import ray`` within. Tasks find their
    modules and files where this process does, on each machine. Raises ClusterError.
    """
    # Nothing is reported to the makers of Ray.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise ClusterError(f"ray is missing; {install('ray')}") from None
    address = address or os.environ.get("RAY_ADDRESS") or _LOCAL
    _expect_answer(address)
    try:
        # What goes wrong comes out as exceptions; the rest of Ray's lines are in its own log files.
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    # SystemExit: Ray's core ends the process where what answers is no Ray. Exception: where its own
    # start takes longer than it waits, Ray raises just that.
    except (Exception, SystemExit) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ClusterError(f"Ray at {address} cannot be used: {reason}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _expect_answer(address: str) -> None:
    """ClusterError where nothing listens at host:port: Ray itself would try for two minutes."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        if parts.hostname and parts.port:
            socket.create_connection((parts.hostname, parts.port), _ANSWER_S).close()
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"no Ray answers at {address} ({error}); give the host:port of the cluster's head, "
            "or none to run on this machine alone"
        ) from error
