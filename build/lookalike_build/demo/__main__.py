"""The demo behind ``make demo``: draw, extract, index, show some answers and serve."""

import csv
import subprocess
import sys
from pathlib import Path

from lookalike.errors import LookalikeError
from lookalike.operate.serve import ServerError, check_address
from lookalike.release.ids import Id
from lookalike.release.opened import Release
from lookalike.release.root import open_release
from lookalike.serving.browse.handler import BROWSE_PATH
from lookalike.terminal.command import call, command, option
from lookalike.terminal.output import say
from lookalike.terminal.types import FILE, FOLDER, WholeNumber
from lookalike_build.demo.server import serve_demo

_HOST = "127.0.0.1"
_SHOWN = 6
_LIMIT = 10

Families = dict[Id, tuple[str, str]]
"""The names of each product's category and family."""


@command("make demo PORT=8080", name="make demo")
@option("--folder", FOLDER, ".demo", "where all is kept that is made")
@option("--unit-config", FILE, "unit-config.json", "NGINX Unit's configuration")
@option("--port", WholeNumber(1, 65535), 8080, "port to listen on")
def main(folder: Path, unit_config: Path, port: int) -> int:
    """Draw, extract, index, show and serve; what is there from an earlier run is kept."""
    try:
        check_address(_HOST, port)
    except ServerError as error:
        raise ServerError(f"{error}: make demo PORT=…") from None
    root = folder / "root"
    try:
        release = open_release(root)
    except LookalikeError:  # there is none yet, or another version made it
        # In a process, whose end frees TensorFlow's memory.
        pipeline = [sys.executable, "-m", "lookalike_build.demo.pipeline", str(folder), str(root)]
        if failed := subprocess.run(pipeline, check=False).returncode:
            return failed
        release = open_release(root)
    with (folder / "catalogue.csv").open(newline="") as file:
        families: Families = {
            int(row["product_id"]): (row["category"], row["family"]) for row in csv.DictReader(file)
        }
    category_id, product_id = _show(release, families)
    server = f"http://{_HOST}:{port}"
    url = f"{server}/nns?category_id={category_id}&product_id={product_id}"
    say("", f"try:   curl '{url}&limit=12'", f"       curl '{url}&limit=12&price__lte=20'")
    say(f"look:  {server}{BROWSE_PATH}", "stop:  Ctrl-C", "")
    serve_demo(unit_config, (_HOST, port), root.resolve(), folder.resolve() / "photos")
    return 0


def _show(release: Release, families: Families) -> tuple[Id, Id]:
    """Print some answers and the share of neighbours of the same family; return a product to try."""
    say("", f"related products (✓ the same family), of model {release.manifest.model.name}:", "")
    alike: list[bool] = []
    for category_id, category in release.categories.items():
        items = category.items()
        ids = category.ids(items)
        answers = {
            product_id: category.ids(category.nearest(item, _LIMIT - 1)[0])
            for item, product_id in zip(items.tolist(), ids, strict=True)
        }
        alike += [families[one] == families[other] for one in ids for other in answers[one]]
        shown = ids[len(ids) // 3]
        example = category_id, shown
        name, family = families[shown]
        marks = [
            f"{other} ✓" if families[other] == (name, family) else f"{other} ({families[other][1]})"
            for other in answers[shown][:_SHOWN]
        ]
        say(f"  {name} {shown}, {family}:", f"      {'   '.join(marks)}")
    share = 100 * sum(alike) / len(alike)
    say("", f"{share:.1f} % of all neighbours (limit {_LIMIT}) are of the same family.")
    return example


if __name__ == "__main__":
    raise SystemExit(call(main))
