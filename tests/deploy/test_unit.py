"""deploy/unit and `lookalike unit`, with a real Unit."""

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from lookalike.operate.cli import main
from lookalike.operate.unit.config import APPLICATION, CHANGES
from lookalike.operate.unit.private import PrivateUnit
from lookalike.release.root import ReleaseRoot
from servers import SHIPPED, free_port, in_session, private_unit
from support import REPOSITORY, TOKEN
from waiting import HUNG_S, wait_until

pytestmark = pytest.mark.unit

PRODUCTION = REPOSITORY / "deploy/unit/lookalike.json"
PUBLIC = {"/nns", "/related", "/healthz", "/readyz", "/openapi.json"}
TARGET = "/nns?category_id=1&product_id=100"
OTHER_APP = {"type": "python 3", "module": "constant", "path": str(REPOSITORY / "tests/load")}


@dataclass
class Host:
    """A Unit without the app yet, and the production file with this host's addresses and paths."""

    unit: PrivateUnit
    file: Path
    public: int
    private: int
    access_log: Path
    root: ReleaseRoot

    def run(self, command: str, *arguments: str) -> int:
        """`lookalike unit …` on this host's Unit."""
        return main(["unit", command, *arguments, "--control", f"unix:{self.unit.control.path}"])

    def apply(self, file: Path | None = None) -> int:
        """Give it a file, the production one unless told, without asking."""
        return self.run("apply", str(file or self.file), "--root", str(self.root.path), "--yes")

    def changed(self, old: str, new: str) -> Path:
        """The production file with a part of its text changed."""
        path = self.file.with_name("changed.json")
        path.write_text(_replaced(self.file.read_text(), {old: new}))
        return path

    def pids(self, application: str) -> set[int]:
        """The living processes of an application of this Unit."""
        title = f'unit: "{application}" application'
        titles = {pid: Path(f"/proc/{pid}/cmdline") for pid in in_session(self.unit.process.pid)}
        return {pid for pid, path in titles.items() if title in path.read_text()}


@pytest.fixture
def host(root: ReleaseRoot, tmp_path: Path) -> Iterator[Host]:
    # Of an application that was just replaced: its processes tell the others, who are gone.
    with private_unit(alerts=("failed (32: Broken pipe)",)) as unit:
        yield _host(unit, root, tmp_path)


def _host(unit: PrivateUnit, root: ReleaseRoot, folder: Path) -> Host:
    """The production file names a user that few machines have: here it is the one who tests."""
    public, private = free_port(), free_port()
    log = folder / "access.log"
    (folder / "token").write_text(f"{TOKEN}\n")
    fit = {
        "127.0.0.1:8080": f"127.0.0.1:{public}",
        "127.0.0.1:8081": f"127.0.0.1:{private}",
        "/var/log/lookalike-access.log": str(log),
        "/etc/lookalike/token": str(folder / "token"),
        '"user": "lookalike"': f'"user": "{_name("/etc/passwd", os.getuid())}"',
        '"group": "lookalike"': f'"group": "{_name("/etc/group", os.getgid())}"',
    }
    if os.getuid() != 0:  # only root may make a namespace
        fit['"network": true'] = '"network": false'
    file = folder / "lookalike.json"
    file.write_text(_replaced(PRODUCTION.read_text(), fit))
    return Host(unit, file, public, private, log, root)


def _name(file: str, number: int) -> str:
    rows = (line.split(":") for line in Path(file).read_text().splitlines())
    return next(row[0] for row in rows if row[2] == str(number))


def _replaced(text: str, parts: dict[str, str]) -> str:
    for old, new in parts.items():  # what both applications have is replaced in both
        assert old in text
        text = text.replace(old, new)
    return text


def ask(
    port: int,
    target: str,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Any:
    """Status and body; None as body for a page of Unit's own."""
    connection = HTTPConnection("127.0.0.1", port, timeout=HUNG_S)
    try:
        connection.request(method, target, body, headers or {})
        answer = connection.getresponse()
        text = answer.read()
        assert answer.getheader("Server") == "Unit"  # and no version
        return answer.status, None if b"<title>Error" in text else text
    finally:
        connection.close()


def lines(host: Host) -> list[dict[str, str]]:
    """The access log; every line must be an object of its own."""
    return [json.loads(line) for line in host.access_log.read_text().splitlines()]


def test_the_public_listener_lets_only_the_public_paths_through(host: Host) -> None:
    assert host.apply() == 0
    paths = json.loads(ask(host.public, "/openapi.json")[1])["paths"]
    assert set(paths) > PUBLIC
    sneaky = ["/", "/metrics/", "//metrics", "/nns/../metrics", "/%2e%2e/metrics", "/./release"]
    sneaky += ["/healthz/../products/1/1", "/nns/", "/NNS", "/nns%2f..%2fmetrics", "/nns;/metrics"]
    for path in [*paths, *sneaky]:
        target = re.sub(r"\{\w+\}", "1", path)
        method = "GET" if "get" in paths.get(path, {"get": 1}) else "DELETE"
        status, body = ask(host.public, target, method)
        if path in PUBLIC:
            assert body is not None, target
        else:
            assert (status in (400, 404), body) == (True, None), target
        if path in paths:
            assert ask(host.private, target, method)[1] is not None, target
    for method in ("POST", "PUT", "DELETE"):
        assert ask(host.public, "/products/1/100", method) == (404, None)


def test_the_private_listener_takes_changes_from_who_has_the_token(host: Host) -> None:
    assert host.apply() == 0
    product, trusted = "/products/1/100", {"Authorization": f"Bearer {TOKEN}"}
    assert ask(host.private, product, "PUT", b"photo")[0] == 401
    status, body = ask(host.private, product, "PUT", b"photo", trusted)
    assert status == 202
    number = json.loads(body)["change"]
    status, body = ask(host.private, f"/changes/{number}", headers=trusted)
    assert (status, json.loads(body)["state"]) == (200, "pending")
    expected = [("PUT", "401"), ("PUT", "202"), ("GET", "200")]
    wait_until(lambda: len(lines(host)) > len(expected), host.unit.process)
    logged = lines(host)[-len(expected) :]
    assert [(line["method"], line["status"]) for line in logged] == expected
    assert TOKEN not in host.access_log.read_text()
    assert TOKEN not in host.unit.log.read_text()


def test_changes_that_wait_for_the_disk_hold_no_look_up(host: Host) -> None:
    """The process that takes them stands still, as it does in a call of the system that hangs."""
    assert host.apply() == 0
    trusted = {"Authorization": f"Bearer {TOKEN}"}
    (pid,) = host.pids(CHANGES)
    assert not host.pids(APPLICATION) & {pid}
    assert ask(host.private, "/products/1/100", "DELETE", None, trusted)[0] == 202
    with ThreadPoolExecutor(8) as pool:
        os.kill(pid, signal.SIGSTOP)
        try:
            waiting = [
                pool.submit(ask, host.private, target, method, None, trusted)
                for target in ("/products/1/100", "/changes/1")
                for method in ("DELETE", "PUT", "GET", "HEAD")
            ]
            for _ in range(20):
                for port in (host.public, host.private):
                    assert ask(port, TARGET)[0] == 200
                assert ask(host.private, "/metrics")[0] == 200
            assert not any(each.done() for each in waiting)
        finally:
            os.kill(pid, signal.SIGCONT)
    assert [each.result()[0] for each in waiting] == [202, 400, 405, 405, 405, 405, 200, 200]


def test_counters_are_of_both_applications(host: Host) -> None:
    assert host.apply() == 0
    assert ask(host.private, "/products/1/100", "PUT", b"photo")[0] == 401
    text = ask(host.private, "/metrics")[1].decode()
    assert 'lookalike_requests_total{route="PUT /products",status="401"} 1' in text
    assert "lookalike_processes 3" in text


def test_a_photo_of_the_largest_size_reaches_the_app_and_a_larger_one_does_not(host: Host) -> None:
    assert host.apply() == 0
    status, body = ask(host.private, "/products/1/100", "PUT", b" " * 2**23)
    assert (status, body is None) == (401, False)
    length = {"Content-Length": str(2**23 + 1)}  # Unit does not wait for the body
    assert ask(host.private, "/products/1/100", "PUT", headers=length) == (413, None)


def test_no_request_breaks_or_fakes_a_line_of_the_access_log(host: Host) -> None:
    assert host.apply() == 0
    wait_until(lambda: lines(host), host.unit.process)  # that of `apply`
    before = len(lines(host))
    fake = '","status":"200","seconds":"injected'
    encoded = fake.replace('"', "%22")
    ends = "Host: x\r\nConnection: close\r\n"
    hostile = [
        f"GET /nns?{fake} HTTP/1.1\r\n{ends}\r\n",
        f"GET /{fake}\\ HTTP/1.1\r\n{ends}\r\n",
        f"GET /{encoded}%0d%0a{{}} HTTP/1.1\r\n{ends}\r\n",
        f"GET /products/{encoded}%0a/%0d%22%5c HTTP/1.1\r\n{ends}\r\n",
        f"GET /changes/{encoded}%0a HTTP/1.1\r\n{ends}Authorization: Bearer {TOKEN}\r\n\r\n",
        f"GET /changes/1%0a HTTP/1.1\r\n{ends}Authorization: Bearer {TOKEN}\r\n\r\n",
        f"GET /nns%0a HTTP/1.1\r\n{ends}\r\n",
        f'GET {TARGET} HTTP/1.1\r\n{ends}User-Agent: a"\\\r\nReferer: "{fake}\r\n\r\n',
        f"GET {TARGET} HTTP/1.1\r\nHost: a{fake}\r\nConnection: close\r\n\r\n",
        # Those that Unit answers before it looks at routes.
        f"POST /{encoded}%0a HTTP/1.1\r\n{ends}Content-Length: 99999999\r\n\r\n",
        f"POST /{encoded}%0a HTTP/1.1\r\n{ends}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        f'G"{fake} / HTTP/1.1\r\n{ends}\r\n',
        f"GET /{fake} HTTP/9.9\r\n{ends}\r\n",
        f'GET /%zz" HTTP/1.1\r\n{ends}\r\n',
        f"GET /nns HTTP/1.1\r\n{ends}A\x00: {fake}\r\n\r\n",
        f"GET /nns HTTP/1.1\r\n{ends}A: {'a' * 70000}\r\n\r\n",
    ]
    for port in (host.public, host.private):
        for request in hostile:
            with socket.create_connection(("127.0.0.1", port), HUNG_S) as connection:
                connection.sendall(request.encode())
                assert connection.recv(100).startswith(b"HTTP/1.1 "), request
    wait_until(lambda: len(host.access_log.read_text().splitlines()) >= before + 2 * len(hostile))
    said = lines(host)
    assert len(said) == before + 2 * len(hostile)
    for line in said:
        assert list(line) == ["time", "remote_addr", "method", "status", "bytes", "seconds"]
        assert re.fullmatch(r"[A-Z-]+", line["method"])
        assert int(line["status"]) >= 200
        assert int(line["bytes"]) >= 0
        assert 0 <= float(line["seconds"]) < 60
    assert "injected" not in host.access_log.read_text()
    assert TOKEN not in host.access_log.read_text()


def test_apply_shows_the_difference_and_a_second_time_puts_nothing(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(host.file), "--root", str(host.root.path)]
    fresh = host.unit.control.configuration()
    assert host.run("apply", *arguments, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert f'+            "home": "{sys.prefix}",' in shown.splitlines()
    assert host.unit.control.configuration() == fresh
    assert host.run("apply", *arguments) == 1  # no terminal
    assert "nothing is changed: there is no terminal to ask on" in capsys.readouterr().err
    assert host.unit.control.configuration() == fresh

    assert host.apply() == 0
    said = capsys.readouterr().out
    assert said.startswith(shown)
    release = host.root.current()
    where = f"127.0.0.1:{host.public}, 127.0.0.1:{host.private}"
    assert said.removeprefix(shown).splitlines() == [
        "Unit has the configuration",
        f"ready: serving release {release} on {where}",
    ]
    pids, config = host.pids(APPLICATION), host.unit.control.configuration()
    assert len(pids) == config["applications"][APPLICATION]["processes"]
    assert host.apply() == 0
    assert capsys.readouterr().out.splitlines() == [
        "Unit has this configuration already",
        f"ready: serving release {release} on {where}",
    ]
    assert (host.pids(APPLICATION), host.unit.control.configuration()) == (pids, config)


def test_what_somebody_else_changes_while_it_asks_is_not_overwritten(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = {"listeners": {}, "applications": {}, "settings": {"http": {"idle_timeout": 7}}}

    def answer(_: str) -> str:
        host.unit.control.configure(theirs)
        return "y"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", answer)
    assert host.run("apply", str(host.file), "--root", str(host.root.path)) == 1
    assert (
        "Unit's configuration has changed since it was shown; run this again"
        in capsys.readouterr().err
    )
    assert host.unit.control.configuration() == theirs
    monkeypatch.setattr("builtins.input", lambda _: "n")
    assert host.run("apply", str(host.file), "--root", str(host.root.path)) == 1
    assert host.unit.control.configuration() == theirs
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert host.run("apply", str(host.file), "--root", str(host.root.path)) == 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            '"processes": 2',
            '"processes": "two"',
            "lookalike: Unit refuses the configuration at /applications/lookalike/processes: Invalid "
            'configuration. The "processes" value must be either an integer number or an object, but '
            "not a string.; nothing is changed\n",
        ),
        (
            '"timeout": 10',
            '"timeoutt": 10',
            "lookalike: Unit refuses the configuration at /applications/lookalike/limits/timeoutt: "
            'Invalid configuration. Unknown parameter "timeoutt".; nothing is changed\n',
        ),
        (
            '"module": "lookalike.wsgi",',
            "",
            "lookalike: Unit refuses the configuration: Invalid configuration. "
            'Required parameter "module" is missing.; nothing is changed\n',
        ),
    ],
)
def test_what_unit_refuses_is_said_in_its_words_and_the_old_goes_on(
    host: Host, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    assert host.apply() == 0
    before, pids = host.unit.control.configuration(), host.pids(APPLICATION)
    capsys.readouterr()
    assert host.apply(host.changed(old, new)) == 1
    assert capsys.readouterr().err == said
    assert host.unit.control.configuration() == before
    assert ask(host.public, TARGET)[0] == 200
    assert host.pids(APPLICATION) == pids


def test_what_unit_fails_to_apply_is_explained_and_the_old_goes_on(
    root: ReleaseRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alerts = ("failed to apply new conf", 'user "nobody-here" not found', "Address already in use")
    with private_unit(alerts=alerts) as unit, socket.create_server(("127.0.0.1", 0)) as taken:
        host = _host(unit, root, tmp_path)
        assert host.apply() == 0
        before = unit.control.configuration()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        folder = tmp_path / "none"
        user = before["applications"][APPLICATION]["user"]
        changes = {
            f'"127.0.0.1:{host.private}"': (f'"{address}"', f"cannot listen on {address}: address"),
            f'"user": "{user}"': ('"user": "nobody-here"', "there is no user nobody-here on"),
            str(host.access_log): (f"{folder}/log", f"access_log: there is no folder {folder}"),
        }
        for old, (new, said) in changes.items():
            capsys.readouterr()
            assert host.apply(host.changed(old, new)) == 1
            refused = (
                "lookalike: Unit refuses the configuration: Failed to apply new configuration."
            )
            error = capsys.readouterr().err
            assert error.startswith(f"{refused} Perhaps: {said}")
            assert error.endswith("; nothing is changed\n")
            assert unit.control.configuration() == before
            assert ask(host.public, TARGET)[0] == 200


def test_another_application_is_left_alone(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    theirs: dict[str, Any] = {
        "listeners": {f"127.0.0.1:{port}": {"pass": "routes/other"}},
        "routes": {"other": [{"action": {"pass": "applications/other"}}]},
        "applications": {"other": {**OTHER_APP, "home": sys.prefix}},
        "settings": {"http": {"server_version": False}},
    }
    host.unit.control.configure(theirs)
    pids, answer = host.pids("other"), ask(port, "/")
    assert host.apply() == 0
    assert "settings and access_log of" in capsys.readouterr().err
    assert ask(host.public, TARGET)[0] == 200
    config = host.unit.control.configuration()
    assert config["settings"] == theirs["settings"]
    assert "access_log" not in config
    for part in ("listeners", "routes", "applications"):
        assert config[part].items() > theirs[part].items()

    clash = host.changed(f"127.0.0.1:{host.private}", f"127.0.0.1:{port}")
    assert host.apply(clash) == 1
    assert f"Unit listens on 127.0.0.1:{port} for routes/other;" in capsys.readouterr().err
    assert host.unit.control.configuration() == config
    assert (host.pids("other"), ask(port, "/")) == (pids, answer)


def test_a_listener_that_the_next_file_has_no_more_is_closed(host: Host) -> None:
    assert host.apply() == 0
    small = host.file.with_name("small.json")
    small.write_text(_replaced(SHIPPED.read_text(), {":8080": f":{host.public}"}))
    assert host.apply(small) == 0
    assert ask(host.public, "/release")[0] == 200
    with pytest.raises(ConnectionRefusedError):
        ask(host.private, "/release")


def test_an_app_that_is_not_ready_says_why_and_the_exit_status_is_1(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    assert host.run("apply", str(host.file), "--root", str(empty), "--yes") == 1
    assert f"{empty}: there is no such folder" in capsys.readouterr().err
    empty.mkdir()
    assert host.run("apply", str(host.file), "--root", str(empty), "--yes") == 1
    problem = f"no release in {empty} yet; `lookalike-build index` makes one"
    said = f"the configuration is in Unit, but the app is not ready: {problem}\n"
    assert capsys.readouterr().err == f"lookalike: {said}"
    assert host.run("status") == 1
    assert capsys.readouterr().out.splitlines()[-1] == f"ready        no: {problem}"


def test_status_shows_unit_and_the_app_on_one_screen(
    root: ReleaseRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with private_unit() as unit:
        host = _host(unit, root, tmp_path)
        assert host.run("status") == 1
        assert capsys.readouterr().out.splitlines()[2:] == [
            "listeners    none",
            "processes    -",
            "requests     total 0",
            "ready        no: no listener of Unit is for lookalike",
        ]
        assert host.apply() == 0
        capsys.readouterr()
        assert host.run("status") == 0
        shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
        assert list(shown) == [
            *("Unit", "connections", "listeners", "processes", "changes", "requests", "release"),
            "ready",
        ]
        assert shown["Unit"] == f"Python {'.'.join(map(str, sys.version_info[:3]))}"
        assert re.fullmatch(r"accepted \d+, active \d+, idle \d+, closed \d+", shown["connections"])
        assert shown["listeners"] == f"127.0.0.1:{host.public}, 127.0.0.1:{host.private}"
        assert shown["processes"] == "running 2, starting 0, idle 2"
        assert shown["changes"] == "processes running 1, starting 0, idle 1"
        assert re.fullmatch(r"active 0, total \d+", shown["requests"])
        assert shown["release"] == f"{root.current()} (products: 368, categories: 4)"
        assert shown["ready"] == "yes"

        assert host.run("status", "--json") == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["ready"], document["problem"]) == (True, None)
        assert document["release"]["release"] == root.current()
        assert document["unit"]["applications"][APPLICATION]["processes"]["running"] == 2
    assert host.run("status") == 1
    said = capsys.readouterr().err
    assert said.startswith(f"lookalike: Unit's control socket {unit.control.path}: ")
    assert "is Unit running (systemctl status unit)" in said
