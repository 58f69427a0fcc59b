"""Indexing on Ray: the release that the local engine makes, whatever becomes of the workers."""

import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray", reason="Ray is not installed")

from ray import cloudpickle

import lookalike_build.indexing.ray_engine
from lookalike.release.arrays import Features
from lookalike.release.files import ReleaseError
from lookalike.release.ids import Id
from lookalike.release.manifest import Manifest
from lookalike.release.root import ReleaseRoot
from lookalike.terminal.install import install
from lookalike_build.features.store import CategoryFeatures, FeatureError, FeatureStore
from lookalike_build.indexing.build import IndexSettings, index
from lookalike_build.indexing.ray_engine import index_on_ray
from lookalike_build.ray_cluster import ClusterError, ray_cluster
from support import integer_catalogue, publish, random_features, write_store

pytestmark = pytest.mark.ray


@dataclass(frozen=True)
class DeadlyStore(FeatureStore):
    """Kills the process that reads category 40, as many times as there are files `lives`/*."""

    lives: Path

    def read(self, category_id: Id, into: Features | None = None) -> CategoryFeatures:
        read = super().read(category_id, into)
        for life in self.lives.iterdir() if category_id == 40 else ():
            life.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return read


@dataclass(frozen=True)
class FailingStore(FeatureStore):
    """Fails to read with `error`."""

    error: Exception

    def read(self, category_id: Id, into: Features | None = None) -> CategoryFeatures:
        raise self.error


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    with ray_cluster("local"):
        by_value: Any = cloudpickle.register_pickle_by_value  # its types are not given
        by_value(sys.modules[__name__])  # workers cannot import a test's module
        yield


def deadly_store(folder: Path, lives: int) -> DeadlyStore:
    store = write_store(folder / "features", integer_catalogue())
    (folder / "lives").mkdir()
    for life in range(lives):
        (folder / "lives" / str(life)).touch()
    return DeadlyStore(**vars(store), lives=folder / "lives")


def manifest(root: ReleaseRoot) -> Manifest:
    """The current release's, once every byte of it is checked."""
    name = root.current()
    assert name
    assert list(root.check(name))
    return root.manifest(name)


def test_ray_makes_the_release_that_the_local_engine_makes(
    integer_root: ReleaseRoot, tmp_path: Path
) -> None:
    store = write_store(tmp_path / "features", integer_catalogue())
    root, done = ReleaseRoot(tmp_path / "root"), list[int]()
    published = index(store, root, IndexSettings(), done.append, index_on_ray)
    assert published[:4] == (root.current(), True, 0, ())
    assert sorted(done) == [1, 7, 60, 300]
    assert manifest(root).content_digest() == manifest(integer_root).content_digest()
    assert index(store, root, IndexSettings(), engine=index_on_ray)[:4] == (
        root.current(),
        False,
        4,
        (),
    )


def test_a_task_whose_worker_died_is_done_again(integer_root: ReleaseRoot, tmp_path: Path) -> None:
    store, root = deadly_store(tmp_path, lives=1), ReleaseRoot(tmp_path / "root")
    index(store, root, IndexSettings(), engine=index_on_ray)
    assert not list(store.lives.iterdir())
    assert manifest(root).content_digest() == manifest(integer_root).content_digest()


def test_a_task_whose_workers_always_die_leaves_the_current_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookalike_build.indexing.ray_engine, "MAX_RETRIES", 1)
    root = publish(tmp_path / "root", {1: ([1], random_features(1, 1))}, tmp_path / "old")
    before = root.current()
    store = deadly_store(tmp_path, lives=9)
    with pytest.raises(ClusterError, match=r"^category 40: .*died.*$"):
        index(store, root, IndexSettings(), engine=index_on_ray)
    assert root.current() == before
    assert not root.staging.exists()


def test_unfit_features_leave_the_current_release(root: ReleaseRoot, tmp_path: Path) -> None:
    before = root.current()
    features = random_features(3, 0)
    features[1] = np.nan
    store = write_store(tmp_path / "bad", {**integer_catalogue(), 50: ([1, 2, 3], features)})
    with pytest.raises(FeatureError, match=r"product 2 has a NaN") as raised:
        index(store, root, IndexSettings(seed=2), engine=index_on_ray)
    assert "\n" not in str(raised.value)
    assert root.current() == before
    assert not root.staging.exists()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ReleaseError("1/index.ann", "is bad"), "1/index.ann: is bad"),
        (OSError(28, "No space left on device", "x"), "[Errno 28] No space left on device: 'x'"),
    ],
)
def test_what_a_task_raises_comes_out_as_itself(
    root: ReleaseRoot, tmp_path: Path, error: Exception, said: str
) -> None:
    store = write_store(tmp_path / "features", integer_catalogue())
    failing = FailingStore(**vars(store), error=error)
    with pytest.raises(type(error), match=f"^{re.escape(said)}$"):
        index(failing, root, IndexSettings(seed=2), engine=index_on_ray)


def test_where_no_cluster_answers_it_says_so() -> None:
    with (
        pytest.raises(ClusterError, match=r"no Ray answers at 127.0.0.1:1 "),
        ray_cluster("127.0.0.1:1"),
    ):
        pass


def test_a_ray_that_does_not_start_in_time_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")

    def init(*_: object, **__: object) -> None:
        raise Exception("The current node timed out during startup.\nMore.")

    monkeypatch.setattr(ray, "init", init)
    said = "^Ray at local cannot be used: The current node timed out during startup.$"
    with pytest.raises(ClusterError, match=said), ray_cluster("local"):
        pass


def test_where_ray_is_missing_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(ClusterError, match=f"^{re.escape('ray is missing; ' + install('ray'))}$"),
        ray_cluster(None),
    ):
        pass
