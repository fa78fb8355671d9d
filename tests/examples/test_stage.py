"""examples/stage.py and its windows, as their users run them, on a real X screen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redraws
from harness import PATIENCE, ROOT, wait_until
from loops import need, qt_needs, screen

pytestmark = pytest.mark.once

EXAMPLES = ROOT / "examples"


class Theatre:
    """A screen, with one of the windows on it."""

    def __init__(self, script: str, binding: str, display: str, directory: str) -> None:
        self.script = script
        self.binding = binding
        self.address = f"{directory}/stage.sock"
        self.display = display
        self.screen = redraws.Screen(display)

    def start(self, script: str, *arguments: str) -> subprocess.Popen[str]:
        # The libraries of GTK warn of what a desk without a session lacks; Python's own count.
        warnings = "" if script in ("gtk_stage.py", "wx_stage.py") else "error"
        return subprocess.Popen(
            [sys.executable, str(EXAMPLES / script), *arguments],
            env={
                **os.environ,
                "DISPLAY": self.display,
                "QT_BINDING": self.binding,
                "PYTHONPATH": str(ROOT),
                "PYTHONWARNINGS": warnings,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, *arguments: str) -> tuple[int, str, str]:
        with self.start(script, *arguments) as process:
            out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    def client(self, *arguments: str) -> str:
        code, out, err = self.run("stage.py", "--address", self.address, *arguments)
        assert (code, err) == (0, "")
        return out


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    with screen() as name:
        yield name


WINDOWS = [
    "tk_stage.py",
    "gtk_stage.py",
    "qt_stage.py PySide6",
    "qt_stage.py PyQt6",
    "wx_stage.py",
]


@pytest.fixture(params=WINDOWS)
def theatre(request: pytest.FixtureRequest, display: str, directory: str) -> Iterator[Theatre]:
    script, _, binding = request.param.partition(" ")
    if script == "tk_stage.py":
        need("_tkinter", "apt-get install python3-tk")
    elif binding:
        for name, install in qt_needs(binding, "xcb"):
            need(name, install, everywhere=False)
    elif script == "wx_stage.py":
        need("wx", "apt-get install python3-wxgtk4.0", everywhere=False)
        need("gi", "apt-get install python3-gi", everywhere=False)
    else:
        install = "apt-get install python3-gi-cairo gir1.2-gtk-4.0"
        need("gi", install, everywhere=False)
        need("gi._gi_cairo", install, everywhere=False)
    theatre = Theatre(script, binding, display, directory)
    yield theatre
    theatre.screen.close()


@pytest.fixture
def window(theatre: Theatre) -> Iterator[subprocess.Popen[str]]:
    with theatre.start(theatre.script, "--address", theatre.address) as process:
        try:
            wait_until(lambda: os.path.exists(theatre.address), "the window's socket")
            yield process
        finally:
            process.kill()
            process.communicate()


def test_check(theatre: Theatre) -> None:
    code, out, _ = theatre.run(theatre.script, "--check")
    assert (code, out) == (0, "all is well\n")


def test_help(theatre: Theatre) -> None:
    for script in (theatre.script, "stage.py"):
        code, out, err = theatre.run(script, "--help")
        assert (code, err) == (0, "")
        assert "--address" in out


def test_clients_change_what_the_screen_shows(
    theatre: Theatre, window: subprocess.Popen[str]
) -> None:
    theatre.client("paint", "#204060")
    left, top = corner(theatre, "#204060")

    def shown(x: int, y: int) -> str:
        return theatre.screen.pixel(left + x, top + y)

    theatre.client("circle", "100", "100", "60", "#ffcc33")
    theatre.client("box", "300", "200", "40", "#33CC66")
    wait_until(lambda: shown(300, 200) == "#33cc66", "the box")
    assert shown(100, 100) == "#ffcc33"
    assert shown(100 - 28, 100 - 28) == "#204060"  # a corner of no circle
    assert shown(300 - 18, 200 - 18) == "#33cc66"
    theatre.client("caption", "hello")
    assert theatre.client("describe") == (
        "Description(colour='#204060', caption='hello', shapes=2)\n"
    )
    theatre.client("clear")
    wait_until(lambda: shown(300, 200) == "#204060", "the empty stage")
    assert window.poll() is None


def corner(theatre: Theatre, colour: str) -> tuple[int, int]:
    """Wait until a pixel has the stage's colour; return the place of the stage on the screen."""
    wait_until(lambda: theatre.screen.pixel(320, 200) == colour, "the paint")
    x = y = 0
    while theatre.screen.pixel(x, 200) != colour:
        x += 1
    while theatre.screen.pixel(320, y) != colour:
        y += 1
    return x, y


@pytest.mark.parametrize(
    "arguments",
    [
        ["paint", "red"],
        ["paint", "#20406"],
        ["paint", "#204060\n"],
        ["caption", "x" * 61],
        ["circle", "641", "0", "5", "#ffffff"],
        ["box", "0", "-1", "5", "#ffffff"],
        ["box", "0", "0", "0", "#ffffff"],
    ],
)
def test_what_is_no_scenery_is_refused(arguments: list[str], directory: str) -> None:
    """Before a command runs; the check is msgspec's, and needs no window."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        import stage
    finally:
        sys.path.remove(str(EXAMPLES))
    import threading

    import ipcpoll

    show = stage.Stage()
    outcome: list[BaseException] = []
    cls = {"paint": stage.Paint, "caption": stage.Caption, "circle": stage.Circle}.get(
        arguments[0], stage.Box
    )
    fields = [int(text) if text.lstrip("-").isdigit() else text for text in arguments[1:]]

    def ask() -> None:
        try:
            ipcpoll.send(cls(*fields), server.address)
        except ipcpoll.IpcError as error:
            outcome.append(error)

    with ipcpoll.Server(f"{directory}/s", stage.Command) as server:
        thread = threading.Thread(target=ask)
        thread.start()
        while thread.is_alive():
            server.poll(show)
        thread.join()
    assert isinstance(outcome[0], ipcpoll.InvalidArguments)
    assert show == stage.Stage()


def test_window_is_fluid_while_clients_change_it(
    theatre: Theatre, window: subprocess.Popen[str]
) -> None:
    """Its lamp goes on at the same rate, whatever they do."""
    theatre.client("paint", "#204060")
    left, top = corner(theatre, "#204060")
    ratios: list[float] = []
    while len(ratios) < redraws.TRIES and max(ratios, default=0.0) < redraws.BOUND:
        unloaded = redraws.changes(left + 620, top + 20, theatre.display)
        with ExitStack() as stack:
            for kind in ("pipeline", "ask", "ask"):
                stack.enter_context(redraws.client(kind, theatre.address, "Caption"))
            loaded = redraws.changes(left + 620, top + 20, theatre.display)
        print(f"{theatre.script}: {unloaded} redraws, {loaded} under load")
        ratios.append(loaded / unloaded)
    assert max(ratios) >= redraws.BOUND


def test_ctrl_c_ends_the_window(theatre: Theatre, window: subprocess.Popen[str]) -> None:
    theatre.client("caption", "it is there")
    window.send_signal(signal.SIGINT)
    assert window.wait(PATIENCE) == 130
    assert not Path(theatre.address).exists()


def test_window_without_a_screen(theatre: Theatre) -> None:
    theatre.display = ""
    code, _, err = theatre.run(theatre.script, "--address", theatre.address)
    assert code == 1
    assert "Traceback" not in err
    assert f"{theatre.script}: " in err
