"""The demo's server: a private NGINX Unit if that is installed, otherwise the embedded server."""

import os
import signal
import sys
import tempfile
from pathlib import Path

from lookalike.operate.serve import PHOTOS, serve
from lookalike.operate.unit.config import APPLICATION, configuration
from lookalike.operate.unit.control import UnitError
from lookalike.operate.unit.private import PrivateUnit, find_unitd
from lookalike.serving.settings import BROWSE, IMAGE_URL
from lookalike.terminal.output import complain, say

_SETTINGS = {BROWSE.name: "true", IMAGE_URL.name: f"{PHOTOS}/{{product_id}}"}


def serve_demo(unit_config: Path, address: tuple[str, int], root: Path, photos: Path) -> None:
    """Serve the release and the photos until SIGINT or SIGTERM, on NGINX Unit if it is installed."""
    unitd = find_unitd()
    if unitd is not None:
        try:
            _serve_on_unit(unitd, unit_config, "{}:{}".format(*address), root, photos)
            return
        except UnitError as error:
            complain(f"not on NGINX Unit: {error}")
    else:
        say("NGINX Unit is not installed; serving on the embedded server.")
    os.environ |= _SETTINGS
    serve(root, *address, workers=2, photos=photos)


def _serve_on_unit(unitd: str, unit_config: Path, listen: str, root: Path, photos: Path) -> None:
    config = configuration(unit_config, home=Path(sys.prefix), root=root, listen=[listen])
    config["applications"][APPLICATION]["environment"] |= _SETTINGS
    # Unit serves the photos itself.
    listener = config["listeners"][listen]
    config["routes"] = [
        {"match": {"uri": f"{PHOTOS}/*"}, "action": {"share": f"{photos.parent}$uri"}},
        {"action": {"pass": listener["pass"]}},
    ]
    listener |= {"pass": "routes"}
    # `kill` stops the demo as Ctrl-C does, so that it stops Unit.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A short name: the path of a control socket must fit in about a hundred bytes.
    with (
        tempfile.TemporaryDirectory(prefix="lookalike-") as folder,
        PrivateUnit(unitd, Path(folder)) as unit,
    ):
        unit.control.check_python(config["applications"][APPLICATION])
        unit.control.configure(config)
        say("Serving on NGINX Unit.")
        try:
            unit.process.wait()
        except KeyboardInterrupt:
            say("")
