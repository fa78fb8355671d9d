"""What a test does that needs a library, or a screen, which not every desk has."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

DEBIANS = sys.base_prefix == "/usr"
"""Whether this is the system's Python, which sees the system's packages: the GUI loops."""


def installed(name: str) -> bool:
    """Return whether there is a module of this name, or a shared library: ``lib…``."""
    if name.startswith("lib"):
        return ctypes.util.find_library(name.removeprefix("lib")) is not None
    return importlib.util.find_spec(name) is not None


def need(name: str, install: str = "", *, everywhere: bool = True) -> None:
    """Skip the test where `name` is not installed; in CI, where it must be, fail.

    `install` is the command that would help. Not `everywhere`: only the system's Python must have
    it, in CI too.
    """
    if installed(name):
        return
    missing(f"{name} is not installed", install, fails=everywhere or DEBIANS)


# What Qt's own libraries need of Debian; the second ones on a screen only.
QT_OFFSCREEN = {
    "libEGL": "libegl1",
    "libGL": "libgl1",
    "libdbus-1": "libdbus-1-3",
    "libfontconfig": "libfontconfig1",
    "libglib-2.0": "libglib2.0-0",
    "libxkbcommon": "libxkbcommon0",
}
QT_XCB = {
    "libxcb-cursor": "libxcb-cursor0",
    "libxcb-icccm": "libxcb-icccm4",
    "libxcb-keysyms": "libxcb-keysyms1",
    "libxcb-shape": "libxcb-shape0",
    "libxkbcommon-x11": "libxkbcommon-x11-0",
}


def qt_needs(binding: str, platform: str) -> tuple[tuple[str, str], ...]:
    """Return what a window of Qt needs, as `need` takes it: each with the command that helps."""
    wheel = {"PySide6": "PySide6-Essentials"}.get(binding, binding)
    libraries = QT_OFFSCREEN | QT_XCB if platform == "xcb" else QT_OFFSCREEN
    packages = [(library, f"apt-get install {libraries[library]}") for library in libraries]
    return ((binding, f"pip install {wheel}"), *packages)


def missing(what: str, install: str = "", *, fails: bool = True) -> None:
    """Skip the test, or fail it in CI."""
    sentence = f"{what}; {install} would install it" if install else what
    if fails and os.environ.get("CI"):
        pytest.fail(f"{sentence}, and CI must have it")
    pytest.skip(sentence)


@contextmanager
def screen() -> Iterator[str]:
    """Run an X server without a screen, and give its display; skip where there is none."""
    if shutil.which("Xvfb") is None:
        missing("Xvfb is not installed", "apt-get install xvfb")
    read, write = os.pipe()
    # It would start anew when its last client goes, and refuse the next one meanwhile: -noreset.
    arguments = ["-displayfd", str(write), "-screen", "0", "1024x768x24", "-noreset"]
    with subprocess.Popen(
        ["Xvfb", "-nolisten", "tcp", *arguments], pass_fds=[write], stderr=subprocess.DEVNULL
    ) as server:
        os.close(write)
        try:
            with open(read) as answer:
                number = answer.readline().strip()
            assert number, "Xvfb did not start"
            yield f":{number}"
        finally:
            server.terminate()
