"""lookalike-build adopt and export: features as CSV, and Annoy's indexes."""

from pathlib import Path

import pytest
from annoy import AnnoyIndex

from lookalike.release.manifest import METRIC, Model
from lookalike.release.root import ReleaseRoot
from lookalike_build.commands.cli import main
from support import (
    integer_catalogue,
    random_features,
    write_store,
)


def test_what_export_writes_is_adopted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_store(tmp_path / "f", integer_catalogue())
    assert main(["export", str(tmp_path / "csv"), "--features", str(tmp_path / "f")]) == 0
    said = capsys.readouterr()
    assert "368 products in 4 files" in said.out
    assert "export: 368 of 368 products" in said.err
    adopt = ["adopt", str(tmp_path / "csv"), "--root", str(tmp_path / "r")]
    assert main(adopt) == 1
    said = capsys.readouterr()
    assert "features_1.csv: line 1: has 16 features, expected 2048" in said.err
    assert said.err.count("\n") == 1
    assert main([*adopt, "--dims", "16", "--neighbours", "5", "--model-name", "inception"]) == 0
    assert "category 40: 300 products, k 5" in capsys.readouterr().out
    root = ReleaseRoot(tmp_path / "r")
    assert root.manifest(str(root.current())).model == Model("inception", "unknown")


def test_adopt_says_how_many_items_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annoy = AnnoyIndex(16, METRIC)
    for item, vector in zip((3, 9), random_features(2, 1), strict=True):
        annoy.add_item(item, vector.tolist())
    annoy.build(1)
    annoy.save(str(tmp_path / "category_1.ann"))
    root = tmp_path / "r"
    assert main(["adopt", str(tmp_path), "--root", str(root), "--dims", "16"]) == 0
    said = capsys.readouterr().out
    assert "category 1: 8 items left out, which have no vector" in said
    assert "category 1: 2 products" in said
