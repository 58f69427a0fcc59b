"""The command ``lookalike``: serve a release root and manage the releases in it."""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lookalike import __version__
from lookalike.operate.host_cli import DONE, FAILED, add_host_commands
from lookalike.operate.server import ServerError, serve
from lookalike.operate.unit.apply import apply
from lookalike.operate.unit.control import DEFAULT_SOCKET, UnitError
from lookalike.operate.unit.status import status
from lookalike.release.files import ReleaseError
from lookalike.release.manifest import BehaviourEntry, Manifest
from lookalike.release.opened import is_slim
from lookalike.release.root import ReleaseRoot, RootError
from lookalike.serving.settings import ROOT
from lookalike.terminal.arguments import Parser, parsed, port, whole_number
from lookalike.terminal.output import complain, say

_LOCK_WAIT_S = 30.0
"""Longer than it takes a follower to publish a release."""

if TYPE_CHECKING:
    # What add_subparsers gives; argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status: 0, 1 (the work failed) or 2 (the call was wrong)."""
    parser = _parser()
    options = parsed(parser, arguments)
    if options.needs_root and options.root is None:
        parser.error(f"give --root ROOT or set {ROOT.name}")
    try:
        return options.run(options) or DONE
    except (ReleaseError, RootError, ServerError, UnitError) as error:
        complain(f"lookalike: {error}")
        return FAILED
    except OSError as error:
        where = error.filename or options.root
        complain(f"lookalike: {f'{where}: ' if where else ''}{error.strerror or error}")
        return FAILED
    except KeyboardInterrupt:
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = Parser(
        prog="lookalike", description="Serve related products, and manage the releases served."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_root_commands(commands)
    _add_unit_commands(commands)
    add_host_commands(partial(_command, commands))
    return parser


def _command(
    commands: "Commands",
    name: str,
    run: object,
    text: str,
    example: str,
    needs_root: bool = True,
    takes_root: bool = True,
) -> argparse.ArgumentParser:
    """Add the command `name`; without `needs_root` it does what it can where no root is given."""
    added = commands.add_parser(
        name,
        help=text,
        description=text,
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.set_defaults(run=run, needs_root=needs_root and takes_root, root=None)
    if takes_root:
        root = os.environ.get(ROOT.name)
        added.add_argument(
            "--root",
            type=Path,
            default=Path(root) if root else None,
            help=f"the release root (default: ${ROOT.name})",
        )
    return added


def _add_root_commands(commands: "Commands") -> None:
    added = _command(
        commands,
        "serve",
        _serve,
        "Serve on the embedded WSGI server, where there is no NGINX Unit.",
        "lookalike serve --root /var/lib/lookalike --port 8080",
    )
    added.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    added.add_argument("--port", type=port, default=8080, help="port to listen on (%(default)s)")
    added.add_argument(
        "--workers",
        type=whole_number(1, 1024),
        default=os.cpu_count() or 1,
        help="processes (%(default)s)",
    )
    added.add_argument(
        "--photos",
        type=Path,
        metavar="FOLDER",
        help="serve the files in it at /photos/, for the page /browse (see LOOKALIKE_IMAGE_URL)",
    )

    added = _command(
        commands,
        "check",
        _check,
        "Compare every byte of a release with its manifest.",
        "lookalike check --root /var/lib/lookalike",
    )
    added.add_argument("release", nargs="?", help="the release (default: the current one)")

    added = _command(
        commands,
        "switch",
        _switch,
        "Check a release, then make it the current one.",
        "lookalike switch --root /var/lib/lookalike 20260102T030405.678Z-0123456789ab",
    )
    added.add_argument("release", help="the release, as `lookalike releases` lists it")

    _command(
        commands,
        "rollback",
        _rollback,
        "Check the release before the current one, then make it the current one.",
        "lookalike rollback --root /var/lib/lookalike",
    )
    _command(
        commands,
        "releases",
        _releases,
        "List the releases, oldest first, and mark the current one.",
        "lookalike releases --root /var/lib/lookalike",
    )

    added = _command(
        commands,
        "prune",
        _prune,
        "Remove old releases, the current one never.",
        "lookalike prune --root /var/lib/lookalike --keep 3",
    )
    added.add_argument(
        "--keep",
        type=whole_number(1),
        default=5,
        metavar="N",
        help="releases to keep, and as many of those that `follow` made (%(default)s)",
    )


def _add_unit_commands(commands: "Commands") -> None:
    text = "Configure NGINX Unit for the app, and see how the app is served there."
    group = commands.add_parser("unit", help=text, description=text)
    unit_commands = group.add_subparsers(title="commands", required=True, metavar="COMMAND")

    applying = _command(
        unit_commands,
        "apply",
        apply,
        "Put a configuration file into what Unit has, beside whatever else Unit serves: shows the "
        "difference, asks, puts it in one request and waits until the app is ready. What leads to "
        "the app alone, or is named for it, is replaced, and nothing else.",
        "sudo lookalike unit apply deploy/unit/lookalike.json --root /var/lib/lookalike",
    )
    applying.add_argument(
        "file", type=Path, metavar="FILE", help="JSON, with comments as Unit takes them"
    )
    applying.add_argument(
        "--home",
        type=Path,
        default=Path(sys.prefix),
        help="the Python environment that serves (default: this one, %(default)s)",
    )
    how = applying.add_mutually_exclusive_group()
    how.add_argument("--dry-run", action="store_true", help="only show the difference")
    how.add_argument("--yes", action="store_true", help="do not ask")

    showing = _command(
        unit_commands,
        "status",
        status,
        "Show what Unit and the app say of themselves; exit status 0 if the app is ready, 1 if not.",
        "sudo lookalike unit status",
        takes_root=False,
    )
    showing.add_argument("--json", action="store_true", help="as JSON, with all that both say")

    for added in (applying, showing):
        added.add_argument(
            "--control",
            default=str(DEFAULT_SOCKET),
            metavar="SOCKET",
            help="Unit's control socket (%(default)s)",
        )


def _serve(options: argparse.Namespace) -> None:
    serve(options.root, options.host, options.port, options.workers, options.photos)


def _check(options: argparse.Namespace) -> None:
    root = ReleaseRoot(options.root)
    name = options.release or root.current()
    if name is None:
        raise root.none_yet()
    for entry in root.check(name):
        say(f"category {entry.category_id}: {entry.n_items} products, sound")
    manifest = root.manifest(name)
    if manifest.behaviour:
        say(f"behaviour: {_of_behaviour(manifest.behaviour)}, sound")
    slim = " (a slim copy)" if is_slim(root.folder(name), manifest) else ""
    say(f"release {name} is sound{slim}")


def _switch(options: argparse.Namespace) -> None:
    root = ReleaseRoot(options.root)
    root.folder(options.release)
    with root.lock(_LOCK_WAIT_S):
        root.switch(options.release)
    say(f"current is now {options.release}")


def _rollback(options: argparse.Namespace) -> None:
    root = ReleaseRoot(options.root)
    with root.lock(_LOCK_WAIT_S):
        name = root.previous()
        root.switch(name)
    say(f"current is now {name}")


def _releases(options: argparse.Namespace) -> None:
    root = ReleaseRoot(options.root)
    current = root.current()
    if not root.names():
        raise root.none_yet()
    for name in root.names():
        mark = "*" if name == current else " "
        try:
            manifest = root.manifest(name)
            slim = ", slim" if is_slim(root.folder(name), manifest) else ""
            say(f"{mark} {name}  {_summary(manifest)}{slim}")
        except ReleaseError as error:
            say(f"{mark} {name}  {error}")


def _prune(options: argparse.Namespace) -> None:
    root = ReleaseRoot(options.root)
    with root.lock(_LOCK_WAIT_S):
        removed = root.prune(options.keep)
    for name in removed:
        say(f"removed {name}")


def _summary(manifest: Manifest) -> str:
    behaviour = manifest.behaviour
    return (
        f"products: {manifest.n_items}, categories: {len(manifest.categories)}, "
        f"model: {manifest.model.name}"
        + (f", behaviour: {_of_behaviour(behaviour)}" if behaviour else "")
    )


def _of_behaviour(entry: BehaviourEntry) -> str:
    newest = datetime.fromtimestamp(entry.newest_rating, UTC)
    return f"{entry.n_products} products, ratings to {newest:%Y-%m-%d}"
