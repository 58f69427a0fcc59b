"""The embedded WSGI server, for hosts without NGINX Unit: granian with the same application."""

import os
import socket
from pathlib import Path

from lookalike.errors import LookalikeError
from lookalike.serving.settings import ROOT
from lookalike.terminal.install import install


class ServerError(LookalikeError):
    """The embedded server cannot run; the text says why and what to do."""


PHOTOS = "/photos"
_MAX_REQUESTS = 10_000
"""How many requests a worker has at once, with those that still wait for their bodies."""


def serve(root: Path, host: str, port: int, workers: int, photos: Path | None = None) -> None:
    """Serve the release root on http://host:port with `workers` processes until SIGINT or SIGTERM.

    The files in the folder `photos` are served under ``/photos/``, for the page ``/browse``.
    """
    try:
        from granian import Granian
        from granian.constants import HTTPModes, Interfaces
    except ImportError:
        raise ServerError(f"granian is missing; {install('serve')}") from None
    address = check_address(host, port)
    if photos is not None and not photos.is_dir():
        raise ServerError(f"--photos {photos}: no such folder")
    # The workers read their settings from the environment, in lookalike.wsgi.
    os.environ[ROOT.name] = str(root)
    Granian(
        "lookalike.embedded:application",
        address=address,
        port=port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        workers=workers,
        backpressure=_MAX_REQUESTS,
        websockets=False,
        respawn_failed_workers=True,
        # A worker may miss the signal to stop while it starts; granian would wait for it forever.
        workers_kill_timeout=5,
        log_access=False,
        static_path_route=[PHOTOS] if photos else None,
        static_path_mount=[photos] if photos else None,
    ).serve()


def check_address(host: str, port: int) -> str:
    """The IP address of `host`; ServerError if nothing can listen on host:port."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Without SO_REUSEPORT, by which workers share a port, another server is noticed.
            probe.bind(address)
            return str(address[0])
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ServerError(f"cannot listen on {host}:{port}: {reason}; choose another") from error
