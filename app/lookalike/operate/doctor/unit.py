"""Checks of Unit and of the app in it: it can run, is configured, and serves the current release."""

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from lookalike.operate.doctor.finding import Finding, absent, ok, problem, warning
from lookalike.operate.doctor.host import MODULE, App, Host, NotUnitError, RunningUnit, same_path
from lookalike.operate.unit.control import python_versions
from lookalike.release.manifest import Manifest
from lookalike.release.opened import is_slim
from lookalike.release.root import RootError
from lookalike.serving.settings import ROOT, TOKEN_FILE, SettingError, Settings
from lookalike.terminal.install import install

OURS = f"{sys.version_info.major}.{sys.version_info.minor}"
_PYTHON_VERSION = re.compile(rb"\0(3\.\d+\.\d+)\0")
_ASK_S = 5.0
_TAKEN_UP_S = 2.0
"""Longer than the app needs to take up a new release."""
_PUT = "lookalike unit apply deploy/unit/lookalike.json --root {}"


def unit(host: Host) -> Iterator[Finding]:
    """Unit is installed, with a Python module of this environment's version."""
    if host.unitd is None and host.unit is None:
        yield absent("not here: no unitd on PATH; `lookalike serve` serves without it")
        return
    if host.unit:
        versions = python_versions(host.unit.status)
    else:
        versions = module_versions(Path(host.unitd.defaults["modulesdir"])) if host.unitd else []
    yield python_module(host.unit_version, versions)


def python_module(version: str, versions: list[str]) -> Finding:
    """Whether one of the Python modules of Unit `version` is for this environment."""
    name = f"Unit {version}".strip()
    if any(each.startswith(f"{OURS}.") for each in versions):
        return ok(f"{name} has a module for Python {OURS}, this environment's")
    if not versions:
        return problem(
            f"{name} has no Python module",
            f"install it (Unit's packages: apt install unit-python{OURS}), then restart Unit",
        )
    have = " and ".join(versions)
    return problem(
        f"{name} has a module for Python {have}, this environment is of {OURS}",
        f"rebuild the environment with that Python, or apt install unit-python{OURS}",
    )


def module_versions(folder: Path) -> list[str]:
    """The Python versions that the modules in Unit's folder of modules were built for."""
    found: set[str] = set()
    for path in sorted(folder.glob("*.unit.so")):
        data = path.read_bytes()
        if b"libpython3" in data or path.name.startswith("python"):
            found.update(version.decode() for version in _PYTHON_VERSION.findall(data))
    return sorted(found)


def control(host: Host) -> Iterator[Finding]:
    """Unit's control socket answers us."""
    asked, path = host.asked_unit, host.control
    elsewhere = "systemctl start unit; where its socket is elsewhere, give --control SOCKET"
    if isinstance(asked, RunningUnit):
        yield ok(f"{path} answers")
    elif isinstance(asked, FileNotFoundError):
        if host.unitd is None and host.asked.control is None:
            yield absent(f"not here: no {path}")
        else:
            yield problem(f"no {path}: Unit does not run, or not there", elsewhere)
    elif isinstance(asked, PermissionError):
        yield warning(
            f"this user may not use {path}: Unit's configuration cannot be checked",
            "run this as root",
        )
    elif isinstance(asked, NotUnitError):
        yield problem(
            f"what answers at {path} is not Unit, or not to this user",
            "run this as root, or give --control SOCKET",
        )
    elif isinstance(asked, ConnectionRefusedError):
        yield problem(f"nothing listens at {path}: Unit has ended", elsewhere)
    else:
        yield problem(f"{path}: {asked.strerror or asked}", elsewhere)


def app(host: Host) -> Iterator[Finding]:
    """Unit's configuration has the app, with this environment and this root."""
    if host.unit is None:
        yield absent("not checked: the control socket does not answer")
        return
    if host.app is None:
        yield problem(
            f"Unit's configuration has no application with the module {MODULE}",
            _PUT.format(host.root.path if host.root else "ROOT"),
        )
        return
    yield from configured(host.app, host.asked.root, Path(sys.prefix))
    processes = len(host.processes)
    if host.app.listeners and not processes:
        yield problem(
            f'application "{host.app.name}" has no process',
            "Unit's log (/var/log/unit.log) says why none starts",
        )


def configured(found: App, root: Path | None, home: Path) -> Iterator[Finding]:
    """Whether the application `found` has this `home`, this `root` (if given) and valid settings."""
    name, environment = f'application "{found.name}"', found.environment
    app_root = environment.get(ROOT.name)
    well = True
    if not found.listeners:
        well = False
        yield problem(
            f"no listener of Unit passes requests to {name}",
            f'give one "pass": "applications/{found.name}", as unit-config.json does',
        )
    if not same_path(found.config.get("home"), home):
        well = False
        yield warning(
            f"{name} has home {found.config.get('home')}, this environment is {home}",
            f"run {found.config.get('home')}/bin/lookalike doctor, which checks that one, or "
            "correct home",
        )
    if app_root and root and not same_path(app_root, root):
        well = False
        yield problem(
            f"{name} serves {ROOT.name}={app_root}, not {root}",
            f"correct {ROOT.name} in Unit's configuration, or --root here",
        )
    try:
        Settings.read(_readable(environment))
    except SettingError as error:
        well = False
        yield problem(f"{name}: {error}", 'correct its "environment" in Unit\'s configuration')
    if well:
        listeners = ", ".join(found.listeners)
        yield ok(f"{name} on {listeners} has this environment and {ROOT.name}={app_root}")


def _readable(environment: dict[str, str]) -> dict[str, str]:
    """The settings, without a token's file that we may not read: `permissions` checks that."""
    token_file = Path(environment.get(TOKEN_FILE.name) or "/dev/null")
    with suppress(FileNotFoundError):  # reading the settings reports it
        try:
            token_file.open().close()
        except PermissionError:
            return {name: value for name, value in environment.items() if name != TOKEN_FILE.name}
    return environment


def served(host: Host) -> Iterator[Finding]:
    """The app answers, serves the current release and has no trouble with a newer one."""
    url = host.urls[0]
    try:
        status, ready = _get(f"{url}/readyz")
        current = _current_name(host)
        until = time.monotonic() + _TAKEN_UP_S
        while current and ready.get("release") not in (None, current) and time.monotonic() < until:
            time.sleep(0.2)
            status, ready = _get(f"{url}/readyz")
    except (OSError, HTTPException) as error:
        yield _unanswered(host, url, error)
        return
    if status == 503 and "detail" in ready:
        yield problem(
            f"{url} serves nothing: {ready['detail']}",
            "repair what it names; the app looks again every 10 s",
        )
    elif status != 200 or "release" not in ready:
        yield problem(
            f"{url}/readyz answers {status}, which is not what Lookalike answers",
            "give --url URL of the app",
        )
    else:
        yield taken_up(url, str(ready["release"]), current, _description(host), host.current)


def taken_up(
    url: str,
    release: str,
    current: str | None,
    description: dict[str, Any],
    on_disk: tuple[Path, Manifest] | None,
) -> Finding:
    """Whether the current release is served; `description` is ``/release``, {} if there is none."""
    reason = description.get("problem")
    if reason:
        return problem(
            f"{url} refuses the current release: {reason}; it serves {release}",
            "`lookalike check` says what is damaged; `lookalike rollback` goes back to the one before",
        )
    if current is None:
        return ok(f"{url} serves {release}; which release is current is unknown")
    if release != current:
        return problem(
            f"{url} serves {release}, current is {current}",
            "see that the app has this root; ask a listener that has /release for the reason (--url)",
        )
    if description.get("slim") and on_disk and not is_slim(*on_disk):
        return warning(
            f"{url} serves {release} as a slim copy; the copy has become a full one",
            f"`lookalike switch {release}` has it taken up with its vectors",
        )
    return ok(f"{url} serves the current release{', a slim copy' * bool(description.get('slim'))}")


def _unanswered(host: Host, url: str, error: Exception) -> Finding:
    reason = getattr(error, "reason", error)
    text = f"no answer from {url}: {getattr(reason, 'strerror', None) or reason}"
    if host.unitd is None and host.unit is None:
        if find_spec("granian"):
            return warning(text, "start `lookalike serve`, or give --url if it runs already")
        return problem(
            f"{text}; and there is neither Unit nor the embedded server",
            f"install Unit (deploy/README.md); for the embedded server, {install('serve')}",
        )
    return problem(text, "start Unit and give it the configuration, or give --url URL")


def _current_name(host: Host) -> str | None:
    with suppress(RootError):  # the check `release` reports it
        return host.root.current() if host.root else None
    return None


def _description(host: Host) -> dict[str, Any]:
    for url in host.urls:  # not every listener need have /release
        status, document = _get(f"{url}/release")
        if status == 200 and "problem" in document:
            return document
    return {}


def _get(url: str) -> tuple[int, dict[str, Any]]:
    """Status and JSON object of an answer; {} if it is no object. OSError if there is no answer."""
    try:
        # A proxy in the environment is not for this host.
        with build_opener(ProxyHandler({})).open(url, timeout=_ASK_S) as answer:
            status, body = answer.status, answer.read()
    except HTTPError as error:
        status, body = error.code, error.read()
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    return status, document if isinstance(document, dict) else {}
