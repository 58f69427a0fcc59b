"""The lists are those of a direct, slow implementation of what `ratings` says."""

import math
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lookalike_build.behaviour.ratings
from lookalike.release.ids import Id
from lookalike_build.behaviour.ratings import Ratings, RatingsError, RatingSettings
from lookalike_build.publishing.ids import id_array
from support import RANDOM_CASES

Rating = tuple[str, Id, int]
"""Of a user, of a product, when (Unix time, microseconds)."""
NOW = 1_700_000_000_000_000
HOUR = 3_600_000_000
INTEGERS: list[Id] = [0, 3, 7, 20, 100, 2**53 + 1, 2**63 - 1]
STRINGS: list[Id] = ["10", "9", "a", "B", "é", "日本", "z" * 64]


def lists_of(
    ratings: Sequence[Rating], released: Iterable[Id], settings: RatingSettings
) -> dict[Id, list[Id]]:
    """The lists, by a product's id, of all products rated."""
    released = list(released)
    integers = all(isinstance(rating[1], int) for rating in ratings)
    with (
        tempfile.TemporaryDirectory() as folder,
        Ratings(Path(folder), "integer" if integers else "string", 2**29) as made,
    ):
        for some in (ratings[::2], ratings[1::2]):
            if some:
                columns = zip(*some, strict=True)
                made.add(pa.table(list(map(pa.array, columns)), ["user_id", "product_id", "at"]))
        if released:
            ids: Any = (
                np.array(released, np.int64) if integers else id_array(list(map(str, released)))
            )
            made.add_released(ids)
            made.add_released(ids[:1])  # as a product of two categories
        counts = made.weigh(settings)
        assert counts[::2] == (len(ratings), max(rating[2] for rating in ratings))
        ids = made.product_ids()
        product_ids: list[Id] = ids if isinstance(ids, list) else ids.tolist()
        lengths, related = [], []
        for lists in made.lists(settings, len(product_ids)):
            lengths += lists.lengths.tolist()
            related += lists.related.tolist()
    assert len(lengths) == len(product_ids)
    found = {}
    for product_id, length in zip(product_ids, lengths, strict=True):
        found[product_id] = [product_ids[row] for row in related[:length]]
        del related[:length]
    assert not related
    return found


def slow_lists(
    ratings: Sequence[Rating], released: Iterable[Id], settings: RatingSettings
) -> dict[Id, list[Id]]:
    """The same by definition."""
    newest: dict[tuple[str, Id], int] = {}
    for user, product, at in ratings:
        newest[user, product] = max(at, newest.get((user, product), 0))
    last = max(newest.values())
    rated_by: dict[str, list[tuple[int, Any]]] = defaultdict(list)
    for (user, product), at in newest.items():
        rated_by[user].append((-at, _order(product)))
    users_of: dict[Any, list[tuple[int, str]]] = defaultdict(list)
    for user, rated in rated_by.items():
        rated.sort()
        del rated[settings.user_ratings :]
        for minus_at, product in rated:
            users_of[product].append((minus_at, user))
    products = {_order(product): product for _, product, _ in ratings}
    lists = {}
    for product in sorted(products):
        weights: dict[Any, int] = defaultdict(int)
        for _, user in sorted(users_of[product])[: settings.product_ratings]:
            for minus_at, other in rated_by[user]:
                age = (last + minus_at) / 86_400_000_000
                weights[other] += max(1, math.floor(2.0 ** (32 - age / settings.half_life)))
        best = sorted(
            (-weight, other)
            for other, weight in weights.items()
            if other != product and products[other] in set(released)
        )
        lists[products[product]] = [products[one] for _, one in best[: settings.neighbours]]
    return lists


def _order(product: Id) -> Any:
    return product.encode() if isinstance(product, str) else product


@st.composite
def given_ratings(draw: st.DrawFn) -> tuple[list[Rating], list[Id]]:
    products = draw(st.sampled_from([INTEGERS, STRINGS]))
    ratings = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["1", "10", "2", "ä", "Z"]),
                st.sampled_from(products),
                # Many at one time, some long ago.
                st.sampled_from([0, 1, 24, 24, 24, 720, 721, 10_000, 400_000]).map(
                    lambda hours: NOW - hours * HOUR
                ),
            ),
            min_size=1,
            max_size=60,
        )
    )
    return ratings, draw(st.lists(st.sampled_from(products), unique=True))


@settings(max_examples=100 * RANDOM_CASES)
@given(
    given=given_ratings(),
    neighbours=st.integers(1, 8),
    half_life=st.sampled_from([0.5, 30.0, 700.0]),
    user_ratings=st.integers(1, 8),
    product_ratings=st.integers(1, 6),
    pairs=st.sampled_from([1, 7, 10**6]),
)
@pytest.mark.slow
def test_lists_are_those_of_the_definition(
    given: tuple[list[Rating], list[Id]],
    neighbours: int,
    half_life: float,
    user_ratings: int,
    product_ratings: int,
    pairs: int,
) -> None:
    chosen = RatingSettings(neighbours, half_life, user_ratings, product_ratings)
    with mock.patch.object(lookalike_build.behaviour.ratings, "_BYTES_A_PAIR", 2**29 // pairs):
        assert lists_of(*given, chosen) == slow_lists(*given, chosen)


def test_many_ratings_make_the_lists_of_the_definition() -> None:
    random = np.random.default_rng(1)
    users = random.zipf(1.4, 5000) % 400
    products = random.zipf(1.3, 5000) % 900
    times = NOW - random.integers(0, 5000, 5000) * HOUR
    ratings = [(str(u), int(p), int(t)) for u, p, t in zip(users, products, times, strict=True)]
    released = range(0, 900, 3)
    chosen = RatingSettings(neighbours=20, user_ratings=30, product_ratings=40)
    found = lists_of(ratings, released, chosen)
    assert found == slow_lists(ratings, released, chosen)
    assert max(map(len, found.values())) == 20


def test_newer_ratings_weigh_more_and_two_of_a_half_life_as_much_as_one() -> None:
    month = 30 * 24 * HOUR
    ratings = [
        *(("a", product, at) for product, at in ((1, NOW), (2, NOW), (3, NOW - month))),
        ("b", 1, NOW),
        ("b", 3, NOW - month),
        ("b", 4, NOW - 2 * month),
    ]
    assert lists_of(ratings, range(9), RatingSettings())[1] == [2, 3, 4]
    ratings[4] = ("b", 3, NOW - month + HOUR)
    assert lists_of(ratings, range(9), RatingSettings())[1] == [3, 2, 4]


def test_the_same_ratings_in_another_order_make_the_same_lists() -> None:
    random = np.random.default_rng(2)
    ratings = [
        (
            str(random.integers(30)),
            int(random.integers(50)),
            NOW - int(random.integers(9999)) * HOUR,
        )
        for _ in range(500)
    ]
    chosen = RatingSettings(neighbours=10)
    lists = lists_of(ratings, range(50), chosen)
    for _ in range(3):
        random.shuffle(ratings)
        assert lists_of(ratings, range(50), chosen) == lists


def _many(n: int) -> pa.Table:
    random = np.random.default_rng(3)
    users = pa.array(random.integers(0, n, n)).cast(pa.string())
    columns = [users, pa.array(random.integers(0, n, n)), pa.array(np.full(n, NOW))]
    return pa.table(columns, ["user_id", "product_id", "at"])


@pytest.mark.slow
def test_what_does_not_fit_in_memory_is_kept_in_the_folder_meanwhile(tmp_path: Path) -> None:
    with Ratings(tmp_path, "integer", 2**27) as ratings:
        ratings.add(_many(2_000_000))
        counts = ratings.weigh(RatingSettings())
        assert (tmp_path / "spilled").is_dir()
        n_products = len(ratings.product_ids())
        lists = list(ratings.lists(RatingSettings(), n_products))
    assert counts.n_ratings == 2_000_000
    assert sum(one.lengths.size for one in lists) == n_products
    assert not any(tmp_path.iterdir())


def test_memory_that_does_not_suffice_is_said_with_the_option(tmp_path: Path) -> None:
    with Ratings(tmp_path, "integer", 2**20) as ratings:
        with pytest.raises(RatingsError, match="give more --memory-limit") as error:
            ratings.add(_many(1_000_000))
        assert "\n" not in str(error.value)
