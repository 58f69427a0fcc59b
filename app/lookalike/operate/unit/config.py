"""NGINX Unit's configuration of the app: reads the shipped file and adapts it to a host.

A file is JSON with comments, as Unit takes it. It holds the application `APPLICATION` and the listeners
that lead to it. It may hold the same application again as `CHANGES`, so that a slow disk delays no
look-up, and routes, settings and an access log.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lookalike.operate.unit.control import UnitError
from lookalike.serving.settings import ROOT

APPLICATION = "lookalike"
CHANGES = "lookalike-changes"
APPLICATIONS = (APPLICATION, CHANGES)
PARTS = ("settings", "listeners", "routes", "applications", "access_log")
"""What a file may hold."""

Config = dict[str, Any]

_LEAD = f"applications/{APPLICATION}"
_LEADS = {f"applications/{name}" for name in APPLICATIONS}
_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)


def configuration(file: Path, home: Path, root: Path, listen: Sequence[str] = ()) -> Config:
    """The configuration in `file` for the Python environment `home` and the release root `root`.

    The addresses `listen` replace the file's, in order. UnitError if the file is invalid, OSError if it
    cannot be read.
    """
    config = _read(file)
    for application in config["applications"].values():
        application["home"] = str(home.absolute())
        application["environment"] = {
            **application.get("environment", {}),
            ROOT.name: str(root.absolute()),
        }
    if listen:
        listeners = config["listeners"].values()
        config["listeners"] = dict(zip(listen, listeners, strict=True))
    return config


def routes(config: Mapping[str, Any]) -> dict[str, Any]:
    """The routes by the name that passes to them: ``routes/NAME``, or ``routes`` without a name."""
    found = config.get("routes") or {}
    if isinstance(found, Mapping):
        return {f"routes/{name}": steps for name, steps in found.items()}
    return {"routes": found}


def own_routes(config: Mapping[str, Any]) -> set[str]:
    """The names of the app's routes: they lead to it alone, or lead to it and are named for it.

    Those to `CHANGES` alone are among them.
    """
    leads = {name: set(ends(steps)) for name, steps in routes(config).items()}
    return {
        name
        for name, found in leads.items()
        if found & _LEADS and (found <= _LEADS or name.startswith(f"routes/{APPLICATION}"))
    }


def own_listeners(config: Mapping[str, Any]) -> list[str]:
    """The addresses of the app's listeners: they lead to it, directly or through `own_routes`."""
    own = own_routes(config) | _LEADS
    return [
        address
        for address, listener in config.get("listeners", {}).items()
        if isinstance(listener, Mapping) and unquote(str(listener.get("pass"))) in own
    ]


def ends(steps: object) -> Iterator[str]:
    """Where the actions of a route lead, except for answers of their own."""
    if isinstance(steps, list):
        for step in steps:
            yield from ends(step.get("action") if isinstance(step, Mapping) else None)
    elif isinstance(steps, Mapping):
        for kind in ("pass", "share", "proxy"):
            if kind in steps:
                yield unquote(str(steps[kind]))
        yield from ends(steps.get("fallback"))


def _read(file: Path) -> Config:
    text = _COMMENT.sub(_without_comment, file.read_text())
    try:
        config = json.loads(text, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        raise UnitError(f"{file}:{error.lineno}:{error.colno}: {error.msg}") from None
    except ValueError as error:
        raise UnitError(f"{file}: {error}") from None
    if not isinstance(config, dict):
        raise UnitError(f"{file}: a configuration is a JSON object")
    for name in config:
        if name not in PARTS:
            raise UnitError(f'{file}: "{name}" is none of {", ".join(PARTS)}')
    _check_applications(file, config.get("applications"))
    if not isinstance(config.get("listeners"), dict):
        raise UnitError(f'{file}: "listeners" must be an object')
    if not own_listeners(config):
        raise UnitError(
            f'{file}: none of "listeners" leads to {_LEAD}, directly or through routes that lead '
            f'there alone or have a name that begins with "{APPLICATION}"'
        )
    return config


def _check_applications(file: Path, applications: object) -> None:
    """Raise UnitError for applications of others, and if the app's two differ in settings."""
    if not isinstance(applications, dict) or not (
        {APPLICATION} <= set(applications) <= set(APPLICATIONS)
    ):
        raise UnitError(
            f'{file}: "applications" must hold "{APPLICATION}", perhaps "{CHANGES}", and nothing else'
        )
    for name, application in applications.items():
        if not isinstance(application, dict) or not isinstance(
            application.get("environment", {}), dict
        ):
            raise UnitError(f'{file}: "{name}" and its "environment" must be objects')
    first, *others = (application.get("environment", {}) for application in applications.values())
    for other in others:
        names = sorted(first.keys() | other.keys())
        if differ := [name for name in names if first.get(name) != other.get(name)]:
            raise UnitError(
                f'{file}: {differ[0]} is not the same in the "environment" of {APPLICATION} and of '
                f"{CHANGES}; give both the same"
            )


def _without_comment(match: re.Match[str]) -> str:
    """A string unchanged, a comment as blanks, so that what follows keeps its line and column."""
    return match[1] or re.sub(r"[^\n]", " ", match[0])


def _without_repeats(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's members; ValueError for two of one name, as Unit refuses them."""
    object_ = dict(members)
    if len(object_) < len(members):
        names = [name for name, _ in members]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'"{repeated}" stands twice in one object')
    return object_
