"""``lookalike serve``: the embedded server."""

import os
from pathlib import Path

from lookalike.operate import options, server
from lookalike.terminal.command import command, option
from lookalike.terminal.types import FOLDER, WholeNumber


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
    server.serve(root, host, port, workers, photos)
