"""Each example that checks itself does so, and says what it is. Real processes, as its users."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
from harness import ROOT
from loops import need, screen

NEEDS = {"pygame_balls": ("pygame", "pip install pygame-ce")}
PROGRAMS = ["pygame_balls", "select_tail"]
PATIENCE = 60


def run(name: str, *arguments: str, **environment: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / f"{name}.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", PROGRAMS)
def test_help(name: str) -> None:
    code, out, err = run(name, "--help")
    assert (code, err) == (0, "")
    assert "--address" in out
    assert "--check" in out


@pytest.mark.parametrize("name", PROGRAMS)
def test_check(name: str) -> None:
    if name in NEEDS:
        need(*NEEDS[name])
    code, out, err = run(name, "--check")
    assert (code, err) == (0, "")
    assert out.startswith(f"{name}.py: checked")


@pytest.mark.parametrize("pixels", ["nan", "inf", "-inf"])
def test_gravity_is_a_number(pixels: str) -> None:
    """What is none would put the balls nowhere, for good."""
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        from pygame_balls import Gravity
    finally:
        sys.path.pop(0)
    with pytest.raises(msgspec.ValidationError, match=r"pixels"):
        msgspec.convert({"pixels": float(pixels)}, Gravity)


def test_balls_in_a_window() -> None:
    """The same with a real window, on an X server without a screen."""
    need(*NEEDS["pygame_balls"])
    with ExitStack() as stack:
        display = stack.enter_context(screen())
        code, out, err = run("pygame_balls", "--check", DISPLAY=display, SDL_VIDEODRIVER="x11")
    assert (code, err) == (0, "")
    assert out.startswith("pygame_balls.py: checked")


@pytest.mark.parametrize(
    ("name", "words"),
    [("select_tail", ["tail", "3"]), ("pygame_balls", ["pause"])],
)
def test_nobody_there(name: str, words: list[str], directory: str) -> None:
    code, out, err = run(name, "--address", f"{directory}/s", *words)
    assert (code, out) == (1, "")
    assert err == f"{name}.py: the program does not run: there is no socket at {directory}/s\n"


def test_balls_say_what_is_missing(directory: str) -> None:
    """pygame is the only example's loop that clients need not have."""
    Path(directory, "pygame.py").write_text("raise ModuleNotFoundError('No module named pygame')")
    for words in ([], ["--check"]):
        code, _, err = run(
            "pygame_balls", "--address", f"{directory}/s", *words, PYTHONPATH=f"{directory}:{ROOT}"
        )
        sentence = "No module named pygame; pip install pygame-ce would help"
        assert (code, err) == (1, f"pygame_balls.py: {sentence}\n")


def test_tail_refuses(directory: str) -> None:
    code, _, err = run("select_tail", "--address", f"{directory}/s", "--follow", "/nothing/here")
    assert code == 1
    assert err.startswith("select_tail.py: [Errno 2]")
    code, _, err = run("select_tail", "grep")
    assert code == 2
    assert "required: pattern" in err
