"""Known photos: a place for each, also after more were added."""

import hashlib
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike_build.extraction.known_photos import GrowingPhotos, KnownPhotos

# Few, so that they come again; NumPy must not take zeros at the end for padding.
PHOTOS = ["00" * 32, "ff" * 32, "00" * 31 + "01", "01" + "00" * 31, "0100" + "00" * 30]
PHOTOS += [hashlib.sha256(bytes([i])).hexdigest() for i in range(20)]


@given(st.lists(st.lists(st.tuples(st.sampled_from(PHOTOS), st.integers(0, 2**40)), max_size=9)))
@pytest.mark.slow
def test_the_last_place_given_is_the_place(additions: list[list[tuple[str, int]]]) -> None:
    known, expected = KnownPhotos(), dict[str, int]()
    growing = GrowingPhotos()
    for addition in additions:
        fresh = dict(addition)  # each photo once in an addition
        known = known.updated(KnownPhotos(list(fresh), list(fresh.values())))
        growing.add(list(fresh), list(fresh.values()))
        np.testing.assert_array_equal(growing.locations(PHOTOS), known.locations(PHOTOS))
        expected |= fresh
    known = pickle.loads(pickle.dumps(known))
    assert len(known) == len(expected)
    np.testing.assert_array_equal(
        known.locations(PHOTOS), [expected.get(one, -1) for one in PHOTOS]
    )
    assert [one in known for one in PHOTOS] == [one in expected for one in PHOTOS]


def test_nothing_is_known_at_first() -> None:
    assert len(KnownPhotos()) == 0
    assert PHOTOS[0] not in KnownPhotos()
    assert KnownPhotos().locations([]).size == 0


def test_each_photo_is_copied_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[int] = []
    updated = KnownPhotos.updated

    def counted(older: KnownPhotos, newer: KnownPhotos) -> KnownPhotos:
        both = updated(older, newer)
        copied.append(len(both))
        return both

    monkeypatch.setattr(KnownPhotos, "updated", counted)
    photos = [hashlib.sha256(bytes([i // 256, i % 256])).hexdigest() for i in range(2048)]
    growing = GrowingPhotos(KnownPhotos(photos[:1024], range(1024)))
    for i in range(1024, 2048, 4):
        growing.add(photos[i : i + 4], range(i, i + 4))
    assert growing.locations(photos).tolist() == list(range(2048))
    assert sum(copied) < 12 * 2048  # 256 times as many where each addition copies all
