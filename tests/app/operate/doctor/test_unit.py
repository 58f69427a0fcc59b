"""lookalike doctor, of Unit and the app in it: what is missing, elsewhere or another is named."""

import socket
import threading
from pathlib import Path

import pytest

from findings import levels, only
from lookalike.operate.doctor import unit
from lookalike.operate.doctor.finding import Finding, Level
from lookalike.operate.doctor.host import App, Asked, Host, RunningUnit, Unitd
from lookalike.operate.unit.control import python_versions
from lookalike.serving.settings import ROOT


def test_a_python_module_of_this_minor_version_is_needed() -> None:
    good = unit.python_module("1.35.0", ["3.8.1", f"{unit.OURS}.99"])
    assert good.level == Level.OK
    other = unit.python_module("1.35.0", ["3.8.1"])
    assert other.level == Level.PROBLEM
    assert f"has a module for Python 3.8.1, this environment is of {unit.OURS}" in other.text
    # 3.1 is no 3.11, and 3.110 neither.
    assert unit.python_module("1.35.0", ["3.1.1", f"{unit.OURS}0.1"]).level == Level.PROBLEM
    assert "has no Python module" in unit.python_module("1.35.0", []).text


def test_the_modules_folder_tells_versions_where_unit_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "python3.unit.so").write_bytes(b"\x7fELF\0libpython3.11.so.1.0\0\0003.11.7\0")
    (tmp_path / "perl.unit.so").write_bytes(b"\x7fELF\0003.11.7\0v5.36\0")
    assert unit.module_versions(tmp_path) == ["3.11.7"]
    assert unit.module_versions(tmp_path / "none") == []


@pytest.mark.unit
def test_a_real_unitd_tells_its_version_defaults_and_modules() -> None:
    found = Unitd.find()
    if found is None:
        pytest.skip("NGINX Unit is not installed: no unitd on PATH")
    assert found.version.count(".") == 2
    assert found.defaults["control"].startswith("/")
    assert found.defaults["user"]
    assert unit.module_versions(Path(found.defaults["modulesdir"]))


def test_the_control_socket_missing_dead_or_of_another_server_is_told(
    tmp_path: Path, no_unit: None
) -> None:
    def said(control: Path | None) -> Finding:
        return only(unit.control(Host(Asked(control=control))))

    assert said(None).level == Level.ABSENT
    missing = said(tmp_path / "missing.sock")
    assert (missing.level, "Unit does not run" in missing.text) == (Level.PROBLEM, True)
    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(dead))
    assert "nothing listens at" in said(dead).text
    other = tmp_path / "other.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(other))
        listener.listen()
        thread = threading.Thread(target=_answer_as_docker, args=(listener,))
        thread.start()
        assert "is not Unit, or not to this user" in said(other).text
        thread.join()


def test_a_control_socket_that_is_not_ours_to_ask_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: Path) -> RunningUnit:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(RunningUnit, "ask", refuse)
    found = only(unit.control(Host(Asked(control=Path("c.sock")))))
    assert (found.level, found.remedy) == (Level.WARNING, "run this as root")


def test_an_application_of_another_root_or_environment_is_told(tmp_path: Path) -> None:
    home, root = tmp_path / "env", tmp_path / "root"

    def said(listeners: tuple[str, ...] = ("*:80",), **config: object) -> list[Finding]:
        usual = {"home": str(home), "environment": {ROOT.name: str(root)}}
        app = App("shop", usual | config, listeners)
        return list(unit.configured(app, root, home))

    assert levels(said()) == [Level.OK]
    (wrong,) = said(environment={ROOT.name: "/srv/old"})
    assert wrong.level == Level.PROBLEM
    assert f"serves LOOKALIKE_ROOT=/srv/old, not {root}" in wrong.text
    (other,) = said(home="/opt/other")
    assert (other.level, "has home /opt/other" in other.text) == (Level.WARNING, True)
    (bad,) = said(environment={ROOT.name: str(root), "LOOKALIKE_MAX_LIMIT": "ten"})
    assert "LOOKALIKE_MAX_LIMIT must be a whole number" in bad.text
    (lost,) = said(environment={ROOT.name: str(root), "LOOKALIKE_TOKEN_FILE": "/no/token"})
    assert "LOOKALIKE_TOKEN_FILE: cannot read /no/token" in lost.text
    (unset,) = said(environment={})
    assert "LOOKALIKE_ROOT is not set" in unset.text
    (unheard,) = said(())
    assert "no listener of Unit passes requests" in unheard.text


def test_applications_are_known_by_their_module_and_listeners_found_through_routes() -> None:
    config = {
        "listeners": {
            "127.0.0.1:1": {"pass": "applications/nns"},
            "*:2": {"pass": "routes/shop"},
            "*:3": {"pass": "applications/blog"},
            "*:4": {"pass": "routes/blog"},
        },
        "routes": {
            "shop": [{"match": {"uri": "/nns"}, "action": {"pass": "applications/nns"}}],
            "blog": [{"action": {"pass": "applications/blog"}}],
        },
        "applications": {"nns": {"module": "lookalike.wsgi"}, "blog": {"module": "blog.wsgi"}},
    }
    (app,) = RunningUnit(config, {}, 1).apps()
    assert (app.name, app.listeners) == ("nns", ("127.0.0.1:1", "*:2"))


def test_one_python_module_and_several_are_read() -> None:
    for module in ({"version": "3.11.2"}, [{"version": "3.11.2"}]):
        status = {"modules": {"python": module}}
        assert python_versions(status) == ["3.11.2"]
    assert python_versions({}) == []


def _answer_as_docker(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(1000)
        body = b'{"message":"page not found"}'
        head = f"HTTP/1.1 404 Not Found\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + body)
