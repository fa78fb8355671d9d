"""What a test does that needs a library which not every desk has."""

from __future__ import annotations

import importlib.util
import os

import pytest


def need(name: str) -> None:
    """Skip the test where the module `name` is not installed; in CI, where it must be, fail."""
    if importlib.util.find_spec(name) is not None:
        return
    if os.environ.get("CI"):
        pytest.fail(f"{name} is not installed, and CI must have it (pyproject.toml)")
    pytest.skip(f"{name} is not installed")
