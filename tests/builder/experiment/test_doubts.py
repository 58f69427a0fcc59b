"""Records that cannot be believed are named in the report's warnings, and counted all the same."""

import bz2
import gzip
import lzma
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from experiments import Record, event, report, write_jsonl

T = 1_767_225_600


def shop(n: int = 60, **more: object) -> list[Record]:
    """Visitors with five impressions each, half of them of either pattern; some click and buy."""
    return [
        each
        for visitor in range(n)
        for each in visit("AB"[visitor % 2], f"v{visitor}", visitor, **more)
    ]


def visit(pattern: str, visitor: str, number: int, **more: object) -> list[Record]:
    of: dict[str, Any] = {"visitor": visitor, "time": T + 3600 * number, **more}
    records: list[Record] = [event("impression", pattern, **of)] * 5
    if number % 3 == 0:
        records += [event("click", pattern, **of)] * 2
    return [*records, event("purchase", pattern, **of)] if number % 6 == 0 else records


def warnings(folder: Path, records: Sequence[Record], *more: object) -> list[str]:
    found: list[str] = report(write_jsonl(folder / "r.jsonl", records), *more)["warnings"]
    return found


def request(uri: str, time: object = "2026-01-02T03:04:05Z", pattern: str = "") -> Record:
    status = "200" if uri.startswith("/related") else "204"
    method = {"A": "behaviour", "B": "image"}.get(pattern, "")
    headers = {"x_lookalike_pattern": pattern, "x_lookalike_method": method}
    return {"time": time, "status": status, "request_uri": uri, **headers}


def test_sound_records_raise_no_doubt(tmp_path: Path) -> None:
    assert warnings(tmp_path, shop()) == []


@pytest.mark.parametrize("visitor", ["crawler", "0", "guest\x1b[31m"])
@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.xz"])
def test_a_visitor_with_a_large_share_of_all_impressions_is_named(
    tmp_path: Path, visitor: str, suffix: str
) -> None:
    path = write_jsonl(tmp_path / "r.jsonl", shop() + [event(pattern="B", visitor=visitor)] * 200)
    if suffix.endswith("xz"):
        path.with_name("r.jsonl.xz").write_bytes(lzma.compress(path.read_bytes()))
        path.unlink()
    (warning,) = report(tmp_path / f"r.{suffix}")["warnings"]
    name = visitor.replace("\x1b", r"\u001b")
    assert warning.startswith(
        f'visitor "{name}" has 40.0 % of all impressions (200): a program, or'
    )


def test_of_few_visitors_none_is_named(tmp_path: Path) -> None:
    assert warnings(tmp_path, shop(6)) == []
    many = [event(pattern="AB"[n % 2], visitor=f"v{n % 10}") for n in range(2000)]
    assert warnings(tmp_path, many) == []


def test_related_and_shown_of_the_same_pages_count_twice(tmp_path: Path) -> None:
    lines = []
    for visitor in range(40):
        pattern = "AB"[visitor % 2]
        query = f"product_id=1&category_id={visitor % 3}&visitor=v{visitor}"
        lines += [request(f"/related?{query}", pattern=pattern)] * 3
        lines += [request(f"/shown?{query}&pattern={pattern}&method=image")] * 2
    path = write_jsonl(tmp_path / "access.log", lines)
    (warning,) = report(path)["warnings"]
    assert warning.startswith("80 of 80 impressions of /shown are of visitors and categories that")
    assert report(path, "--shown-path", "/none")["warnings"] == []
    assert report(path, "--shown-path", "/none")["patterns"]["A"]["impressions"] == 60
    assert report(path, "--related-path", "/none")["warnings"] == []


def test_related_and_shown_without_visitors_count_twice_too(tmp_path: Path) -> None:
    lines = []
    for n in range(40):
        pattern = "AB"[n % 2]
        lines.append(request("/related?product_id=1&category_id=1", pattern=pattern))
        lines.append(request(f"/shown?category_id=1&pattern={pattern}&method=image"))
    found = report(write_jsonl(tmp_path / "access.log", lines))["warnings"]
    assert found[-1].startswith(
        "40 of 40 impressions of /shown are of visitors and categories that"
    )


def test_related_and_shown_of_other_pages_do_not(tmp_path: Path) -> None:
    lines = []
    for visitor in range(40):
        pattern = "AB"[visitor % 2]
        query = f"visitor=v{visitor}&pattern={pattern}&method=image"
        lines.append(request(f"/related?category_id=1&visitor=v{visitor}", pattern=pattern))
        lines.append(request(f"/shown?category_id=2&{query}"))
    assert report(write_jsonl(tmp_path / "access.log", lines))["warnings"] == []


@pytest.mark.parametrize("second", ["r.copy.jsonl", "r.jsonl.gz", "s.csv"])
def test_files_with_the_same_records_count_twice(tmp_path: Path, second: str) -> None:
    path = write_jsonl(tmp_path / "r.jsonl", shop())
    copy = tmp_path / second
    if second.endswith("gz"):
        copy.write_bytes(gzip.compress(path.read_bytes()))
    elif second.endswith("csv"):
        rows = [[each[name] for name in event(visitor="", time="")] for each in shop()]
        lines = [
            "event,pattern,method,category_id,visitor,time",
            *(",".join(map(str, r)) for r in rows),
        ]
        copy.write_text("\n".join(lines))
    else:
        shutil.copy(path, copy)
    first, last = sorted([str(path), str(copy)])
    other = write_jsonl(tmp_path / "t.jsonl", shop(4))
    found = report(path, copy, other)
    (warning,) = found["warnings"]
    assert set(warning.split(" hold the same records, which count 2 times")[0].split(" and ")) == {
        first,
        last,
    }
    assert found["patterns"]["A"]["impressions"] == 2 * 150 + 10


@pytest.mark.parametrize(
    "wrong",
    [
        {"visitor": "somebody else"},
        {"category_id": "of the product clicked on"},
        {"pattern": "A", "visitor": "v1"},
        {"visitor": None, "category_id": "2"},
    ],
)
def test_clicks_without_an_impression_are_counted(tmp_path: Path, wrong: dict[str, Any]) -> None:
    stray = {**event("click", "B", visitor="v1"), **wrong}
    (warning,) = warnings(tmp_path, shop() + [stray] * 4)
    assert warning.startswith(
        "4 of 44 clicks are of a visitor without an impression in that pattern"
    )


def test_purchases_without_a_click_are_counted(tmp_path: Path) -> None:
    stray = event("purchase", "B", visitor="v1")
    (warning,) = warnings(tmp_path, shop() + [stray] * 3)
    assert warning.startswith(
        "3 of 13 purchases are of a visitor without a click in that pattern and"
    )


def test_a_click_just_after_the_period_began_is_no_doubt(tmp_path: Path) -> None:
    records = [*shop(600), event("click", "B", visitor="yesterday's")]
    assert warnings(tmp_path, records) == []


@pytest.mark.parametrize("time", [0, 86_400 * 365, "2099-12-31T23:59:59Z"])
def test_times_far_from_all_others_are_named(tmp_path: Path, time: object) -> None:
    found = report(write_jsonl(tmp_path / "r.jsonl", [*shop(), *visit("A", "late", 1, time=time)]))
    (warning,) = found["warnings"]
    day = {0: "1970-01-01", 86_400 * 365: "1971-01-01"}.get(time, "2099-12-31")  # type: ignore[call-overload]
    assert warning.startswith(
        f"1 or more records are from {day}, far from all others: a clock was wrong"
    )
    assert (
        report(tmp_path / "r.jsonl", "--from", "2025-01-01", "--until", "2027-01-01")["warnings"]
        == []
    )


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("style", ["{:%Y-%m-%dT%H:%M:%S+00:00}", "{:%d/%b/%Y:%H:%M:%S} +0000"])
def test_a_log_in_which_time_goes_back_is_named(tmp_path: Path, style: str, packed: bool) -> None:
    at = datetime(2026, 1, 5, 10, tzinfo=UTC)
    moments = [at + timedelta(minutes=n - 24 * 60 * (n >= 30)) for n in range(60)]
    lines = [
        request(f"/related?category_id=1&visitor=v{n}", style.format(moment), "AB"[n % 2])
        for n, moment in enumerate(moments)
    ]
    path = write_jsonl(tmp_path / "access.log", lines)
    if packed:
        path.write_bytes(bz2.compress(path.read_bytes()))
    (warning,) = report(path)["warnings"]
    assert warning.startswith(
        f"{path}: time goes back from 2026-01-05 10:29:00 to 2026-01-04 10:30:00: a clock jumped, or"
    )


@pytest.mark.slow
def test_in_a_large_log_too(tmp_path: Path) -> None:
    lines = [
        request(f"/related?category_id=1&visitor=v{n}", T + n - 40_000 * (n > 25_000), "AB"[n % 2])
        for n in range(50_000)
    ]
    path = write_jsonl(
        tmp_path / "access.log", [{**each, "time": str(each["time"])} for each in lines]
    )
    assert path.stat().st_size > 5 << 20
    (warning,) = report(path)["warnings"]
    assert "time goes back from" in warning


def test_records_that_are_exported_in_any_order_are_no_log(tmp_path: Path) -> None:
    assert warnings(tmp_path, shop()[::-1]) == []
