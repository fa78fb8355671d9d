"""Fixtures of the command line's tests."""

from __future__ import annotations

import pytest


@pytest.fixture
def home(directory: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The directory of names, this test's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
    return f"{directory}/ipcpoll"
