"""docs/gallery.md: its pictures exist, and its commands are what the examples take."""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT

pytestmark = pytest.mark.once

DOCS = ROOT / "docs"
EXAMPLES = ROOT / "examples"
MOST_BYTES = 60_000
PATIENCE = 60

spec = importlib.util.spec_from_file_location("make_screenshots", DOCS / "make_screenshots.py")
assert spec is not None
assert spec.loader is not None
make_screenshots = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_screenshots)
GALLERY = dict(make_screenshots.gallery())
STARTS = sorted(
    {command for commands in GALLERY.values() for command in commands if "&" in command}
)
CALLS = sorted(
    {command for commands in GALLERY.values() for command in commands if "&" not in command}
)


def test_each_picture_has_its_commands() -> None:
    text = (DOCS / "gallery.md").read_text()
    assert len(GALLERY) == text.count("![") == text.count("```console") == text.count("\n## ")
    assert sum(len(commands) for commands in GALLERY.values()) == text.count("\n$ ")
    for commands in GALLERY.values():
        assert [command.endswith(" &") for command in commands] == [
            True,
            *[False] * (len(commands) - 1),
        ]


@pytest.mark.parametrize("picture", GALLERY)
def test_picture_is_there_and_small(picture: str) -> None:
    data = (DOCS / picture).read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) < MOST_BYTES


@pytest.mark.parametrize("command", STARTS)
def test_program_that_is_started(command: str) -> None:
    """It is an example that runs without arguments. Others start it, with its library."""
    script, ampersand = command.split()
    assert ampersand == "&"
    assert (EXAMPLES / script).exists()


@pytest.mark.parametrize("command", CALLS)
def test_command_that_the_example_takes(command: str, directory: str) -> None:
    """Its parser does; nobody is there to be called."""
    done = subprocess.run(
        [sys.executable, *shlex.split(command)],
        cwd=EXAMPLES,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": directory},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    script = Path(command.split(maxsplit=1)[0]).name
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith(f"{script}: the program does not run: there is no socket at ")
