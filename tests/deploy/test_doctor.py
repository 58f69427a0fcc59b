"""lookalike doctor on a real Unit behind a real nginx: all well, then one thing broken at a time."""

import http.client
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lookalike.operate.cli import main
from lookalike.operate.doctor.host import Asked, Host, RunningUnit
from lookalike.operate.unit.config import APPLICATION, configuration
from lookalike.operate.unit.control import UnitError
from lookalike.operate.unit.private import PrivateUnit, find_unitd
from lookalike.release.files import NEIGHBOURS
from lookalike.release.root import ReleaseRoot
from lookalike.serving.settings import ROOT
from servers import SHIPPED, Front, configure_nginx, free_port
from support import REPOSITORY, forget, make_slim
from waiting import HUNG_S, wait_until

pytestmark = [pytest.mark.nginx, pytest.mark.unit]
Found = dict[str, tuple[str, str]]


@dataclass(frozen=True)
class Place:
    """A host: a release root, Unit serving it, and the configuration of nginx before it."""

    root: ReleaseRoot
    unit: PrivateUnit
    control: Path
    config: dict[str, Any]
    nginx: Path

    def host(self) -> Host:
        """As the doctor sees it."""
        return Host(Asked(self.root.path, self.control))

    def wait_until(self, held: Callable[[], object]) -> None:
        """Return once it holds; AssertionError if Unit ends before."""
        wait_until(held, self.unit.process, self.unit.log)

    def configure(self, **parts: Any) -> None:
        """Give Unit its configuration with these parts of the app's replaced."""
        config = json.loads(json.dumps(self.config))
        config["applications"][APPLICATION].update(parts)
        self.unit.control.configure(config)

    def examine(self, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, Found]:
        """The exit status of the command and, by check, the worst finding's level and text."""
        arguments = ["--root", str(self.root.path), "--control", str(self.control)]
        arguments += ["--nginx", str(self.nginx), *more]
        status = main(["doctor", "--json", *arguments])
        found: Found = {}
        for each in json.loads(capsys.readouterr().out):
            assert "this check failed" not in each["text"], each
            assert bool(each["remedy"]) == (each["level"] in ("warning", "problem")), each
            if found.get(each["check"], ("",))[0] != "problem":
                found[each["check"]] = each["level"], each["text"]
        assert status == (1 if any(level == "problem" for level, _ in found.values()) else 0)
        return status, found


@pytest.fixture
def place(root: ReleaseRoot) -> Iterator[Place]:
    """A healthy host."""
    unitd = find_unitd()
    if unitd is None:
        pytest.skip("NGINX Unit is not installed: no unitd on PATH")
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed: sudo apt install nginx-light")
    listen = f"127.0.0.1:{free_port()}"
    config = configuration(SHIPPED, Path(sys.prefix), root.path, [listen])
    with tempfile.TemporaryDirectory() as name, PrivateUnit(unitd, Path(name)) as private:
        try:
            private.control.check_python(config["applications"][APPLICATION])
        except UnitError as error:
            pytest.skip(str(error))
        folder = Path(name, "nginx")
        folder.mkdir()
        front = Front(("127.0.0.1", free_port()), folder / "log", pages=("127.0.0.1", free_port()))
        configure_nginx(folder, front, [("127.0.0.1", int(listen.rpartition(":")[2]))])
        nginx = folder / "nginx.conf"
        found = Place(root, private, private.control.path, config, nginx)
        found.configure()
        found.wait_until(lambda: len(found.host().processes) == 2)
        yield found


def problems(found: Found) -> dict[str, str]:
    """By check, what the problems are."""
    return {check: text for check, (level, text) in found.items() if level == "problem"}


def test_a_healthy_host_has_no_problem(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = place.examine(capsys)
    assert (status, problems(found)) == (0, {})
    levels = {check: level for check, (level, _) in found.items()}
    assert levels.pop("clock") in ("ok", "warning")
    assert levels.pop("secrets") in ("absent", "ok", "warning")  # of what this host has
    assert levels == dict.fromkeys(levels, "ok"), found
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"has a module for Python {version}" in found["Unit"][1]
    assert found["served"][1].endswith("serves the current release")
    assert found["nginx"][1].endswith("keeps idle connections 20 s, shorter than Unit's 3 min")
    assert "a process of Unit's may hold" in found["open files"][1]
    running = place.host().unit
    assert running is not None
    assert running.version in found["Unit"][1]
    assert running.version.startswith("1.")


def test_the_configuration_for_production_has_no_problem(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    token.chmod(0o640)
    (listen,) = place.config["listeners"]
    private = f"127.0.0.1:{free_port()}"
    shipped = REPOSITORY / "deploy/unit/lookalike.json"
    config = configuration(shipped, Path(sys.prefix), place.root.path, [listen, private])
    del config["access_log"]
    for app in config["applications"].values():
        for name in ("user", "group", "isolation"):  # those of the host, which root alone may give
            del app[name]
        app["environment"]["LOOKALIKE_TOKEN_FILE"] = str(token)
    place.unit.control.configure(config)
    place.wait_until(lambda: len(place.host().processes) == 2)
    status, found = place.examine(capsys)
    assert (status, problems(found)) == (0, {})
    assert f'application "lookalike" on {listen}, {private} has' in found["app"][1]
    assert found["permissions"][1].endswith("can read what it serves and write the journal")
    assert found["nginx"][1].endswith("keeps idle connections 20 s, shorter than Unit's 60 s")


def test_the_root_is_taken_from_unit_where_none_is_given(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ROOT.name, raising=False)
    assert main(["doctor", "--control", str(place.control), "--nginx", str(place.nginx)]) == 0
    assert f"{place.root.current()}: 368 products" in capsys.readouterr().out


def test_a_slim_copy_is_no_problem(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    make_slim(place.root)
    place.root.make_current(str(place.root.current()))
    place.wait_until(lambda: place.examine(capsys)[1]["served"][1].endswith("a slim copy"))
    assert problems(place.examine(capsys)[1]) == {}


def test_another_root_than_the_one_served(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(place.root.path, tmp_path / "other", symlinks=True)
    place.configure(environment={ROOT.name: str(other)})
    place.wait_until(lambda: len(place.host().processes) == 2)
    assert problems(place.examine(capsys)[1]) == {
        "app": f'application "lookalike" serves LOOKALIKE_ROOT={other}, not {place.root.path}'
    }


def test_an_application_that_is_missing_or_unheard(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.unit.control.configure({**place.config, "listeners": {}})
    assert "no listener of Unit" in problems(place.examine(capsys)[1])["app"]
    place.unit.control.configure({"listeners": {}, "applications": {}})
    found = problems(place.examine(capsys)[1])
    assert "no application with the module lookalike.wsgi" in found["app"]
    assert "no answer from http://127.0.0.1:8080" in found["served"]


def test_an_unsound_release_is_named_where_it_lies_and_where_it_is_served(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    name = str(place.root.current())
    path = place.root.folder(name) / "40" / NEIGHBOURS
    data = path.read_bytes()
    path.unlink()  # what is mapped must not be cut short
    path.write_bytes(data[:-4])
    place.root.make_current(name)
    said = "40/neighbours.npy: has 120124 bytes, the manifest says 120128"

    def refused() -> bool:
        return "served" in problems(place.examine(capsys)[1])

    place.wait_until(refused)
    found = problems(place.examine(capsys)[1])
    assert set(found) == {"release", "served"}
    assert f"must not be served: {said}" in found["release"]
    assert f"refuses the current release: {said}; it serves {name}" in found["served"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can run the app as another user")
def test_a_user_who_may_not_read_the_release(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.root.path.chmod(0o750)
    try:
        place.configure(user="nobody")
        place.wait_until(lambda: place.host().processes)
    except UnitError:  # nobody may not even read this Python
        place.unit.stop()
    user = place.host().user
    assert user is not None
    assert user.uid != 0
    level, text = place.examine(capsys)[1]["permissions"]
    assert (level, text.startswith(f"user {user.name} cannot read ")) == ("problem", True), text


def test_few_open_files(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    for number, level in ((4 + 64, "warning"), (4 + 63, "problem")):
        for pid in place.host().processes:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (number, number))
        _, found = place.examine(capsys)
        assert found["open files"][0] == level
        assert f"a process of Unit's may hold {number} files open" in found["open files"][1]


def test_little_memory_to_lock(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.configure(environment={ROOT.name: str(place.root.path), "LOOKALIKE_LOCK_MEMORY": "true"})
    place.wait_until(lambda: len(place.host().processes) == 2)
    assert place.examine(capsys)[1]["locked memory"][0] == "ok"
    if os.getuid() == 0:
        return  # root may lock any amount; `locking` is tested for the others
    for pid in place.host().processes:
        resource.prlimit(pid, resource.RLIMIT_MEMLOCK, (4096, 4096))
    assert "may lock 4.1 KB" in problems(place.examine(capsys)[1])["locked memory"]


@pytest.mark.parametrize("how", ["no timeout at all", "a longer one", "a shorter one of Unit's"])
def test_nginx_that_keeps_connections_longer_than_unit(
    place: Place, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    config = dict(place.config)
    upstreams = place.nginx.parent / "lookalike/upstream.conf"
    text = upstreams.read_text()
    kept, unit_s = {
        "no timeout at all": ("60 s", "45 s"),
        "a longer one": ("5 min", "3 min"),
        "a shorter one of Unit's": ("20 s", "20 s"),
    }[how]
    if how != "a longer one":
        config["settings"] = {"http": {"idle_timeout": int(unit_s.split()[0])}}
    own = {"no timeout at all": "", "a longer one": "keepalive_timeout 5m;"}.get(how)
    if own is not None:
        assert "keepalive_timeout 20s;" in text
        upstreams.write_text(text.replace("keepalive_timeout 20s;", own))
    place.unit.control.configure(config)
    assert problems(place.examine(capsys)[1]) == {
        "nginx": f"nginx's upstream lookalike keeps idle connections {kept}, Unit closes them "
        f"after {unit_s}: requests get lost"
    }


def test_unit_closes_idle_connections_when_the_doctor_says(place: Place) -> None:
    place.unit.control.configure({**place.config, "settings": {"http": {"idle_timeout": 1}}})
    host, _, port = place.host().urls[0].removeprefix("http://").partition(":")
    with closing(http.client.HTTPConnection(host, int(port), timeout=HUNG_S)) as connection:
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        # "408 Request Timeout", which nginx would take for the answer to a request just sent.
        assert connection.sock.recv(12) in (b"HTTP/1.1 408", b"")


def test_annoy_of_another_cpu(
    place: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # What the kernel does at an instruction that the CPU has not.
    (tmp_path / "annoy.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    _, found = place.examine(capsys)
    assert found["Annoy"][0] == "problem"
    assert "dies of SIGILL" in found["Annoy"][1]


def test_unit_that_has_ended(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    url = place.host().urls[0]
    place.unit.stop()
    found = problems(place.examine(capsys, "--url", url)[1])
    assert set(found) - {"permissions"} == {"control", "served"}  # of the user Unit would have
    assert f"no answer from {url}: Connection refused" in found["served"]


def test_what_is_in_memory_is_told_before_the_release_is_read(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.unit.stop()
    path = place.root.folder(str(place.root.current())) / "40" / NEIGHBOURS
    forget(path)
    _, found = place.examine(capsys)
    assert "of that is in memory now" in found["memory"][1]
    _, again = place.examine(capsys)
    assert "(100% of that is in memory now)" in again["memory"][1]


def test_a_unit_that_became_a_daemon_is_known_by_its_socket() -> None:
    unitd = find_unitd()
    if unitd is None:
        pytest.skip("NGINX Unit is not installed: no unitd on PATH")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        control, number = folder / "control.sock", folder / "pid"
        places = f"--log {folder}/log --pid {number} --statedir {folder} --tmpdir {folder}".split()
        # As its packages start it: the process that listens is not the one that stays.
        subprocess.run([unitd, "--control", f"unix:{control}", *places], check=True, timeout=HUNG_S)
        wait_until(number.exists)
        pid = int(number.read_text())
        try:
            wait_until(control.exists)
            assert RunningUnit.ask(control).pid == pid
        finally:
            os.kill(pid, signal.SIGQUIT)
            wait_until(lambda: not Path(f"/proc/{pid}").exists())
