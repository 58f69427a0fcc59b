"""Fixtures of the app's tests."""

from pathlib import Path

import pytest

from lookalike.operate.doctor import host


@pytest.fixture
def no_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without Unit, as the doctor sees it."""
    monkeypatch.setattr(host, "find_unitd", lambda: None)
    monkeypatch.setattr(host, "DEFAULT_SOCKET", Path("/nonexistent/control.unit.sock"))
