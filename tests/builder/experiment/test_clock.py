"""Times that cannot be believed."""

import pytest

from lookalike_build.experiment.clock import Far, far_days, furthest_back

MONTH = dict.fromkeys(range(20000, 20030), 100)


def test_a_day_long_before_all_others_is_far() -> None:
    assert far_days({**MONTH, 0: 3}) == [Far(0, 0, 3)]


def test_days_long_after_and_long_before_are_far() -> None:
    found = far_days({**MONTH, 20_100: 1, 20_103: 1, 19_000: 2})
    assert found == [Far(19_000, 19_000, 2), Far(20_100, 20_103, 2)]


@pytest.mark.parametrize(
    "others",
    [
        {},
        {20_036: 1},
        {20_058: 1},  # as far away as the month is long
        dict.fromkeys(range(20100, 20130), 100),  # a second experiment, no wrong clock
        {0: 400},
    ],
)
def test_a_pause_and_a_second_experiment_are_not(others: dict[int, int]) -> None:
    assert far_days({**MONTH, **others}) == []


def test_without_times_nothing_is_far() -> None:
    assert far_days({}) == []
    assert far_days({5: 1}) == []


def test_time_goes_back_from_its_latest_moment() -> None:
    assert furthest_back([0, 10_000, 20_000, 9_000, 8_000, 30_000]) == (20_000, 8_000)


@pytest.mark.parametrize("moments", [[], [1], [1, 2, 3], [5000, 4990, 6000], [7200, 0, 9000]])
def test_a_little_back_is_no_jump(moments: list[float]) -> None:
    assert furthest_back(moments) is None
