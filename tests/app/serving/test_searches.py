"""What searches may cost: a share of a process's time, and nothing for who has gone."""

import json
import time
from typing import Any

import pytest

from lookalike.release.root import ReleaseRoot
from lookalike.serving.errors import TooManyRequests
from lookalike.serving.searches import Searches
from support import Client, Response, client_of, post

LOOK_UP = "/nns?category_id=40&product_id=5000&limit=101"
SEARCHES: dict[str, Any] = {
    "more than the table": "/nns?category_id=40&product_id=5000&limit=102",
    "for a page": "/related?category_id=40&product_id=5000&limit=100&exclude=5010",
    "products": {"category_id": 40, "product_ids": [5000, 5010], "limit": 102},
    "a vector": {"category_id": 40, "vector": [1] * 16},
}


class Clock:
    """Tells the time that a test gives it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def spend(searches: Searches, clock: Clock, seconds: float) -> bool:
    """Search for so long; whether that was allowed."""
    try:
        with searches.allowed({}):
            clock.now += seconds
    except TooManyRequests:
        return False
    return True


@pytest.mark.parametrize("percent", [10, 50, 90])
def test_searches_take_their_share_of_the_time_in_the_long_run(percent: int) -> None:
    clock = Clock()
    searches = Searches(percent=percent, clock=clock)
    spent = 0.0
    while clock.now < 100:
        if spend(searches, clock, 0.01):
            spent += 0.01
        else:
            clock.now += 0.001
    assert spent == pytest.approx(percent, abs=0.3)


def test_a_few_searches_at_once_are_allowed_again_after_a_while() -> None:
    clock = Clock()
    searches = Searches(percent=50, clock=clock)
    for _ in range(3):
        assert [spend(searches, clock, 0.01) for _ in range(20)] == [True] * 20
        assert not all(spend(searches, clock, 0.01) for _ in range(100))
        clock.now += 10


def test_at_100_percent_nothing_is_refused() -> None:
    clock = Clock()
    searches = Searches(percent=100, clock=clock)
    assert all(spend(searches, clock, 0.01) for _ in range(1000))


@pytest.fixture
def spent(integer_root: ReleaseRoot) -> Client:
    """A client of an app whose searches have taken all the time that they may."""
    clock = Clock()
    searches = Searches(percent=50, clock=clock)
    while spend(searches, clock, 1):
        pass
    return client_of(integer_root, searches=searches)


def ask(client: Client, what: Any, **headers: str) -> Response:
    """The answer to a target or to a document posted."""
    return client.get(what, **headers) if isinstance(what, str) else post(client, what, **headers)


@pytest.mark.parametrize("what", SEARCHES)
def test_beyond_its_share_a_search_is_429_and_look_ups_go_on(spent: Client, what: str) -> None:
    answer = ask(spent, SEARCHES[what])
    assert answer.status == "429 Too Many Requests"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Retry-After"] == "1"
    assert json.loads(answer.body)["error"] == "too_many_requests"
    assert spent.get(LOOK_UP).status == "200 OK"
    assert spent.get("/related?category_id=40&product_id=5000").status == "200 OK"
    batch = {"category_id": 40, "product_ids": [5000, 5010], "limit": 101}
    assert post(spent, batch).status == "200 OK"
    assert 'status="429"' in spent.get("/metrics").body.decode()


@pytest.mark.parametrize("what", SEARCHES)
def test_a_search_that_nobody_waits_for_any_more_is_not_begun(
    integer_root: ReleaseRoot, what: str
) -> None:
    client = client_of(integer_root)
    for waited_s, status in ((3, "429 Too Many Requests"), (0.1, "200 OK")):
        since = f"t={time.time() - waited_s:.3f}"
        assert ask(client, SEARCHES[what], HTTP_X_REQUEST_START=since).status == status
        assert client.get(LOOK_UP, HTTP_X_REQUEST_START=since).status == "200 OK"


@pytest.mark.parametrize("since", ["", "t=", "t=x", "t=nan", "t=inf", "1e999", "t=1", "9" * 400])
def test_a_start_that_is_no_time_or_of_another_clock_is_ignored(
    integer_root: ReleaseRoot, since: str
) -> None:
    client = client_of(integer_root)
    search = SEARCHES["more than the table"]
    ahead = f"t={time.time() + 5:.3f}"
    for start in (since, ahead):
        assert client.get(search, HTTP_X_REQUEST_START=start).status == "200 OK"
