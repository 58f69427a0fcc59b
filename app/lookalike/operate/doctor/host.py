"""What is on this host, each fact looked up once: Unit, the app in its configuration, its processes."""

import http.client
import json
import os
import re
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lookalike.operate.doctor.access import User
from lookalike.operate.unit.config import routes
from lookalike.operate.unit.control import DEFAULT_SOCKET, UnixConnection, python_versions
from lookalike.operate.unit.private import find_unitd
from lookalike.release.files import ReleaseError
from lookalike.release.manifest import Manifest
from lookalike.release.root import ReleaseRoot, RootError
from lookalike.serving.settings import ROOT

MODULE = "lookalike.wsgi"
URL = "http://127.0.0.1:8080"
"""Where the shipped configuration has the app."""
_RUN_S = 10.0
_OPTION = re.compile(r"^ +--(\w+) .*?default: \"(?:unix:)?(.+?)\"", re.MULTILINE | re.DOTALL)
"""An option of ``unitd --help`` with its default."""
_MAIN = "unit: main v"
_VERSION = re.compile(r"(\d+(?:\.\d+)+)")

Version = tuple[int, ...]


class NotUnitError(Exception):
    """What answers on a control socket is no Unit, or a FreeUnit that does not answer this user."""


@dataclass(frozen=True)
class Asked:
    """What the command was given; None for what it is to find itself."""

    root: Path | None = None
    control: Path | None = None
    url: str | None = None
    nginx: Path | None = None
    full: bool = False


@dataclass(frozen=True)
class Unitd:
    """The program ``unitd``: where it is, its version, and the defaults that its help tells."""

    path: str
    version: str
    defaults: Mapping[str, str]

    @classmethod
    def find(cls) -> "Unitd | None":
        """The one on PATH or where root's PATH would have it."""
        path = find_unitd()
        if path is None:
            return None
        version = _VERSION.search(_output([path, "--version"]))
        # An empty line ends what belongs to an option.
        options = map(_OPTION.search, _output([path, "--help"]).split("\n\n"))
        defaults = {option[1]: option[2] for option in options if option}
        return cls(path, version[1] if version else "", defaults)


@dataclass(frozen=True)
class App:
    """One application of Unit's configuration: its name and its part, and the listeners to it."""

    name: str
    config: Mapping[str, Any]
    listeners: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that Unit sets for it."""
        return dict(self.config.get("environment") or {})


@dataclass(frozen=True)
class RunningUnit:
    """What the control socket tells: ``/config``, ``/status``, and the main process behind it."""

    config: Mapping[str, Any]
    status: Mapping[str, Any]
    pid: int

    @classmethod
    def ask(cls, control: Path) -> "RunningUnit":
        """Ask the control socket; OSError where that fails, NotUnitError if it is no Unit's."""
        status, pid = _get(control, "/status")
        if not isinstance(status, dict) or "requests" not in status:
            raise NotUnitError
        config, _ = _get(control, "/config")
        if not isinstance(config, dict):
            raise NotUnitError
        return cls(config, status, _main_process(control, pid))

    @property
    def version(self) -> str:
        """That of the running process, which an upgrade of the package leaves; "" if not told."""
        title = _title(self.pid)
        found = _VERSION.search(title) if title.startswith(_MAIN) else None
        return found[1] if found else ""

    @property
    def python_versions(self) -> list[str]:
        """The versions of its Python modules, such as 3.11.2."""
        return python_versions(self.status)

    def apps(self) -> list[App]:
        """The applications that are Lookalike's."""
        found = (self.config.get("applications") or {}).items()
        return [
            App(name, part, tuple(self._listeners(f"applications/{name}")))
            for name, part in found
            if isinstance(part, dict) and part.get("module") == MODULE
        ]

    def _listeners(self, target: str) -> Iterator[str]:
        """The addresses of the listeners that pass requests to `target`, or to routes that may."""
        leading = {place for place, steps in routes(self.config).items() if _names(steps, target)}
        for address, listener in (self.config.get("listeners") or {}).items():
            if unquote(str(listener.get("pass"))) in {target, *leading}:
                yield address


class Host:
    """This host as the checks see it. Facts raise what looking them up raises."""

    def __init__(self, asked: Asked, environ: Mapping[str, str] = os.environ) -> None:
        self.asked = asked
        self._environ = environ

    @cached_property
    def unitd(self) -> Unitd | None:
        """The program, if it is installed."""
        return Unitd.find()

    @cached_property
    def control(self) -> Path:
        """The control socket: the one given, else where `unitd` says it has it."""
        default = self.unitd.defaults.get("control") if self.unitd else None
        return self.asked.control or Path(default or DEFAULT_SOCKET)

    @cached_property
    def asked_unit(self) -> RunningUnit | OSError | NotUnitError:
        """What came of asking the control socket."""
        try:
            return RunningUnit.ask(self.control)
        except (OSError, NotUnitError) as error:
            return error

    @property
    def unit(self) -> RunningUnit | None:
        """The running Unit, if its control socket answers us."""
        return self.asked_unit if isinstance(self.asked_unit, RunningUnit) else None

    @cached_property
    def app(self) -> App | None:
        """The application in Unit's configuration, of several the one of the root given."""
        apps = self.unit.apps() if self.unit else []
        if self.asked.root:
            apps.sort(
                key=lambda app: not same_path(app.environment.get(ROOT.name), self.asked.root)
            )
        return apps[0] if apps else None

    @cached_property
    def urls(self) -> list[str]:
        """Where to ask the app: the URL given, else its listeners under Unit, else the usual one."""
        if self.asked.url:
            return [self.asked.url.rstrip("/")]
        listeners = [
            each for each in (self.app.listeners if self.app else ()) if each[:5] != "unix:"
        ]
        return [f"http://{each.replace('*', '127.0.0.1', 1)}" for each in listeners] or [URL]

    @cached_property
    def environ(self) -> Mapping[str, str]:
        """What the app reads its settings from: Unit's configuration, or else our environment."""
        return self.app.environment if self.app else self._environ

    @cached_property
    def root(self) -> ReleaseRoot | None:
        """The root given, or else the one that the app is given."""
        told = self.asked.root or self.environ.get(ROOT.name)
        return ReleaseRoot(Path(told)) if told else None

    def read_current(self) -> tuple[Path, Manifest] | None:
        """Folder and manifest of the current release; None without one; else raises its faults."""
        name = self.root.current() if self.root else None
        if self.root is None or name is None:
            return None
        return self.root.folder(name), self.root.manifest(name)

    @cached_property
    def current(self) -> tuple[Path, Manifest] | None:
        """The same for checks that have nothing to look at where it is unfit."""
        with suppress(ReleaseError, RootError, OSError):
            return self.read_current()
        return None

    @cached_property
    def processes(self) -> list[int]:
        """The living processes of the app under Unit."""
        if self.unit is None or self.app is None:
            return []
        title = f'unit: "{self.app.name}" application'
        return [pid for pid in _descendants(self.unit.pid) if _title(pid).startswith(title)]

    @cached_property
    def user(self) -> User | None:
        """Whom the app runs as: what its processes say, else Unit's configuration or default.

        None where there is no Unit; KeyError names a user that does not exist.
        """
        for pid in self.processes:
            return User.of_process(pid)
        if self.app and "user" in self.app.config:
            return User.named(self.app.config["user"], self.app.config.get("group"))
        default = self.unitd.defaults.get("user") if self.unitd else None
        return User.named(default) if default else None


def _names(steps: object, target: str) -> bool:
    """Whether `target` stands anywhere in a route's steps."""
    if isinstance(steps, Mapping):
        return any(_names(each, target) for each in steps.values())
    if isinstance(steps, list):
        return any(_names(each, target) for each in steps)
    return isinstance(steps, str) and unquote(steps) == target


def same_path(one: str | Path | None, other: str | Path | None) -> bool:
    """Whether both lead to the same place."""
    return bool(one and other) and Path(str(one)).resolve() == Path(str(other)).resolve()


def _get(control: Path, path: str) -> tuple[object, int]:
    """The JSON document at `path`, and the id of the process that listens."""
    # With the process behind it and the kind of failure, which `Control` does not tell.
    connection = UnixConnection(control, _RUN_S)
    try:
        connection.request("GET", path)
        credentials = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        document = json.loads(connection.getresponse().read())
        return document, struct.unpack("3i", credentials)[0]
    except (http.client.HTTPException, ValueError, ConnectionResetError, BrokenPipeError) as error:
        raise NotUnitError from error
    finally:
        connection.close()


def _main_process(control: Path, listened: int) -> int:
    """Unit's main process, given the one that called listen(), which is gone where it made a daemon."""
    if _title(listened).startswith(_MAIN):
        return listened
    lines = Path("/proc/net/unix").read_text(errors="replace").splitlines()
    fields = [line.split() for line in lines]
    # Unit gives the socket its name only after it listens.
    sockets = {
        f"socket:[{each[6]}]"
        for each in fields
        if each[-1].startswith("/") and same_path(each[-1].removesuffix(".tmp"), control)
    }
    for process in Path("/proc").glob("[0-9]*"):
        if _title(int(process.name)).startswith(_MAIN):
            with suppress(OSError):  # not ours to look into, or gone
                if sockets & {str(each.readlink()) for each in (process / "fd").iterdir()}:
                    return int(process.name)
    return listened


def _descendants(pid: int) -> list[int]:
    """The processes that `pid` has started, and those that these have."""
    children: dict[int, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] not in "ZX":
            children.setdefault(int(fields[1]), []).append(int(process.name))
    found, left = [], [pid]
    while left:
        under = children.get(left.pop(), [])
        found += under
        left += under
    return sorted(found)


def _title(pid: int) -> str:
    try:
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    except OSError:
        return ""


def _output(command: list[str]) -> str:
    """What a program writes, to either stream."""
    run = subprocess.run(command, capture_output=True, text=True, timeout=_RUN_S, check=False)
    return run.stdout + run.stderr
