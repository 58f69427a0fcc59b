"""Whatever changes come, in whatever batches: what is served equals a release of the same products."""

import json
import shutil
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

import lookalike.release.columns
import lookalike_build.catalogue.moment
import lookalike_build.following.follower
import lookalike_build.indexing.live
import lookalike_build.indexing.table
import lookalike_build.publishing.columns
import support
from following import BAD, IN_NO_FORMAT, Later, follower_of
from lookalike.journal import (
    DELETE,
    PUT,
    REMEMBERED_S,
    SET,
    Change,
    ForgottenError,
    Journal,
    clock,
    reader,
    writer,
)
from lookalike.release.attributes import HIDDEN, AttributeTypes, Value, Values
from lookalike.release.files import MANIFEST
from lookalike.release.ids import Id, shown
from lookalike.release.root import UPDATE_SUFFIX, ReleaseRoot
from lookalike.serving.source import ReleaseSource
from lookalike_build.features.store import sort_key
from lookalike_build.following.seal import NOT_OF_THE_FEED, FeedSeal
from lookalike_build.indexing.build import IndexSettings, index
from lookalike_build.indexing.carry_over import CarryOverError
from lookalike_build.indexing.neighbours import exact_neighbours
from support import (
    RANDOM_CASES,
    Catalogue,
    Features,
    client_of,
    post,
    publish,
    values_in,
    write_store,
)

pytestmark = pytest.mark.slow

DAY_S = 24 * 3600.0
N_DIMS = 4
BATCH = 5
PRODUCTS = 9
CATEGORY_IDS: dict[str, list[Id]] = {"integer": [2, 10, 0], "string": ["shoes", "../x", "ü"]}
PRODUCT_IDS: dict[str, list[Id]] = {
    "integer": [7, 100, 0, 2**53 + 1, 5, 101, 3, 99, 2**63 - 1],
    "string": ["7", "b 2", "ü/3", "100", "a&b=c", "%41", "日本", "+", "z" * 64],
}

TYPES: AttributeTypes = {"price": "number", "title": "text", HIDDEN: "flag"}
PART = 4

Products = dict[Id, Features]
State = dict[Id, Products]
ShopValues = dict[tuple[Id, Id], dict[str, Value]]
"""What attributes products have, by category and product, where one is not missing."""


def _pool() -> Features:
    """Photos' features: some any, some that differ little, one half as long as another."""
    random = np.random.default_rng(1)
    near = 1 + 1e-5 * random.normal(size=(4, N_DIMS))
    features = np.concatenate([np.abs(random.normal(size=(5, N_DIMS))), near])
    return np.concatenate([features, features[:1] / 2]).astype(np.float32)


POOL = _pool()
SHELF = {f"/photos/{number}": feature.tobytes() for number, feature in enumerate(POOL)}

photos = st.integers(0, len(POOL) - 1)
values = st.fixed_dictionaries(
    {},
    optional={
        "price": st.sampled_from([None, 0.0, -1.5, 3]),
        "title": st.sampled_from([None, "a", "é", "日本", "a" * 20]),
        HIDDEN: st.sampled_from([None, True, True, False]),
    },
)
categories = st.integers(0, 2)
products = st.integers(0, PRODUCTS - 1)
catalogues = st.dictionaries(categories, st.dictionaries(products, photos, min_size=1), min_size=1)


class Clock:
    """Stands in for the module `time`: what the host's clock shows, which is wrong at times."""

    monotonic, sleep = staticmethod(time.monotonic), staticmethod(time.sleep)

    def __init__(self) -> None:
        self.true = 1_700_000_000.0
        self.wrong: float | None = None

    def time(self) -> float:
        return self.true if self.wrong is None else self.wrong


class Following(RuleBasedStateMachine):
    """A root, its follower and its app; beside them what the products ought to be."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()

    @initialize(
        ids=st.sampled_from(["integer", "string"]),
        neighbours=st.integers(1, 5),
        worn=st.sampled_from([0.05, 0.5, 9.0]),
        keep=st.integers(1, 3),
        catalogue=catalogues,
        n_spare=st.sampled_from([0, 1, 24]),
        whole=st.sampled_from([0.25, 9.0]),
        most_updates=st.integers(1, 4),
    )
    def begin(
        self,
        ids: str,
        neighbours: int,
        worn: float,
        keep: int,
        catalogue: Any,
        n_spare: int,
        whole: float,
        most_updates: int,
    ) -> None:
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.stack.enter_context(mock.patch("os.fsync"))  # no power cut here
        for module, name, value in (
            (lookalike_build.following.follower, "BATCH", BATCH),
            (lookalike_build.indexing.live, "_WORN_SHARE", worn),
            (lookalike_build.indexing.live, "_CHANGED_SHARE", 9.0),
            (lookalike_build.indexing.live, "_WHOLE_SHARE", whole),
            (lookalike_build.indexing.live, "_WHOLE_SIZE", 0),
            (lookalike_build.indexing.live, "_MOST_UPDATES", most_updates),
            (lookalike_build.indexing.table, "N_SPARE", n_spare),
            (lookalike.release.columns, "PART", PART),
            (lookalike_build.publishing.columns, "PART", PART),
        ):
            self.stack.enter_context(mock.patch.object(module, name, value))
        self.clock = Clock()
        for module in (writer, clock, reader, lookalike_build.catalogue.moment):
            self.stack.enter_context(mock.patch.object(module, "time", self.clock))
        self.category_ids, self.product_ids = CATEGORY_IDS[ids], PRODUCT_IDS[ids]
        self.settings = IndexSettings(n_trees=2, neighbours=neighbours)
        self.keep = keep
        self.root = ReleaseRoot(self.folder / "root")
        self.indexed(self.of(catalogue))
        self.seal = FeedSeal(self.root.feed_key)
        self.journal = self.stack.enter_context(closing(Journal(self.root.journal)))
        self.source = ReleaseSource(self.root)
        self.client = client_of(self.root, source=self.source)
        self.sent: dict[int, tuple[Change, str | None]] = {}
        self.sent_at: dict[int, float] = {}
        self.live: dict[tuple[Id, Id], tuple[str, float]] = {}
        self.was_wrong = self.may_forget = False
        self.states: dict[str, State] = {str(self.root.current()): self.of(catalogue)}
        self.values: dict[str, ShopValues] = {str(self.root.current()): {}}
        self.restart()
        self.check()
        self.replace_attributes({})

    def teardown(self) -> None:
        with self.stack:
            self.take()
            self.check_rebuild()

    @property
    def state(self) -> State:
        """What the products ought to be in the current release."""
        return self.states[str(self.root.current())]

    def known(self) -> AttributeTypes:
        """The attributes of the current release."""
        return self.root.manifest(str(self.root.current())).known_attributes

    def of(self, catalogue: dict[int, dict[int, int]]) -> State:
        return {
            self.category_ids[category]: {
                self.product_ids[product]: POOL[photo] for product, photo in products.items()
            }
            for category, products in catalogue.items()
        }

    def indexed(self, state: State, as_of: float = 0) -> None:
        store = write_store(self.folder / "features", _catalogue(state))
        index(replace(store, as_of=as_of), self.root, self.settings)

    def send(self, *changes: tuple[Change, str | None]) -> None:
        """Send changes, and why they are to be rejected."""
        numbers = self.journal.add(change for change, _ in changes)
        self.sent |= dict(zip(numbers, changes, strict=True))
        self.sent_at |= dict.fromkeys(numbers, self.clock.true)
        self.clock.true += 60

    def change(self, category: int, product: int, photo: int | None) -> tuple[Change, None]:
        ids = self.category_ids[category], self.product_ids[product]
        if photo is None:
            return Change(DELETE, *ids), None
        if photo % 2:
            return Change(PUT, *ids, image=self.seal.seal(f"/photos/{photo}")), None
        return Change(PUT, *ids, photo=POOL[photo].tobytes()), None

    @rule(changes=st.lists(st.tuples(categories, products, photos | st.none()), max_size=7))
    def change_some(self, changes: Any) -> None:
        self.send(*(self.change(*change) for change in changes))

    @rule(category=categories, product=products, photo=photos)
    def change_back_and_forth(self, category: int, product: int, photo: int) -> None:
        self.send(
            *(self.change(category, product, one) for one in (photo, None, photo, photo, None))
        )

    @rule(sets=st.lists(st.tuples(categories, products, values.filter(bool)), max_size=12))
    def set_some(self, sets: Any) -> None:
        self.send(*(self.set(*one) for one in sets))

    @rule(category=categories, product=products, photo=photos, values=values.filter(bool))
    def set_between_changes(self, category: int, product: int, photo: int, values: Values) -> None:
        put, delete = (self.change(category, product, one) for one in (photo, None))
        set_ = self.set(category, product, values)
        for changes in ((put, set_, put), (set_, delete, set_), (delete, put, set_, delete, put)):
            self.send(*changes)

    @rule(category=categories, hidden=st.booleans())
    def hide_or_show_a_category(self, category: int, hidden: bool) -> None:
        self.send(*(self.set(category, one, {HIDDEN: hidden}) for one in range(PRODUCTS)))

    def set(self, category: int, product: int, values: Values) -> tuple[Change, None]:
        ids = self.category_ids[category], self.product_ids[product]
        return Change(SET, *ids, values=values), None

    @rule(given=st.dictionaries(st.tuples(categories, products), values, max_size=12))
    def replace_attributes(self, given: dict[tuple[int, int], Values]) -> None:
        """Publish attributes in bulk, also of products that are not there."""
        named = {
            (self.category_ids[category], self.product_ids[product]): values
            for (category, product), values in given.items()
        }
        by_category: dict[Id, dict[Id, Values]] = {}
        for (category_id, product_id), values in named.items():
            by_category.setdefault(category_id, {})[product_id] = values
        state = self.state
        published, n_unknown = support.give(self.root, by_category, TYPES)
        lost = [(one, other) for one, other in named if other not in state.get(one, {})]
        assert n_unknown == len(lost)
        self.states[published.release] = state
        self.values[published.release] = {
            ids: _present(values) for ids, values in named.items() if ids not in lost
        }
        self.check()

    @rule(category=categories, to=categories, product=products, photo=photos)
    def move(self, category: int, to: int, product: int, photo: int) -> None:
        self.send(self.change(category, product, None), self.change(to, product, photo))

    @rule(photo=photos, category=categories)
    def show_the_same_photo_everywhere(self, photo: int, category: int) -> None:
        self.send(*(self.change(category, product, photo) for product in range(0, PRODUCTS, 2)))

    @rule(category=categories)
    def empty_a_category(self, category: int) -> None:
        self.send(*(self.change(category, product, None) for product in range(PRODUCTS)))

    @rule(category=categories, product=products, kind=st.integers(0, 7))
    def send_what_is_to_be_rejected(self, category: int, product: int, kind: int) -> None:
        ids = self.category_ids[category], self.product_ids[product]
        other = "no number" if isinstance(ids[0], int) else 12
        a = "a whole number" if isinstance(ids[0], int) else "text"
        unlike = f"must be {a} as in the release, not {other!r}"
        nothing = np.zeros(N_DIMS, np.float32).tobytes()
        change = [
            (Change(PUT, *ids, photo=BAD), IN_NO_FORMAT),
            (Change(PUT, *ids, photo=nothing), "the network gives no features for it"),
            (Change(PUT, *ids, image=self.seal.seal("/photos/none")), "is missing"),
            (Change(PUT, *ids, image="/photos/1"), NOT_OF_THE_FEED),
            (Change(PUT, other, ids[1], photo=POOL[0].tobytes()), f"category_id {unlike}"),
            (Change(DELETE, ids[0], other), f"product_id {unlike}"),
            (Change(PUT, *ids), "its photo is not in the journal"),
            (Change(SET, ids[0], other, values={HIDDEN: True}), f"product_id {unlike}"),
        ][kind]
        self.send(change)

    @rule()
    def take(self) -> None:
        """Have the follower do all there is, batch after batch."""
        while self.taken():
            pass
        assert self.journal.status().n_pending == 0
        assert not self.root.updating.exists()

    @rule()
    def step(self) -> None:
        self.taken()

    def taken(self) -> bool:
        """Have the follower do one thing, and hold all that is served against what it ought to be."""
        before, state = str(self.root.current()), self.state
        known, shop_values = self.known(), self.values[before]
        batch, n = {}, 0
        for number, (change, reason) in self.sent.items():
            if n == BATCH:
                break
            batch[number] = change, reason
            n += change.op != SET
        waits = self.follower._updater.has_work()
        if not self.follower.step():
            assert not batch
            return False
        after = {category_id: dict(products) for category_id, products in state.items()}
        now_set = {ids: dict(values) for ids, values in shop_values.items()}
        for number, (change, reason) in batch.items():
            del self.sent[number]
            if change.op == SET and reason is None:
                reason = _set_problem(change, after, known)
            outcome = self.journal.outcome(number)
            assert outcome
            release = None if reason else self.root.current()
            assert (outcome.release, outcome.reason) == (release, reason), change
            if reason is None and change.op == SET:
                ids = change[1:3]
                now_set[ids] = _present({**now_set.get(ids, {}), **(change.values or {})})
            elif reason is None:
                self.live[change[1:3]] = change.op, self.sent_at[number]
                self.apply(change, after)
                if change.op == DELETE:
                    now_set.pop(change[1:3], None)
        after = {category_id: products for category_id, products in after.items() if products}
        now = str(self.root.current())
        now_set = {ids: values for ids, values in now_set.items() if values}
        same = _same(state, after) and now_set == {
            ids: values for ids, values in shop_values.items() if values
        }
        if now == before:
            assert same
        else:
            assert waits or not same
            assert now.endswith(UPDATE_SUFFIX)
            assert now > before or before != max(self.states)
            self.states[now], self.values[now] = after, now_set
        self.check()
        return True

    def apply(self, change: Change, state: State) -> None:
        products = state.setdefault(change.category_id, {})
        if change.op == DELETE:
            products.pop(change.product_id, None)
        else:
            data = change.photo or SHELF[self.seal.opened(str(change.image))]
            products[change.product_id] = np.frombuffer(data, np.float32)

    @rule()
    def restart(self) -> None:
        self.background = Later()
        self.follower = follower_of(
            self.root, self.journal, N_DIMS, self.background, SHELF, keep=self.keep
        )
        assert not self.root.rebasing.exists()

    @rule()
    def work_in_the_background(self) -> None:
        self.background.work()

    @rule(choice=st.integers(0, 9))
    def switch(self, choice: int) -> None:
        """Make another release current, an older one perhaps."""
        names = self.root.names()
        with self.root.lock():
            self.root.switch(names[choice % len(names)])
        self.check()

    @rule(days=st.floats(0.01, 40))
    def wait(self, days: float) -> None:
        self.clock.true += days * DAY_S
        self.may_forget |= self.clock.true - 1_700_000_000 > REMEMBERED_S

    @rule(
        category=categories,
        product=products,
        photo=photos | st.none(),
        ahead=st.sampled_from([0.1, 3.0, 20.0, 200.0]) | st.none(),
        taken=st.booleans(),
    )
    def change_while_the_clock_is_wrong(
        self, category: int, product: int, photo: int | None, ahead: float | None, taken: bool
    ) -> None:
        """It is days ahead, or shows what hosts without a clock of their own start with."""
        self.clock.wrong = 1000.0 if ahead is None else self.clock.true + ahead * DAY_S
        self.send(self.change(category, product, photo))
        if taken:
            self.take()
        self.clock.wrong = None
        self.was_wrong, self.may_forget = True, self.may_forget or ahead == 200.0
        self.journal.settle(0, "")

    @rule(catalogue=catalogues, days_old=st.sampled_from([0.0, 1.0, 10.0, 60.0, 1000.0]))
    def index(self, catalogue: Any, days_old: float) -> None:
        """Build a release from a catalogue that some changes are newer than."""
        as_of = self.clock.true - days_old * DAY_S
        state, current = self.of(catalogue), self.state
        values = self.values[str(self.root.current())]
        try:
            kept = self.kept(as_of)
        except ForgottenError:
            assert self.may_forget
            with pytest.raises(CarryOverError, match="knows no more"):
                self.indexed(self.of(catalogue), as_of)
            self.check()
            return
        for category_id, product_id in kept:
            state.setdefault(category_id, {}).pop(product_id, None)
            if product_id in current.get(category_id, {}):
                state[category_id][product_id] = current[category_id][product_id]
        self.indexed(self.of(catalogue), as_of)
        self.now_is(state, values)

    @rule(catalogue=catalogues, days_old=st.sampled_from([0.0, 1.0, 10.0]))
    def upgrade(self, catalogue: Any, days_old: float) -> None:
        """Build beside a current release that this version cannot read."""
        as_of = self.clock.true - days_old * DAY_S
        current = self.root.folder(str(self.root.current()))
        manifest = (current / MANIFEST).read_text()
        try:
            kept = self.kept(as_of)
        except ForgottenError:
            return
        pending = {change[1:3] for change, _ in self.sent.values() if change.op != SET}
        lost = {one for one, op in kept.items() if op == PUT} - pending
        (current / MANIFEST).write_text(json.dumps(json.loads(manifest) | {"format": 1}))
        if lost:
            with pytest.raises(CarryOverError, match=f"cannot be carried over: {len(lost)} "):
                self.indexed(self.of(catalogue), as_of)
            (current / MANIFEST).write_text(manifest)
            self.check()
            return
        state = self.of(catalogue)
        for (category_id, product_id), op in kept.items():
            if op == DELETE:
                state.get(category_id, {}).pop(product_id, None)
        self.indexed(self.of(catalogue), as_of)
        shutil.rmtree(current)
        self.now_is(state, {})

    def kept(self, as_of: float) -> dict[tuple[Id, Id], str]:
        """What a build does not leave to its catalogue: all that is newer and, if ever the clock was
        wrong, perhaps some that is not."""
        kept: dict[tuple[Id, Id], str] = {
            change[1:3]: change.op for change in self.journal.live_since(as_of)
        }
        newer = {one: op for one, (op, at) in self.live.items() if at >= as_of}
        assert newer.items() <= kept.items()
        assert self.was_wrong or newer == kept
        return kept

    def now_is(self, state: State, values: ShopValues) -> None:
        """Hold what a build made against what it ought to be; `values` are those before."""
        state = {category_id: products for category_id, products in state.items() if products}
        current = str(self.root.current())
        self.states[current] = state
        self.values[current] = {
            ids: each for ids, each in values.items() if ids[1] in state.get(ids[0], {})
        }
        self.check()

    def check(self) -> None:
        current = str(self.root.current())
        assert current in self.root.names()
        list(self.root.check(current))
        entries = self.root.manifest(current).categories
        n_items = {entry.category_id: entry.n_items for entry in entries}
        assert n_items == {one: len(products) for one, products in self.state.items()}
        self.source.look()
        assert self.source.problem is None
        assert self.source.release
        found = values_in(self.source.release)
        flat = {(one, other): each for one in found for other, each in found[one].items() if each}
        assert flat == {ids: each for ids, each in self.values[current].items() if each}
        for category_id in self.category_ids:
            self.check_category(category_id, self.state.get(category_id, {}))

    def check_category(self, category_id: Id, products: Products) -> None:
        ids = sorted(products, key=sort_key)
        features = np.stack([products[one] for one in ids]) if ids else POOL[:0]
        hidden = np.array([self.is_hidden(category_id, one) for one in ids], np.bool_)
        k = max(0, min(self.settings.neighbours, len(ids) - int(hidden.sum()) - 1))
        table = exact_neighbours(features, k, hidden=hidden) if ids else None
        visible = [one for one in ids if not self.is_hidden(category_id, one)]
        for product_id in self.product_ids:
            answer = self.client.get(_target(category_id, product_id, k + 1))
            if product_id not in products:
                assert answer.status == "404 Not Found"
                continue
            assert table
            items, distances = (part[ids.index(product_id)] for part in table)
            found = json.loads(answer.body)
            assert found["product_ids"] == [product_id, *(ids[item] for item in items)]
            assert np.array_equal(np.float32(found["distances"][1:]), distances)
            self.check_vector(category_id, visible, features[~hidden], products[product_id])
        if ids:
            ones = np.ones(N_DIMS, np.float32)
            self.check_vector(category_id, visible, features[~hidden], ones)

    def is_hidden(self, category_id: Id, product_id: Id) -> bool:
        values = self.values[str(self.root.current())]
        return values.get((category_id, product_id), {}).get(HIDDEN) is True

    def check_vector(
        self, category_id: Id, ids: list[Id], features: Features, vector: Features
    ) -> None:
        """So few products of so few dimensions are all found; compared with the formula."""
        question = {"category_id": category_id, "vector": vector.tolist(), "distances": True}
        found = json.loads(post(self.client, question | {"limit": max(1, len(ids))}).body)
        assert sorted(found["product_ids"], key=sort_key) == ids
        unit = features / np.linalg.norm(features.astype(np.float64), axis=1)[:, None]
        away = np.linalg.norm(unit - vector / np.linalg.norm(vector), axis=1)
        places = [ids.index(one) for one in found["product_ids"]]
        np.testing.assert_allclose(found["distances"], away[places], atol=1e-6)
        np.testing.assert_allclose(found["distances"], np.sort(away), atol=1e-6)

    def check_rebuild(self) -> None:
        """Hold every answer against those of a release indexed from nothing, byte by byte."""
        if not self.state:
            return
        settings = {"n_trees": 2, "neighbours": self.settings.neighbours}
        folder = self.folder
        rebuilt = publish(folder / "anew", _catalogue(self.state), folder / "again", **settings)
        values: dict[Id, dict[Id, Values]] = {}
        for (category_id, product_id), each in self.values[str(self.root.current())].items():
            values.setdefault(category_id, {})[product_id] = {HIDDEN: each.get(HIDDEN)}
        support.change(rebuilt, {}, None, values)
        index(
            write_store(folder / "once more", _catalogue(self.state)),
            rebuilt,
            self.settings,
            rebuild=True,
        )
        clients = client_of(self.root), client_of(rebuilt)
        for category_id, products in self.state.items():
            n_visible = sum(not self.is_hidden(category_id, one) for one in products)
            limit = 1 + max(0, min(self.settings.neighbours, n_visible - 1))
            for product_id in products:
                target = _target(category_id, product_id, limit)
                one, other = (client.get(target).body for client in clients)
                assert one == other


def _catalogue(state: State) -> Catalogue:
    return {
        category_id: (list(products), np.stack(list(products.values())))
        for category_id, products in state.items()
    }


def _present(values: Values) -> dict[str, Value]:
    return {name: value for name, value in values.items() if value is not None}


def _set_problem(change: Change, state: State, known: AttributeTypes) -> str | None:
    category_id, product_id = change[1:3]
    if product_id not in state.get(category_id, {}):
        there = f"category {category_id} has no product {product_id}"
        return f"{there}; put it first, then set its attributes"
    for name in change.values or {}:
        if name not in known:
            return f"the release has no attribute {shown(name)}; it has {', '.join(known)}"
    return None


def _same(one: State, other: State) -> bool:
    as_bytes = [
        {
            (category_id, product_id): feature.tobytes()
            for category_id, products in state.items()
            for product_id, feature in products.items()
        }
        for state in (one, other)
    ]
    return as_bytes[0] == as_bytes[1]


def _target(category_id: Id, product_id: Id, limit: int) -> str:
    ids = (quote(str(one), safe="") for one in (category_id, product_id))
    return "/nns?category_id={}&product_id={}".format(*ids) + f"&limit={limit}&distances=true"


TestFollowing = Following.TestCase
TestFollowing.settings = settings(
    max_examples=30 * RANDOM_CASES,
    stateful_step_count=20,
    suppress_health_check=[HealthCheck.too_slow],
)
