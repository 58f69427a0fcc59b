"""Integer ids are looked up by slots: whatever the ids are, each is found and no other is."""

from bisect import bisect_left

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lookalike.category import _slots
from lookalike.manifest import MAX_INTEGER_ID

IDS = st.integers(0, MAX_INTEGER_ID) | st.integers(0, 300) | st.integers(2**40, 2**40 + 100)


def look_up(ids: np.ndarray, product_id: int) -> int | None:
    """As `Release.integer_neighbours` does."""
    first, shift, starts = _slots(ids)
    slot = (product_id - first) >> shift
    if not 0 <= slot < len(starts) - 1:
        return None
    item = bisect_left(ids.tolist(), product_id, starts[slot], starts[slot + 1])
    return item if item < len(ids) and ids[item] == product_id else None


@given(st.sets(IDS, min_size=1, max_size=200), st.lists(IDS, max_size=20))
@example({0}, [1, MAX_INTEGER_ID])
@example({MAX_INTEGER_ID}, [0, MAX_INTEGER_ID - 1])
@example({0, MAX_INTEGER_ID}, [1, 2**62, MAX_INTEGER_ID - 1])
def test_every_id_is_found_and_no_other(known: set[int], others: list[int]) -> None:
    ids = np.array(sorted(known), np.int64)
    for item, product_id in enumerate(ids.tolist()):
        assert look_up(ids, product_id) == item
    for product_id in set(others) - known:
        assert look_up(ids, product_id) is None


@pytest.mark.parametrize("n", [1, 2, 7, 1000, 40_000])
def test_slots_are_few_and_items_in_each_are_too(n: int) -> None:
    _, _, starts = _slots(10_000 + 3 * np.arange(n, dtype=np.int64))
    assert len(starts) <= n + 2
    assert np.diff(np.array(starts)).max() <= 16
