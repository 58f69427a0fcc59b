"""The embedded WSGI server, for where there is no NGINX Unit: the same callable under granian."""

import os
from pathlib import Path

from lookalike.settings import ROOT


class ServerMissing(Exception):  # noqa: N818
    """granian is not installed; the text says how to get it."""


def serve(root: Path, host: str, port: int, workers: int) -> None:
    """Serve the release root on http://host:port with `workers` processes until SIGINT or SIGTERM."""
    try:
        from granian import Granian
        from granian.constants import Interfaces
    except ImportError:
        raise ServerMissing("granian is missing; run: pip install 'lookalike[serve]'") from None
    # The workers import lookalike.wsgi, which reads its settings from the environment.
    os.environ[ROOT.name] = str(root)
    Granian(
        "lookalike.wsgi:application",
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        workers=workers,
        blocking_threads=1,  # a request never waits for anything
        websockets=False,
        respawn_failed_workers=True,
        log_access=False,
    ).serve()
