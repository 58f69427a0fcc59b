"""lookalike-build attributes: what a table says of products becomes part of a release."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lookalike.release.root import ReleaseRoot
from lookalike_build.commands.cli import main
from support import integer_catalogue, make_slim, publish

ALL = ["--attribute=price:number", "--attribute=in_stock:flag=stock", "--attribute=brand:text"]
HIDE = "--attribute=hidden:flag"
Run = Callable[..., int]


@pytest.fixture
def root(tmp_path: Path) -> ReleaseRoot:
    """A release of 60 products, 100 to 159, in category 1, and of others."""
    return publish(tmp_path / "r", integer_catalogue(), tmp_path / "f", n_trees=2, neighbours=5)


@pytest.fixture
def run(root: ReleaseRoot) -> Run:
    """Runs the command for a file, if one is given; the exit status."""

    def call(*arguments: str, path: Path | None = None) -> int:
        file = [str(path)] if path else []
        return main(["attributes", *file, f"--root={root.path}", *arguments])

    return call


def csv(tmp_path: Path, header: str, lines: Sequence[str]) -> Path:
    path = tmp_path / "values.csv"
    path.write_text("\n".join([f"category_id,product_id,{header}", *lines]) + "\n")
    past = time.time() - 7200
    os.utime(path, (past, past))
    return path


def test_a_file_of_other_products_is_refused(
    root: ReleaseRoot, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = root.current()
    path = csv(tmp_path, "price", ["2,100,5", "9,100,5"])
    assert run(ALL[0], path=path) == 1
    assert capsys.readouterr().err == (
        f"lookalike-build: {path}: none of its products is in release {before}; the first is 100 of "
        "category 2; are its ids those of the catalogue?\n"
    )
    path = csv(tmp_path, "price", ["1,A7,5", "1,100,12,50"])
    assert run(ALL[0], path=path) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"lookalike-build: {path}: line 2: product_id must be a whole number as in the release, not "
        "'A7'",
        f"{path}: line 3: has 4 fields, the header has 3",
    ]
    assert root.current() == before


def test_a_slim_copy_gets_no_attributes(
    root: ReleaseRoot, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = str(root.current())
    make_slim(root)
    assert run(ALL[0], path=csv(tmp_path, "price", ["1,100,6"])) == 1
    assert f"release {name} is a slim copy" in capsys.readouterr().err
