"""Unit's control socket: what is said where it is not there, refuses, or is not Unit's."""

import json
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from lookalike.operate.cli import main
from lookalike.operate.unit import control as unit_control
from lookalike.operate.unit.control import Control, RefusedError, UnitError, UnixConnection

Answering = Callable[[bytes | None], Path]
OURS = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Answering]:
    """Make a socket that answers every request with these bytes; never, if None."""
    with socket.socket(socket.AF_UNIX) as listening, ExitStack() as held:

        def serve(answer: bytes | None) -> Path:
            path = tmp_path / "s"
            listening.bind(str(path))
            listening.listen()
            threading.Thread(target=run, args=(answer,), daemon=True).start()
            return path

        def run(answer: bytes | None) -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                if answer is None:
                    held.enter_context(connection)
                    continue
                with closing(connection), connection.makefile("rb") as request:
                    head = b"".join(iter(request.readline, b"\r\n")).lower()
                    length = re.search(rb"content-length: (\d+)", head)
                    request.read(int(length[1]) if length else 0)
                    connection.sendall(answer)

        yield serve
        listening.shutdown(socket.SHUT_RDWR)


def as_unit(document: object) -> bytes:
    body = json.dumps(document).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def test_a_socket_that_is_not_there_is_named_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["unit", "status", "--control", f"unix:{tmp_path}/none"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"lookalike: Unit's control socket {tmp_path}/none: there is none; ")
    assert "--control" in said
    (tmp_path / "file").touch()
    assert main(["unit", "status", "--control", f"{tmp_path}/file"]) == 1
    assert "nobody listens there; is Unit running" in capsys.readouterr().err


def test_whoever_is_not_root_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: UnixConnection) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(UnixConnection, "connect", refuse)
    with pytest.raises(UnitError, match="only root may ask there; use sudo"):
        Control(tmp_path / "s").status()


@pytest.mark.parametrize(
    "answer",
    [b"", b"SSH-2.0-x\r\n", as_unit([]), as_unit({})[:-1] + b"!", b"HTTP/1.1 200 OK\r\n\r\n<"],
)
def test_what_is_not_unit_is_said_to_be_so(answering: Answering, answer: bytes) -> None:
    path = answering(answer)
    with pytest.raises(UnitError, match="does not answer as Unit's control socket does"):
        Control(path).status()


def test_a_unit_that_does_not_answer_is_not_waited_for_for_good(
    answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit_control, "_ANSWER_S", 0.1)
    with pytest.raises(UnitError, match="no answer within 0 s; `lookalike unit status` says"):
        Control(answering(None)).status()


@pytest.mark.parametrize(
    ("modules", "type_", "said"),
    [
        ({"version": f"{OURS}.2"}, "python 3", None),
        ([{"version": "2.7.18"}, {"version": f"{OURS}.2"}], "python", None),
        ([{"version": "3.99.1"}, {"version": f"{OURS}.2"}], f"python {OURS}", None),
        (
            [{"version": f"{OURS}.2"}, {"version": "3.99.1"}],
            "python 3",
            f'type "python 3" is Python 3.99.1 to Unit; write "type": "python {OURS}"',
        ),
        ({"version": f"{OURS}.2"}, "python 2", 'type "python 2" is Python none to Unit; write'),
        ([{"version": "3.99.1"}, {"version": f"{OURS}.2"}], f"python{OURS}", None),
        ({"version": f"{OURS}.2"}, "php", 'must be "python" and a version'),
        ({"version": "3.1.1"}, "python 3", "Unit has Python 3.1.1, and the environment"),
        ([], "python 3", "Unit has no Python module"),
    ],
)
def test_unit_must_have_the_python_of_the_environment(
    answering: Answering, modules: object, type_: str, said: str | None
) -> None:
    control = Control(answering(as_unit({"modules": {"python": modules}})))
    application = {"type": type_, "home": sys.prefix}
    if said is None:
        control.check_python(application)
        return
    with pytest.raises(UnitError) as raised:
        control.check_python(application)
    assert said in str(raised.value)


def test_another_environment_must_hold_lookalike(answering: Answering, tmp_path: Path) -> None:
    control = Control(answering(as_unit({"modules": {"python": {"version": f"{OURS}.2"}}})))
    python = tmp_path / "bin/python3"
    with pytest.raises(UnitError, match=r"is no Python environment: .*No such file"):
        control.check_python({"type": "python", "home": str(tmp_path)})
    python.parent.mkdir()
    for script, said in (
        ("exit 1", "lookalike is not installed in"),
        ("echo 3.1", "is Python 3.1"),
    ):
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        with pytest.raises(UnitError, match=said):
            control.check_python({"type": "python", "home": str(tmp_path)})


BEFORE: dict[str, Any] = {
    "listeners": {"*:1": {"pass": "applications/wiki"}},
    "applications": {"wiki": {"type": "php", "processes": 1}},
}
CONFIG: dict[str, Any] = {
    "listeners": {**BEFORE["listeners"], "*:2": {"pass": "applications/x", "nope": 1}},
    "routes": {"a/b": [{"match": {"uri": 1}}, {"match": {"uri": "~["}}]},
    "applications": {
        **BEFORE["applications"],
        "x": {"type": "python 9", "processes": "two", "environment": {"A": 1}},
    },
}


@pytest.mark.parametrize(
    ("detail", "place"),
    [
        ('The "processes" value must be either an integer number or an object, but not a string.',
         "/applications/x/processes"),
        ('Unknown parameter "nope".', "/listeners/*:2/nope"),
        ('Request "pass" points to invalid location "applications/x".', "/listeners/*:2/pass"),
        ('The module to run "python 9" is not found among the available application modules.',
         "/applications/x/type"),
        ('The "A" environment value must be a string.', "/applications/x/environment/A"),
        ('Invalid regular expression: missing terminating ] in "~[".', "/routes/a~1b/1/match/uri"),
        ('The "uri" value must be a string, but not an integer number.', None),
        ('Required parameter "pass" is missing.', None),
        ("The \"routes\" array must contain only object values.", "/routes"),
        ("Something is wrong.", None),
        ("", None),
    ],
)  # fmt: skip
def test_a_refusal_names_the_one_place_that_it_can_mean(
    answering: Answering, monkeypatch: pytest.MonkeyPatch, detail: str, place: str | None
) -> None:
    answer = {"error": "Invalid configuration."} | ({"detail": detail} if detail else {})
    control = Control(answering(as_unit(answer)))
    monkeypatch.setattr(control, "configuration", lambda: BEFORE)
    with pytest.raises(RefusedError) as raised:
        control.configure(CONFIG)
    at = f" at {place}" if place else ""
    said = f"Unit refuses the configuration{at}: Invalid configuration. {detail}".strip()
    assert str(raised.value) == said
    assert raised.value.detailed == bool(detail)


def test_a_place_that_unit_gives_itself_is_taken(answering: Answering) -> None:
    answer = {
        "error": "Invalid configuration.",
        "detail": 'Unknown parameter "nope".',
        "location": {"path": "/listeners/*:2/nope"},
        "suggestion": "none",
    }
    with pytest.raises(RefusedError) as raised:
        Control(answering(as_unit(answer))).configure(CONFIG)
    assert "configuration at /listeners/*:2/nope: Invalid" in str(raised.value)
    assert str(raised.value).endswith('"nope". Perhaps "none".')


@pytest.mark.parametrize("command", ["apply", "status"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["unit", command, "--help"]) == 0
    assert f"example: sudo lookalike unit {command}" in capsys.readouterr().out
