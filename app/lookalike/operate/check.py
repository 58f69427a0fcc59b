"""``lookalike check``: a release and its manifest."""

from pathlib import Path

import click

from lookalike.operate import options
from lookalike.operate.releases import of_behaviour
from lookalike.release.opened import is_slim
from lookalike.release.root import ReleaseRoot
from lookalike.terminal.command import command
from lookalike.terminal.output import say


@command("lookalike check --root /var/lib/lookalike")
@options.root()
@click.argument("release", required=False, help="the release, the current one unless given")
def run(root: Path, release: str | None) -> None:
    """Compare every byte of a release with its manifest."""
    releases = ReleaseRoot(root)
    name = releases.chosen(release or None)
    for entry in releases.check(name):
        say(f"category {entry.category_id}: {entry.n_items} products, sound")
    manifest = releases.manifest(name)
    if manifest.behaviour:
        say(f"behaviour: {of_behaviour(manifest.behaviour)}, sound")
    slim = " (a slim copy)" if is_slim(releases.folder(name), manifest) else ""
    say(f"release {name} is sound{slim}")
