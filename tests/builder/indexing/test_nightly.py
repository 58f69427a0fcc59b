"""A build that costs what has changed gives the answers of one that is made from nothing."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.release.root import ReleaseRoot
from lookalike_build.indexing.build import IndexSettings, index
from lookalike_build.publishing.category import Counts
from lookalike_build.publishing.removal import ANY
from support import (
    RANDOM_CASES,
    Catalogue,
    change,
    client_of,
    random_features,
    write_store,
)

POOL = random_features(12, 1)
Products = dict[int, int]
"""Of one category: product ids, and which of the pool is their feature."""


def catalogue_of(categories: dict[int, Products]) -> Catalogue:
    return {
        category_id: (list(products), POOL[list(products.values())])
        for category_id, products in categories.items()
    }


def answers(root: ReleaseRoot) -> dict[str, object]:
    """All that is answered of every product, as far as the table goes."""
    client = client_of(root)
    release = root.open(root.chosen())
    found = {}
    for category_id, category in release.categories.items():
        n = category.entry.k + 1
        for product_id in category.product_ids.tolist():
            target = f"/nns?category_id={category_id}&product_id={product_id}"
            found[target] = json.loads(client.get(f"{target}&limit={n}&distances=true").body)
    return found


def counts_of(before: dict[int, Products], after: dict[int, Products]) -> Counts:
    old, new = (
        {(one, product): pooled for one, each in all_of.items() for product, pooled in each.items()}
        for all_of in (before, after)
    )
    both = old.keys() & new.keys()
    changed = sum(old[one] != new[one] for one in both)
    return Counts(
        len(new.keys() - old.keys()), changed, len(old.keys() - new.keys()), len(both) - changed
    )


products = st.dictionaries(
    st.integers(0, 40), st.integers(0, len(POOL) - 1), min_size=1, max_size=40
)
changes = st.dictionaries(st.integers(0, 40), st.none() | st.integers(0, len(POOL) - 1), max_size=8)


@settings(max_examples=40 * RANDOM_CASES)
@given(st.data())
@pytest.mark.slow
def test_any_sequence_of_builds_answers_as_one_from_nothing(data: st.DataObject) -> None:
    neighbours = data.draw(st.integers(1, 8))
    how = IndexSettings(neighbours=neighbours, n_trees=1)
    before: dict[int, Products] = data.draw(
        st.dictionaries(st.integers(1, 3), products, min_size=1)
    )
    with TemporaryDirectory() as folder:
        root, n_builds = ReleaseRoot(Path(folder, "root")), data.draw(st.integers(2, 4))
        store = write_store(Path(folder, "features"), catalogue_of(before))
        assert index(store, root, how, allowed=ANY).counts == counts_of({}, before)
        for number in range(n_builds):
            after = {}
            for category_id, was in before.items():
                step: dict[int, int | None] = data.draw(changes)
                now = {one: pooled for one, pooled in (was | step).items() if pooled is not None}
                if now:
                    after[category_id] = now
            if not after or data.draw(st.booleans()):
                after |= data.draw(st.dictionaries(st.integers(1, 4), products, min_size=1))
            if data.draw(st.booleans()):
                category_id, put = next(iter(before)), data.draw(products)
                change(root, {category_id: {one: POOL[pooled] for one, pooled in put.items()}})
                before[category_id] = before[category_id] | put
            store = write_store(Path(folder, "features"), catalogue_of(after))
            published = index(store, root, how, allowed=ANY)
            assert published.counts == counts_of(before, after)
            nothing = ReleaseRoot(Path(folder, f"nothing-{number}"))
            index(store, nothing, how, allowed=ANY)
            assert answers(root) == answers(nothing)
            assert list(root.check(published.release))
            before = after


def test_what_is_searched_by_vector_is_rebuilt_once_much_has_come(tmp_path: Path) -> None:
    features = random_features(400, 2)
    ids = list(range(400))
    root = ReleaseRoot(tmp_path / "root")
    how = IndexSettings(neighbours=10)
    for n_changed, n_added in ((0, 0), (4, 4), (12, 0), (6, 6)):
        features[:n_changed] = random_features(n_changed, 3 + n_changed)
        store = write_store(tmp_path / "features", {1: (ids, features)})
        published = index(store, root, how, allowed=ANY)
        (entry,) = root.manifest(published.release).categories
        assert entry.n_added == n_added
        assert published.n_rebuilt == (not n_changed)
        release = root.open(published.release)
        own = [release.search(1, features[one], 1).product_ids for one in range(0, 400, 7)]
        assert own == [[one] for one in range(0, 400, 7)]
