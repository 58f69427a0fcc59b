"""What commands print: nothing in it is obeyed by a terminal, and what cannot be written is named."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

import lookalike.operate.cli
from lookalike.release.root import ReleaseRoot
from lookalike.terminal.output import complain, printable, say

HOSTILE = "a\x1b[2J\x9b1m\r\n\u202eb\u2066\u200f\u200b\u2028\U000e0001\udcffé鞄"


def test_what_a_terminal_would_obey_or_hide_is_escaped() -> None:
    assert printable("été 鞄 × – … 👜") == "été 鞄 × – … 👜"
    shown = printable(HOSTILE)
    assert shown.isprintable()
    assert shown == (r"a\u001b[2J\u009b1m\r\n\u202eb\u2066\u200f\u200b\u2028\udb40\udc01\udcffé鞄")


def test_json_keeps_its_value() -> None:
    assert json.loads(printable(json.dumps([HOSTILE], ensure_ascii=False))) == [HOSTILE]


def test_a_line_stays_a_line_on_both_streams(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE, "next")
    complain(HOSTILE)
    said = capsys.readouterr()
    assert said.out == f"{printable(HOSTILE)}\nnext\n"
    assert said.err == f"{printable(HOSTILE)}\n"


def test_a_locale_without_the_character_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "iso-8859-1"))
    say("é鞄")
    assert raw.getvalue() == b"\xe9\\u9784\n"


def test_an_argument_with_control_characters_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert lookalike.operate.cli.main(["releases", "--root", "r", "x\x1b[2J\ny"]) == 2
    said = capsys.readouterr().err
    assert r"x\u001b[2J\ny" in said
    assert said.count("\n") == 1


def test_an_argument_that_is_not_utf8_is_a_wrong_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert lookalike.operate.cli.main(["releases", "--root", "r\udcff"]) == 2
    assert r"is not UTF-8: r\udcff; rename" in capsys.readouterr().err


def test_a_release_that_is_refused_is_named_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "r\x9b\nforged"
    assert lookalike.operate.cli.main(["check", "--root", str(root)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert r"r\u009b\nforged" in said


def test_output_that_cannot_be_written_is_said(root: ReleaseRoot) -> None:
    command = [sys.executable, "-m", "lookalike", "releases", "--root", str(root.path)]
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr == "lookalike: standard output: No space left on device\n"


def test_a_full_log_stops_no_work() -> None:
    program = "from lookalike.terminal.output import complain; complain('x'); print('done')"
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, check=False
        )
    assert run.stdout == b"done\n"
