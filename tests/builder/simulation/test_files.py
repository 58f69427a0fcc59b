"""Simulated experiments: what is written is what was stated, and the report finds it."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from experiments import report
from lookalike.release.ids import Id
from lookalike.release.opened import Release
from lookalike.release.root import ReleaseRoot
from lookalike_build.commands.cli import main
from lookalike_build.simulation.shop import Seen, Taste, truth_of
from lookalike_build.simulation.visitors import (
    PAPER_CTR,
    PAPER_CVR,
    PreferenceError,
    Preferences,
    Simulation,
)
from support import make_slim


def drawn(**more: Any) -> Preferences:
    return Preferences.drawn(np.random.default_rng(1), 8, PAPER_CTR, PAPER_CVR, **more)


def test_the_papers_rates_are_those_of_all_categories_together() -> None:
    truth = Simulation(drawn()).truth()
    assert truth["patterns"]["A"] == pytest.approx({"ctr": 0.0051, "cvr": 0.0021})
    assert truth["patterns"]["B"] == pytest.approx({"ctr": 0.0076, "cvr": 0.0028})
    assert sum(each["share"] for each in truth["categories"].values()) == pytest.approx(1)
    of_b = [each["B"]["ctr"] for each in truth["categories"].values()]
    assert max(of_b) > 1.3 * min(of_b)


def test_fallbacks_mix_the_methods_rates_into_the_patterns() -> None:
    truth = Simulation(drawn(), fallback=(0.5, 0.1)).truth()
    assert truth["patterns"]["A"]["ctr"] == pytest.approx((0.0051 + 0.0076) / 2)
    assert truth["patterns"]["B"]["ctr"] == pytest.approx(0.9 * 0.0076 + 0.1 * 0.0051)
    category = truth["categories"]["3"]
    clicks, purchases = (
        sum(
            rates["ctr"] * rates.get(name, 1)
            for rates in (category["behaviour"], category["image"])
        )
        for name in ("", "cvr")
    )
    assert category["A"]["cvr"] == pytest.approx(purchases / clicks)


@pytest.mark.parametrize("known", [True, False])
def test_what_is_drawn_has_the_stated_rates(known: bool) -> None:
    likes = Preferences.drawn(np.random.default_rng(1), 3, (0.1, 0.2), (0.15, 0.1), spread=1.5)
    made = Simulation(likes, 6.0, 0.3, (0.4, 0.1), 0.2, known)
    seen = made.draw(np.random.default_rng(2), 100, 200_000)
    truth = made.truth()
    answered = seen.method != 2
    assert answered.mean() == pytest.approx(0.8, abs=0.01)
    assert (seen.pattern == 1).mean() == pytest.approx(0.3, abs=0.01)
    assert seen.visitor.min() == 100
    assert np.unique(seen.visitor).size == 200_000
    assert seen.visitor.size / 200_000 == pytest.approx(6, rel=0.01)
    assert not seen.clicked[~answered].any()
    assert not seen.bought[~seen.clicked].any()
    for place, pattern in enumerate("AB"):
        its = answered & (seen.pattern == place)
        assert (seen.method[its] != place).mean() == pytest.approx((0.4, 0.1)[place], abs=0.01)
        for category in range(3):
            where = its & (seen.category == category)
            expected = truth["categories"][str(category + 1)][pattern]
            assert seen.clicked[where].mean() == pytest.approx(expected["ctr"], rel=0.05)
            clicked = where & seen.clicked
            assert seen.bought[clicked].mean() == pytest.approx(expected["cvr"], rel=0.1)
    patterns_of = [set(seen.pattern[seen.visitor == v]) for v in range(100, 200)]
    assert all(len(each) == 1 for each in patterns_of) == known


def test_visitors_differ_as_much_as_stated() -> None:
    likes = Preferences(("1",), np.ones(1), np.full((2, 1), 0.1), np.zeros((2, 1)), spread=1.5)
    seen = Simulation(likes, 400.0).draw(np.random.default_rng(2), 0, 3000)
    n = np.bincount(seen.visitor)
    many = n > 100
    rates = np.bincount(seen.visitor, seen.clicked)[many] / n[many]
    assert rates.std() / rates.mean() == pytest.approx(1.5, abs=0.1)
    eager = Preferences(("1",), np.ones(1), np.full((2, 1), 0.9), np.full((2, 1), 0.3), spread=0.3)
    seen = Simulation(eager, 400.0).draw(np.random.default_rng(2), 0, 3000)
    n = np.bincount(seen.visitor, seen.clicked)
    many = n > 100
    rates = np.bincount(seen.visitor, seen.bought)[many] / n[many]
    assert rates.std() / rates.mean() == pytest.approx(0.32, abs=0.05)
    alike = Simulation(drawn(spread=0.0)).draw(np.random.default_rng(2), 0, 10)
    assert alike.visitor.size >= 10


def test_a_truth_is_preferences_for_another_experiment() -> None:
    likes = drawn()
    again = Preferences.read(json.loads(json.dumps(Simulation(likes).truth())), spread=1.0)
    assert again.category_ids == likes.category_ids
    for name in ("shares", "ctr", "cvr"):
        assert getattr(again, name) == pytest.approx(getattr(likes, name))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"share": 0.6}, "sum to 1"),
        ({"image": {"ctr": 0, "cvr": 0}}, "every ctr must be above 0 and below 1"),
        ({"image": {"ctr": 0.1, "cvr": 1}}, "every cvr must be 0 or more and below 1"),
        (
            {"image": {"ctr": 0.5, "cvr": 0.2}},
            "spread must be from 0 to below 1 with a ctr of 0.5",
        ),
        (
            {"image": {"ctr": 0.1, "cvr": 0.6}},
            "spread must be from 0 to below 0.816 with a cvr of 0.6",
        ),
        ({"image": {"ctr": 0.5}}, "KeyError: 'cvr'"),
        ({"image": None}, 'must be {"categories": {ID: {"share": …'),
        ({"share": "much"}, "ValueError"),
    ],
)
def test_preferences_that_nobody_can_have_are_refused(
    tmp_path: Path, change: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = {"ctr": 0.1, "cvr": 0.01}
    category = {"share": 1, "behaviour": rates, "image": rates}
    path = tmp_path / "likes.json"
    path.write_text(json.dumps({"categories": {"x": {**category, **change}}}))
    out = tmp_path / "r.csv"
    assert main(["simulate", "--out", str(out), "--preferences", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"lookalike-build: {path}: ")
    assert said in error
    assert not out.exists()


def test_preferences_must_say_of_how_many_categories_they_are() -> None:
    with pytest.raises(PreferenceError, match="sum to 1"):
        Preferences.read({"categories": {}}, spread=1.0)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
@pytest.mark.slow
def test_the_report_finds_the_truth_in_what_the_command_writes(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"events{suffix}"
    arguments = [
        "--visitors",
        "20000",
        "--categories",
        "3",
        "--ctr",
        "0.05",
        "0.08",
        "--cvr",
        "0.2",
    ]
    arguments += ["0.3", "--fallback", "0.3", "0.1", "--unanswered", "0.1", "--days", "7"]
    assert main(["simulate", "--out", str(out), *arguments]) == 0
    said = capsys.readouterr()
    n = int(re.match(r"(\d+) records of 20000 visitors in ", said.out)[1])  # type: ignore[index]
    assert "simulate: 20000 of 20000 visitors" in said.err
    truth = json.loads((tmp_path / "events.truth.json").read_bytes())
    found = report(out, "--confidence", "0.999")
    assert not found["mismatch"]
    counted = sum(
        each[name] for each in found["traffic"] for name in ("impressions", "clicks", "purchases")
    )
    assert counted == n
    assert found["period"][0].startswith("2026-01-01T00:00")
    assert found["period"][1].startswith(("2026-01-07T23:", "2026-01-08T00:"))
    for pattern, measure in ((pattern, m) for pattern in "AB" for m in ("ctr", "cvr")):
        low, high = found["patterns"][pattern][measure]["interval"].values()
        assert low < truth["patterns"][pattern][measure] < high
    for category in found["categories"]:
        low, high = category["patterns"]["B"]["ctr"]["interval"].values()
        assert low < truth["categories"][category["category_id"]]["B"]["ctr"] < high


def test_a_seed_makes_the_same_again_and_another_something_else(tmp_path: Path) -> None:
    made = []
    for name, seed in (("1.csv", "5"), ("2.csv", "5"), ("3.csv", "6")):
        out = tmp_path / name
        assert main(["simulate", "--out", str(out), "--visitors", "50", "--seed", seed]) == 0
        made.append(out.read_bytes())
    assert made[0] == made[1] != made[2]


def test_records_without_visitors_have_no_such_column(tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    assert main(["simulate", "--out", str(out), "--visitors", "500", "--no-visitors"]) == 0
    assert out.read_text().splitlines()[0] == '"event","pattern","method","category_id","time"'
    assert report(out)["warnings"][-1].startswith("no record names a visitor")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "r.txt"], 'must end in .csv or .parquet or .jsonl, not "r.txt"'),
        (["--out", "r.csv", "--url", "http://127.0.0.1:1"], "--url and --root: give both"),
        (["--out", "r.csv", "--root", "."], "--url and --root: give both"),
        (
            ["--out", "r.csv", "--ctr", "0.1"],
            "simulate: error: Option '--ctr' requires 2 arguments",
        ),
        (["--out", "r.csv", "--visitors", "0"], "whole number from 1"),
    ],
)
def test_a_wrong_call_is_status_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", *arguments]) == 2
    assert said in capsys.readouterr().err


class Related:
    """A stand-in for a server of `/related`: A answers with any products, B with those that look alike.

    `asked` are the queries that came.
    """

    def __init__(self, release: Release) -> None:
        self._release = release
        self._categories = dict(release.categories)
        self.asked: list[dict[str, str]] = []
        self.body: bytes | None = None
        self.status = 200
        self.held_out = 256
        """How many in 256 visitors are assigned a pattern; the others get what is chosen, images."""

    def answer(self, target: str) -> tuple[int, dict[str, str], bytes]:
        parts = urlsplit(target)
        assert parts.path == "/shop/related"
        query = {
            name: value for name, (value,) in parse_qs(parts.query, strict_parsing=True).items()
        }
        self.asked.append(query)
        if self.body is not None or self.status != 200:
            return self.status, {}, self.body or b"{}"
        category_id, product_id = int(query["category_id"]), int(query["product_id"])
        first, second, *_ = hashlib.sha256(query["visitor"].encode()).digest()
        pattern = "AB"[first % 2] if second < self.held_out else "chosen"
        found, method = self._found(pattern, category_id, product_id)
        headers = {"X-Lookalike-Pattern": pattern, "X-Lookalike-Method": method}
        document = {"product_ids": found, "pattern": pattern, "method": method}
        return 200, headers, json.dumps(document).encode()

    def _found(self, pattern: str, category_id: int, product_id: int) -> tuple[list[Id], str]:
        category = self._categories[category_id]
        item = category.item_of(product_id)
        assert item is not None
        if pattern == "A":
            other = self._categories[40]
            ids = other.ids(np.arange(item % 7, 300, 25).astype(np.uint32))
            return [999_999, *(each for each in ids if each != product_id)], "behaviour"
        found = category.ids(category.nearest(item, 12)[0])
        return (found, "image") if found else ([], "none")


@contextmanager
def shop(related: Related) -> Iterator[str]:
    """The URL of a server of it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = (
            -1
        )  # head and body together, or the client waits for its own late acknowledgement

        def do_GET(self) -> None:
            status, headers, body = related.answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/shop"
        server.shutdown()
        thread.join()


def open_release(root: ReleaseRoot) -> Release:
    return root.open(str(root.current()))


@pytest.mark.slow
def test_visitors_browse_a_shop_and_the_report_finds_what_they_like(
    tmp_path: Path, integer_root: ReleaseRoot
) -> None:
    related = Related(open_release(integer_root))
    out = tmp_path / "events.jsonl"
    arguments = [
        "simulate",
        "--out",
        str(out),
        "--root",
        str(integer_root.path),
        "--visitors",
        "400",
    ]
    arguments += ["--impressions", "6", "--appeal", "0.3"]
    with shop(related) as url:
        assert main([*arguments, "--url", url]) == 0
    truth = json.loads((tmp_path / "events.truth.json").read_bytes())
    found = report(out, "--confidence", "0.999", "--min-impressions", "100")
    pages = [json.loads(line) for line in out.read_text().splitlines()]
    impressions = [each for each in pages if each["event"] == "impression"]
    assert len(related.asked) == len(impressions)
    assert {each["visitor"] for each in related.asked} == {str(n) for n in range(400)}
    sizes = {"1": 60, "2": 7, "3": 1, "40": 300}
    assert {each["category_id"] for each in related.asked} <= set(sizes)
    # Whoever has pattern B and is where there is one product sees nothing.
    assert found["left_out"]["unanswered"] == sum(each["method"] == "none" for each in impressions)
    # What looks alike is clicked on more than anything else, by what the visitors like alone.
    assert truth["patterns"]["B"]["ctr"] > 1.3 * truth["patterns"]["A"]["ctr"]
    for pattern in "AB":
        low, high = found["patterns"][pattern]["ctr"]["interval"].values()
        assert low < truth["patterns"][pattern]["ctr"] < high
        low, high = found["patterns"][pattern]["cvr"]["interval"].values()
        assert low < truth["patterns"][pattern]["cvr"] < high
    with shop(related) as url:
        assert main([*arguments[:2], str(tmp_path / "2.jsonl"), *arguments[3:], "--url", url]) == 0
    assert (tmp_path / "2.jsonl").read_bytes() == out.read_bytes()


@pytest.mark.slow
def test_of_a_shop_that_follows_a_choice_only_visitors_held_out_are_measured(
    tmp_path: Path, integer_root: ReleaseRoot
) -> None:
    related = Related(open_release(integer_root))
    related.held_out = 128
    out = tmp_path / "events.jsonl"
    sizes = ["--visitors", "400", "--impressions", "6", "--appeal", "0.3"]
    with shop(related) as url:
        arguments = ["--url", url, "--root", str(integer_root.path), *sizes]
        assert main(["simulate", "--out", str(out), *arguments]) == 0
    truth = json.loads((tmp_path / "events.truth.json").read_bytes())
    assert list(truth["patterns"]) == ["A", "B"]
    found = report(out, "--confidence", "0.999", "--min-impressions", "100")
    patterns = [json.loads(line)["pattern"] for line in out.read_text().splitlines()]
    assert found["left_out"]["chosen"] == patterns.count("chosen") > len(patterns) / 3
    assert not found["mismatch"]
    assert found["warnings"] == []
    for pattern in "AB":
        low, high = found["patterns"][pattern]["ctr"]["interval"].values()
        assert low < truth["patterns"][pattern]["ctr"] < high


def test_a_click_leads_to_the_product_clicked_on(tmp_path: Path, integer_root: ReleaseRoot) -> None:
    related = Related(open_release(integer_root))
    out = tmp_path / "events.jsonl"
    always = ["--appeal", "1", "--reach", "10", "--patience", "1", "--bought", "0"]
    sizes = ["--visitors", "20", "--impressions", "8"]
    with shop(related) as url:
        arguments = ["--url", url, "--root", str(integer_root.path), *sizes, *always]
        assert main(["simulate", "--out", str(out), *arguments]) == 0
    by_b = [
        (each, following)
        for each, following in zip(related.asked, related.asked[1:], strict=False)
        if each["visitor"] == following["visitor"]
        and each["category_id"] == "40"
        and hashlib.sha256(each["visitor"].encode()).digest()[0] % 2
    ]
    assert len(by_b) > 10
    category = open_release(integer_root).categories[40]
    led = 0
    for each, following in by_b:
        item = category.item_of(int(each["product_id"]))
        assert item is not None
        near = category.ids(category.nearest(item, 12)[0])
        led += following["category_id"] == "40" and int(following["product_id"]) in near
    assert led > 0.9 * len(by_b)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, b'{"error":"not_found"}', 'is answered 404 \'{"error":"not_found"}\''),
        (200, b"[1,2]", "is answered 200 '[1,2]'"),
        (200, b"<html>", "is answered 200 '<html>'"),
        (200, b'{"product_ids":[],"pattern":"C","method":"image"}', "is answered 200"),
    ],
)
def test_a_server_that_does_not_answer_as_related_does_is_named(
    tmp_path: Path,
    integer_root: ReleaseRoot,
    status: int,
    body: bytes,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    related = Related(open_release(integer_root))
    related.status, related.body = status, body
    out = tmp_path / "events.jsonl"
    with shop(related) as url:
        arguments = ["--url", url, "--root", str(integer_root.path)]
        assert main(["simulate", "--out", str(out), *arguments]) == 1
    error = capsys.readouterr().err
    assert f"lookalike-build: {url}: /shop/related?product_id=" in error
    assert said in error
    assert not out.exists()


def test_a_shop_that_cannot_be_browsed_is_named(
    tmp_path: Path, root: ReleaseRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["simulate", "--out", str(tmp_path / "r.csv"), "--root", str(root.path), "--url"]
    assert main([*arguments, "https://127.0.0.1"]) == 1
    assert "https://127.0.0.1: must be http://HOST:PORT" in capsys.readouterr().err
    assert main([*arguments, "http://127.0.0.1:1"]) == 1
    assert "http://127.0.0.1:1: [Errno 111] Connection refused" in capsys.readouterr().err
    make_slim(root)
    assert main([*arguments, "http://127.0.0.1:1"]) == 1
    assert "the release is a slim copy" in capsys.readouterr().err
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main([*arguments[:4], str(empty), "--url", "http://127.0.0.1:1"]) == 1
    assert "no release in" in capsys.readouterr().err


def test_clicks_by_hand() -> None:
    taste = Taste(appeal=0.5, patience=0.8, reach=1.0)
    e = np.exp(-1)
    found = taste.clicks(np.array([0.0, 1.0, 0.0]))
    # 0.5 first; then, of the half that goes on, 0.5 · 0.8 / e; then 0.5 · 0.64 of who is left.
    second = 0.5 * 0.4 * e
    assert found == pytest.approx([0.5, second, (0.5 - second) * 0.32])
    assert taste.clicks(np.empty(0)).size == 0


def test_truth_of_what_was_shown_by_hand() -> None:
    pages = [
        Seen(1, "A", "behaviour", 0, True, False, 0.2),
        Seen(1, "A", "image", 1, False, False, 0.4),
        Seen(2, "B", "image", 1, False, False, 0.5),
        Seen(2, "B", "none", 1, False, False, 0.0),
    ]
    found = truth_of(pages, [7, 8], Taste(bought=0.1))
    assert found["patterns"]["A"] == pytest.approx({"ctr": 0.3, "cvr": 0.1})
    assert found["patterns"]["B"] == pytest.approx({"ctr": 0.5, "cvr": 0.1})
    assert found["categories"]["8"]["A"] == pytest.approx({"ctr": 0.4, "cvr": 0.1})
    assert list(found["categories"]["7"]) == ["A"]
