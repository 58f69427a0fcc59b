"""The demo's pipeline: draws pictures and makes a release of them with the commands a shop uses."""

import sys
from pathlib import Path

from lookalike.terminal.output import say
from lookalike_build.commands.cli import main as command
from lookalike_build.demo.drawing import draw_catalogue
from lookalike_build.networks.extractor import IMAGENET, UNTRAINED, WeightsError
from lookalike_build.networks.inception import Network


def build(folder: Path, root: Path) -> int:
    """Draw a catalogue in `folder` and publish its release in `root`; return the exit status."""
    say(f"drawing a catalogue in {folder} …")
    catalogue = draw_catalogue(folder)
    features = str(folder / "features")
    try:
        Network(IMAGENET)  # downloads the weights, once
        weights = IMAGENET
    except WeightsError:
        weights = UNTRAINED
        say("The ImageNet weights cannot be downloaded here: the network is untrained.")
    where = ["--root", str(root)]
    names = ["--attribute", "title:text=family", "--attribute", "price:number"]
    return (
        command(["extract", str(catalogue), "--features", features, "--weights", weights])
        or command(["index", "--features", features, *where])
        or command(["attributes", str(catalogue), *where, *names])
    )


if __name__ == "__main__":
    raise SystemExit(build(Path(sys.argv[1]), Path(sys.argv[2])))
