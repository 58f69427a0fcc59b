"""Fixtures shared by all tests."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from lookalike.release.root import ReleaseRoot
from support import integer_catalogue, publish, string_catalogue

# A slow machine is no fault of an example.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several workers: a file's tests run in one, since they share what its fixtures make.

    All that load TensorFlow are in the same one, since it takes 3 GB. Files with slow tests come
    first, or the last of them would run alone.
    """
    if not hasattr(config, "workerinput"):
        return
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    for item in items:
        loads_tensorflow = item.get_closest_marker("tensorflow")
        group = "tensorflow" if loads_tensorflow else item.path.relative_to(config.rootpath)
        item.add_marker(pytest.mark.xdist_group(str(group)))
    items.sort(key=lambda item: (item.path not in slow, not item.get_closest_marker("tensorflow")))


@pytest.fixture(scope="session")
def integer_root(tmp_path_factory: pytest.TempPathFactory) -> ReleaseRoot:
    """A root with one release of `integer_catalogue`; tests must not change it."""
    folder = tmp_path_factory.mktemp("integer")
    return publish(folder / "root", integer_catalogue(), folder / "features")


@pytest.fixture(scope="session")
def string_root(tmp_path_factory: pytest.TempPathFactory) -> ReleaseRoot:
    """A root with one release of `string_catalogue`; tests must not change it."""
    folder = tmp_path_factory.mktemp("string")
    return publish(folder / "root", string_catalogue(), folder / "features")


@pytest.fixture
def root(tmp_path: Path) -> ReleaseRoot:
    """A root with one release of `integer_catalogue`, the test's own."""
    return publish(tmp_path / "root", integer_catalogue(), tmp_path / "features")
