"""A command of several: its exit status, its errors, and what of it is not loaded without need."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from lookalike.errors import LookalikeError
from lookalike.operate.cli import COMMANDS as SERVING
from lookalike.terminal import command
from lookalike.terminal.command import (
    FAILED,
    WRONG,
    Group,
    Run,
    at_most_one,
    call,
    flag,
    gathered,
    option,
)
from lookalike_build.commands.cli import COMMANDS as BUILDING


def group_of(run: Run) -> Group:
    """The program ``x`` with one command, ``go``."""
    group = Group("x", "", "", {})
    group.add_command(command.command("x go")(run), "go")
    return group


def raising(error: BaseException) -> Callable[[], None]:
    def run() -> None:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (LookalikeError("no\nroom"), r"x: no\nroom"),
        (OSError(errno.ENOSPC, "as Arrow puts it", "f"), "x: f: No space left on device"),
        (OSError("of no number"), "x: of no number"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe", "f"), "x: f: Broken pipe"),
        (MemoryError(), "x: out of memory"),
    ],
)
def test_work_that_fails_is_status_1_and_one_line(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(group_of(raising(error)), ["go"]) == FAILED
    assert capsys.readouterr().err == f"{said}\n"


def test_an_interrupt_is_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(group_of(raising(KeyboardInterrupt())), ["go"]) == FAILED
    assert capsys.readouterr().err.strip() == "x: interrupted"


def test_a_system_error_that_names_no_file_names_where_the_command_writes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(out: str) -> None:
        raise OSError(errno.ENOSPC, "full")

    assert call(group_of(option("--out", str, None, "")(run)), ["go", "--out", "there"]) == FAILED
    assert capsys.readouterr().err == "x: there: No space left on device\n"


def test_a_wrong_call_is_status_2_and_one_line_that_names_the_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(group_of(lambda: None), ["go", "--fast"]) == WRONG
    assert capsys.readouterr().err == "x go: error: No such option '--fast'. (see x go --help)\n"


def test_of_options_that_exclude_each_other_one_is_taken(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(fast: bool, slow: bool) -> None:
        at_most_one("fast", "slow")

    group = group_of(flag("--fast", "")(flag("--slow", "")(run)))
    assert call(group, ["go", "--slow"]) == 0
    assert call(group, ["go", "--slow", "--fast"]) == WRONG
    assert "--slow: not allowed with --fast" in capsys.readouterr().err


def test_options_are_gathered_into_what_is_made_of_them() -> None:
    given = []

    def run(pair: tuple[int, int], other: int) -> None:
        given.append((pair, other))

    together = gathered(
        "pair",
        lambda one, two: (one, two),
        option("--one", int, 1, ""),
        option("--second", int, 2, "", dest="two"),
    )
    group = group_of(option("--other", int, 3, "")(together(run)))
    assert call(group, ["go", "--second", "5"]) == 0
    assert given == [((1, 5), 3)]


@pytest.mark.parametrize("group", [SERVING, BUILDING], ids=lambda group: group.name)
def test_each_command_listed_is_there_with_an_example(
    group: Group, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in group.commands:
        assert call(group, [name, "--help"]) == 0
        said = capsys.readouterr().out
        assert f"example: {group.name} {name}" in said or "Commands:" in said


@pytest.mark.parametrize(
    ("program", "absent"),
    [
        ("lookalike.operate.cli", ["numpy", "annoy", "msgspec"]),
        ("lookalike_build.commands.cli", ["numpy", "pyarrow", "duckdb", "tensorflow"]),
    ],
)
def test_the_list_of_commands_loads_none_of_them(program: str, absent: list[str]) -> None:
    code = f"import {program} as cli, sys; cli.main(['--help']); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {*run.stdout.splitlines()[-1].split()} & {*absent}


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        (["lookalike", "re"], ["plain,releases"]),
        (["lookalike", "unit", "a"], ["plain,apply"]),
        (["lookalike", "serve", "--p"], ["plain,--port", "plain,--photos"]),
        (["lookalike", "serve", "--photos", "x"], ["dir,x"]),
        (["lookalike-build", "in"], ["plain,index"]),
        (["lookalike-build", "extract", "--engine", ""], ["plain,local", "plain,ray"]),
        (["lookalike-build", "extract", "cat"], ["file,cat"]),
    ],
)
@pytest.mark.slow
def test_a_shell_completes_commands_options_and_values(
    typed: list[str], completed: list[str]
) -> None:
    program = typed[0].replace("-", "_")
    module = {"lookalike": "lookalike", "lookalike_build": "lookalike_build.__main__"}[program]
    variables = {
        f"_{program.upper()}_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(typed),
        "COMP_CWORD": str(len(typed) - 1),
    }
    run = subprocess.run(
        [sys.executable, "-m", module],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.splitlines() == completed
