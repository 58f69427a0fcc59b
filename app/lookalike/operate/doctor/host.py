"""The facts about this host, each looked up once: Unit, its configuration of the app, the processes."""

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
from lookalike.operate.unit.config import ends, routes
from lookalike.operate.unit.control import DEFAULT_SOCKET, UnixConnection
from lookalike.operate.unit.private import find_unitd
from lookalike.release.files import ReleaseError
from lookalike.release.manifest import Manifest
from lookalike.release.root import ReleaseRoot, RootError
from lookalike.serving.settings import ROOT

MODULE = "lookalike.wsgi"
URL = "http://127.0.0.1:8080"
"""Where the shipped configuration serves the app."""
_RUN_S = 10.0
_OPTION = re.compile(r"^ +--(\w+) .*?default: \"(?:unix:)?(.+?)\"", re.MULTILINE | re.DOTALL)
"""An option of ``unitd --help`` with its default."""
_MAIN = "unit: main v"
_VERSION = re.compile(r"(\d+(?:\.\d+)+)")

Version = tuple[int, ...]


class NotUnitError(Exception):
    """The control socket is not Unit's, or it is FreeUnit's, which does not answer this user."""


@dataclass(frozen=True)
class Asked:
    """The command's options; what is None, the doctor finds itself."""

    root: Path | None = None
    control: Path | None = None
    url: str | None = None
    nginx: Path | None = None
    full: bool = False


@dataclass(frozen=True)
class Unitd:
    """The program ``unitd``: its path, its version, and the defaults in its help."""

    path: str
    version: str
    defaults: Mapping[str, str]

    @classmethod
    def find(cls) -> "Unitd | None":
        """The one on PATH, or on root's PATH; None if there is none."""
        path = find_unitd()
        if path is None:
            return None
        version = _VERSION.search(output_of([path, "--version"]))
        # Empty lines separate the options.
        options = map(_OPTION.search, output_of([path, "--help"]).split("\n\n"))
        defaults = {option[1]: option[2] for option in options if option}
        return cls(path, version[1] if version else "", defaults)


@dataclass(frozen=True)
class App:
    """One application of Unit's configuration: its name, its part of it, and its listeners."""

    name: str
    config: Mapping[str, Any]
    listeners: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that Unit sets for it."""
        return dict(self.config.get("environment") or {})


@dataclass(frozen=True)
class RunningUnit:
    """A running Unit: its configuration, its status, and the id of its main process."""

    config: Mapping[str, Any]
    status: Mapping[str, Any]
    pid: int

    @classmethod
    def ask(cls, control: Path) -> "RunningUnit":
        """Ask the control socket; OSError if that fails, NotUnitError if it is not Unit's."""
        status, pid = _get(control, "/status")
        if not isinstance(status, dict) or "requests" not in status:
            raise NotUnitError
        config, _ = _get(control, "/config")
        if not isinstance(config, dict):
            raise NotUnitError
        return cls(config, status, _main_process(control, pid))

    @property
    def version(self) -> str:
        """The version of the running process, which may be older than the package; "" if unknown."""
        title = _title(self.pid)
        found = _VERSION.search(title) if title.startswith(_MAIN) else None
        return found[1] if found else ""

    def apps(self) -> list[App]:
        """Lookalike's applications."""
        found = (self.config.get("applications") or {}).items()
        return [
            App(name, part, tuple(self._listeners(f"applications/{name}")))
            for name, part in found
            if isinstance(part, dict) and part.get("module") == MODULE
        ]

    def _listeners(self, target: str) -> Iterator[str]:
        """The addresses of the listeners that pass requests to `target`, or to routes that may."""
        leading = {name for name, steps in routes(self.config).items() if target in ends(steps)}
        for address, listener in (self.config.get("listeners") or {}).items():
            if unquote(str(listener.get("pass"))) in {target, *leading}:
                yield address


class Host:
    """This host as the checks see it. A fact raises any error of looking it up."""

    def __init__(self, asked: Asked, environ: Mapping[str, str] = os.environ) -> None:
        self.asked = asked
        self._environ = environ

    @cached_property
    def unitd(self) -> Unitd | None:
        """The program ``unitd``, if it is installed."""
        return Unitd.find()

    @property
    def unit_version(self) -> str:
        """The version of the running Unit, else of the program; "" if it is unknown."""
        return (self.unit and self.unit.version) or (self.unitd.version if self.unitd else "")

    @cached_property
    def control(self) -> Path:
        """The control socket: the one given, else the default of ``unitd``."""
        default = self.unitd.defaults.get("control") if self.unitd else None
        return self.asked.control or Path(default or DEFAULT_SOCKET)

    @cached_property
    def asked_unit(self) -> RunningUnit | OSError | NotUnitError:
        """The running Unit, or the error of asking the control socket."""
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
        """The application in Unit's configuration; of several, the one with the given root."""
        apps = self.unit.apps() if self.unit else []
        if self.asked.root:
            apps.sort(
                key=lambda app: not same_path(app.environment.get(ROOT.name), self.asked.root)
            )
        return apps[0] if apps else None

    @cached_property
    def urls(self) -> list[str]:
        """Where to ask the app: the URL given, else its listeners under Unit, else the default."""
        if self.asked.url:
            return [self.asked.url.rstrip("/")]
        listeners = [
            each for each in (self.app.listeners if self.app else ()) if each[:5] != "unix:"
        ]
        return [f"http://{each.replace('*', '127.0.0.1', 1)}" for each in listeners] or [URL]

    @cached_property
    def environ(self) -> Mapping[str, str]:
        """The app's environment variables: those of Unit's configuration, or else our own."""
        return self.app.environment if self.app else self._environ

    @cached_property
    def root(self) -> ReleaseRoot | None:
        """The root given, or else the app's."""
        path = self.asked.root or self.environ.get(ROOT.name)
        return ReleaseRoot(Path(path)) if path else None

    @cached_property
    def current(self) -> tuple[Path, Manifest] | None:
        """Folder and manifest of the current release; None if there is none or it is invalid."""
        with suppress(ReleaseError, RootError, OSError):
            if self.root:
                name = self.root.chosen()
                return self.root.folder(name), self.root.manifest(name)
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
        """The user that the app runs as: of its processes, else Unit's configuration or default.

        None if there is no Unit; KeyError names a user that does not exist.
        """
        for pid in self.processes:
            return User.of_process(pid)
        if self.app and "user" in self.app.config:
            return User.named(self.app.config["user"], self.app.config.get("group"))
        default = self.unitd.defaults.get("user") if self.unitd else None
        return User.named(default) if default else None


def same_path(one: str | Path | None, other: str | Path | None) -> bool:
    """Whether both paths lead to the same file or folder."""
    return bool(one and other) and Path(str(one)).resolve() == Path(str(other)).resolve()


def _get(control: Path, path: str) -> tuple[object, int]:
    """The JSON document at `path`, and the id of the process that listens."""
    # Not by `Control`, which reports neither the process nor the kind of failure.
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
    """Unit's main process. `listened` called listen(); it has ended if it started a daemon."""
    if _title(listened).startswith(_MAIN):
        return listened
    lines = Path("/proc/net/unix").read_text(errors="replace").splitlines()
    fields = [line.split() for line in lines]
    # Unit renames the socket to its final name after listen().
    sockets = {
        f"socket:[{each[6]}]"
        for each in fields
        if each[-1].startswith("/") and same_path(each[-1].removesuffix(".tmp"), control)
    }
    for process in Path("/proc").glob("[0-9]*"):
        if _title(int(process.name)).startswith(_MAIN):
            with suppress(OSError):  # another user's, or ended
                if sockets & {str(each.readlink()) for each in (process / "fd").iterdir()}:
                    return int(process.name)
    return listened


def _descendants(pid: int) -> list[int]:
    """The living processes that descend from `pid`."""
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


def output_of(command: list[str]) -> str:
    """What a program writes to standard output and standard error."""
    run = subprocess.run(command, capture_output=True, text=True, timeout=_RUN_S, check=False)
    return run.stdout + run.stderr
