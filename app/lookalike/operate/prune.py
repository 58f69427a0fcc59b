"""``lookalike prune``: old releases are removed."""

from pathlib import Path

from lookalike.operate import options
from lookalike.release.root import ReleaseRoot
from lookalike.terminal.command import command, option
from lookalike.terminal.output import say
from lookalike.terminal.types import WholeNumber


@command("lookalike prune --root /var/lib/lookalike --keep 3")
@options.root()
@option("--keep", WholeNumber(1), 5, "releases to keep, and as many of `follow` and `attributes`")
def run(root: Path, keep: int) -> None:
    """Remove old releases, the current one never."""
    releases = ReleaseRoot(root)
    with releases.lock(options.LOCK_WAIT_S):
        removed = releases.prune(keep)
    for name in removed:
        say(f"removed {name}")
