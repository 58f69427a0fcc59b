"""The command lookalike-build: exit status, and one line that says what to do."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

import lookalike
import lookalike.operate.cli
import lookalike_build
from extraction import MeanColour
from lookalike.release.root import ReleaseRoot
from lookalike_build.commands.cli import main
from lookalike_build.demo.drawing import draw_catalogue
from lookalike_build.networks.settings import ExtractorSettings
from support import (
    files_of_at_most,
    integer_catalogue,
    publish,
    random_features,
    write_store,
)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing command"),
        (["extract", "missing.csv", "--features", "f"], "no such file: missing.csv"),
        (["extract", __file__], "Missing option '--features'"),
        (["extract", __file__, "--features", "f", "--max-rejected", "101"], "from 0 to 100"),
        (
            ["extract", __file__, "--features", "f", "--model", "resnet"],
            'must be inception_v3 or graphdef:FILE, not "resnet"',
        ),
        (
            ["extract", __file__, "--features", "f", "--model", "graphdef:g", "--weights", "w"],
            "--weights: not allowed with --model",
        ),
        (["extract", __file__, "--features", "f", "--timeout", "0"], "a number from 0.1 to 3600"),
        (["extract", __file__, "--features", "f", "--connections", "0"], "from 1 to 1024"),
        (
            ["extract", __file__, "--features", "f", "--allow-scheme", "ftp://"],
            'must be the name of a scheme such as sftp, not "ftp://"',
        ),
        (
            ["extract", __file__, "--features", "f", "--cache", "c", "--no-cache"],
            "--no-cache: not allowed with --cache",
        ),
        (["index", "--features", "f"], "Missing option '--root'"),
        (
            ["index", "--features", "f", "--root", "r", "--trees", "0"],
            "whole number from 1 to 21474",
        ),
        (
            ["index", "--features", "f", "--root", "r", "--keep", "x"],
            "whole number from 1 to 21474",
        ),
        (["index", "--features", "f", "--root", "r", "--recall", "2"], "a number from 0 to 1"),
        (
            ["index", "--features", "f", "--root", "r", "--as-of", "2026-01-31T02:00"],
            'must be a time with its zone such as 2026-01-31T02:00+09:00, not "2026-01-31T02:00"',
        ),
        (
            ["adopt", ".", "--root", "r", "--as-of", "2026-01-31"],
            'must be a time with its zone such as 2026-01-31T02:00+09:00, not "2026-01-31"',
        ),
        (
            ["extract", __file__, "--features", "f", "--as-of", "now"],
            'must be a time with its zone such as 2026-01-31T02:00+09:00, not "now"',
        ),
        (
            ["index", "--features", "f", "--root", "r", "--as-of", "9999-12-31T23:59Z"],
            'must be a time that has passed, not "9999-12-31T23:59Z"',
        ),
        (["adopt", "missing", "--root", "r"], "no such folder: missing"),
        (["adopt", ".", "--root", "r", "--dims", "65537"], "whole number from 1 to 65536"),
        (["adopt", ".", "--root", "r", "--model-name", "a\tb"], "must be printable text"),
        (["adopt", ".", "--root", "r", "--trees", "0"], "whole number from 1 to 21474"),
        (
            ["index", "--features", "f", "--root", "r", "--ray-address", "h:1"],
            "'--ray-address': only with --engine ray",
        ),
        (
            ["extract", __file__, "--features", "f", "--workers", "2", "--engine", "local"],
            "'--workers': only with --engine ray",
        ),
        (["export", "csv"], "Missing option '--features'"),
        (["behaviour", "missing.csv", "--root", "."], "no such file: missing.csv"),
        (["behaviour", __file__], "Missing option '--root'"),
        (["behaviour", __file__, "--root", "missing"], "no such folder: missing"),
        (
            ["behaviour", __file__, "--root", ".", "--half-life", "0"],
            "a number from 0.001 to 36500",
        ),
        (
            ["behaviour", __file__, "--root", ".", "--neighbours", "0"],
            "whole number from 1 to 21474",
        ),
        (["behaviour", __file__, "--root", ".", "--user-ratings", "0"], "whole number from 1 to"),
        (
            ["behaviour", __file__, "--root", ".", "--product-ratings", "1048577"],
            "whole number from 1 to 1048576",
        ),
        (["behaviour", __file__, "--root", ".", "--memory-limit", "4"], "such as 512MB or 4GB"),
        (["attributes", "missing.csv", "--root", "."], "no such file: missing.csv"),
        (["attributes", __file__, "--attribute", "price:number"], "Missing option '--root'"),
        (["attributes", "--root", "."], "give --attribute NAME:TYPE for each attribute to read"),
        (
            ["attributes", __file__, "--root", ".", "--drop", "price"],
            "missing --attribute NAME:TYPE",
        ),
        (["attributes", "--root", ".", "--attribute", "price:number"], "missing FILE"),
        *(
            (["attributes", __file__, "--root", ".", "--attribute", given], said)
            for given, said in [
                ("price", 'the type flag, number or text, not "price"'),
                ("price:float", 'the type flag, number or text, not "price:float"'),
                ("price:number=", 'the type flag, number or text, not "price:number="'),
                ("Price:number", 'the name "Price" must be 1 to 40 of a-z, 0-9 and single _'),
                ("limit:number", 'the name "limit" is the name of a parameter'),
                ("hidden:text", "hidden is a flag: write hidden:flag"),
            ]
        ),
        (
            [
                "attributes",
                __file__,
                "--root",
                ".",
                "--attribute",
                "a:text",
                "--attribute",
                "a:flag",
            ],
            "a is given twice",
        ),
        (
            ["attributes", __file__, "--root", ".", "--attribute", "a:text", "--drop", "a"],
            "a is given twice",
        ),
        (["attributes", "--root", ".", "--drop", "limit"], 'the name "limit" is the name of a'),
        (
            ["attributes", "--root", ".", "--drop", "a", "--max-hidden", "101"],
            "a number from 0 to 100",
        ),
        (
            ["attributes", "--root", ".", "--drop", "a", "--as-of", "now"],
            'must be a time with its zone such as 2026-01-31T02:00+09:00, not "now"',
        ),
        (["guess"], "No such command 'guess'"),
    ],
)
def test_a_wrong_call_is_status_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        *("extract", "index", "adopt", "export", "follow", "report", "simulate", "attributes"),
        *("behaviour", "rules"),
    ],
)
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"example: lookalike-build {command}" in capsys.readouterr().out


def test_failed_work_is_status_1_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", "--features", str(tmp_path), "--root", str(tmp_path / "r")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("lookalike-build: ")
    assert "run `lookalike-build extract`" in said
    assert said.count("\n") == 1
    catalogue = tmp_path / "catalogue.csv"
    catalogue.write_text("product_id,category_id,image\n1,1\n")
    assert main(["extract", str(catalogue), "--features", str(tmp_path / "f")]) == 1
    assert "catalogue.csv: line 2: has 2 fields" in capsys.readouterr().err
    assert not (tmp_path / "f").exists()


RECORDS = "event,pattern,method,category_id\n" + "impression,A,image,1\nimpression,B,image,1\n" * 9


@pytest.mark.parametrize(
    ("command", "n_bytes", "written"),
    [
        ("index --features f --root OUT", 1000, "OUT/releases/.staging/1/features.npy"),
        ("index --features f --root OUT", 24_000, "OUT/releases/.staging/40/neighbours.npy"),
        ("export OUT --features f", 5000, "OUT/features_1.csv"),
        ("report records.csv --json OUT", 100, "OUT"),
        ("report records.csv --html OUT", 100, "OUT"),
        ("simulate --visitors 900 --out OUT.csv", 100, "OUT.csv"),
        ("simulate --visitors 900 --out OUT.parquet", 100, "OUT.parquet"),
        ("simulate --visitors 900 --out OUT.jsonl", 100, "OUT.jsonl"),
    ],
)
def test_a_full_disk_is_said_of_the_file_written_to(
    command: str,
    n_bytes: int,
    written: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_store(tmp_path / "f", integer_catalogue())
    Path("records.csv").write_text(RECORDS)
    with files_of_at_most(n_bytes):
        assert main(command.split()) == 1
    said = capsys.readouterr().err.splitlines()[-1].replace(f"{tmp_path}/", "")
    assert said == f"lookalike-build: {written}: File too large"


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "sql"])
@pytest.mark.parametrize(
    "command", ["extract FILE --features f", "behaviour FILE --root r", "report FILE"]
)
def test_a_file_that_cannot_be_read_is_named(
    command: str,
    suffix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ExtractorSettings, "make", lambda _: MeanColour())
    publish(tmp_path / "r", {1: ([1], random_features(1, 1))}, tmp_path / "store")
    path = tmp_path / f"damaged.{suffix}"
    path.symlink_to("/proc/self/mem")  # to read its beginning is an input error
    assert main(command.replace("FILE", str(path)).split()) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"lookalike-build: {path}: Input/output error"


def test_without_the_builders_packages_it_says_what_to_install(tmp_path: Path) -> None:
    for package in (lookalike, lookalike_build):
        folder = Path(str(package.__file__)).parent
        (tmp_path / folder.name).symlink_to(folder)
    run = subprocess.run(
        [sys.executable, "-S", "-m", "lookalike_build", "index"],
        env={"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    way_out = "install lookalike[build] from where this lookalike was installed"
    assert run.stderr.endswith(f"is missing; {way_out}\n")
    assert run.stderr.count("\n") == 1


@pytest.mark.tensorflow
def test_photos_to_release_with_the_real_network(tmp_path: Path) -> None:
    catalogue = draw_catalogue(tmp_path, products_per_family=1)
    with catalogue.open(newline="") as file:
        rows = list(csv.DictReader(file))
    broken = tmp_path / rows[0]["image"]
    broken.write_bytes(broken.read_bytes()[:100])

    def command(*arguments: object) -> "subprocess.CompletedProcess[str]":
        program = [sys.executable, "-m", "lookalike_build", *map(str, arguments)]
        return subprocess.run(program, capture_output=True, text=True, check=False)

    extract = ["extract", catalogue, "--features", tmp_path / "f", "--weights", "untrained"]
    refused = command(*extract, "--max-rejected", "1")
    assert refused.returncode == 1
    assert "2.1 % of the photos were rejected, more than --max-rejected 1" in refused.stderr
    assert "48 products = 47 extracted + 0 known + 1 rejected" in refused.stdout
    done = command(*extract)
    assert done.returncode == 0, done.stderr
    assert "48 products = 0 extracted + 47 known + 1 rejected" in done.stdout
    assert f"rejected product {rows[0]['product_id']}: " in done.stderr
    indexed = command("index", "--features", tmp_path / "f", "--root", tmp_path / "r")
    assert indexed.returncode == 0, indexed.stderr
    root = ReleaseRoot(tmp_path / "r")
    name = root.current()
    assert name is not None
    assert root.manifest(name).n_items == 47
