"""lookalike-build attributes: what a table says of products becomes part of a release."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lookalike.journal import SET, Change, Journal
from lookalike.release.attributes import Value, Values
from lookalike.release.ids import Id
from lookalike.release.root import ReleaseRoot
from lookalike_build.commands.cli import main
from support import integer_catalogue, make_slim, publish, string_catalogue

ALL = ["--attribute=price:number", "--attribute=in_stock:flag=stock", "--attribute=brand:text"]
HIDE = "--attribute=hidden:flag"
Run = Callable[..., int]


@pytest.fixture
def root(tmp_path: Path) -> ReleaseRoot:
    """A release of 60 products, 100 to 159, in category 1, and of others."""
    return publish(tmp_path / "r", integer_catalogue(), tmp_path / "f", n_trees=2, neighbours=5)


@pytest.fixture
def run(root: ReleaseRoot) -> Run:
    """Runs the command for a file, if one is given; the exit status."""

    def call(*arguments: str, path: Path | None = None) -> int:
        file = [str(path)] if path else []
        return main(["attributes", *file, f"--root={root.path}", *arguments])

    return call


def csv(tmp_path: Path, header: str, lines: Sequence[str]) -> Path:
    path = tmp_path / "values.csv"
    path.write_text("\n".join([f"category_id,product_id,{header}", *lines]) + "\n")
    past = time.time() - 7200
    os.utime(path, (past, past))
    return path


def value(root: ReleaseRoot, name: str, product_id: Id, category_id: Id = 1) -> Value | None:
    """A product's value in the current release."""
    category = root.open(str(root.current())).categories[category_id]
    item = category.item_of(product_id)
    assert item is not None
    return category.columns.value(name, item)


def set_live(root: ReleaseRoot, product_id: Id, values: Values) -> None:
    """Set attributes live, and settle that as a follower does."""
    with closing(Journal(root.journal)) as journal:
        (number,) = journal.add([Change(SET, 1, product_id, values=values)])
        journal.settle(number, str(root.current()))


def test_attributes_are_published_and_counted(
    root: ReleaseRoot, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"1,{100 + i},{i}.50 USD,{'yes' if i % 2 else ''},Acme" for i in range(50)]
    path = csv(tmp_path, "price,stock,brand", [*lines, "1,7,1 USD,,a", "77,8,,,"])
    assert run(*ALL, path=path) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[:-1] == [
        "52 products in the file; price in USD",
        "products: 50 with values, 318 of the release not in the file, 2 of the file not in the "
        "release",
        "values set live since the export, which stay: 0",
        "hidden: 0 of 368 products",
        "attributes: price:number, in_stock:flag, brand:text",
        "categories: 1 changed, 3 unchanged",
    ]
    assert f"release {root.current()} published and made current" in said.out
    assert said.err == (
        "lookalike-build: products of the file that the release does not have: 2, such as 7 of "
        "category 1; `index` adds products\n"
    )
    assert value(root, "price", 103) == 3.5
    assert value(root, "in_stock", 103) is True
    assert value(root, "in_stock", 102) is None
    assert value(root, "brand", 149) == "Acme"
    assert value(root, "brand", 150) is None
    assert run(*ALL, path=path) == 0
    assert "unchanged: it holds this already" in capsys.readouterr().out
    assert run(ALL[0], "--drop=brand", "--keep=1", path=path) == 0
    assert "old releases removed: " in capsys.readouterr().out
    assert len(root.names()) == 2  # that of `index` counts apart


def test_other_attributes_stay_and_may_be_dropped(
    root: ReleaseRoot, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*ALL, path=csv(tmp_path, "price,stock,brand", ["1,100,5,yes,a"])) == 0
    assert run(ALL[0], "--drop=brand", path=csv(tmp_path, "price", ["1,101,6"])) == 0
    assert "attributes: price:number, in_stock:flag\n" in capsys.readouterr().out
    assert [value(root, name, 100) for name in ("price", "in_stock", "brand")] == [None, True, None]
    assert value(root, "price", 101) == 6.0
    assert run("--drop=price", "--drop=in_stock") == 0
    assert "attributes: none\n" in capsys.readouterr().out
    name = root.current()
    assert run("--drop=price") == 1
    assert capsys.readouterr().err == (
        f"lookalike-build: release {name} has no attribute price; it has none\n"
    )


def test_an_attribute_keeps_its_type(
    root: ReleaseRoot, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = csv(tmp_path, "price", ["1,100,5"])
    assert run("--attribute=price:number", path=path) == 0
    name = root.current()
    capsys.readouterr()
    assert run("--attribute=price:text", path=path) == 1
    assert capsys.readouterr().err == (
        f"lookalike-build: release {name} has price as a number, not as a text; if that is meant, "
        "remove it first with --drop price\n"
    )
    assert run("--drop=price") == 0
    assert run("--attribute=price:text", path=path) == 0
    assert value(root, "price", 100) == "5"


def test_products_are_hidden_up_to_a_share(
    root: ReleaseRoot, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    products = [f"1,{100 + i}" for i in range(60)] + [f"40,{5000 + 10 * i}" for i in range(300)]
    path = csv(tmp_path, "hidden", [f"{product},yes" for product in products[:184]])
    assert run(HIDE, path=path) == 0
    assert "hidden: 184 of 368 products\n" in capsys.readouterr().out
    assert value(root, "hidden", 100) is True
    before = root.current()
    # Those that are hidden now do not count: 93 of the 184 visible ones would be.
    path = csv(
        tmp_path, "hidden", [f"{product},{i < 93}" for i, product in enumerate(products[::-1])]
    )
    assert run(HIDE, path=path) == 1
    assert capsys.readouterr().err == (
        f"lookalike-build: {path} would hide 93 of 184 visible products of release {before}, which "
        "stays as it is (--max-hidden 50). If that is meant, give this option a higher value for this "
        "run\n"
    )
    assert root.current() == before
    assert run(HIDE, "--max-hidden=51", path=path) == 0
    assert "hidden: 93 of 368 products\n" in capsys.readouterr().out
    assert value(root, "hidden", 100) is False


def test_a_file_of_other_products_is_refused(
    root: ReleaseRoot, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = root.current()
    path = csv(tmp_path, "price", ["2,100,5", "9,100,5"])
    assert run(ALL[0], path=path) == 1
    assert capsys.readouterr().err == (
        f"lookalike-build: {path}: none of its products is in release {before}; the first is 100 of "
        "category 2; are its ids those of the catalogue?\n"
    )
    path = csv(tmp_path, "price", ["1,A7,5", "1,100,12,50"])
    assert run(ALL[0], path=path) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"lookalike-build: {path}: line 2: product_id must be a whole number as in the release, not "
        "'A7'",
        f"{path}: line 3: has 4 fields, the header has 3",
    ]
    assert root.current() == before


def test_what_was_set_live_since_the_export_stays(
    root: ReleaseRoot, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*ALL, path=csv(tmp_path, "price,stock,brand", ["1,100,5,yes,a"])) == 0
    set_live(root, 100, {"price": 7.0, "brand": None})
    path = csv(tmp_path, "price", ["1,100,6", "1,101,6"])
    capsys.readouterr()
    assert run(ALL[0], path=path) == 0
    assert "values set live since the export, which stay: 1\n" in capsys.readouterr().out
    assert [value(root, "price", product_id) for product_id in (100, 101)] == [7.0, 6.0]
    assert run(ALL[0], f"--as-of={datetime.now(UTC).isoformat()}", path=path) == 0
    assert "which stay: 0\n" in capsys.readouterr().out
    assert value(root, "price", 100) == 6.0
    set_live(root, 100, {"price": 7.0})
    # The time of a query is when it begins.
    query = tmp_path / "values.sql"
    query.write_text("SELECT 1 AS category_id, 100 AS product_id, 8 AS price")
    assert run(ALL[0], path=query) == 0
    assert value(root, "price", 100) == 8.0


def test_values_set_live_that_may_be_newer_are_not_undone(
    root: ReleaseRoot, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = csv(tmp_path, "price", ["1,100,6"])
    future = time.time() + 3600
    os.utime(path, (future, future))
    assert run(ALL[0], path=path) == 0
    set_live(root, 100, {"price": 7.0})
    before = root.current()
    capsys.readouterr()
    assert run(ALL[0], path=path) == 1
    assert capsys.readouterr().err == (
        f"lookalike-build: {path}: its time is ahead of this host's clock, so which values set live "
        "are newer is not known; give the time that it was exported at with --as-of TIME\n"
    )
    with closing(Journal(root.journal)) as journal:
        database = journal._database
        database.execute("INSERT INTO forgotten_values VALUES (?)", [time.time() - 100])
    os.utime(path, (0, 10_000))
    assert run(ALL[0], path=path) == 1
    said = capsys.readouterr().err
    assert "it is of 1970-01-01T01:46:40Z, and of values set live up to" in said
    assert "give a later time with --as-of TIME if it was exported then" in said
    assert root.current() == before


def test_a_slim_copy_gets_no_attributes(
    root: ReleaseRoot, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = str(root.current())
    make_slim(root)
    assert run(ALL[0], path=csv(tmp_path, "price", ["1,100,6"])) == 1
    assert f"release {name} is a slim copy" in capsys.readouterr().err


def test_a_release_has_up_to_32_attributes(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"a{i}" for i in range(33)]
    path = csv(tmp_path, ",".join(names), [f"1,100{',1' * 33}"])
    given = [f"--attribute={name}:number" for name in names]
    assert run(*given[:32], path=path) == 0
    assert run(given[32], path=path) == 1
    assert "would have 33 attributes, at most 32 are possible; drop some" in capsys.readouterr().err
    assert run(given[32], "--drop=a0", path=path) == 0


def test_ids_may_be_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = publish(tmp_path / "r", string_catalogue(), tmp_path / "f", n_trees=2, neighbours=5)
    path = csv(tmp_path, "price,hidden", ["shoes,007,5,", "shoes,日本,6,yes", "shoes,7,1,"])
    assert main(["attributes", str(path), "--root", str(root.path), ALL[0], HIDE]) == 0
    assert "1 of the file not in the release" in capsys.readouterr().out
    assert value(root, "price", "007", "shoes") == 5.0
    assert value(root, "hidden", "日本", "shoes") is True
