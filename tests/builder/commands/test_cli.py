"""The command lookalike-build: exit status, and one line that says what to do."""

import csv
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import Mock

import pytest
from annoy import AnnoyIndex

import lookalike
import lookalike.operate.cli
import lookalike_build
from extraction import MeanColour, Row, paint, write_catalogue
from lookalike.journal import DELETE, Change, Journal
from lookalike.release.files import BEHAVIOUR, RELATED
from lookalike.release.manifest import METRIC, Model
from lookalike.release.root import ReleaseRoot
from lookalike_build.commands.cli import main
from lookalike_build.demo.drawing import draw_catalogue
from lookalike_build.features.store import FeatureStore
from lookalike_build.networks.settings import ExtractorSettings
from lookalike_build.photos.decoding import HostError
from lookalike_build.photos.reader import PhotoReader
from support import (
    change,
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
        (["guess"], "No such command 'guess'"),
    ],
)
def test_a_wrong_call_is_status_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["extract", "index", "adopt", "export", "follow", "report", "simulate", "behaviour"]
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
    assert "categories: 4 indexed, 0 unchanged" in said.out
    assert main([*arguments, "--seed", "3"]) == 0
    said = capsys.readouterr()
    assert "categories: 0 indexed, 4 unchanged" in said.out
    assert "unchanged: it holds this already" in said.out


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


@pytest.fixture
def rated(tmp_path: Path) -> tuple[ReleaseRoot, Path]:
    """A root with a release, and who rated which of its products."""
    root = publish(tmp_path / "r", integer_catalogue(), tmp_path / "f")
    lines = [f"user {i % 9},{100 + i % 50},2026-01-{1 + i % 28:02}" for i in range(400)]
    events = tmp_path / "events.csv"
    events.write_text("\n".join(["who,what,when", *lines]))
    return root, events


NAMED = ["--user-id-column=who", "--product-id-column=what", "--rated-at-column=when"]


def test_behaviour_is_published_and_says_what_it_is_of(
    rated: tuple[ReleaseRoot, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root, events = rated
    behaviour = ["behaviour", str(events), "--root", str(root.path), *NAMED]
    assert main([*behaviour, "--keep", "1"]) == 0
    said = capsys.readouterr()
    assert "behaviour: 50 of 50 products" in said.err
    assert "400 ratings, 400 of them count, to 2026-01-28 00:00 UTC" in said.out
    assert "50 products, 49.0 related to each" in said.out
    assert "old releases removed: " in said.out
    assert f"release {root.current()} published and made current" in said.out
    assert len(root.names()) == 1
    assert main(behaviour) == 0
    assert "unchanged: it holds this already" in capsys.readouterr().out
    limits = ["--neighbours=3", "--half-life=0.5", "--user-ratings=20", "--product-ratings=4"]
    assert main([*behaviour, *limits, "--memory-limit=512MiB"]) == 0
    assert "50 products, 3.0 related to each" in capsys.readouterr().out
    entry = root.manifest(str(root.current())).behaviour
    assert entry
    assert entry.made_with == (
        "method 1, neighbours 3, half_life 0.5, user_ratings 20, product_ratings 4"
    )
    name = str(root.current())
    assert lookalike.operate.cli.main(["check", "--root", str(root.path)]) == 0
    summary = "behaviour: 50 products, ratings to 2026-01-28"
    assert f"{summary}, sound\nrelease {name} is sound\n" in capsys.readouterr().out
    assert lookalike.operate.cli.main(["releases", "--root", str(root.path)]) == 0
    assert capsys.readouterr().out.endswith(f"model: test, {summary}\n")


def test_events_that_are_malformed_leave_the_release_and_are_named(
    rated: tuple[ReleaseRoot, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root, events = rated
    before = root.current()
    with events.open("a") as file:
        file.write("\nu,100\nu,x,2026-01-01\nu,100,soon")
    assert main(["behaviour", str(events), "--root", str(root.path), *NAMED]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"lookalike-build: {events}: line 402: has 2 fields, the header has 3",
        f"{events}: line 403: what must be a whole number as in the release, not 'x'",
        f"{events}: line 404: when must be a date, a timestamp or Unix seconds, of 1973 to 9999, "
        "not 'soon'",
    ]
    assert main(["behaviour", str(events), "--root", str(root.path)]) == 1
    assert "the header has no column user_id, expected one" in capsys.readouterr().err
    events.write_text("who,what,when\n")
    assert main(["behaviour", str(events), "--root", str(root.path), *NAMED]) == 1
    assert capsys.readouterr().err == f"lookalike-build: {events}: holds no ratings\n"
    assert root.current() == before
    assert [path.name for path in root.releases.iterdir()] == [before]


def test_behaviour_needs_a_release(
    rated: tuple[ReleaseRoot, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["behaviour", str(rated[1]), "--root", str(tmp_path / "empty"), *NAMED]) == 1
    said = capsys.readouterr().err
    assert "no release in" in said
    assert "`lookalike-build index` makes one" in said


def test_an_index_says_that_it_leaves_damaged_behaviour_out(
    rated: tuple[ReleaseRoot, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, events = rated
    assert main(["behaviour", str(events), "--root", str(root.path), *NAMED]) == 0
    (root.folder(str(root.current())) / BEHAVIOUR / RELATED).unlink()
    index = ["index", "--features", str(tmp_path / "f"), "--root", str(root.path)]
    assert main(index) == 0
    assert (
        f"lookalike-build: behaviour is left out: {BEHAVIOUR}/{RELATED}: is missing; "
        "run `lookalike-build behaviour`\n"
    ) in capsys.readouterr().err


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


def test_a_catalogue_may_have_its_own_column_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ExtractorSettings, "make", lambda _: MeanColour())
    catalogue = tmp_path / "shop.jsonl"
    catalogue.write_text(
        f'{{"sku": "a-1", "shelf": 7, "photo": "{paint(tmp_path, "a.png", (1, 2, 3))}"}}'
    )
    columns = ["--product-id-column=sku", "--category-id-column=shelf", "--image-column=photo"]
    assert main(["extract", str(catalogue), "--features", str(tmp_path / "f"), *columns]) == 0
    assert FeatureStore.open(tmp_path / "f").read(7).product_ids == ["a-1"]
    assert main(["extract", str(catalogue), "--features", str(tmp_path / "f")]) == 1
    assert "shop.jsonl: line 1: has no field product_id" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (HostError("a.png: input/output error"), "a.png: input/output error"),
        (MemoryError(), "out of memory"),
    ],
)
def test_where_this_machine_fails_extract_is_status_1_and_one_line(
    error: Exception,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ExtractorSettings, "make", lambda _: MeanColour())
    monkeypatch.setattr(PhotoReader, "read", Mock(side_effect=error))
    catalogue = write_catalogue(tmp_path, [(1, 1, "a.png")])
    assert main(["extract", str(catalogue), "--features", str(tmp_path / "f")]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"lookalike-build: {said}"
    assert not (tmp_path / "f" / "rejected.csv").exists()


def test_a_catalogue_from_the_future_is_indexed_once_its_time_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ExtractorSettings, "make", lambda _: MeanColour())
    catalogue, store, root = (tmp_path / name for name in ("catalogue.csv", "f", "r"))
    photo = paint(tmp_path, "a.png", (1, 2, 3))
    catalogue.write_text(f"product_id,category_id,image\n1,1,{photo}\n2,1,{photo}\n")
    os.utime(catalogue, (0, time.time() + 3600))
    extract = ["extract", str(catalogue), "--features", str(store)]
    index = ["index", "--features", str(store), "--root", str(root)]
    assert main(extract) == 0
    assert "catalogue.csv: its time lies ahead of this host's clock" in capsys.readouterr().err
    assert main(index) == 0
    with closing(Journal(ReleaseRoot(root).journal)) as journal:
        (number,) = journal.add([Change(DELETE, 1, 2)])
        journal.settle(number, change(ReleaseRoot(root), {1: {2: None}}))
    assert main(index) == 1
    said = capsys.readouterr().err
    assert "does not say of when its catalogue is" in said
    assert said.count("\n") == 2  # the other is the progress
    moment = ["--as-of", "2026-01-31T02:00+09:00"]
    assert main([*index, *moment]) == 0
    assert main([*extract, *moment]) == 0
    assert FeatureStore.open(store).as_of == 1769792400
    assert main(index) == 0
    current = str(ReleaseRoot(root).current())
    assert ReleaseRoot(root).manifest(current).n_items == 1


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The URL of a web server that serves the test's folder."""
    handler = partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_photos_from_urls_are_kept_as_long_as_the_catalogue_names_them(
    tmp_path: Path, web: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ExtractorSettings, "make", lambda _: MeanColour())
    rows: list[Row] = [(i, 1, f"{web}/{paint(tmp_path, f'{i}.png', (i, 0, 0))}") for i in range(9)]
    store = tmp_path / "f"

    def extract(*arguments: str) -> str:
        catalogue = str(write_catalogue(tmp_path, rows))
        assert main(["extract", catalogue, "--features", str(store), *arguments]) == 0
        return capsys.readouterr().out

    assert "9 products = 9 extracted + 0 known + 0 rejected" in extract()
    assert len(list((store / "photos").rglob("*.photo"))) == 9
    (tmp_path / "3.png").unlink()  # gone
    assert "9 products = 0 extracted + 8 known + 1 rejected" in extract("--max-rejected", "50")
    rows[3:] = []
    assert "3 products = 0 extracted + 3 known + 0 rejected" in extract()
    assert len(list((store / "photos").rglob("*.photo"))) == 3
    store = tmp_path / "other"
    assert "3 products = 3 extracted" in extract("--no-cache")
    assert not (store / "photos").exists()
    assert "3 products = 0 extracted + 3 known" in extract("--cache", str(tmp_path / "kept"))
    assert len(list((tmp_path / "kept").rglob("*.photo"))) == 3


def test_what_urls_may_reach_is_as_the_options_say(
    tmp_path: Path, web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ExtractorSettings, "make", lambda _: MeanColour())
    image = paint(tmp_path, "1.png", (1, 2, 3))
    images = [f"{web}/{image}", image, "memory://1.png", "file:///none.png"]
    rows: list[Row] = [(i, 1, image) for i, image in enumerate(images)]
    catalogue, store = write_catalogue(tmp_path, rows), tmp_path / "f"

    def reasons(*options: str) -> list[str]:
        extract = ["extract", str(catalogue), "--features", str(store), "--max-rejected", "100"]
        assert main([*extract, *options]) == 0
        with (store / "rejected.csv").open(newline="") as file:
            return [f"{row['product_id']}: {row['reason']}" for row in csv.DictReader(file)]

    missing = "2: no such file", "3: no such file"
    untaken = "2: memory:// URLs are not taken; --allow-scheme memory takes them"
    assert reasons() == [untaken, missing[1]]
    assert reasons("--allow-scheme", "ftp", "--allow-scheme", "Memory") == [*missing]
    assert reasons("--public-addresses-only", "--allow-scheme", "memory") == [
        "0: its server has no public address (--public-addresses-only)",
        "1: a path, where only URLs are taken (--public-addresses-only)",
        missing[0],
        "3: file:// URLs are not taken; --allow-scheme file takes them",
    ]


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
