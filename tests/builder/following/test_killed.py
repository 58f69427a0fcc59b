"""kill -9 of a follower at random moments, while changes come: none is lost, none comes undone.

`test_crash` kills one at every call.
"""

import multiprocessing
import random
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from following import BAD, DEADLY, follow_until_killed
from lookalike.journal import DELETE, PUT, Change, Journal
from lookalike.release.ids import Id, category_folder
from lookalike.release.root import ReleaseRoot
from lookalike_build.indexing.live import LiveCategory
from support import Catalogue, client_of, publish, random_features
from waiting import wait_until

pytestmark = pytest.mark.slow

KILLS = 100
N_DIMS = 4
K = 5
MOST_S = 0.3
STATE = {1: 30, 2: 6, 3: 1}
"""Products in each category at first."""

State = dict[Id, dict[Id, bytes]]


def test_a_follower_killed_a_hundred_times_loses_and_repeats_nothing(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    first: Catalogue = {
        category: (list(range(100, 100 + n)), random_features(n, category, N_DIMS))
        for category, n in STATE.items()
    }
    root = publish(tmp_path / "root", first, tmp_path / "features", n_trees=2, neighbours=K)
    start: State = {
        category: dict(zip(ids, (feature.tobytes() for feature in features), strict=True))
        for category, (ids, features) in first.items()
    }
    with closing(Journal(root.journal)) as journal:
        sent: dict[int, Change] = {}
        reached = killed = 0
        while killed < KILLS:
            with following(root) as process:
                until = time.monotonic() + rng.uniform(0, MOST_S)
                while time.monotonic() < until:
                    changes = [a_change(rng) for _ in range(rng.randint(1, 4))]
                    sent |= zip(journal.add(changes), changes, strict=True)
                    time.sleep(rng.uniform(0, 0.02))
                assert process.is_alive()
                killed += 1
            reached = expect_never_back(root, journal, start, sent, reached)
        with following(root) as process:
            wait_until(lambda: not journal.status().n_pending, process)
        for number, change in sent.items():
            outcome = journal.outcome(number)
            assert outcome is not None
            assert outcome.state == ("rejected" if change.photo == BAD else "live"), number
        status = journal.status()
        assert status.n_live + status.n_rejected == len(sent)
    state = state_at(start, sent, max(sent))
    assert state_of(root) == state
    print(f"{killed} kills, {len(sent)} changes, {status.n_rejected} of them rejected")
    expect_as_from_nothing(root, state, tmp_path)


def test_a_photo_that_kills_its_follower_is_rejected_and_the_rest_goes_on(tmp_path: Path) -> None:
    features = random_features(40, 1, N_DIMS)
    first: Catalogue = {1: (list(range(100, 130)), features[:30])}
    root = publish(tmp_path / "root", first, tmp_path / "features", n_trees=2, neighbours=K)
    photos = [feature.tobytes() for feature in features[30:]]
    photos[3] = photos[7] = DEADLY
    with closing(Journal(root.journal)) as journal:
        changes = [Change(PUT, 1, 200 + one, None, photo) for one, photo in enumerate(photos)]
        numbers = journal.add([*changes, Change(DELETE, 1, 100)])
        deaths = 0
        while journal.status().n_pending:
            with following(root) as process:
                while process.is_alive() and journal.status().n_pending:
                    time.sleep(0.01)
                deaths += not process.is_alive()
            assert deaths < 20
        outcomes = [journal.outcome(number) for number in numbers]
        reasons = [outcome.reason for outcome in outcomes if outcome]
    assert [bool(reason) for reason in reasons] == [photo == DEADLY for photo in photos] + [False]
    assert str(reasons[3]).startswith("the follower died 3 times as it read or decoded this photo")
    assert deaths <= 6  # three for each
    products = state_of(root)[1]
    assert {200 + one for one in range(10)} & products.keys() == {
        200,
        201,
        202,
        204,
        205,
        206,
        208,
        209,
    }
    assert 100 not in products


@contextmanager
def following(root: ReleaseRoot) -> Iterator[multiprocessing.process.BaseProcess]:
    """A follower, killed at the end."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["following"])
    process = processes.Process(target=follow_until_killed, args=(root.path, N_DIMS))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def a_change(rng: random.Random) -> Change:
    category, product = rng.choice(list(STATE)), rng.randint(95, 135)
    if category != 1:
        product = rng.randint(100, 106)
    if rng.random() < 0.4:
        return Change(DELETE, category, product)
    photo = (
        BAD if rng.random() < 0.1 else random_features(1, rng.randrange(2**32), N_DIMS).tobytes()
    )
    return Change(PUT, category, product, None, photo)


def expect_never_back(
    root: ReleaseRoot, journal: Journal, start: State, sent: dict[int, Change], reached: int
) -> int:
    """What is served is wholly the state after some change, not before `reached`, nor before one
    that is settled; the number of that change."""
    applied = root.manifest(str(root.current())).applied
    settled = [number for number in sent if number > reached and is_live(journal, number)]
    now = max([reached, *settled, applied.number if applied else 0])
    assert state_of(root) == state_at(start, sent, now), (reached, now)
    return now


def is_live(journal: Journal, number: int) -> bool:
    outcome = journal.outcome(number)
    return outcome is not None and outcome.state == "live"


def state_at(start: State, sent: dict[int, Change], number: int) -> State:
    """The products of each category, and their features, after all changes up to that number."""
    state = {category: dict(products) for category, products in start.items()}
    for one in sorted(one for one in sent if one <= number):
        change = sent[one]
        if change.op == DELETE:
            state.setdefault(change.category_id, {}).pop(change.product_id, None)
        elif change.photo is not None and change.photo != BAD:
            state.setdefault(change.category_id, {})[change.product_id] = change.photo
    return {category: products for category, products in state.items() if products}


def state_of(root: ReleaseRoot) -> State:
    """The products of each category in the current release, and their features."""
    release = str(root.current())
    state: State = {}
    for entry in root.manifest(release).categories:
        folder = root.folder(release) / category_folder(entry.category_id)
        live = LiveCategory.read(folder, entry)
        table = live.table.folded()
        features = live.features.of(table.rows.astype(np.intp))
        ids = table.product_ids.tolist()
        state[entry.category_id] = {
            product_id: feature.tobytes() for product_id, feature in zip(ids, features, strict=True)
        }
    return state


def expect_as_from_nothing(root: ReleaseRoot, state: State, folder: Path) -> None:
    """Every answer is that of a release of the same products, indexed from nothing."""
    catalogue: Catalogue = {
        category: (
            sorted(products),
            np.stack([np.frombuffer(products[one], np.float32) for one in sorted(products)]),
        )
        for category, products in state.items()
    }
    again = publish(folder / "again", catalogue, folder / "store", n_trees=2, neighbours=K)
    served, expected = client_of(root), client_of(again)
    for category, (ids, _) in catalogue.items():
        for product in ids:
            target = (
                f"/nns?category_id={category}&product_id={product}&limit={K + 1}&distances=true"
            )
            assert served.get(target).body == expected.get(target).body, target
    list(root.check(str(root.current())))
