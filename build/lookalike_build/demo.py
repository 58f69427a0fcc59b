"""The demo behind ``make demo``: drawn products through the whole pipeline, then served."""

import argparse
import csv
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lookalike.arguments import port
from lookalike.browse import BROWSE_PATH
from lookalike.category import Category
from lookalike.manifest import Id, ReleaseError
from lookalike.output import complain, say
from lookalike.release import Release
from lookalike.root import ReleaseRoot
from lookalike.server import PHOTOS, ServerError, check_address, serve
from lookalike.settings import BROWSE, IMAGE_URL
from lookalike.unit import PrivateUnit, find_unitd
from lookalike.unit_config import APPLICATION, configuration
from lookalike.unit_control import UnitError

_HOST = "127.0.0.1"
_SHOWN = 6
_LIMIT = 10
_SETTINGS = {BROWSE.name: "true", IMAGE_URL.name: f"{PHOTOS}/{{product_id}}"}


@dataclass(frozen=True)
class Family:
    """What a drawn product is: its category's name and its family's."""

    category: str
    family: str


def main() -> int:
    """Draw, extract, index, show and serve; what is there from an earlier run is kept."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".demo"))
    parser.add_argument("--unit-config", type=Path, default=Path("unit-config.json"))
    parser.add_argument("--port", type=port, default=8080)
    options = parser.parse_args()
    try:
        check_address(_HOST, options.port)
    except ServerError as error:
        complain(f"make demo PORT=…: {error}")
        return 1
    root = ReleaseRoot(options.folder / "root")
    release = _opened(root)
    if release is None:
        if failed := _build(options.folder, root):
            return failed
        release = _opened(root)
        if release is None:
            return 1
    catalogue = options.folder / "catalogue.csv"
    photos = _link_photos(catalogue)
    category_id, product_id = _show(release, _families(catalogue))
    server = f"http://{_HOST}:{options.port}"
    url = f"{server}/nns?category_id={category_id}&product_id={product_id}"
    say("", f"try:   curl '{url}&limit=12'", f"look:  {server}{BROWSE_PATH}", "stop:  Ctrl-C", "")
    _serve(options, root, photos)
    return 0


def _opened(root: ReleaseRoot) -> Release | None:
    """The current release; None where there is none, or only one that another version made."""
    with suppress(ReleaseError):
        current = root.current()
        return root.open(current) if current else None
    return None


def _build(folder: Path, root: ReleaseRoot) -> int:
    """Make the first release with the same commands a shop would type; an exit status."""
    # Only here: a second run, which has its release, starts without TensorFlow.
    from lookalike_build.cli import main as command
    from lookalike_build.drawing import draw_catalogue
    from lookalike_build.extractor import IMAGENET, UNTRAINED, WeightsError
    from lookalike_build.network import Network

    say(f"drawing a catalogue in {folder} …")
    catalogue = draw_catalogue(folder)
    features = str(folder / "features")
    extract = ["extract", str(catalogue), "--features", features, "--weights"]
    try:
        Network(IMAGENET)  # downloads the weights, once
        weights = IMAGENET
    except WeightsError:
        weights = UNTRAINED
        say("The ImageNet weights cannot be had here: the network is untrained.")
    return command([*extract, weights]) or command(
        ["index", "--features", features, "--root", str(root.path)]
    )


def _families(catalogue: Path) -> dict[Id, Family]:
    with catalogue.open(newline="") as file:
        return {
            int(row["product_id"]): Family(row["category"], row["family"])
            for row in csv.DictReader(file)
        }


def _link_photos(catalogue: Path) -> Path:
    """A folder where each product's photo has its id as its name, which a URL can be made of."""
    photos = catalogue.parent.resolve() / "photos"
    photos.mkdir(exist_ok=True)
    with catalogue.open(newline="") as file:
        for row in csv.DictReader(file):
            link = photos / row["product_id"]
            link.unlink(missing_ok=True)
            link.hardlink_to(catalogue.parent / row["image"])
    return photos


def _show(release: Release, families: dict[Id, Family]) -> tuple[Id, Id]:
    """Print some answers and how many neighbours are of the family asked for; one to try."""
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


def _serve(options: argparse.Namespace, root: ReleaseRoot, photos: Path) -> None:
    unitd = find_unitd()
    if unitd is not None:
        try:
            _serve_on_unit(unitd, options, root, photos)
            return
        except UnitError as error:
            complain(f"not on NGINX Unit: {error}")
    else:
        say("NGINX Unit is not installed; serving on the embedded server.")
    os.environ |= _SETTINGS
    serve(root.path.resolve(), _HOST, options.port, workers=2, photos=photos)


def _serve_on_unit(
    unitd: str, options: argparse.Namespace, root: ReleaseRoot, photos: Path
) -> None:
    config = configuration(
        options.unit_config,
        home=Path(sys.prefix),
        root=root.path.resolve(),
        listen=[f"{_HOST}:{options.port}"],
    )
    config["applications"][APPLICATION]["environment"] |= _SETTINGS
    # Where Unit finds the photos itself.
    listener = config["listeners"][f"{_HOST}:{options.port}"]
    config["routes"] = [
        {"match": {"uri": f"{PHOTOS}/*"}, "action": {"share": f"{photos.parent}$uri"}},
        {"action": {"pass": listener["pass"]}},
    ]
    listener |= {"pass": "routes"}
    # A short name: a control socket's path has room for a hundred bytes or so.
    with (
        tempfile.TemporaryDirectory(prefix="lookalike-") as folder,
        _sigterm_as_interrupt(),
        PrivateUnit(unitd, Path(folder)) as unit,
    ):
        unit.control.check_python(config["applications"][APPLICATION])
        unit.control.configure(config)
        say("Serving on NGINX Unit.")
        try:
            unit.process.wait()
        except KeyboardInterrupt:
            say("")


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let `kill` stop the demo as Ctrl-C does, so that Unit is stopped with it."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    raise SystemExit(main())
