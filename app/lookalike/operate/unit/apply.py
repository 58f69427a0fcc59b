"""`lookalike unit apply`: puts the app's configuration into Unit's and changes nothing else there."""

import grp
import pwd
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from lookalike.operate import options
from lookalike.operate.serve import ServerError, check_address
from lookalike.operate.unit.config import APPLICATIONS, configuration, own_listeners
from lookalike.operate.unit.control import Control, RefusedError, UnitError
from lookalike.operate.unit.difference import difference
from lookalike.operate.unit.listener import ask, problem_of
from lookalike.operate.unit.merge import merged
from lookalike.operate.unit.options import control as control_option
from lookalike.terminal.command import DONE, FAILED, at_most_one, command, flag, option
from lookalike.terminal.output import complain, say
from lookalike.terminal.types import FILE, FOLDER

_READY_S = 30.0


@command("sudo lookalike unit apply deploy/unit/lookalike.json --root /var/lib/lookalike")
@click.argument("file", type=FILE, help="JSON, with comments as Unit takes them")
@options.root()
@option("--home", FOLDER, sys.prefix, "the Python environment that serves")
@flag("--dry-run", "only show the difference")
@flag("--yes", "do not ask")
@control_option
def run(file: Path, root: Path, home: Path, dry_run: bool, yes: bool, control: str) -> int:
    """Put a configuration file into what Unit has, beside whatever else Unit serves.

    Shows the difference, asks, puts it in one request and waits until the app is ready. Only what leads
    to the app alone, or is named for it, is replaced.
    """
    at_most_one("dry_run", "yes")
    if not root.is_dir():
        raise UnitError(f"{root}: there is no such folder; --root must be the release root")
    unit = Control(control)
    wanted = configuration(file, home, root)
    present = unit.configuration()
    config, left_out = merged(present, wanted)
    for application in wanted["applications"].values():
        unit.check_python(application)
    if left_out:
        complain(
            f"{' and '.join(left_out)} of {file}: left out; Unit serves other "
            "applications too, which they would change"
        )
    shown = difference(present, config, f"with {file}")
    say(*(shown or ["Unit has this configuration already"]))
    if dry_run:
        return DONE
    if shown:
        if not yes and not _is_wanted():
            say("nothing is changed")
            return FAILED
        _put(unit, present, config)
    _wait_until_ready(config)
    return DONE


def _is_wanted() -> bool:
    if not sys.stdin.isatty():
        raise UnitError("nothing is changed: there is no terminal to ask on; add --yes")
    try:
        return input("Give this to Unit? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _put(control: Control, present: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    if control.configuration() != present:
        raise UnitError("Unit's configuration has changed since it was shown; run this again")
    try:
        control.configure(config)
    except RefusedError as error:
        why = ""
        if not error.detailed:
            reasons = "; ".join(_reasons(config, present))
            why = f" Perhaps: {reasons}" if reasons else " Unit's log (/var/log/unit.log) has why"
        raise UnitError(f"{error}{why}; nothing is changed") from None
    say("Unit has the configuration")


def _wait_until_ready(config: Mapping[str, Any]) -> None:
    """Return once the app is ready; UnitError with its reason if it is not.

    Its first answer decides: a process opens the release before it takes requests.
    """
    addresses = own_listeners(config)
    until = time.monotonic() + _READY_S
    answer = ask(addresses, "/readyz")
    while answer is None and time.monotonic() < until:
        time.sleep(0.2)
        answer = ask(addresses, "/readyz")
    if problem := problem_of(answer):
        raise UnitError(f"the configuration is in Unit, but the app is not ready: {problem}")
    release = answer[1].get("release") if answer else None
    say(f"ready: serving release {release} on {', '.join(addresses)}")


def _reasons(config: Mapping[str, Any], present: Mapping[str, Any]) -> Iterator[str]:
    """Why Unit may have failed to apply a valid configuration: it only logs that."""
    for kind, find in (("user", pwd.getpwnam), ("group", grp.getgrnam)):
        given = (config["applications"].get(name, {}).get(kind) for name in APPLICATIONS)
        for name in dict.fromkeys(filter(None, given)):
            try:
                find(name)
            except KeyError:
                yield f"there is no {kind} {name} on this host"
    for address in set(config["listeners"]) - set(present.get("listeners", {})):
        host, _, port = address.rpartition(":")
        if not address.startswith("unix:"):
            try:
                check_address("0.0.0.0" if host == "*" else host.strip("[]"), int(port))  # noqa: S104
            except ServerError as error:
                yield str(error)
    log = config.get("access_log")
    path = Path(log["path"] if isinstance(log, Mapping) else log) if log else None
    if path and not path.parent.is_dir():
        yield f"access_log: there is no folder {path.parent}"
