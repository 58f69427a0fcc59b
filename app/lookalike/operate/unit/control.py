"""NGINX Unit's control socket: its configuration, its status, and why it refuses.

The API is that of Unit 1.35 (unit.nginx.org/controlapi) and of FreeUnit, which adds to it.
"""

import http.client
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lookalike.errors import LookalikeError

DEFAULT_SOCKET = Path("/var/run/control.unit.sock")
"""Where Unit's packages put it."""
_ANSWER_S = 60.0
"""Unit answers a new configuration once the app's processes have opened the release."""


class UnitError(LookalikeError):
    """Unit does not answer, or it refuses; the text says why."""


class RefusedError(UnitError):
    """Unit refuses a configuration; `detailed` says whether it gives a reason."""

    def __init__(self, answer: Mapping[str, Any], pointer: str | None) -> None:
        texts = [str(answer[key]) for key in ("error", "detail") if answer.get(key)]
        if answer.get("suggestion"):
            texts.append(f'Perhaps "{answer["suggestion"]}".')
        at = f" at {pointer}" if pointer else ""
        super().__init__(f"Unit refuses the configuration{at}: {' '.join(texts) or answer}")
        self.detailed = "detail" in answer


class Control:
    """The control socket at `address`, a path, perhaps after ``unix:``. Methods raise UnitError."""

    def __init__(self, address: str | Path = DEFAULT_SOCKET) -> None:
        self.path = Path(str(address).removeprefix("unix:"))

    def configuration(self) -> dict[str, Any]:
        """The whole configuration."""
        return self.ask("GET", "/config")

    def configure(self, config: Mapping[str, Any]) -> None:
        """Replace the whole configuration at once; RefusedError, and no change, if Unit refuses it."""
        before = self.configuration()
        answer = self.ask("PUT", "/config", config)
        if "success" not in answer:
            raise RefusedError(answer, _pointer(config, before, answer))

    def status(self) -> dict[str, Any]:
        """Connections, requests, the processes of each application, and the language modules."""
        return self.ask("GET", "/status")

    def check_python(self, application: Mapping[str, Any]) -> None:
        """Raise UnitError if Unit would run an application with another Python than its `home` has.

        Both must be of one minor version (github.com/nginx/unit issue 516).
        """
        type_ = re.fullmatch(r"python ?([0-9.]*)", str(application.get("type")))
        if type_ is None:
            raise UnitError('the "type" of the application must be "python" and a version')
        prefix = type_[1]
        versions = python_versions(self.status())
        start = f"{prefix}." if prefix else ""
        matching = [each for each in versions if f"{each}.".startswith(start)]
        ours = _minor_of(Path(application["home"]))
        if matching and _minor(matching[0]) == ours:
            return
        home = f"the environment {application['home']} is Python {ours}"
        if any(_minor(version) == ours for version in versions):
            raise UnitError(
                f'{home}, and type "{application["type"]}" is Python '
                f'{matching[0] if matching else "none"} to Unit; write "type": "python {ours}"'
            )
        found = f"Python {', '.join(versions)}" if versions else "no Python module"
        raise UnitError(f"Unit has {found}, and {home}: they must be of one minor version")

    def ask(self, method: str, path: str, document: object = None) -> dict[str, Any]:
        """Send any request of the control API; returns the JSON object, also of an error."""
        connection = UnixConnection(self.path, _ANSWER_S)
        try:
            body = None if document is None else json.dumps(document)
            connection.request(method, path, body)
            answer = json.loads(connection.getresponse().read())
            if not isinstance(answer, dict):
                raise ValueError("not a JSON object")
        except (
            http.client.HTTPException,
            ValueError,
            ConnectionResetError,
            BrokenPipeError,
        ) as error:
            # FreeUnit closes the connection of other users.
            raise UnitError(
                f"{self.path} does not answer as Unit's control socket does, to root or to Unit's "
                f"own user: {error}"
            ) from error
        except OSError as error:
            raise UnitError(f"Unit's control socket {self.path}: {_why(error)}") from error
        finally:
            connection.close()
        return answer


class UnixConnection(http.client.HTTPConnection):
    """HTTP on a UNIX socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def python_versions(status: Mapping[str, Any]) -> list[str]:
    """The versions of Python in a status, newest first; there one is an object, several are a list."""
    found = status.get("modules", {}).get("python", [])
    versions = [str(each["version"]) for each in (found if isinstance(found, list) else [found])]
    return sorted(
        versions, key=lambda each: [int(n) for n in re.findall(r"\d+", each)], reverse=True
    )


def _why(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is none; is Unit running (systemctl status unit)? --control says where it is"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there; is Unit running (systemctl status unit)?"
    if isinstance(error, PermissionError):
        return "only root may ask there; use sudo"
    if isinstance(error, TimeoutError):
        return f"no answer within {_ANSWER_S:.0f} s; `lookalike unit status` says what holds now"
    return error.strerror or str(error)


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _minor_of(home: Path) -> str:
    """The minor version of Python in an environment, where lookalike must be installed."""
    if home == Path(sys.prefix):
        return _minor(sys.version)
    program = "import sys, lookalike; print('%d.%d' % sys.version_info[:2])"
    try:
        run = subprocess.run(
            [home / "bin" / "python3", "-I", "-c", program],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except subprocess.CalledProcessError:
        raise UnitError(f"lookalike is not installed in {home}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnitError(f"{home} is no Python environment: {error}") from error
    return run.stdout.strip()


def _pointer(
    config: Mapping[str, Any], before: Mapping[str, Any], answer: Mapping[str, Any]
) -> str | None:
    """The JSON pointer to what Unit refuses in `config`; None if it cannot be told.

    FreeUnit names it. Unit only quotes a name or a value: the pointer is to the only member with it,
    among those that have changed since `before`, which Unit had accepted.
    """
    location = answer.get("location", {})
    if isinstance(location, dict) and location.get("path"):
        return str(location["path"])
    detail = str(answer.get("detail", ""))
    quoted = re.findall(r'"([^"]*)"', detail)
    if "is missing" in detail:  # then it quotes what is not there
        return None
    scores = {
        path: (name in quoted) + (value in quoted) for path, name, value in _members(config, before)
    }
    best = max(scores.values(), default=0)
    likely = [path for path, score in scores.items() if score == best]
    return likely[0] if best and len(likely) == 1 else None


def _members(
    value: object, before: object, path: str = ""
) -> Iterator[tuple[str, str | None, object]]:
    """The pointer, name and value of everything inside `value` that differs from `before`."""
    if isinstance(value, Mapping):
        was = before if isinstance(before, Mapping) else {}
        beneath = [(name, name, each, was.get(name)) for name, each in value.items()]
    elif isinstance(value, list):
        old = before if isinstance(before, list) else []
        beneath = [
            (str(i), None, each, old[i] if i < len(old) else None) for i, each in enumerate(value)
        ]
    else:
        return
    for step, name, each, earlier in beneath:
        if each != earlier:
            pointer = f"{path}/{step.replace('~', '~0').replace('/', '~1')}"
            yield pointer, name, each
            yield from _members(each, earlier, pointer)
