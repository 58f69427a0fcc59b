"""``make bench-answers``: conditions, hidden products and distinct photos beside the plain request.

31,667 products of 2048 numbers, 1,000 of which show one placeholder; the same products once more with
half of them hidden. Truth is brute force over all products that meet the conditions. In the end, a
thousand products a second are set for half a minute, under load, and every value is looked up.

Needs ``unitd``, ``wrk`` and ``nginx``; sends to 127.0.0.1 only.
"""

import argparse
import json
import random
import shutil
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from load.bench import get
from load.change import wait_until_ready
from load.follow import CONNECTIONS, following, loaded
from load.made_features import MadeFeatures
from load.made_release import product_id
from load.serving import Run, Verdict, in_turn, print_rows, serving, wrk
from lookalike.journal import Status, read_status
from lookalike.release.attributes import HIDDEN, TYPES, AttributeType
from lookalike.release.category import Category
from lookalike.release.neighbours import nearest, search
from lookalike.release.root import ReleaseRoot
from lookalike.release.selection import Condition, Distinct, Selection
from lookalike.serving.settings import SEARCH_PERCENT, TOKEN
from lookalike_build.indexing.attributes import ProductValues, publish_attributes
from lookalike_build.indexing.build import IndexSettings, index
from lookalike_build.networks.extractor import UNTRAINED
from lookalike_build.networks.inception import Network
from support import write_store

N_ITEMS, N_DIMS, CATEGORY, LIMIT = 31_667, 2048, 1, 12
N_PLACEHOLDERS = 1000
SHARES = {"half": 0.5, "tenth": 0.1, "hundredth": 0.01, "thousandth": 0.001}
"""Flags, and the share of products that have them."""
N_QUERIES, N_PHOTOS = 200, 40
BEYOND = "beyond the table"
SECRET = "bench-answers-0123456789"
SETS_S, SETTING_S, EFFECTIVE_S = 1000, 30, 2.0
SENDERS, SENDING_MS = 64, 35
"""Connections that set, and how long a set is expected to take: a longer one lowers the rate."""
STEP = 7919

Features = npt.NDArray[np.float32]


def main() -> None:
    """Make what is missing, measure, print the tables, end with what holds."""
    parser = argparse.ArgumentParser(prog="make bench-answers", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=int, default=2)
    options = parser.parse_args()
    features = made_features()
    shown, hidden = (ReleaseRoot(options.folder / name) for name in ("answers", "answers hidden"))
    if hidden.current() is None:
        make_releases(shown, hidden, options.folder / "answers store", features)
    verdicts = cost(shown, hidden, options)
    verdicts += truth(shown, features)
    verdicts += set_under_load(shown, options.folder)
    print()
    for verdict in verdicts:
        print(verdict)


def made_features() -> Features:
    """Features (N_ITEMS, N_DIMS); the placeholders', at random places, are equal."""
    features = MadeFeatures(N_DIMS, seed=0).draw(N_ITEMS, seed=1)
    features[placeholders()] = features[placeholders()[0]]
    return features


def placeholders() -> npt.NDArray[np.intp]:
    """The items that show the placeholder."""
    return np.sort(np.random.default_rng(6).choice(N_ITEMS, N_PLACEHOLDERS, replace=False))


def made_flags() -> dict[str, npt.NDArray[np.bool_]]:
    """Which items have each flag."""
    rng = np.random.default_rng(7)
    return {name: rng.random(N_ITEMS) < share for name, share in SHARES.items()}


def make_releases(
    shown: ReleaseRoot, hidden: ReleaseRoot, store_folder: Path, features: Features
) -> None:
    """Two releases of the same products, of which one hides half."""
    print(f"making releases of {N_ITEMS} x {N_DIMS} ...", flush=True)
    ids = [product_id(item) for item in range(N_ITEMS)]
    store = write_store(store_folder, {CATEGORY: (ids, features)}, Network(UNTRAINED).model)
    items = np.arange(N_ITEMS)
    columns = {name: pa.array(has) for name, has in made_flags().items()}
    columns["price"] = pa.array((items % 997).astype(np.float64))
    columns["seller"] = pa.array([f"seller {item % 401}" for item in range(N_ITEMS)])
    types: dict[str, AttributeType] = {**dict.fromkeys(SHARES, "flag"), "price": "number"}
    types["seller"] = "text"
    for root in (shown, hidden):
        shutil.rmtree(root.path, ignore_errors=True)
        index(store, root, IndexSettings())
        publish_attributes(root, types, {CATEGORY: ProductValues(pa.array(ids), columns)})
    half = ProductValues(pa.array(ids), {HIDDEN: pa.array(items % 2 == 0)})
    publish_attributes(hidden, TYPES, {CATEGORY: half})


def cost(shown: ReleaseRoot, hidden: ReleaseRoot, options: argparse.Namespace) -> list[Verdict]:
    """Requests a second beside the plain request, in turn under one Unit."""
    plain, half, rare = "plain", "half of all match", "1 in 1,000 matches, 8 connections"
    hiding, distinct = "plain, half hidden", "distinct=photo"
    with serving(shown, {SEARCH_PERCENT.name: "100"}, hidden=hidden) as served:
        wait_until_ready(served)
        ask = partial(get, served.app, options.seconds)
        seen = in_turn(
            {
                plain: partial(ask, f"&limit={LIMIT}"),
                hiding: partial(get, served.others["hidden"], options.seconds, f"&limit={LIMIT}"),
                half: partial(ask, f"&limit={LIMIT}&half=true"),
                distinct: partial(ask, f"&limit={LIMIT}&distinct=photo"),
                "a price": partial(ask, f"&limit={LIMIT}&price__lte=500"),
                "another seller": partial(ask, f"&limit={LIMIT}&seller__same=false"),
                "one of each seller": partial(ask, f"&limit={LIMIT}&distinct=seller"),
                "1 in 10 matches": partial(ask, f"&limit={LIMIT}&tenth=true"),
                rare: partial(rarely, served.app, options.seconds),
            },
            options.rounds,
        )
    print(f"\nGET /nns, {N_ITEMS} x {N_DIMS}, limit {LIMIT}, ids at random, ", end="")
    print(f"{options.rounds} rounds of {options.seconds} s\n")
    print_rows(seen, {})
    errors = [float(run.errors) for runs in seen.values() for run in runs]
    return [
        ratio(seen, hiding, plain, 0.97),
        ratio(seen, half, plain, 0.6),
        Verdict(
            f"p99, {rare}, ms", [run.p99 for run in seen[rare]], lambda ms: ms <= 20, "20 or less"
        ),
        Verdict("errors of all requests", [sum(errors)], lambda n: n == 0, "0"),
    ]


def rarely(address: str, seconds: int) -> Run:
    """Requests with a condition that a thousandth of the products meets."""
    rest = f"&limit={LIMIT}&thousandth=true"
    return wrk(address, seconds, "random_ids.lua", rest, str(N_ITEMS), connections=8)


def ratio(seen: Mapping[str, Sequence[Run]], one: str, other: str, least: float) -> Verdict:
    """Requests a second of one over those of the other, round by round."""
    pairs = zip(seen[one], seen[other], strict=True)
    ratios = [this.requests_s / that.requests_s for this, that in pairs]
    return Verdict(
        f"requests/s, {one} / {other}", ratios, lambda value: value >= least, f"{least} or more"
    )


class Truth:
    """What is right, by brute force over the features of all that meet the conditions."""

    def __init__(self, features: Features) -> None:
        lengths = np.linalg.norm(features.astype(np.float64), axis=1)
        self.unit_vectors = (features / lengths[:, None]).astype(np.float32)
        self._halves = np.einsum("ij,ij->i", self.unit_vectors, self.unit_vectors) / 2

    def apart(self, item: int) -> npt.NDArray[np.float32]:
        """The distances (N_ITEMS,) of all from an item, itself infinitely far away."""
        products = self.unit_vectors @ self.unit_vectors[item]
        squares = 2 * (self._halves + self._halves[item] - products)
        apart = np.sqrt(np.maximum(squares, 0))
        near = np.flatnonzero(squares < 0.01)
        exact = self.unit_vectors[near].astype(np.float64) - self.unit_vectors[item]
        apart[near] = np.linalg.norm(exact, axis=1)
        apart[item] = np.inf
        return np.asarray(apart, np.float32)

    def recall(self, apart: npt.NDArray[np.float32], found: Sequence[int], n: int) -> float:
        """The share of the `n` smallest distances that what was found has; ties count as found."""
        n = min(n, int(np.isfinite(apart).sum()))
        bound = np.partition(apart, n - 1)[n - 1] + 1e-5
        return sum(apart[item] <= bound for item in found[:n]) / n if n else 1.0


def truth(root: ReleaseRoot, features: Features) -> list[Verdict]:
    """Answers held to brute force: by item, beyond the table, and with one of each photo."""
    category = root.open(root.chosen()).categories[CATEGORY]
    right, flags = Truth(features), made_flags()
    items = np.random.default_rng(8).choice(N_ITEMS, N_QUERIES, replace=False).tolist()
    seen: dict[tuple[str, str], list[float]] = defaultdict(list)
    for item in items:
        apart = right.apart(item)
        for name, has in flags.items():
            selection = Selection((Condition(name, "in", (True,)),))
            matching = np.where(has, apart, np.inf).astype(np.float32)
            found, _ = nearest(category, item, LIMIT - 1, selection)
            seen[name, "by item"].append(right.recall(matching, found.tolist(), LIMIT - 1))
            vector = right.unit_vectors[item].astype(np.float64)
            found, _ = search(category, vector / np.linalg.norm(vector), LIMIT, selection)
            others = [one for one in found.tolist() if one != item]
            seen[name, BEYOND].append(right.recall(matching, others, LIMIT - 1))
    verdicts = []
    for (name, where), recalls in seen.items():
        exact = where != BEYOND and name in ("half", "thousandth")
        least = 1.0 if exact else 0.99
        what = f"recall, {name} of all match, {where}"
        mean = [float(np.mean(recalls))]
        verdicts.append(Verdict(what, mean, partial(at_least, least), f"{least:g}"))
    wrong = wrong_photos(category, right, [*items[:N_PHOTOS], *placeholders()[:N_PHOTOS].tolist()])
    what = f"distinct=photo with {N_PLACEHOLDERS} placeholders: answers not full or not right"
    return [*verdicts, Verdict(what, [float(wrong)], lambda n: n == 0, "0")]


def at_least(least: float, value: float) -> bool:
    """Whether a value is that large."""
    return value >= least


def wrong_photos(category: Category, right: Truth, items: Sequence[int]) -> int:
    """How many answers with one of each photo are not those of brute force."""
    wrong, same = 0, category.entry.same_photo or 0.0
    for item in items:
        found, _ = nearest(category, item, LIMIT - 1, Selection(distinct=Distinct("photo")))
        expected = one_of_each(right, item, LIMIT - 1, same)
        apart = right.apart(item)
        wrong += len(found) != LIMIT - 1 or not np.allclose(
            apart[found.astype(np.intp)], apart[expected], atol=1e-5
        )
    return wrong


def one_of_each(right: Truth, item: int, n: int, same: float) -> list[int]:
    """The `n` nearest of which no two show the same photo, and none the item's."""
    apart = right.apart(item)
    shows = apart <= same
    picked: list[int] = []
    for other in np.argsort(apart, kind="stable").tolist():
        if len(picked) == n:
            break
        if not shows[other]:
            picked.append(other)
            shows |= right.apart(other) <= same
    return picked


def set_under_load(root: ReleaseRoot, folder: Path) -> list[Verdict]:
    """A thousand products a second are set for half a minute; then all of it is looked up.

    Changes have an application of their own, as in deploy/unit; wrk asks the other for half of what it
    can answer.
    """
    shutil.rmtree(root.journal.parent, ignore_errors=True)
    with (
        serving(root, {TOKEN.name: SECRET}, threads=4, changes=root) as served,
        following(root, folder / "answers.log"),
    ):
        wait_until_ready(served)
        most = get(served.app, 5, f"&limit={LIMIT}")
        pause_ms = round(1e3 * CONNECTIONS / (most.requests_s / 2))
        with loaded(served, pause_ms) as runs:
            arguments = [SECRET, str(N_ITEMS), str(STEP)]
            sets = wrk(
                served.others["changes"],
                SETTING_S,
                "set_prices.lua",
                *arguments,
                connections=SENDERS,
                pause_ms=1000 * SENDERS // SETS_S - SENDING_MS,
            )
            ended = time.time()
            status = read_status(root.journal) or Status()
            # All but the last of each connection are known to have been accepted.
            n = min(N_ITEMS, status.n_pending + status.n_live - SENDERS)
            # wrk makes the first request to look at it, and does not send it.
            items = [STEP * place % N_ITEMS for place in range(1, n)]
            time.sleep(EFFECTIVE_S)
            late = stale(root, items)
            while stale(root, items) and time.time() < ended + 60:
                time.sleep(0.1)
            effective_s = time.time() - ended
            host, port = served.app.split(":")
            wrong = answered_otherwise((host, int(port)), random.Random(0).sample(items, 500))
        failed = sets.errors + sum(run.errors for run in runs)
    print(f"\n{n} sets, p99 {sets.p99:.0f} ms; all effective {effective_s:.1f} s after the last")
    rates = ", ".join(f"{run.requests_s:.0f}" for run in runs)
    print(f"look-ups a second meanwhile, half of {most.requests_s:.0f} asked for: {rates}\n")
    return [
        Verdict("sets a second", [sets.requests_s], partial(at_least, SETS_S), f"{SETS_S} or more"),
        Verdict("failed sets and look-ups", [float(failed)], lambda k: k == 0, "0"),
        Verdict(f"not effective after {EFFECTIVE_S:g} s", [float(late)], lambda k: k == 0, "0"),
        Verdict("wrong answers after that", [float(wrong)], lambda k: k == 0, "0"),
    ]


def new_price(item: int) -> float:
    """What set_prices.lua sets an item's price to: below zero, as no other is."""
    return -1.0 - item


def stale(root: ReleaseRoot, items: Sequence[int]) -> int:
    """How many of the items have another price in the current release."""
    columns = root.open(root.chosen()).categories[CATEGORY].columns
    prices = columns.column("price")
    return int(sum(prices[item] != new_price(item) for item in items))


def answered_otherwise(address: tuple[str, int], items: Sequence[int]) -> int:
    """How many products the server does not find by their new price alone."""
    connection, wrong = HTTPConnection(*address, timeout=30), 0
    for item in items:
        other = product_id((item + 1) % N_ITEMS)
        query = urlencode(
            {"category_id": CATEGORY, "product_id": other, "limit": 5, "price": new_price(item)}
        )
        connection.request("GET", f"/nns?{query}")
        wrong += json.loads(connection.getresponse().read()) != [other, product_id(item)]
    return wrong


if __name__ == "__main__":
    main()
