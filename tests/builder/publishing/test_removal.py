"""A build that would take away much of what there is asks first."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from lookalike.journal import PUT, Change, Journal
from lookalike.release.ids import Id
from lookalike.release.manifest import Applied, Model
from lookalike_build.commands.cli import main
from lookalike_build.indexing.live import FeatureChanges
from lookalike_build.publishing.removal import (
    ANY,
    AllowedRemoval,
    Products,
    RemovalError,
    check_removal,
)
from support import (
    Catalogue,
    change,
    integer_catalogue,
    publish,
    random_features,
    string_catalogue,
    write_store,
)

MODEL = Model("a", "0")


def products(name: str, **ids: list[Id]) -> Products:
    numbers: dict[Id, pa.Array] = {int(each[1:]): pa.array(some) for each, some in ids.items()}
    return Products(name, ("integer", "integer"), MODEL, numbers)


BEFORE = products("the release", c1=list(range(100)), c2=list(range(100, 120)), c3=[1, 2, 3])


def refused(after: Products, allowed: AllowedRemoval = AllowedRemoval()) -> str:  # noqa: B008
    with pytest.raises(RemovalError) as error:
        check_removal(BEFORE, after, allowed)
    return str(error.value)


def test_products_that_are_gone_from_everywhere_are_counted() -> None:
    after = products("feed.csv", c1=list(range(74)), c2=list(range(100, 120)), c3=[1, 2, 3])
    assert refused(after) == (
        "feed.csv would take away much of the release, which stays as it is: 26 of 120 products "
        "(--max-removed 20). If that is meant, give these options higher values for this run"
    )
    check_removal(BEFORE, after, AllowedRemoval(products=0.22))
    # In another category, or new: nothing is gone.
    moved = products(
        "feed.csv", c1=list(range(60)), c2=list(range(100, 120)), c3=[*range(60, 100), 500]
    )
    check_removal(BEFORE, moved, AllowedRemoval())


def test_a_category_may_not_lose_most_of_its_products() -> None:
    after = products("feed.csv", c1=list(range(100)), c2=list(range(100, 108)), c3=[1])
    assert "12 of 20 products of category 2 (--max-removed-of-category 50)" in refused(after)
    check_removal(BEFORE, after, AllowedRemoval(of_category=0.6))


def test_a_category_may_not_be_gone() -> None:
    after = products("feed.csv", c1=list(range(120)), c3=[1, 2, 3])
    assert "1 categories (2; --max-removed-categories 0)" in refused(after)
    check_removal(BEFORE, after, AllowedRemoval(categories=1))


def test_a_few_products_are_always_removed() -> None:
    small = products("the release", c1=list(range(10)), c2=[11])
    check_removal(small, products("feed.csv", c3=[5]), AllowedRemoval())


def test_ids_of_another_type_and_another_model_are_refused_unless_allowed() -> None:
    texts: dict[Id, pa.Array] = {
        1: pa.array([str(n) for n in range(100)]),
        2: pa.array([str(n) for n in range(100, 120)]),
    }
    after = replace(BEFORE, name="feed.csv", id_types=("integer", "string"), ids=texts)
    reasoned = replace(after, type_reasons=("", "line 4: product_id 'x'"))
    assert refused(reasoned) == (
        "product ids of the release are integers, those of feed.csv strings (line 4: product_id 'x'). "
        "the release stays as it is; if that is meant: --allow-other-ids"
    )
    check_removal(BEFORE, after, AllowedRemoval(other_ids=True))
    other = replace(BEFORE, model=Model("b", "1"))
    assert "has features of a 0, the release of b 1: all answers would change" in refused(other)
    check_removal(BEFORE, other, AllowedRemoval(other_model=True))
    check_removal(BEFORE, products("feed.csv"), ANY)


def test_index_keeps_the_release_and_says_which_option_allows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = list(range(50))
    root = publish(tmp_path / "r", {1: (ids, random_features(50, 0))}, tmp_path / "f")
    before = root.current()
    store = write_store(tmp_path / "f", {1: (ids[:10], random_features(10, 0))})
    command = ["index", "--features", str(store.folder), "--root", str(root.path)]
    assert main(command) == 1
    assert "40 of 50 products (--max-removed 20)" in capsys.readouterr().err
    assert root.current() == before
    assert main([*command, "--max-removed", "80", "--max-removed-of-category", "80"]) == 0
    assert root.current() != before


def test_a_damaged_release_is_replaced_without_question(tmp_path: Path) -> None:
    for catalogue in (integer_catalogue(), string_catalogue()):
        root = publish(tmp_path / str(len(catalogue)), catalogue, tmp_path / "f")
        release = root.folder(str(root.current()))
        for number, path in enumerate(sorted(release.glob("*/product_ids.npy"))):
            data = path.read_bytes()
            path.unlink()
            if number:
                path.write_bytes(data[:-3] + b"\xff\xff\xff" if number % 2 else b"")
        command = ["index", "--features", str(tmp_path / "f"), "--root", str(root.path)]
        assert main(command) == 0


def test_products_put_live_since_are_carried_over_and_not_gone(tmp_path: Path) -> None:
    catalogue: Catalogue = {1: (list(range(20)), random_features(20, 0))}
    root = publish(tmp_path / "r", catalogue, tmp_path / "f")
    put: FeatureChanges = {100 + n: feature for n, feature in enumerate(random_features(40, 1))}
    with closing(Journal(root.journal)) as journal:
        numbers = journal.add([Change(PUT, 1, product_id, photo=b"photo") for product_id in put])
        applied = Applied(journal.id, numbers[-1])
        journal.settle(numbers[-1], change(root, {1: put}, applied))
    store = write_store(tmp_path / "f", catalogue)
    assert main(["index", "--features", str(store.folder), "--root", str(root.path)]) == 0
    assert root.manifest(str(root.current())).n_items == 60
