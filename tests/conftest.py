"""Fixtures shared by all tests."""

from functools import cache
from pathlib import Path
from typing import Any

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
    """With several workers, files with slow tests come first: none is to run alone in the end."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several workers, all files that load TensorFlow are one's: it takes 3 GB."""
    from xdist.scheduler import LoadFileScheduling

    @cache
    def group(file: str) -> str:
        loads_tensorflow = "pytest.mark.tensorflow" in (config.rootpath / file).read_text()
        return "TensorFlow" if loads_tensorflow else file

    scheduler = LoadFileScheduling(config, log)
    scheduler._split_scope = lambda nodeid: group(nodeid.split("::")[0])
    return scheduler


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
