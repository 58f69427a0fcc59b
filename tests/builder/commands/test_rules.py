"""lookalike-build rules: what it says, and its exit status."""

from pathlib import Path

import pytest

from lookalike.release.root import ReleaseRoot
from lookalike_build.commands.cli import main
from support import make_slim

HEADER = "category_id,product_id,rule,other_id\n"


def run(root: ReleaseRoot, tmp_path: Path, *lines: str) -> int:
    path = tmp_path / "rules.csv"
    path.write_text(HEADER + "".join(f"{line}\n" for line in lines))
    return main(["rules", str(path), f"--root={root.path}"])


def test_rules_come_into_the_current_release_and_go_again(
    root: ReleaseRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = root.chosen()
    lines = ["1,100,pin,155", "1,,ban,155", "1,100,pin,4", "9,,ban,3"]
    assert run(root, tmp_path, *lines) == 0
    said, complained = capsys.readouterr()
    assert said.startswith("rules: 3, in place of 0\nrelease ")
    assert complained.splitlines() == [
        f"lookalike-build: rules that {each}"
        for each in (
            "are left out, as the release does not have their category: 1, such as ban 3 for every "
            "product of category 9",
            "have no effect until the release has both products: 1, such as pin 4 for product 100 of "
            "category 1",
            "have no effect, as the product is banned there too: 1, such as pin 155 for product 100 of "
            "category 1",
        )
    ]
    assert root.chosen() != first
    assert run(root, tmp_path, *lines) == 0
    assert "unchanged: it holds this already" in capsys.readouterr().out
    assert run(root, tmp_path) == 0
    assert capsys.readouterr().out.startswith("rules: none, all 3 are removed\nrelease ")


def test_a_malformed_file_changes_nothing(
    root: ReleaseRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = root.chosen()
    assert run(root, tmp_path, "1,100,pinned,155") == 1
    assert "line 2: rule must be pin or ban, not 'pinned'" in capsys.readouterr().err
    assert root.chosen() == first


def test_a_slim_copy_is_refused(
    root: ReleaseRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_slim(root)
    assert run(root, tmp_path) == 1
    assert "is a slim copy; add rules where releases are built" in capsys.readouterr().err
