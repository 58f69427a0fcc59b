"""A private NGINX Unit, for the demo and the tests; production uses the machine's.

Its state, control socket and log are in a folder of its own, apart from any other Unit's.
"""

import grp
import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path

from lookalike.operate.unit.control import Control, UnitError

_START_S = 300.0
_STOP_S = 5.0


def find_unitd() -> str | None:
    """The path of ``unitd``, on PATH or on root's PATH; None if it is not installed."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"])
    return shutil.which("unitd", path=path)


class PrivateUnit:
    """A ``unitd`` running as a child in `folder`, which must be short enough for a socket's name.

    Attributes: `process`, `log` (its log file), `control`. Use as a context manager. Raises UnitError.
    """

    def __init__(self, unitd: str, folder: Path) -> None:
        self.log = folder / "unit.log"
        self.control = Control(folder / "control.sock")
        for name in ("state", "tmp"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        user = pwd.getpwuid(os.getuid()).pw_name
        group = grp.getgrgid(os.getgid()).gr_name
        command: list[str | Path] = [unitd, "--no-daemon", "--user", user, "--group", group]
        command += ["--control", f"unix:{self.control.path}", "--log", self.log]
        command += ["--pid", folder / "pid", "--statedir", folder / "state"]
        command += ["--tmpdir", folder / "tmp"]
        # In a process group of its own: Ctrl-C reaches only us, and we stop Unit in order.
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
        """Stop Unit and all its processes in order, which SIGTERM would not."""
        self.process.send_signal(signal.SIGQUIT)
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            # Unit 1.35 hangs if it is just replacing an application's process.
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _wait_for_control(self) -> None:
        until = time.monotonic() + _START_S
        while time.monotonic() < until and self.process.poll() is None:
            if self.control.path.exists():
                return
            time.sleep(0.02)
        raise UnitError(f"unitd does not start; its log: {self.log}")
