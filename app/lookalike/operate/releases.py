"""``lookalike releases``: which releases there are."""

from pathlib import Path

from lookalike.operate import options
from lookalike.operate.summary import of_release
from lookalike.release.files import ReleaseError
from lookalike.release.opened import is_slim
from lookalike.release.root import ReleaseRoot
from lookalike.terminal.command import command
from lookalike.terminal.output import say


@command("lookalike releases --root /var/lib/lookalike")
@options.root()
def run(root: Path) -> None:
    """List the releases, oldest first, and mark the current one."""
    releases = ReleaseRoot(root)
    current = releases.current()
    if not releases.names():
        raise releases.none_yet()
    for name in releases.names():
        mark = "*" if name == current else " "
        try:
            manifest = releases.manifest(name)
            slim = ", slim" if is_slim(releases.folder(name), manifest) else ""
            say(f"{mark} {name}  {of_release(manifest)}{slim}")
        except ReleaseError as error:
            say(f"{mark} {name}  {error}")
