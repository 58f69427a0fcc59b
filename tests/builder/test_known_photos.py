"""Known photos: a place for each, also after more were added."""

import hashlib
import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lookalike_build.known_photos import KnownPhotos

# Few, so that they come again; NumPy must not take zeros at the end for padding.
PHOTOS = ["00" * 32, "ff" * 32, "00" * 31 + "01", "01" + "00" * 31, "0100" + "00" * 30]
PHOTOS += [hashlib.sha256(bytes([i])).hexdigest() for i in range(20)]


@given(st.lists(st.lists(st.tuples(st.sampled_from(PHOTOS), st.integers(0, 2**40)), max_size=9)))
def test_the_last_place_given_is_the_place(additions: list[list[tuple[str, int]]]) -> None:
    known, expected = KnownPhotos(), dict[str, int]()
    for addition in additions:
        fresh = dict(addition)  # each photo once in an addition
        known = known.plus(list(fresh), list(fresh.values()))
        expected |= fresh
    known = pickle.loads(pickle.dumps(known))
    assert len(known) == len(expected)
    np.testing.assert_array_equal(known.places(PHOTOS), [expected.get(one, -1) for one in PHOTOS])
    assert [one in known for one in PHOTOS] == [one in expected for one in PHOTOS]


def test_nothing_is_known_at_first() -> None:
    assert len(KnownPhotos()) == 0
    assert PHOTOS[0] not in KnownPhotos()
    assert KnownPhotos().places([]).size == 0
