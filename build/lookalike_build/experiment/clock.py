"""Times that cannot be believed: far from all the others, or before those of earlier lines of a log."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from lookalike_build.experiment.files import EventFile

DAY_S: Final = 86_400
_GAP_DAYS = 7
_MAX_FAR_SHARE = 0.1
_BACK_S: Final = 2 * 3600.0
"""More than a summer time that ends, written without its zone."""
_PIECE_BYTES = 1 << 14
_MAX_PIECES = 256


class Far(NamedTuple):
    """Some times far from the others: their first and last day since 1970, and how many there are."""

    first: int
    last: int
    n: int


def far_days(days: Mapping[int, int]) -> list[Far]:
    """The days, with how many times each has, that are far from the others.

    Days belong together that are at most a week apart. Those far from the group with most times are
    away from it by more than its own length and hold, all in all, less than a tenth of the times.
    """
    groups: list[Far] = []
    for day in sorted(days):
        if groups and day - groups[-1].last <= _GAP_DAYS:
            groups[-1] = Far(groups[-1].first, day, groups[-1].n + days[day])
        else:
            groups.append(Far(day, day, days[day]))
    if not groups:
        return []
    first, last, _ = max(groups, key=lambda group: group.n)
    length = max(_GAP_DAYS, last - first + 1)
    far = [each for each in groups if each.last < first - length or each.first > last + length]
    return far if sum(each.n for each in far) < _MAX_FAR_SHARE * sum(days.values()) else []


def times_in_order(file: EventFile) -> list[str]:
    """The times of a log in the order of its lines; of a large one, of some lines in each part."""
    return list(_times(file))


def furthest_back(moments: Sequence[float]) -> tuple[float, float] | None:
    """From when to when time goes back by most, if that is much; None if it does not."""
    latest, back = float("-inf"), (0.0, 0.0)
    for moment in moments:
        latest = max(latest, moment)
        if latest - moment > back[0] - back[1]:
            back = latest, moment
    return back if back[0] - back[1] > _BACK_S else None


def _times(file: EventFile) -> Iterator[str]:
    # Packed logs are about a tenth of their text.
    size = file.path.stat().st_size * (10 if file.packing else 1)
    skipped = max(0, size // _MAX_PIECES - _PIECE_BYTES)
    with file.open() as text:
        while piece := text.read(_PIECE_BYTES):
            for line in piece.splitlines():
                # Cut lines at both ends of a piece are no JSON.
                try:
                    time = msgspec.json.decode(line, type=dict[str, object]).get("time")
                except (ValueError, RecursionError):
                    continue
                if isinstance(time, str):
                    yield time
            if skipped:
                text.seek(skipped, 1) if text.seekable() else text.read(skipped)
