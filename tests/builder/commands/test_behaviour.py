"""lookalike-build behaviour: ratings become part of a release."""

from pathlib import Path

import pytest

import lookalike
import lookalike.operate.cli
from lookalike.release.files import BEHAVIOUR, RELATED
from lookalike.release.root import ReleaseRoot
from lookalike_build.commands.cli import main
from support import (
    integer_catalogue,
    publish,
)


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
