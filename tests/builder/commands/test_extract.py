"""lookalike-build extract: a catalogue and its photos become a feature store."""

import csv
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import Mock

import pytest

from extraction import MeanColour, Row, paint, write_catalogue
from lookalike.journal import DELETE, Change, Journal
from lookalike.release.root import ReleaseRoot
from lookalike_build.commands.cli import main
from lookalike_build.features.store import FeatureStore
from lookalike_build.networks.settings import ExtractorSettings
from lookalike_build.photos.decoding import HostError
from lookalike_build.photos.reader import PhotoReader
from support import (
    change,
)


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
def extract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Calls `extract` on a catalogue of this text: its status, and what it prints."""
    monkeypatch.setattr(ExtractorSettings, "make", lambda _: MeanColour())
    paint(tmp_path, "a.png", (1, 2, 3))

    def call(text: str, *options: str, name: str = "catalogue.csv") -> tuple[int, str]:
        path = tmp_path / name
        path.write_text(text)
        given = ["--features", str(tmp_path / "f"), "--max-same-photo", "1000", *options]
        status = main(["extract", str(path), *given])
        return status, "".join(capsys.readouterr())

    return call


def test_a_catalogue_that_was_cut_takes_nothing_away(
    tmp_path: Path, extract: Callable[..., tuple[int, str]]
) -> None:
    lines = ["product_id,category_id,image", *(f"{n},1,a.png" for n in range(50))]
    assert extract("\n".join(lines) + "\n")[0] == 0
    cut = "\n".join(lines[:11]) + "\n"
    status, said = extract(cut)
    assert status == 1
    assert "40 of 50 products (--max-removed 20)" in said
    assert FeatureStore.open(tmp_path / "f").categories == {1: 50}
    allowed = ["--max-removed", "80", "--max-removed-of-category", "100"]
    assert extract(cut, *allowed)[0] == 0
    assert FeatureStore.open(tmp_path / "f").categories == {1: 10}


@pytest.mark.parametrize("text", ["", '{"format": 0}', "{"])
def test_a_store_that_cannot_be_read_is_made_anew_and_that_is_said(
    tmp_path: Path, extract: Callable[..., tuple[int, str]], text: str
) -> None:
    lines = "product_id,category_id,image\n" + "".join(f"{n},1,a.png\n" for n in range(50))
    assert extract(lines)[0] == 0
    (tmp_path / "f" / "store.json").write_text(text)
    status, said = extract("product_id,category_id,image\n1,1,a.png\n")
    assert (status, FeatureStore.open(tmp_path / "f").categories) == (0, {1: 1})
    assert "catalogue.csv takes away of it is not checked" in said


def test_ids_that_would_become_text_are_refused_with_their_line(
    tmp_path: Path, extract: Callable[..., tuple[int, str]]
) -> None:
    header = "product_id,category_id,image\n"
    assert extract(f"{header}1,1,a.png\n2,1,a.png\n")[0] == 0
    status, said = extract(f"{header}1,1,a.png\n2x,1,a.png\n")
    assert status == 1
    assert "(line 3: product_id '2x' is no whole number)" in said
    assert FeatureStore.open(tmp_path / "f").id_types == ("integer", "integer")
    assert extract(f"{header}1,1,a.png\n2x,1,a.png\n", "--allow-other-ids")[0] == 0
    assert FeatureStore.open(tmp_path / "f").id_types == ("integer", "string")


def test_an_export_is_read_and_what_it_leaves_out_is_said(
    tmp_path: Path, extract: Callable[..., tuple[int, str]]
) -> None:
    text = "Handle;Title;Type;Image Src\na;A;Hat;a.png\na;;;b.png\nb;B;Hat;a.png\n"
    status, said = extract(text, "--from", "shopify", "--image-base", str(tmp_path))
    assert (status, FeatureStore.open(tmp_path / "f").categories) == (0, {"Hat": 2})
    assert "left out of the export: further picture 1\n" in said
    status, said = extract(text)
    assert status == 1
    assert "it is an export that `--from shopify` reads as it is" in said


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            ["--from", "amazon"],
            "must be google-merchant, magento, shopify, woocommerce or a .sql file",
        ),
        (["--category-level", "2"], "--category-level: only with --from"),
        (["--from", "shopify", "--category-level", "0"], "a whole number from 1 to 100"),
        (["--from", "shopify", "--image-column", "x"], "--image-column: not allowed with --from"),
        (["--encoding", "latin-99"], "must be an encoding such as cp1252, cp932 or utf-8"),
        (["--encoding", "hex"], "must be an encoding such as cp1252, cp932 or utf-8"),
        (["--delimiter", "ab"], 'must be one character, or tab, not "ab"'),
        (["--max-removed", "120"], "a number from 0 to 100"),
    ],
)
def test_options_that_cannot_be_are_named(
    extract: Callable[..., tuple[int, str]], options: list[str], problem: str
) -> None:
    status, said = extract("product_id,category_id,image\n1,1,a.png\n", *options)
    assert (status, problem in said) == (2, True), said


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_photos_that_became_pages_are_read_from_the_cache_and_counted(
    tmp_path: Path, web: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ExtractorSettings, "make", lambda _: MeanColour())
    rows: list[Row] = [(i, 1, f"{web}/{paint(tmp_path, f'{i}.png', (i, 0, 0))}") for i in range(20)]
    extract = ["extract", str(write_catalogue(tmp_path, rows)), "--features", str(tmp_path / "f")]
    assert main(extract) == 0
    assert "cached" not in capsys.readouterr().out
    before = FeatureStore.open(tmp_path / "f").path(1)
    for name in ("3.png", "7.png"):
        (tmp_path / name).write_text("<html><title>Moved</title></html>")
        os.utime(tmp_path / name, (time.time() + 60,) * 2)  # a second is the web's unit
    for _ in range(2):
        assert main(extract) == 0
        said = capsys.readouterr().out
        assert "20 products = 0 extracted + 20 known + 0 rejected" in said
        assert "cached photos used as their servers failed or sent no photo: 2\n" in said
    assert FeatureStore.open(tmp_path / "f").path(1) == before


def test_a_placeholder_is_rejected_beyond_max_same_photo_and_shared_photos_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ExtractorSettings, "make", lambda _: MeanColour())
    image = paint(tmp_path, "none.png", (5, 5, 5))
    rows: list[Row] = [
        (i, 1, image if i < 30 else paint(tmp_path, f"{i}.png", (i, 0, 0))) for i in range(50)
    ]
    extract = ["extract", str(write_catalogue(tmp_path, rows)), "--features", str(tmp_path / "f")]
    assert main(extract) == 1
    said = capsys.readouterr().err
    assert "rejected product 0: 30 products of its category have this photo, more than" in said
    assert "60.0 % of the photos were rejected, more than --max-rejected 5" in said
    assert main([*extract, "--max-rejected", "60"]) == 0
    assert "50 products = 0 extracted + 20 known + 30 rejected" in capsys.readouterr().out
    assert main([*extract, "--max-same-photo", "30"]) == 0
    said = capsys.readouterr().out
    assert "+ 0 rejected" in said
    assert (
        "30 products have the photo of another of their category; at most 30 share one (that of "
        "product 0 of category 1)\n"
    ) in said


def test_the_rejected_say_what_their_cell_holds(
    tmp_path: Path, web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ExtractorSettings, "make", lambda _: MeanColour())
    image = paint(tmp_path, "1.png", (1, 2, 3))
    images = [
        f"{web}/{image}, {web}/{image}",
        f"{web}/{image}|{web}/{image}",
        f'["{web}/{image}"]',
        f"//127.0.0.1/{image}",
        f"{web}/2.png?w=300&amp;h=300",
        f"{web}/{image}?w=300&amp;h=300",
    ]
    catalogue = write_catalogue(tmp_path, [(i, 1, image) for i, image in enumerate(images)])
    store = tmp_path / "f"
    extract = ["extract", str(catalogue), "--features", str(store), "--max-rejected", "100"]
    assert main(extract) == 0
    with (store / "rejected.csv").open(newline="") as file:
        reasons = [f"{row['product_id']}: {row['reason']}" for row in csv.DictReader(file)]
    assert reasons == [
        "0: image holds several URLs; write one, or give --from (the server says 404 Not Found)",
        "1: image holds several URLs; write one, or give --from (the server says 404 Not Found)",
        "2: image holds a JSON array; write one address (no such file)",
        "3: image has no scheme; write https: before it (no such file)",
        "4: image holds HTML's &amp;; write & instead (the server says 404 Not Found)",
    ]


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
