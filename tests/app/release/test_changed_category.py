"""A category changed since its index was made: what left is never found, what came always is.

Once where Annoy finds the candidates and once where all projections are compared.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from lookalike.release.arrays import Items
from lookalike.release.category import Category
from lookalike.release.ids import Id
from lookalike.release.root import ReleaseRoot
from support import Catalogue, Features, change, publish, random_features

pytestmark = pytest.mark.slow

K: Final = 6
N_BASE: Final = 1200
BASE_IDS: Final = list(range(1000, 1000 + 10 * N_BASE, 10))
LAST: Final = BASE_IDS[-1]
ROUNDING: Final = 2e-6
"""What float32 makes of a distance of 0.1, from where on it is told by the scalar product."""

Products = dict[Id, Features]
Changes = dict[Id, Features | None]


def grouped_features(n: int, seed: int) -> Features:
    """In groups far apart, where trees find the way."""
    groups = random_features(100, 7)
    features = groups[np.arange(n) % 100] + 0.1 * random_features(n, seed)
    return features.astype(np.float32)


class Made(NamedTuple):
    """A release root with one category, 1, and its products."""

    root: ReleaseRoot
    products: Products

    def category(self) -> Category:
        """The category as it is served."""
        return self.root.open(str(self.root.current())).categories[1]


@pytest.fixture(scope="module", params=[True, False], ids=["trees", "all compared"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The category before all changes; tests switch back to it."""
    folder, trees = tmp_path_factory.mktemp("changed"), request.param
    features = grouped_features(N_BASE, 1) if trees else random_features(N_BASE, 1)
    settings = {"neighbours": K, "n_trees": 5, "recall": 0.9}
    catalogue: Catalogue = {1: (BASE_IDS, features)}
    root = publish(folder / "root", catalogue, folder / "features", **settings)
    (entry,) = root.manifest(str(root.current())).categories
    assert (entry.search_k < N_BASE) == trees
    return Made(root, dict(zip(BASE_IDS, features, strict=True)))


def new_products(ids: range, seed: int) -> Changes:
    return dict(zip(ids, grouped_features(len(ids), seed), strict=True))


def removed(ids: list[int]) -> Changes:
    return dict.fromkeys(ids)


CHANGES: Final[dict[str, tuple[Changes, ...]]] = {
    "gone": (removed(BASE_IDS[::20]),),
    "the last gone": (removed(BASE_IDS[-7:]),),
    "the first gone": (removed(BASE_IDS[:1]),),
    "added between": (new_products(range(1001, 1441, 11), 2),),
    "added at the end": (new_products(range(LAST + 1, LAST + 51), 3),),
    "added at the end one by one": tuple(
        new_products(range(number, number + 1), number) for number in range(LAST + 1, LAST + 4)
    ),
    "gone and added": (
        removed(BASE_IDS[5::20]) | new_products(range(1001, 1441, 11), 4),
        removed([1001, 1012, 1020]),
    ),
    "added and gone again": (
        new_products(range(LAST + 1, LAST + 51), 5),
        removed(list(range(LAST + 1, LAST + 51))),
    ),
    "another feature": (new_products(range(1000, 2000, 70), 6),),
    "another feature and back": (
        new_products(range(1000, 2000, 70), 6),
        dict(zip(BASE_IDS[:100:7], grouped_features(N_BASE, 1)[:100:7], strict=True)),
    ),
    "half of the index gone": (removed(BASE_IDS[::2]),),
    "all of the index gone": (new_products(range(1, 41), 8) | removed(BASE_IDS),),
    "all but one of the index gone": (new_products(range(1, 41), 8) | removed(BASE_IDS[1:]),),
    "all gone but one": (removed(BASE_IDS[1:]),),
    "all gone but one that is new": (removed(BASE_IDS) | new_products(range(5, 6), 9),),
    "more added than there were": (new_products(range(20_000, 20_000 + N_BASE + 50), 10),),
}


@pytest.fixture(scope="module", params=CHANGES)
def changed(base: Made, request: pytest.FixtureRequest) -> Made:
    """The category after changes, checked to the byte."""
    root, products = base.root, dict(base.products)
    root.make_current(root.names()[0])
    for changes in CHANGES[request.param]:
        change(root, {1: changes})
        products.update({one: feature for one, feature in changes.items() if feature is not None})
        for product_id in [one for one, feature in changes.items() if feature is None]:
            del products[product_id]
    assert len(list(root.check(str(root.current())))) == 1
    return Made(root, dict(sorted(products.items())))


def unit(features: npt.ArrayLike) -> npt.NDArray[np.float64]:
    wide = np.atleast_2d(np.asarray(features, np.float64))
    return np.asarray(wide / np.linalg.norm(wide, axis=1)[:, None])


def true_distances(products: Products, vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of all products, in the order of their ids."""
    return np.asarray(np.linalg.norm(unit(np.stack(list(products.values()))) - vector, axis=1))


def queries(base: Made) -> npt.NDArray[np.float64]:
    """Photos of no product, and those of products that are there or were."""
    ids = [*range(0, N_BASE, 150), N_BASE - 1]
    old = np.stack([base.products[BASE_IDS[item]] for item in ids])
    new = grouped_features(5, 4)
    return unit(np.concatenate([grouped_features(8, 11), old, new]))


def places(category: Category, products: Products, items: Items) -> npt.NDArray[np.intp]:
    """Where the products of items are among all, in the order of their ids."""
    return np.searchsorted(list(products), category.ids(items))


def test_the_table_is_brute_forces(changed: Made) -> None:
    category, products = changed.category(), changed.products
    assert sorted(category.ids(category.items()), key=int) == list(products)
    directions, ids = unit(np.stack(list(products.values()))), list(products)
    for place in range(0, len(products), 9):
        distances = np.linalg.norm(directions - directions[place], axis=1)
        distances[place] = np.inf
        k = min(K, len(products) - 1)
        item = category.item_of(ids[place])
        assert item is not None
        found, told = category.nearest(item, k)
        assert category.ids(found) == [ids[other] for other in np.argsort(distances)[:k]]
        np.testing.assert_allclose(told, np.sort(distances)[:k], atol=ROUNDING)


@pytest.mark.parametrize("n", [1, K, 5 * K, 100_000])
def test_vectors_find_what_is_there(base: Made, changed: Made, n: int) -> None:
    category, products = changed.category(), changed.products
    vectors = category.vectors
    assert vectors
    is_new = np.array([products[one] is not base.products.get(one) for one in products])
    found_of_nearest = []
    for query in queries(base):
        found, distances = vectors.search(query, n)
        items = places(category, products, found)
        assert len(items) == len(set(items.tolist())) == min(n, len(products))
        true = true_distances(products, query)
        np.testing.assert_allclose(distances, true[items], atol=ROUNDING)
        assert np.all(np.diff(distances) >= 0)
        nearest = np.argsort(true)[:n]
        assert set(nearest[is_new[nearest]]) <= set(items.tolist())
        found_of_nearest.append(np.isin(nearest, items).mean())
    assert np.mean(found_of_nearest) > 0.85
    if n >= len(products):
        assert min(found_of_nearest) == 1


@pytest.mark.parametrize("n", [1, K + 1, 5 * K, 100_000])
def test_products_find_what_is_there_beyond_the_table(changed: Made, n: int) -> None:
    category, products = changed.category(), changed.products
    directions = unit(np.stack(list(products.values())))
    found: list[bool] = []
    for item in {*range(0, len(products), 150), len(products) - 1}:
        own = category.item_of(list(products)[item])
        assert own is not None
        nearest_items, distances = category.nearest(own, n)
        items = places(category, products, nearest_items)
        true = np.linalg.norm(directions - directions[item], axis=1)
        true[item] = np.inf
        assert len(items) == len(set(items.tolist())) == min(n, len(products) - 1)
        assert item not in items
        np.testing.assert_allclose(distances, true[items], atol=ROUNDING)
        assert np.all(np.diff(distances) >= 0)
        nearest = np.argsort(true)[: min(n, K, len(items))]
        assert items[:K].tolist() == nearest.tolist()
        found += np.isin(np.argsort(true)[: len(items)], items).tolist()
    assert not found or np.mean(found) > 0.7


@pytest.mark.parametrize("n_gone", [30, 300, N_BASE - 3])
@pytest.mark.parametrize("n", [1, 3, 2 * K])
def test_where_all_that_was_near_is_gone_what_is_next_is_found(
    base: Made, n_gone: int, n: int
) -> None:
    root = base.root
    root.make_current(root.names()[0])
    near = unit(grouped_features(1, 12) + 0.01 * random_features(10, 13))
    order = np.argsort(true_distances(base.products, near[0]))
    gone = [BASE_IDS[item] for item in order[:n_gone]]
    change(root, {1: removed(gone)})
    left = {one: feature for one, feature in base.products.items() if one not in set(gone)}
    category = Made(root, left).category()
    vectors = category.vectors
    assert vectors
    found_of_nearest = []
    for query in near:
        found, distances = vectors.search(query, n)
        items = places(category, left, found)
        true = true_distances(left, query)
        assert len(items) == min(n, len(left))
        np.testing.assert_allclose(distances, true[items], atol=ROUNDING)
        found_of_nearest.append(np.isin(np.argsort(true)[: len(items)], items).mean())
    assert np.mean(found_of_nearest) > 0.5  # in other groups, which trees tell apart less well
