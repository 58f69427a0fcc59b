"""Integer ids are looked up by slots: whatever the ids are, each is found and no other is."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lookalike.release.category import IntegerTable
from lookalike.release.ids import MAX_INTEGER_ID

IDS = st.integers(0, MAX_INTEGER_ID) | st.integers(0, 300) | st.integers(2**40, 2**40 + 100)


def table_of(ids: npt.NDArray[np.int64]) -> IntegerTable:
    """A table in which every item's one neighbour is itself, so that an answer tells the item."""
    return IntegerTable.of(ids, np.arange(len(ids), dtype=np.uint32)[:, None])


@given(st.sets(IDS, min_size=1, max_size=200), st.lists(IDS, max_size=20))
@example({0}, [1, MAX_INTEGER_ID])
@example({MAX_INTEGER_ID}, [0, MAX_INTEGER_ID - 1])
@example({0, MAX_INTEGER_ID}, [1, 2**62, MAX_INTEGER_ID - 1])
@pytest.mark.slow
def test_every_id_is_found_and_no_other(known: set[int], others: list[int]) -> None:
    ids = np.array(sorted(known), np.int64)
    table = table_of(ids)
    for product_id in ids.tolist():
        assert table.neighbours_of(product_id, 1) == [product_id]
    for product_id in set(others) - known:
        assert table.neighbours_of(product_id, 1) is None


@pytest.mark.parametrize("n", [1, 2, 7, 1000, 40_000])
def test_slots_are_few_and_items_in_each_are_too(n: int) -> None:
    starts = table_of(10_000 + 3 * np.arange(n, dtype=np.int64)).starts
    assert len(starts) <= n + 2
    assert np.diff(np.array(starts)).max() <= 16
