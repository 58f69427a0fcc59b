"""``lookalike releases``: which releases there are."""

from datetime import UTC, datetime
from pathlib import Path

from lookalike.operate import options
from lookalike.release.files import ReleaseError
from lookalike.release.manifest import BehaviourEntry, Manifest
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
            say(f"{mark} {name}  {_of(manifest)}{slim}")
        except ReleaseError as error:
            say(f"{mark} {name}  {error}")


def _of(manifest: Manifest) -> str:
    return (
        f"products: {manifest.n_items}, categories: {len(manifest.categories)}, "
        f"model: {manifest.model.name}"
        + (f", behaviour: {of_behaviour(manifest.behaviour)}" if manifest.behaviour else "")
    )


def of_behaviour(entry: BehaviourEntry) -> str:
    """What the behaviour of a release holds, in a few words."""
    newest = datetime.fromtimestamp(entry.newest_rating, UTC)
    return f"{entry.n_products} products, ratings to {newest:%Y-%m-%d}"
