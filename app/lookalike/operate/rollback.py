"""``lookalike rollback``: the release before becomes current."""

from pathlib import Path

from lookalike.operate import options
from lookalike.release.root import ReleaseRoot
from lookalike.terminal.command import command
from lookalike.terminal.output import say


@command("lookalike rollback --root /var/lib/lookalike")
@options.root()
def run(root: Path) -> None:
    """Check the release before the current one, then make it the current one."""
    releases = ReleaseRoot(root)
    with releases.lock(options.LOCK_WAIT_S):
        name = releases.previous()
        releases.switch(name)
    say(f"current is now {name}")
