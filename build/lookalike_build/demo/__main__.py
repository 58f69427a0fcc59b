"""The demo behind ``make demo``: draw, extract, index, show some answers and serve."""

import csv
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lookalike.operate.serve import ServerError, check_address
from lookalike.release.category import Category
from lookalike.release.files import ReleaseError
from lookalike.release.ids import Id
from lookalike.release.opened import Release
from lookalike.release.root import ReleaseRoot
from lookalike.serving.browse.handler import BROWSE_PATH
from lookalike.terminal.command import call, command, option
from lookalike.terminal.output import complain, say
from lookalike.terminal.types import FILE, FOLDER, WholeNumber
from lookalike_build.demo.server import serve_demo

_HOST = "127.0.0.1"
_SHOWN = 6
_LIMIT = 10


@dataclass(frozen=True)
class Family:
    """The names of a drawn product's category and family."""

    category: str
    family: str


@command("make demo PORT=8080", name="make demo")
@option("--folder", FOLDER, ".demo", "where all is kept that is made")
@option("--unit-config", FILE, "unit-config.json", "NGINX Unit's configuration")
@option("--port", WholeNumber(1, 65535), 8080, "port to listen on")
def main(folder: Path, unit_config: Path, port: int) -> int:
    """Draw, extract, index, show and serve; what is there from an earlier run is kept."""
    address = _HOST, port
    try:
        check_address(*address)
    except ServerError as error:
        complain(f"make demo PORT=…: {error}")
        return 1
    root = ReleaseRoot(folder / "root")
    release = _opened(root)
    if release is None:
        if failed := _build(folder, root):
            return failed
        release = _opened(root)
        if release is None:
            return 1
    catalogue = folder / "catalogue.csv"
    photos = _link_photos(catalogue)
    category_id, product_id = _show(release, _families(catalogue))
    server = f"http://{_HOST}:{port}"
    url = f"{server}/nns?category_id={category_id}&product_id={product_id}"
    say("", f"try:   curl '{url}&limit=12'", f"look:  {server}{BROWSE_PATH}", "stop:  Ctrl-C", "")
    serve_demo(unit_config, address, root, photos)
    return 0


def _opened(root: ReleaseRoot) -> Release | None:
    """The current release; None if there is none or another version made it."""
    with suppress(ReleaseError):
        current = root.current()
        return root.open(current) if current else None
    return None


def _build(folder: Path, root: ReleaseRoot) -> int:
    """Build the first release in a process, whose end frees TensorFlow's memory; its exit status."""
    command = [sys.executable, "-m", "lookalike_build.demo.pipeline", str(folder), str(root.path)]
    return subprocess.run(command, check=False).returncode


def _families(catalogue: Path) -> dict[Id, Family]:
    with catalogue.open(newline="") as file:
        return {
            int(row["product_id"]): Family(row["category"], row["family"])
            for row in csv.DictReader(file)
        }


def _link_photos(catalogue: Path) -> Path:
    """A folder of the photos, each named by its product id, so that URLs can name them."""
    photos = catalogue.parent.resolve() / "photos"
    photos.mkdir(exist_ok=True)
    with catalogue.open(newline="") as file:
        for row in csv.DictReader(file):
            link = photos / row["product_id"]
            link.unlink(missing_ok=True)
            link.hardlink_to(catalogue.parent / row["image"])
    return photos


def _show(release: Release, families: dict[Id, Family]) -> tuple[Id, Id]:
    """Print some answers and the share of neighbours of the same family; return a product to try."""
    say("", f"related products (✓ the same family), of model {release.manifest.model.name}:", "")
    for category_id, category in release.categories.items():
        item = category.entry.n_items // 3
        product_id, *neighbours = _answer(category, item)
        own = families[product_id]
        say(f"  {own.category} {product_id}, {own.family}:")
        marks = [
            f"{other} ✓" if families[other] == own else f"{other} ({families[other].family})"
            for other in neighbours[:_SHOWN]
        ]
        say(f"      {'   '.join(marks)}")
        example = (category_id, product_id)
    alike = [
        families[other] == families[product_id]
        for category in release.categories.values()
        for item in range(category.entry.n_items)
        for product_id, *neighbours in [_answer(category, item)]
        for other in neighbours
    ]
    share = 100 * sum(alike) / len(alike)
    say("", f"{share:.1f} % of all neighbours (limit {_LIMIT}) are of the same family.")
    return example


def _answer(category: Category, item: int) -> list[Id]:
    items, _ = category.nearest(item, _LIMIT - 1)
    return [int(category.product_ids[item]), *category.ids(items)]


if __name__ == "__main__":
    raise SystemExit(call(main))
