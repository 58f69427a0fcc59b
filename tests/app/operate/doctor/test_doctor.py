"""lookalike doctor: a line a finding, what to do below it, and no host that makes it crash."""

import json
import os
from collections.abc import Iterator

import pytest

import servers
from lookalike.operate.cli import main
from lookalike.operate.doctor.examine import CHECKS, examine
from lookalike.operate.doctor.finding import Finding, Level, ok
from lookalike.operate.doctor.host import Asked, Host
from lookalike.release.files import NEIGHBOURS
from lookalike.release.root import ReleaseRoot
from lookalike.serving.settings import ROOT


def test_a_line_a_finding_and_a_line_below_what_is_not_well(
    root: ReleaseRoot, no_unit: None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = root.folder(str(root.current())) / "40" / NEIGHBOURS
    path.write_bytes(path.read_bytes()[:-4])
    url = f"http://127.0.0.1:{servers.free_port()}"
    assert main(["doctor", "--root", str(root.path), "--url", url]) == 1
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("PROBLEM  release "))
    assert "40/neighbours.npy: has 120124 bytes, the manifest says 120128" in lines[at]
    assert lines[at + 1].strip().startswith("do: `lookalike rollback`")
    assert lines[-1].startswith("problems: 1, warnings: ")
    named = [line[9:22].strip() for line in lines[:-1] if line[:8].strip()]
    assert named == list(CHECKS)


def test_json_says_the_same(
    root: ReleaseRoot, no_unit: None, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{servers.free_port()}"
    assert main(["doctor", "--root", str(root.path), "--url", url, "--json"]) == 0
    found = {each["check"]: each for each in json.loads(capsys.readouterr().out)}
    assert list(found) == list(CHECKS)
    assert found["release"]["level"] == "ok"
    assert found["Unit"] == {
        "check": "Unit",
        "level": "absent",
        "text": "not here: no unitd on PATH; `lookalike serve` serves without it",
        "remedy": "",
    }


def test_every_check_goes_on_where_one_fails() -> None:
    def broken(_: Host) -> Iterator[Finding]:
        yield ok("so far")
        raise ZeroDivisionError("on an\nodd host")

    checks = {"first": broken, "second": lambda _: iter([ok("well")])}
    first, failed, second = examine(Host(Asked()), checks)
    assert (first.check, first.level, second.check) == ("first", Level.OK, "second")
    assert (failed.check, failed.level) == ("first", Level.WARNING)
    assert failed.text == "this check failed: ZeroDivisionError: on an odd host"


@pytest.mark.usefixtures("no_unit")
def test_nothing_at_all_given_on_an_empty_host_is_told_in_full(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(ROOT.name, raising=False)
    assert main(["doctor", "--url", f"http://127.0.0.1:{servers.free_port()}"]) == 1
    out = capsys.readouterr().out
    assert "no root is given" in out
    assert "this check failed" not in out


def test_a_url_that_is_none_is_a_wrong_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--url", "127.0.0.1:8080"]) == 2
    assert "must begin with http://" in capsys.readouterr().err


@pytest.mark.usefixtures("no_unit")
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_user_who_may_look_at_nothing_gets_all_lines(root: ReleaseRoot) -> None:
    root.path.chmod(0o700)
    asked = Asked(root=root.path, url=f"http://127.0.0.1:{servers.free_port()}")
    os.seteuid(54321)
    try:
        found = list(examine(Host(asked)))
    finally:
        os.seteuid(0)
    assert {finding.check for finding in found} == set(CHECKS)
    (release,) = [finding for finding in found if finding.check == "release"]
    assert (release.level, release.remedy) == (Level.WARNING, "run this as root")
    failed = {finding.check for finding in found if "this check failed" in finding.text}
    assert failed <= {"Annoy"}  # where this Python is root's own
