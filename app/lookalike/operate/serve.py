"""``lookalike serve``: the embedded server, for hosts without NGINX Unit. Granian runs the same app."""

import os
import socket
from pathlib import Path

from lookalike.errors import LookalikeError
from lookalike.operate import options
from lookalike.serving.settings import ROOT
from lookalike.terminal.command import command, option
from lookalike.terminal.install import install
from lookalike.terminal.types import FOLDER, WholeNumber

PHOTOS = "/photos"
_MAX_REQUESTS = 10_000
"""How many requests a worker has at once, with those that still wait for their bodies."""


class ServerError(LookalikeError):
    """The embedded server cannot run; the text says why and what to do."""


@command("lookalike serve --root /var/lib/lookalike --port 8080")
@options.root()
@option("--host", str, "127.0.0.1", "address to listen on")
@option("--port", WholeNumber(1, 65535), 8080, "port to listen on")
@option("--workers", WholeNumber(1, 1024), os.cpu_count() or 1, "processes")
@option(
    "--photos",
    FOLDER,
    None,
    "serve the files in it at /photos/, for the page /browse (see LOOKALIKE_IMAGE_URL)",
)
def run(root: Path, host: str, port: int, workers: int, photos: Path | None) -> None:
    """Serve on the embedded WSGI server, where there is no NGINX Unit."""
    serve(root, host, port, workers, photos)


def serve(root: Path, host: str, port: int, workers: int, photos: Path | None = None) -> None:
    """Serve the release root, and the folder `photos`, on http://host:port until SIGINT or SIGTERM."""
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
