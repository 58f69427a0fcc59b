"""From the report to the shop: which method each category is to have."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments import Record, event, report, write_jsonl
from lookalike.choice import Choice
from lookalike_build.commands.cli import main


def records(**rates: tuple[int, int]) -> list[Record]:
    """Of each category 1000 impressions of each pattern, and so many clicks of A and of B."""
    found: list[Record] = []
    for category_id, clicks in rates.items():
        for pattern, n in zip("AB", clicks, strict=True):
            found += [event("impression", pattern, category_id=category_id)] * 1000
            found += [event("click", pattern, category_id=category_id)] * n
    return found


CATEGORIES = {"hats": (20, 80), "ties": (80, 20), "socks": (20, 25), "belts": (20, 20)}


def choose(path: Path, *more: object) -> dict[str, Any]:
    out = path.with_name("choice.json")
    report(path, "--choose", out, *more)
    Choice.read(out)
    document: dict[str, Any] = json.loads(out.read_bytes())
    return document


@pytest.mark.parametrize(
    ("arguments", "default"), [([], "behaviour"), (["--default", "image"], "image")]
)
def test_what_won_for_certain_is_chosen_and_elsewhere_the_default(
    tmp_path: Path, arguments: list[str], default: str, capsys: pytest.CaptureFixture[str]
) -> None:
    few: list[Record] = [event(pattern="AB"[n % 2], category_id="few") for n in range(20)]
    path = write_jsonl(tmp_path / "r.jsonl", records(**CATEGORIES) + few)
    assert choose(path, *arguments) == {
        "default": default,
        "categories": {
            "belts": default,
            "few": default,
            "hats": "image",
            "socks": default,
            "ties": "behaviour",
        },
    }
    n_behaviour, n_image = (4, 1) if default == "behaviour" else (1, 4)
    assert (
        f"chosen: behaviour in {n_behaviour} categories (1 won for certain), image in {n_image} "
        f"categories (1 won for certain); {default} in all others; written to {tmp_path}/choice.json"
    ) in capsys.readouterr().out


def test_a_confidence_makes_it_bolder(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "r.jsonl", records(hats=(20, 34)))
    assert choose(path)["categories"] == {"hats": "behaviour"}
    assert choose(path, "--confidence", "0.9")["categories"] == {"hats": "image"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--share", "0.9"], "no choice is written: sample ratio mismatch"),
        (["--count-by", "method"], "no choice is written: records must count by pattern"),
    ],
)
def test_what_cannot_be_believed_chooses_nothing(
    tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_jsonl(tmp_path / "r.jsonl", records(**CATEGORIES))
    out = tmp_path / "choice.json"
    assert main(["report", str(path), "--choose", str(out), *arguments]) == 1
    printed = capsys.readouterr()
    assert "Table 1." in printed.out
    assert printed.err.splitlines()[-1].startswith(f"lookalike-build: {said}")
    assert not out.exists()


def test_what_was_chosen_is_not_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more: list[Record] = [
        event(kind, "chosen", "image", "hats", visitor="v") for kind in ("impression", "click")
    ]
    path = write_jsonl(tmp_path / "r.jsonl", records(**CATEGORIES) + more * 500)
    found = report(path)
    assert found["patterns"]["B"]["impressions"] == 4000
    assert found["left_out"] == {
        "unanswered": 0,
        "outside": 0,
        "malformed": 0,
        "other": 0,
        "without_method": 0,
        "chosen": 1000,
    }
    assert (
        "left out: 1,000 records of visitors who were assigned no pattern"
        in capsys.readouterr().out
    )
