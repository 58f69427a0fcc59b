"""The command lookalike: releases are listed, checked, switched and rolled back."""

from pathlib import Path

import pytest

from lookalike.operate.cli import main
from lookalike.release.root import ReleaseRoot
from support import make_slim, publish, random_features


@pytest.fixture
def two(root: ReleaseRoot, tmp_path: Path) -> ReleaseRoot:
    """A root with two releases, the newer one current."""
    return publish(root.path, {1: ([1, 2], random_features(2, 0))}, tmp_path / "features")


def test_releases_are_listed_oldest_first_with_the_current_one_marked(
    two: ReleaseRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["releases", "--root", str(two.path)]) == 0
    old, new = two.names()
    assert capsys.readouterr().out.splitlines() == [
        f"  {old}  products: 368, categories: 4, model: test",
        f"* {new}  products: 2, categories: 1, model: test",
    ]


def test_rollback_goes_back_and_says_when_it_cannot(
    two: ReleaseRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rollback", "--root", str(two.path)]) == 0
    assert two.current() == two.names()[0]
    assert main(["rollback", "--root", str(two.path)]) == 1
    assert "no release older than the current one" in capsys.readouterr().err


def test_prune_removes_old_releases_but_never_the_current_one(
    two: ReleaseRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = two.names()
    assert main(["prune", "--root", str(two.path)]) == 0
    assert two.names() == [old, new]
    two.make_current(old)
    assert main(["prune", "--keep", "1", "--root", str(two.path)]) == 0
    assert two.names() == [old, new]
    two.make_current(new)
    assert main(["prune", "--keep", "1", "--root", str(two.path)]) == 0
    assert two.names() == [new]
    assert capsys.readouterr().out == f"removed {old}\n"


def test_switch_checks_every_byte_first(
    two: ReleaseRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = two.names()
    path = two.folder(old) / "40" / "index.ann"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert main(["switch", old, "--root", str(two.path)]) == 1
    assert capsys.readouterr().err == (
        "lookalike: 40/index.ann: its SHA-256 is not the manifest's\n"
    )
    assert two.current() == new
    assert main(["check", old, "--root", str(two.path)]) == 1
    assert main(["check", "--root", str(two.path)]) == 0
    assert f"release {new} is sound" in capsys.readouterr().out


def test_a_slim_copy_is_sound_and_called_so(
    two: ReleaseRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    make_slim(two)
    assert main(["check", "--root", str(two.path)]) == 0
    assert capsys.readouterr().out.endswith(f"release {two.current()} is sound (a slim copy)\n")
    assert main(["releases", "--root", str(two.path)]) == 0
    old, new = capsys.readouterr().out.splitlines()
    assert (old.endswith("model: test"), new.endswith("model: test, slim")) == (True, True)


def test_an_unknown_release_is_named_with_those_there_are(
    two: ReleaseRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("nothing", "../..", "", ".staging"):
        assert main(["switch", name, "--root", str(two.path)]) == 1
        said = capsys.readouterr().err
        assert repr(name) in said
        assert ", ".join(two.names()) in said


@pytest.mark.parametrize("command", ["releases", "check", "rollback"])
def test_a_root_without_releases_is_status_1(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--root", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing command"),
        (["releases"], "Missing option '--root' (env var: 'LOOKALIKE_ROOT')"),
        (["serve", "--root", "r", "--port", "70000"], "from 1 to 65535"),
        (["serve", "--root", "r", "--workers", "0"], "from 1 to 1024"),
        (["switch", "--root", "r"], "Missing argument 'RELEASE'"),
    ],
)
def test_a_wrong_call_is_status_2(
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LOOKALIKE_ROOT", raising=False)
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["serve", "check", "switch", "rollback", "releases", "doctor", "plan"]
)
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"example: lookalike {command}" in capsys.readouterr().out
