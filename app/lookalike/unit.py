"""NGINX Unit: the shipped configuration made fit for one place, and a Unit of one's own to run it.

The private Unit has its own folder for state, control socket and log, so it meets no Unit that the
machine may be running. Made for the demo and the tests; production uses the machine's own.
"""

import grp
import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lookalike.settings import ROOT

APPLICATION = "lookalike"
_START_S = 10.0
_STOP_S = 5.0


class UnitError(Exception):
    """Unit cannot be had or refuses; the text says why."""


def find_unitd() -> str | None:
    """The path of ``unitd``, also where only root's PATH has it; None if it is not installed."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"])
    return shutil.which("unitd", path=path)


def configuration(shipped: Path, listen: str, home: Path, root: Path) -> dict[str, Any]:
    """The configuration in the file `shipped` with its address and its paths replaced.

    `listen` is host:port, `home` the Python environment, `root` the release root.
    """
    config: dict[str, Any] = json.loads(shipped.read_text())
    ((_, listener),) = config["listeners"].items()
    config["listeners"] = {listen: listener}
    application = config["applications"][APPLICATION]
    application["home"] = str(home)
    application["environment"][ROOT.name] = str(root)
    return config


class PrivateUnit:
    """A ``unitd`` running as a child in `folder`, which must be short enough for a socket's name.

    Attributes: `process`, `log` (its log file). Use as a context manager. Raises UnitError.
    """

    def __init__(self, unitd: str, folder: Path) -> None:
        self.log = folder / "unit.log"
        self._control = folder / "control.sock"
        for name in ("state", "tmp"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        user = pwd.getpwuid(os.getuid()).pw_name
        group = grp.getgrgid(os.getgid()).gr_name
        command: list[str | Path] = [
            unitd,
            "--no-daemon",
            "--control",
            f"unix:{self._control}",
            "--log",
            self.log,
        ]
        command += ["--pid", folder / "pid", "--statedir", folder / "state"]
        command += ["--tmpdir", folder / "tmp", "--user", user, "--group", group]
        # A group of its own: Ctrl-C is for us, and Unit is then stopped in order.
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            self._wait_for_control()
        except UnitError:
            self.stop()
            raise

    def __enter__(self) -> "PrivateUnit":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop Unit and all its processes, in order: SIGTERM would cut them off from each other."""
        self.process.send_signal(signal.SIGQUIT)
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            # Unit 1.35 does not come to an end if an application's process is just being replaced.
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def configure(self, config: dict[str, Any]) -> None:
        """Put the whole configuration; UnitError with Unit's own words if it is refused."""
        answer = self.control("PUT", "/config", config)
        if "success" not in answer:
            reason = " ".join(str(answer.get(key, "")) for key in ("error", "detail")).strip()
            raise UnitError(f"Unit refuses the configuration: {reason}; its log: {self.log}")

    def check_python(self) -> None:
        """Raise UnitError where Unit's Python is not this environment's, which cannot work."""
        module = self.control("GET", "/status").get("modules", {}).get("python")
        modules = module if isinstance(module, list) else [module] if module else []
        ours = f"{sys.version_info.major}.{sys.version_info.minor}"
        theirs = [each["version"] for each in modules]
        if not any(version.startswith(f"{ours}.") for version in theirs):
            found = f"Python {', '.join(theirs)}" if theirs else "no Python module"
            raise UnitError(f"Unit has {found}, this environment is Python {ours}")

    def control(self, method: str, path: str, document: object = None) -> dict[str, Any]:
        """Ask the control socket; its JSON answer."""
        connection = _UnixConnection(self._control)
        try:
            body = None if document is None else json.dumps(document)
            connection.request(method, path, body)
            return dict(json.loads(connection.getresponse().read()))
        except (OSError, http.client.HTTPException) as error:
            raise UnitError(f"Unit's control socket {self._control}: {error}") from error
        finally:
            connection.close()

    def _wait_for_control(self) -> None:
        until = time.monotonic() + _START_S
        while time.monotonic() < until and self.process.poll() is None:
            if self._control.exists():
                return
            time.sleep(0.02)
        raise UnitError(f"unitd does not start; its log: {self.log}")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
