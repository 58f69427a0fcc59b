"""`lookalike unit status`: the status of Unit and of the app, on one screen."""

from collections.abc import Mapping
from typing import Any

from lookalike.operate.unit.config import APPLICATION, CHANGES, own_listeners
from lookalike.operate.unit.control import Control, python_versions
from lookalike.operate.unit.listener import ask, problem_of
from lookalike.operate.unit.options import control as control_option
from lookalike.terminal.command import DONE, FAILED, command, flag
from lookalike.terminal.output import say, say_json


@command("sudo lookalike unit status")
@flag("--json", "as JSON, with all that both say", dest="as_json")
@control_option
def run(as_json: bool, control: str) -> int:
    """Show what Unit and the app say of themselves; exit status 0 if the app is ready, 1 if not."""
    asked = Control(control)
    unit = asked.status()
    addresses = own_listeners(asked.configuration())
    ready = ask(addresses, "/readyz")
    problem = problem_of(ready) if addresses else f"no listener of Unit is for {APPLICATION}"
    answer = ask(addresses, "/release")
    release = answer[1] if answer and answer[0] == 200 else None
    if as_json:
        answers = {"listeners": addresses, "release": release, "unit": unit}
        say_json({"ready": problem is None, "problem": problem, **answers})
    else:
        for name, text in _rows(unit, addresses, release, problem):
            say(f"{name:12} {text}")
    return DONE if problem is None else FAILED


def _rows(
    unit: Mapping[str, Any],
    addresses: list[str],
    release: Mapping[str, Any] | None,
    problem: str | None,
) -> list[tuple[str, str]]:
    application = unit.get("applications", {}).get(APPLICATION, {})
    changes = unit.get("applications", {}).get(CHANGES)
    rows = [
        ("Unit", f"Python {', '.join(python_versions(unit)) or '(no module)'}"),
        ("connections", _counts(unit.get("connections"))),
        ("listeners", ", ".join(addresses) or "none"),
        ("processes", _counts(application.get("processes"))),
        ("requests", _counts({**application.get("requests", {}), **unit.get("requests", {})})),
    ]
    if changes:
        rows.insert(-1, ("changes", f"processes {_counts(changes.get('processes'))}"))
    if release:
        slim = ", slim" if release["slim"] else ""
        counted = f"products: {release['n_items']}, categories: {len(release['categories'])}"
        rows.append(("release", f"{release['release']} ({counted}{slim})"))
        if release.get("problem"):
            rows.append(("refused", str(release["problem"])))
        if release.get("choice_problem"):
            rows.append(("choice", str(release["choice_problem"])))
    rows.append(("ready", "yes" if problem is None else f"no: {problem}"))
    return rows


def _counts(counts: Mapping[str, int] | None) -> str:
    """Counters by Unit's names; a dash if there are none, as for an application Unit does not know."""
    return ", ".join(f"{name} {n}" for name, n in (counts or {}).items()) or "-"
