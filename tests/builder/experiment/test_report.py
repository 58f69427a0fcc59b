"""The experiment's report: its tables, by hand and by the command, and how they are shown."""

import json
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments import event, report, write_jsonl
from lookalike_build.commands.cli import main
from lookalike_build.experiment.html import as_html
from lookalike_build.experiment.json import as_json
from lookalike_build.experiment.records import Records, Tally
from lookalike_build.experiment.report import NoExperiment, Question, Report, report_of
from lookalike_build.experiment.text import as_text

Counts = tuple[int, int, int]


def anonymous(impressions: int, clicks: int, purchases: int) -> Tally:
    n, x, y = impressions, clicks, purchases
    return Tally(0, n, n, x, y, n, x, x, y, y)


def records_of(categories: dict[str, tuple[Counts, Counts]], **more: Any) -> Records:
    """Without visitors: of each category the impressions, clicks and purchases of A and of B."""
    tallies = {
        category_id: {"A": anonymous(*a), "B": anonymous(*b)}
        for category_id, (a, b) in categories.items()
    }
    patterns = {"A": Tally(), "B": Tally()}
    for of_category in tallies.values():
        patterns = {pattern: its.plus(of_category[pattern]) for pattern, its in patterns.items()}
    nothing: dict[str, Any] = {
        "methods": [],
        "assigned": {pattern: its.units for pattern, its in patterns.items()},
        "n_in_both": 0,
        "period": None,
        "n_outside": 0,
        "n_other": 0,
        "n_malformed": 0,
        "faults": [],
    }
    return Records(patterns, tallies, **{**nothing, **more})


CATEGORIES = {
    "shoes": ((5000, 25, 10), (5000, 80, 30)),
    "hats": ((4000, 60, 8), (4000, 20, 8)),
    "bags": ((3000, 15, 6), (3000, 16, 5)),
    "belts": ((2000, 10, 4), (2000, 10, 4)),
    "socks": ((1500, 30, 3), (1000, 9, 1)),
    "ties": ((1200, 6, 0), (1100, 9, 0)),
    "gloves": ((999, 500, 100), (9000, 1, 1)),
}


def the_report(**question: Any) -> Report:
    return report_of(records_of(CATEGORIES), Question(**question))


def ids(categories: Sequence[Any]) -> list[str]:
    return [each.category_id for each in categories]


def test_the_categories_in_which_each_pattern_did_best() -> None:
    found = the_report().best
    # CTR in percent: A 0.5, 1.5, 0.5, 0.5, 2.0, 0.5; B 1.6, 0.5, 0.53, 0.5, 0.9, 0.82.
    assert ids(found["ctr"]["A"])[:2] == ["socks", "hats"]
    assert ids(found["ctr"]["B"]) == ["shoes", "socks", "ties", "bags", "hats"]
    assert len(found["cvr"]["A"]) == 5


def test_or_by_how_much_each_pattern_leads() -> None:
    found = the_report(best_by="lead").best
    assert ids(found["ctr"]["A"]) == ["socks", "hats", "belts", "bags", "ties"]
    assert ids(found["ctr"]["B"])[:3] == ["shoes", "ties", "bags"]


def test_the_number_of_categories_each_pattern_won() -> None:
    won = the_report().won
    assert won["ctr"] == (2, 3, 1, 1, 1)
    assert (won["cvr"].a, won["cvr"].b, won["cvr"].equal) == (2, 1, 3)


def test_a_category_with_few_impressions_of_one_pattern_is_undecided() -> None:
    found = the_report()
    assert ids(found.undecided) == ["gloves"]
    assert ids(the_report(min_impressions=999).undecided) == []
    assert ids(the_report(min_impressions=1001).undecided) == ["gloves", "socks"]


def test_tests_are_corrected_for_the_number_of_categories_that_are_decided() -> None:
    categories = {each.category_id: each for each in the_report().categories}
    shoes = categories["shoes"].measures["ctr"]
    assert shoes.p_corrected == pytest.approx(6 * shoes.comparison.p)
    hats = categories["hats"].measures["ctr"]
    assert hats.p_corrected == pytest.approx(5 * hats.comparison.p)
    assert (hats.won, hats.certain) == ("A", True)
    socks = categories["socks"].measures["ctr"]
    assert socks.comparison.p < 0.05
    assert (socks.won, socks.certain) == ("A", False)


def test_a_mismatch_of_the_assignment_is_a_warning() -> None:
    records = records_of(CATEGORIES)
    assert the_report().mismatch
    (warning, _) = report_of(records, Question()).warnings
    assert warning.startswith(
        "sample ratio mismatch: 25100 of 42799 impressions have pattern B where"
    )
    found = report_of(records, Question(share=25_100 / 42_799))
    assert not found.mismatch
    assert found.ratio.p == pytest.approx(1)


def test_more_clicks_than_impressions_are_a_warning() -> None:
    records = records_of({"1": ((1000, 1200, 0), (1000, 3, 0))})
    found = report_of(records, Question())
    assert "pattern A has more clicks (1200) than impressions (1000)" in found.warnings[-1]
    assert "120.00 %" in as_text(found)


def test_without_impressions_of_both_patterns_there_is_no_experiment() -> None:
    faults = ["r.csv: line 2: has no event"]
    records = records_of({"1": ((10, 0, 0), (0, 0, 0))}, n_malformed=1, n_outside=5, faults=faults)
    with pytest.raises(NoExperiment) as caught:
        report_of(records, Question())
    assert str(caught.value) == (
        "no impressions of pattern B that were answered; left out: 1 malformed, 5 outside the period; "
        "the first: r.csv: line 2: has no event"
    )


@pytest.mark.slow
def test_the_papers_counts_give_the_papers_table_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    n = {"A": (100_000, 510, 210), "B": (100_000, 760, 280)}
    events = [
        (name, pattern)
        for pattern, counts in n.items()
        for name, count in zip(("impression", "click", "purchase"), counts, strict=True)
        for _ in range(count)
    ]
    names, patterns = zip(*events, strict=True)
    ones = ["1"] * len(events)
    methods = ["behaviour" if pattern == "A" else "image" for pattern in patterns]
    table = pa.table({"event": names, "pattern": patterns, "method": methods, "category_id": ones})
    pq.write_table(table, tmp_path / "paper.parquet")
    assert main(["report", str(tmp_path / "paper.parquet")]) == 0
    said = capsys.readouterr().out
    a, b = (line for line in said.splitlines() if re.match(r"pattern . +\S+ +100,000", line))
    assert re.fullmatch(r"pattern A .* 510  0\.51 % .* 210  0\.21 % .*", a)
    assert re.fullmatch(r"pattern B .* 760  0\.76 % .* 280  0\.28 % .*", b)
    assert "+0.25 (+0.18 to +0.32)  +49 % (+33 to +67)  p < 0.0001" in said


def test_fallbacks_count_for_the_pattern_assigned_and_the_unanswered_for_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [event("impression", "A", "image")] * 30 + [event("impression", "A")] * 10
    records += [event("impression", "A", "none")] * 10 + [event("click", "A", "image")] * 3
    records += [event("impression", "B", "behaviour")] * 20 + [event("impression", "B", "none")] * 5
    found = report(write_jsonl(tmp_path / "r.jsonl", records))
    assert (found["patterns"]["A"]["impressions"], found["patterns"]["A"]["clicks"]) == (40, 3)
    assert found["patterns"]["B"]["impressions"] == 20
    assert found["left_out"]["unanswered"] == 15
    shares = {(each["pattern"], each["method"]): each["share"] for each in found["traffic"]}
    assert shares == {
        ("A", "behaviour"): 0.2,
        ("A", "image"): 0.6,
        ("A", "none"): 0.2,
        ("B", "behaviour"): 0.8,
        ("B", "none"): 0.2,
    }
    assert found["traffic"][1]["share_of_all"] == 0.4
    said = capsys.readouterr().out
    assert "left out: 15 impressions that nothing answered" in said
    assert re.search(r"pattern A, image +30 +60\.0 % +40\.0 % +3 +0", said)


def test_json_has_what_text_says(tmp_path: Path) -> None:
    found = json.loads(as_json(the_report()))
    assert list(found["patterns"]) == ["A", "B"]
    shoes = next(each for each in found["categories"] if each["category_id"] == "shoes")
    assert shoes["patterns"]["B"]["ctr"]["value"] == 0.016
    assert shoes["measures"]["ctr"]["comparison"]["difference"] == pytest.approx(0.011)
    assert found["won"]["ctr"] == {"a": 2, "b": 3, "equal": 1, "a_certain": 1, "b_certain": 1}
    assert found["best"]["ctr"]["B"][0] == "shoes"
    assert found["undecided"] == ["gloves"]
    ties = next(each for each in found["categories"] if each["category_id"] == "ties")
    assert ties["measures"]["cvr"]["comparison"]["lift"] is None
    assert ties["measures"]["cvr"]["comparison"]["lift_interval"] == {"low": -1, "high": None}
    assert found["mismatch"] is True


def test_text_says_what_is_undecided_and_what_is_certain() -> None:
    said = as_text(the_report())
    assert said.startswith("WARNING: sample ratio mismatch")
    assert "SAMPLE RATIO MISMATCH" in said
    assert "undecided, with fewer impressions: 1 (gloves)" in said
    assert re.search(r"^shoes .* B, certain +p < 0\.0001$", said, re.MULTILINE)
    many = {str(n): ((9, 0, 0), (9, 0, 0)) for n in range(100)}
    assert "100 (0, 1, 10, 11," in as_text(report_of(records_of(many), Question()))
    assert " and 80 more)" in as_text(report_of(records_of(many), Question()))


AWKWARD = "<script>alert('1')</script>&\"\x1b[31m\0"


class Page(HTMLParser):
    """What a page consists of; AssertionError where its elements do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_well_formed_loads_nothing_and_escapes_all() -> None:
    records = records_of(
        {**CATEGORIES, AWKWARD: ((5000, 3, 1), (5000, 9, 2)), "<b>": ((1, 0, 0),) * 2}
    )
    html = as_html(report_of(records, Question())).decode()
    page = Page(html)
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert not {name for name, _ in page.attributes} & {"src", "href", "style", "onload", "onclick"}
    assert "//" not in html.replace("</", "")
    assert "url(" not in html
    assert page.text.count("<script>alert('1')</script>&\"\\u001b[31m\\u0000") >= 3
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", html)
    assert page.tags >= {"svg", "table", "details", "title"}
    assert html.count("<svg") == 4
    for number in re.findall(r'(?:x1|x2|cx|y1|y2|cy)="([^"]*)"', html):
        assert -1 < float(number) < 400


def test_the_page_shows_what_is_infinite_and_what_is_zero() -> None:
    records = records_of({"1": ((1000, 0, 0), (1000, 0, 0)), "2": ((1000, 0, 0), (1000, 5, 0))})
    Page(as_html(report_of(records, Question())).decode())
    few = {pattern: Tally(3, 0, 300, 400, 0, 30_000, 9, 9, 0, 0) for pattern in "AB"}
    records = Records(few, {"1": few}, [], {"A": 3, "B": 3}, 0, None, 0, 0, 0, [])
    page = Page(as_html(report_of(records, Question(min_impressions=1))).decode())
    assert "133.33 % (0.00 to any)" in page.text


@pytest.mark.chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_and_asks_for_nothing(tmp_path: Path, scheme: Any) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed: no chromium on PATH")
    path = tmp_path / "report.html"
    path.write_bytes(as_html(the_report()))
    asked: list[str] = []
    complaints: list[str] = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 360, "height": 700}, color_scheme=scheme)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.click("summary")
        assert page.locator("details table").is_visible()
        dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        browser.close()
    assert dark == (scheme == "dark")
    assert asked == [path.as_uri()]
    assert complaints == []


def test_the_command_writes_all_three_and_says_where_it_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = [event(pattern=pattern, visitor=f"{pattern}{n}") for pattern in "AB" for n in range(20)]
    path = write_jsonl(tmp_path / "r.jsonl", [*sound, event(category_id=None)])
    page = tmp_path / "report.html"
    found = report(path, "--html", page, "--confidence", "0.9", "--min-impressions", "10")
    said = capsys.readouterr()
    assert "Table 1. Rates by pattern, with 90 % intervals" in said.out
    assert f"malformed: {path}: line 41: has no category_id" in said.out
    assert "files: 1, in" in said.out
    assert "report: 1 of 1 files" in said.err
    assert found["left_out"]["malformed"] == 1
    assert "Table 1." in Page(page.read_text()).text
    assert main(["report", str(tmp_path / "no*.csv")]) == 1
    assert capsys.readouterr().err.endswith("no*.csv: no such file, and no file matches it\n")
    assert main(["report", str(path), "--from", "2026-01-01"]) == 1
    assert "no impressions of pattern A that were answered; left out: 41" in capsys.readouterr().err
    assert main(["report", str(path), "--html", str(tmp_path / "no" / "r.html")]) == 1
    assert "no/r.html: No such file or directory" in capsys.readouterr().err


def test_the_command_takes_a_period_paths_and_columns(tmp_path: Path) -> None:
    def at(day: int, pattern: str) -> dict[str, object]:
        return {
            **event(pattern=pattern, time=f"2026-01-0{day}T12:00:00+09:00"),
            "who": f"{pattern}{day}",
        }

    path = write_jsonl(tmp_path / "r.jsonl", [at(day, p) for day in range(1, 8) for p in "AB"])
    found = report(path, "--from", "2026-01-02", "--until", "2026-01-05", "--visitor-column", "who")
    assert found["patterns"]["A"]["visitors"] == 3
    assert found["left_out"]["outside"] == 8
    assert found["period"] == ["2026-01-02T03:00:00+00:00", "2026-01-04T03:00:00+00:00"]
    later = report(path, "--from", "2026-01-02T12:00:01+09:00")
    assert later["patterns"]["A"]["impressions"] == 5
    assert later["patterns"]["A"]["visitors"] == 0
    assert later["warnings"][-1].startswith("no record names a visitor")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing argument 'RECORDS...'"),
        (["r.csv", "--confidence", "95"], "a number from 0.5 to 0.9999"),
        (["r.csv", "--share", "50"], "a number from 0.01 to 0.99"),
        (
            ["r.csv", "--from", "yesterday"],
            "must be a date or a time such as 2026-01-31T12:00+09:00, not",
        ),
        (["r.csv", "--memory-limit", "much"], 'must be a size such as 512MB or 4GB, not "much"'),
        (["r.csv", "--min-impressions", "0"], "whole number from 1"),
    ],
)
def test_a_wrong_call_is_status_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *arguments]) == 2
    assert said in capsys.readouterr().err
