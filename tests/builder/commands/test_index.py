"""lookalike-build index: a release is published, and what was done is said."""

from pathlib import Path

import pytest

from lookalike.release.root import ReleaseRoot
from lookalike_build.commands.cli import main
from support import (
    integer_catalogue,
    write_store,
)


def test_index_publishes_says_so_and_keeps_as_many_as_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_store(tmp_path / "f", integer_catalogue())
    arguments = ["index", "--features", str(tmp_path / "f"), "--root", str(tmp_path / "r")]
    for seed in ("1", "2", "3"):
        assert main([*arguments, "--seed", seed, "--keep", "2"]) == 0
    said = capsys.readouterr()
    assert "category 40: 300 products, k 100, recall by vector" in said.out
    assert "old releases removed: 2" in said.out
    assert "index: 368 of 368 products" in said.err
    assert len(ReleaseRoot(tmp_path / "r").names()) == 2
    assert "categories: 4 rebuilt, 0 updated, 0 unchanged" in said.out
    assert main([*arguments, "--seed", "3"]) == 0
    said = capsys.readouterr()
    assert "categories: 0 rebuilt, 0 updated, 4 unchanged" in said.out
    assert "unchanged: it holds this already" in said.out
