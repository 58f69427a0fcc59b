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
