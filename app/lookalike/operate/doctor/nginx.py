"""The check of nginx in front: it closes idle connections to Unit before Unit does.

If Unit closes a connection just as nginx sends a request on it, the request is lost or sent twice.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple
from urllib.parse import urlsplit

from lookalike.operate.amounts import seconds_text
from lookalike.operate.doctor.finding import Finding, absent, ok, problem, warning
from lookalike.operate.doctor.host import Host, Version, output_of

_RUN_S = 30.0
_DEFAULT_S = 60.0
"""nginx's own ``keepalive_timeout`` of an upstream."""
_KEEPS_BY_ITSELF: Version = (1, 29, 7)
"""From this version on nginx keeps connections to an upstream by default."""
_UNIT_S, _FREEUNIT_S = 180.0, 30.0
_FREEUNIT: Version = (1, 35, 4)
"""From this version on, FreeUnit's, the ``idle_timeout`` is shorter; Unit's last is 1.35.0."""
_WORD = re.compile(
    r"""\s+|\#[^\n]*|"((?:\\.|[^"\\])*)"|'((?:\\.|[^'\\])*)'|([{};])|([^\s{};"']+)"""
)
_TIME = re.compile(r"(\d+)(ms|[smhdwMy]?)")
_UNITS = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LOCAL = ("localhost", "127.0.0.1", "[::1]", "*", "0.0.0.0", "[::]")  # noqa: S104  # compared only


class Upstream(NamedTuple):
    """An ``upstream`` of nginx: its servers, and whether and how long it keeps idle connections."""

    name: str
    servers: tuple[str, ...]
    keeps: bool
    timeout_s: float


def nginx(host: Host) -> Iterator[Finding]:
    """Every upstream of nginx that leads to the app keeps idle connections for less time than Unit."""
    program = shutil.which("nginx", path=None) or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        yield absent("not here: no nginx on PATH")
        return
    command = [program, "-T", *(["-c", str(host.asked.nginx)] if host.asked.nginx else [])]
    run = subprocess.run(command, capture_output=True, timeout=_RUN_S, check=False)
    if run.returncode:
        lines = run.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        yield warning(
            f"nginx's configuration cannot be read: {lines[0]}",
            "run this as root; `nginx -t` says what is wrong with it",
        )
        return
    listeners = host.app.listeners if host.app else (urlsplit(host.urls[0]).netloc,)
    settings = host.unit.config.get("settings") or {} if host.unit else {}
    configured = (settings.get("http") or {}).get("idle_timeout")
    idle_s = (
        default_idle_s(version_of(host.unit_version)) if configured is None else float(configured)
    )
    upstreams = read_upstreams(run.stdout.decode(errors="replace"))
    leading = [
        each
        for each in upstreams
        if any(_same_address(*pair) for pair in product(each.servers, listeners))
    ]
    if not leading:
        yield absent(f"none of nginx's upstreams leads to {' or '.join(listeners)}")
    version = re.search(r"nginx/([\d.]+)", output_of([program, "-v"]))
    for upstream in leading:
        yield keep_alive(upstream, idle_s, version_of(version[1] if version else ""))


def keep_alive(upstream: Upstream, idle_s: float, version: Version) -> Finding:
    """Whether `upstream` of nginx `version` closes before Unit, which closes after `idle_s`."""
    name = f"nginx's upstream {upstream.name}"
    if not upstream.keeps and version < _KEEPS_BY_ITSELF:
        return ok(f"{name} makes a connection for each request (no keepalive)")
    kept, unit_s = seconds_text(upstream.timeout_s), seconds_text(idle_s)
    if upstream.timeout_s < idle_s:
        return ok(f"{name} keeps idle connections {kept}, shorter than Unit's {unit_s}")
    shorter_s = max(1, min(20, int(idle_s / 2)))
    return problem(
        f"{name} keeps idle connections {kept}, Unit closes them after {unit_s}: requests get lost",
        f"keepalive_timeout {shorter_s}s; in that upstream, as deploy/nginx has it",
    )


def default_idle_s(version: Version) -> float:
    """The default ``idle_timeout`` of a version of Unit or FreeUnit."""
    return _FREEUNIT_S if version >= _FREEUNIT else _UNIT_S


def read_upstreams(text: str) -> list[Upstream]:
    """The upstreams in what ``nginx -T`` writes."""
    found: list[Upstream] = []
    statement: list[str] = []
    inside: Upstream | None = None
    for word in _words(text):
        if word == "{" and inside is None and statement[:1] == ["upstream"]:
            inside = Upstream(statement[1], (), False, _DEFAULT_S)
        elif word == "}" and inside is not None:
            found.append(inside)
            inside = None
        elif word == ";" and inside is not None:
            inside = _with(inside, statement)
        elif word not in ("{", "}", ";"):
            statement.append(word)
            continue
        statement = []
    return found


def _with(upstream: Upstream, statement: list[str]) -> Upstream:
    match statement:
        case ["server", address, *_]:
            return upstream._replace(servers=(*upstream.servers, address))
        case ["keepalive", number, *_]:
            return upstream._replace(keeps=number != "0")
        case ["keepalive_timeout", time]:
            return upstream._replace(timeout_s=_seconds(time))
    return upstream


def _words(text: str) -> Iterator[str]:
    for match in _WORD.finditer(text):
        if match.lastindex:
            yield match[match.lastindex]


def _seconds(text: str) -> float:
    """A time of nginx's, such as ``1m30s``, in seconds; LookupError names an invalid one."""
    parts = _TIME.findall(text)
    if not parts or "".join(map("".join, parts)) != text:
        raise LookupError(f"not a time: {text}")
    return float(sum(int(number) * _UNITS[unit] for number, unit in parts))


def _same_address(server: str, listener: str) -> bool:
    """Whether a server of an upstream is the address `listener` of Unit on this host."""
    if server == listener:
        return True
    (one, one_port), (other, other_port) = _parts(server), _parts(listener)
    if one_port != other_port:
        return False
    return one == other or other in ("*", "0.0.0.0") or {one, other} <= {*_LOCAL}  # noqa: S104


def _parts(address: str) -> tuple[str, str]:
    host, colon, port = address.rpartition(":")
    return (host, port) if colon and port.isdigit() else (address, "80")


def version_of(text: str) -> Version:
    """A version such as ``1.35.0``, to be compared."""
    return tuple(int(part) for part in text.split(".") if part.isdigit())
