"""``lookalike switch``: another release becomes current."""

from pathlib import Path

import click

from lookalike.operate import options
from lookalike.release.root import ReleaseRoot
from lookalike.terminal.command import command
from lookalike.terminal.output import say


@command("lookalike switch --root /var/lib/lookalike 20260102T030405.678Z-0123456789ab")
@options.root()
@click.argument("release", help="the release, as `lookalike releases` lists it")
def run(root: Path, release: str) -> None:
    """Check a release, then make it the current one."""
    releases = ReleaseRoot(root)
    releases.folder(release)
    with releases.lock(options.LOCK_WAIT_S):
        releases.switch(release)
    say(f"current is now {release}")
