"""The experiment's report: its tables, by hand and by the command, and how they are shown."""

import json
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
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
from support import REPOSITORY

Counts = tuple[int, int, int]


def anonymous(impressions: int, clicks: int, purchases: int) -> Tally:
    n, x, y = impressions, clicks, purchases
    return Tally(0, 0, n, x, n, x, y, n, x, x, y, y)


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
        "n_visitors": 0,
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
"""Impressions, clicks and purchases of A and B: in percent, CTR is 0.5 and 1.6, 1.5 and 0.5, 0.5 and
0.53, 0.5 and 0.5, 2.0 and 0.9, 0.5 and 0.82; CVR is 40 and 37.5, 13 and 40, 40 and 31, 40 and 40, 10
and 11, 0 and 0."""


def the_report(**question: Any) -> Report:
    return report_of(records_of(CATEGORIES), Question(**{"min_clicks": 6, **question}))


def ids(categories: Sequence[Any]) -> list[str]:
    return [each.category_id for each in categories]


def test_the_categories_in_which_each_pattern_leads_by_most() -> None:
    found = the_report().best
    assert ids(found["ctr"]["A"]) == ["socks", "hats"]
    assert ids(found["ctr"]["B"]) == ["shoes", "ties", "bags"]
    assert ids(found["cvr"]["A"]) == ["bags", "shoes"]
    said = as_text(the_report())
    assert re.search(
        r"^Table 2\..* pattern A has the largest lead in CTR, at most 5\n.*\nsocks .*\nhats ",
        said,
        re.M,
    )
    assert re.search(
        r"^Table 3\..* pattern B has the largest lead in CTR, at most 5\n.*\nshoes ", said, re.M
    )


def test_a_pattern_that_leads_nowhere_has_no_best_categories() -> None:
    found = report_of(records_of({"1": ((1000, 3, 0), (1000, 3, 4))}), Question())
    assert found.best["ctr"] == {"A": [], "B": []}
    assert re.search(r"^Table 2\..*\nnone +CTR of A ", as_text(found), re.M)


def test_or_in_which_its_rate_is_highest() -> None:
    found = the_report(best_by="rate").best
    assert ids(found["ctr"]["A"])[:2] == ["socks", "hats"]
    assert ids(found["ctr"]["B"]) == ["shoes", "socks", "ties", "bags", "hats"]
    assert len(found["cvr"]["A"]) == 5


def test_the_number_of_categories_each_pattern_won() -> None:
    won = the_report().won
    assert won["ctr"] == (2, 3, 1, 1, 1)
    assert (won["cvr"].a, won["cvr"].b, won["cvr"].equal) == (2, 2, 2)


def test_a_category_with_few_impressions_of_one_pattern_is_undecided_by_ctr() -> None:
    assert ids(the_report().undecided["ctr"]) == ["gloves"]
    assert ids(the_report(min_impressions=999).undecided["ctr"]) == []
    assert ids(the_report(min_impressions=1001).undecided["ctr"]) == ["gloves", "socks"]


def test_a_category_with_few_clicks_of_one_pattern_is_undecided_by_cvr() -> None:
    assert ids(the_report().undecided["cvr"]) == ["gloves"]
    assert ids(the_report(min_clicks=1).undecided["cvr"]) == []
    found = the_report(min_clicks=10)
    assert ids(found.undecided["cvr"]) == ["gloves", "socks", "ties"]
    # Holm's correction is for the four that are decided.
    (hats,) = (each for each in found.categories if each.category_id == "hats")
    measure = hats.measures["cvr"]
    assert measure.p_corrected == pytest.approx(4 * measure.comparison.p)


def test_cvr_is_purchases_per_click() -> None:
    found = the_report().patterns["A"].cvr
    assert found is not None
    assert found.value == 131 / 646
    z2 = 1.96**2
    half = 1.96 / (1 + z2 / 646) * (131 / 646 * 515 / 646 / 646 + z2 / (4 * 646**2)) ** 0.5
    centre = (131 / 646 + z2 / (2 * 646)) / (1 + z2 / 646)
    assert found.interval == pytest.approx((centre - half, centre + half), abs=1e-5)


def test_without_clicks_there_is_no_cvr() -> None:
    records = records_of({"1": ((9000, 0, 0), (9000, 30, 3)), "2": ((9000, 0, 2), (9000, 0, 0))})
    found = report_of(records, Question(min_clicks=1))
    assert found.patterns["A"].cvr is None
    assert found.comparisons["cvr"] is None
    assert ids(found.undecided["cvr"]) == ["1", "2"]
    assert found.won["cvr"] == (0, 0, 0, 0, 0)
    assert found.warnings[-1].startswith(
        "pattern A has more purchases (2) than clicks (0): clicks are"
    )
    said = as_text(found)
    assert re.search(r"^pattern A .* 2 +none$", said, re.MULTILINE)
    assert re.search(r"^CVR +none +none$", said, re.MULTILINE)
    assert json.loads(as_json(found))["patterns"]["A"]["cvr"] is None
    Page(as_html(found).decode())


def test_purchases_of_visitors_who_click_much_are_less_certain() -> None:
    # 200 clicks, 40 purchases. Of each by another visitor, or all of ten by ten of whom two buy all.
    apart = Tally(200, 200, 0, 0, 2000, 200, 40, 20_000, 2000, 200, 40, 40)
    together = Tally(200, 20, 0, 0, 2000, 200, 40, 20_000, 2000, 2000, 400, 400)
    few, many = apart.cvr(), together.cvr()
    assert few is not None
    assert many is not None
    assert few.value == many.value == 0.2
    assert few.design_effect == pytest.approx(200 / 199)
    assert many.design_effect == pytest.approx(10 * 20 / 19)


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


def test_more_purchases_than_clicks_are_a_warning() -> None:
    found = report_of(records_of({"1": ((1000, 3, 0), (1000, 3, 4))}), Question())
    assert found.warnings[-1].endswith(
        "B has more purchases (4) than clicks (3): clicks are missing, or purchases are repeated"
    )
    assert "133.33 %" in as_text(found)


def test_more_clicks_than_impressions_are_shown() -> None:
    records = records_of({"1": ((1000, 1200, 0), (1000, 3, 0))})
    found = report_of(records, Question())
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


def paper() -> dict[str, list[float]]:
    """The README's table of the paper's numbers: a row's name, and its numbers of A and of B."""
    readme = (REPOSITORY / "build" / "README.md").read_text()
    rows = re.findall(r"^\| (.+?) \| ([0-9.]+)(?: %)? \| ([0-9.]+)(?: %)? \|$", readme, re.M)
    return {name: [float(a), float(b)] for name, a, b in rows}


def paper_counts() -> dict[str, tuple[Counts, Counts]]:
    """Of each of 120 categories, counts with the paper's rates in three million impressions."""
    rows = paper()
    totals = [round(30_000 * share) for share in rows.pop("share of the impressions counted")]
    clicks = [
        round(n * rate / 100)
        for n, rate in zip(totals, rows.pop("CTR, all categories"), strict=True)
    ]
    purchases = [
        round(n * rate / 100)
        for n, rate in zip(clicks, rows.pop("CVR, all categories"), strict=True)
    ]
    (won_by_a, won_by_b) = map(int, rows.pop("categories with the higher CTR"))
    assert len(rows) == 10
    counts: dict[str, list[list[int]]] = {
        name: [[30_000, round(300 * rate), 0] for rate in rates] for name, rates in rows.items()
    }
    # Both lead by 0.99 points in the paper, which lists shells first.
    counts["materials / ribbons, tapes"][0][1] += 1
    rest = [f"another {n}" for n in range(won_by_a + won_by_b - 10)]
    for name in rest:
        counts[name] = [[0, 0, 0], [0, 0, 0]]
    for of in (0, 1):
        missing = totals[of] - sum(each[of][0] for each in counts.values())
        for place, name in enumerate(rest):
            counts[name][of][0] = missing // 110 + (place < missing % 110)
        for name in rest[: won_by_a - 5]:
            counts[name][of][1] = counts[name][of][0] * (6, 5)[of] // 1000
        missing = clicks[of] - sum(each[of][1] for each in counts.values())
        for place, name in enumerate(rest[won_by_a - 5 :]):
            n = won_by_b - 5
            counts[name][of][1] = missing // n + (place < missing % n)
        counts[rest[-1]][of][2] = purchases[of]
    return {name: (tuple(a), tuple(b)) for name, (a, b) in counts.items()}  # type: ignore[misc]


def assert_papers(said: str) -> None:
    """That a report's text has the paper's tables 1, 2 and 3, to the digit."""
    rows = {name: [f"{rate:.2f} %" for rate in rates] for name, rates in paper().items()}
    overall = rows["CTR, all categories"], rows["CVR, all categories"]
    shares = rows["share of the impressions counted"]
    for name, share, ctr, cvr in zip(("behaviour (A)", "image (B)"), shares, *overall, strict=True):
        row = rf"^{re.escape(name)} .* {share} +[0-9,]+  {ctr} \(.* {cvr} \("
        assert re.search(row, said, re.MULTILINE)
    best = [name for name in rows if " / " in name]
    for number, names in ((2, best[:5]), (3, best[5:])):
        lines = [
            rf"{re.escape(name)} +{rows[name][0]} \(.*\) +{rows[name][1]} \(.*" for name in names
        ]
        assert re.search(
            rf"^Table {number}\..* CTR, at most 5\n.*\n{chr(10).join(lines)}\n\n",
            said,
            re.MULTILINE,
        )
    a, b = (round(n) for n in paper()["categories with the higher CTR"])
    assert re.search(rf"^CTR +{a + b} +{a} +{b} +0 ", said, re.MULTILINE)


def test_the_papers_counts_give_the_papers_tables() -> None:
    records = records_of(paper_counts(), count_by="method")
    assert_papers(as_text(report_of(records, Question())))


@pytest.mark.slow
def test_counted_by_method_the_papers_records_give_the_papers_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = paper_counts()
    names = [*counts]
    # Of each category: what behaviour answered, then image, each event for itself.
    n = np.array([*counts.values()])
    group = np.repeat(np.arange(n.size), n.ravel())
    category, method, event = np.unravel_index(group, n.shape)
    # Half of the impressions are A's; what image had no answer to, behaviour answered for B.
    by_fallback = np.cumsum((method == 0) & (event == 0)) > n[..., 0].sum() // 2
    pattern = np.where((method == 0) & ~by_fallback, 0, 1)
    columns = {
        "event": (event, ["impression", "click", "purchase"]),
        "pattern": (pattern, ["A", "B"]),
        "method": (method, ["behaviour", "image"]),
        "category_id": (category, names),
    }
    table = pa.table({name: pa.array(of).take(pa.array(i)) for name, (i, of) in columns.items()})
    pq.write_table(table, tmp_path / "paper.parquet")
    found = report(tmp_path / "paper.parquet", "--count-by", "method")
    said = capsys.readouterr().out
    assert_papers(said)
    assert "counted by the method that answered" in said
    assert not found["mismatch"]
    assert (found["ratio"]["a"], found["ratio"]["b"]) == (1_500_000, 1_500_000)
    found = report(tmp_path / "paper.parquet")
    assert "counted by the pattern assigned" in capsys.readouterr().out
    assert (
        found["patterns"]["A"]["impressions"] == found["patterns"]["B"]["impressions"] == 1_500_000
    )


def test_counted_by_method_what_names_no_method_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [event("impression", "A", visitor=f"a{n}") for n in range(20)]
    records += [event("impression", "B", visitor=f"b{n}") for n in range(20)]
    records += [event("impression", "B", "behaviour", visitor=f"b{n}") for n in range(10)]
    records += [event("click", "B", "behaviour", visitor="b1"), event("click", "B", visitor="b2")]
    records += [{**event("click", "B", visitor="b3"), "method": None}]
    found = report(write_jsonl(tmp_path / "r.jsonl", records), "--count-by", "method")
    assert found["count_by"] == "method"
    a, b = found["patterns"]["A"], found["patterns"]["B"]
    assert (a["visitors"], a["impressions"], a["clicks"]) == (30, 30, 1)
    assert (b["visitors"], b["impressions"], b["clicks"]) == (20, 20, 1)
    assert found["categories"][0]["patterns"]["A"]["impressions"] == 30
    assert found["left_out"]["without_method"] == 1
    # The assignment is checked by pattern, whatever is counted.
    assert (found["ratio"]["a"], found["ratio"]["b"], found["visitors_in_both"]) == (20, 20, 0)
    said = capsys.readouterr().out
    assert "50 impressions of 40 visitors, 2 clicks" in said
    assert "left out: 1 clicks and purchases without a method" in said
    assert re.search(r"^behaviour \(A\) +30 +30 +60\.00 % +1 ", said, re.MULTILINE)
    assert report(tmp_path / "r.jsonl")["patterns"]["B"]["clicks"] == 3


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
    assert re.search(r"pattern A, image +30 +60\.00 % +40\.00 % +3 +0", said)


def test_json_has_what_text_says(tmp_path: Path) -> None:
    found = json.loads(as_json(the_report()))
    assert list(found["patterns"]) == ["A", "B"]
    shoes = next(each for each in found["categories"] if each["category_id"] == "shoes")
    assert shoes["patterns"]["B"]["ctr"]["value"] == 0.016
    assert shoes["measures"]["ctr"]["comparison"]["difference"] == pytest.approx(0.011)
    assert found["won"]["ctr"] == {"a": 2, "b": 3, "equal": 1, "a_certain": 1, "b_certain": 1}
    assert found["best"]["ctr"]["B"][0] == "shoes"
    assert found["undecided"] == {"ctr": ["gloves"], "cvr": ["gloves"]}
    ties = next(each for each in found["categories"] if each["category_id"] == "ties")
    assert ties["measures"]["cvr"]["comparison"]["lift"] is None
    assert ties["measures"]["cvr"]["comparison"]["lift_interval"] == {"low": -1, "high": None}
    assert found["mismatch"] is True


def test_text_says_what_is_undecided_and_what_is_certain() -> None:
    said = as_text(the_report())
    assert said.startswith("WARNING: sample ratio mismatch")
    assert "SAMPLE RATIO MISMATCH" in said
    assert "undecided by CTR, with fewer impressions: 1 (gloves)" in said
    assert "undecided by CVR, with fewer clicks: 1 (gloves)" in said
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
    html = as_html(report_of(records, Question(min_clicks=6))).decode()
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
    few = {pattern: Tally(3, 3, 0, 0, 300, 400, 0, 30_000, 9, 9, 0, 0) for pattern in "AB"}
    records = Records(few, {"1": few}, [], 6, {"A": 3, "B": 3}, 0, None, 0, 0, 0, [])
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
