"""Does a window keep redrawing under clients that never pause? The X screen itself tells.

The window changes its colour at a fixed rate, by its loop's timer. A process of its own reads
one pixel of the screen and counts the changes, first with no client, then under load. As a script
this is that process, and a client that never pauses:

    redraws.py look SECONDS X Y
    redraws.py pipeline ADDRESS COMMAND
    redraws.py ask ADDRESS COMMAND
"""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass

from ipcpoll import Client
from ipcpoll.testing import PATIENCE, AdapterConformance, Do

CHANGE_SECONDS = 0.025
COMMAND_SECONDS = 0.0005
SECONDS = 1.5
BOUND = 0.9
TRIES = 6
X, Y = 100, 100


def colour(number: int) -> str:
    """Return a colour which is not the next number's nor the last one's."""
    return f"#{number * 37 % 256:02x}{number * 91 % 256:02x}{number * 53 % 256:02x}"


class RedrawConformance(AdapterConformance):
    """Two more cases for a loop with a window that covers the pixel X, Y of the screen.

    `show` gives the window the colour of the number.
    """

    has_window = True

    def shown(self) -> str:
        screen = Screen()
        try:
            return screen.pixel(X, Y)
        finally:
            screen.close()

    def test_redraw_under_a_client_that_pipelines(self) -> None:
        """Work is always left."""
        self.compare(["pipeline"])

    def test_redraw_under_clients_that_ask_again_at_once(self) -> None:
        """No work is left, but while one's command runs another one asks."""
        self.compare(["ask", "ask", "ask"])

    def compare(self, clients: list[str]) -> None:
        server, ctx = self.make_server()
        self.attach(server, ctx)
        ctx.do = self.work
        began = time.monotonic()
        over = False

        def change() -> None:
            """Change at fixed moments: a timer that comes late does not slow down the next one."""
            if over:
                return
            number = int((time.monotonic() - began) / CHANGE_SECONDS)
            self.show(number)
            next_one = began + (number + 1) * CHANGE_SECONDS
            self.call_later(max(0.0, next_one - time.monotonic()), change)

        def measure() -> None:
            """Measure both, a few times at most: other processes share the processors."""
            nonlocal over
            for _ in range(TRIES):
                unloaded = changes()
                with ExitStack() as stack:
                    for kind in clients:
                        stack.enter_context(client(kind, server.address))
                    loaded = changes()
                ratios.append(loaded / unloaded)
                print(f"{clients}: {unloaded} redraws in {SECONDS} s, {loaded} under load")
                if ratios[-1] >= BOUND:
                    break
            over = True

        ratios: list[float] = []
        self.call_later(0, change)
        self.run(measure)
        assert max(ratios) >= BOUND, f"redraws under load, of those without: {ratios}"

    @staticmethod
    def work() -> None:
        end = time.perf_counter() + COMMAND_SECONDS
        while time.perf_counter() < end:
            pass


def changes(x: int = X, y: int = Y, display: str | None = None) -> int:
    """Return how often a pixel of the screen changes in `SECONDS`."""
    command = [sys.executable, __file__, "look", str(SECONDS), str(x), str(y)]
    environment = dict(os.environ) if display is None else {**os.environ, "DISPLAY": display}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    return int(done.stdout)


def client(kind: str, address: str, command: str = "Do") -> ExitStack:
    """Start a client; give it back when it was answered, to be ended by the stack."""
    stack = ExitStack()
    process = subprocess.Popen(
        [sys.executable, __file__, kind, address, command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    stack.enter_context(process)
    stack.callback(process.terminate)
    assert process.stdout is not None
    assert process.stdout.readline() == b"answered\n"
    return stack


# ---------------------------------------------------------------------------------------------
# The other processes


class XImage(ctypes.Structure):
    _fields_ = [
        ("width", ctypes.c_int),
        ("height", ctypes.c_int),
        ("xoffset", ctypes.c_int),
        ("format", ctypes.c_int),
        ("data", ctypes.POINTER(ctypes.c_ubyte)),
    ]


class Screen:
    """What an X server shows."""

    def __init__(self, display: str | None = None) -> None:
        self.xlib = xlib = ctypes.CDLL("libX11.so.6")
        xlib.XOpenDisplay.restype = ctypes.c_void_p
        xlib.XDefaultRootWindow.restype = ctypes.c_ulong
        xlib.XGetImage.restype = ctypes.POINTER(XImage)
        name = None if display is None else display.encode()
        self.display = ctypes.c_void_p(xlib.XOpenDisplay(name))
        assert self.display, "there is no X server"
        self.root = ctypes.c_ulong(xlib.XDefaultRootWindow(self.display))

    def pixel(self, x: int, y: int) -> str:
        """Return a pixel's colour, as #rrggbb."""
        planes, z_pixmap = ctypes.c_ulong(0xFFFFFF), 2
        image = self.xlib.XGetImage(self.display, self.root, x, y, 1, 1, planes, z_pixmap)
        blue, green, red = image.contents.data[:3]
        self.xlib.XFree(image.contents.data)
        self.xlib.XFree(image)
        return f"#{red:02x}{green:02x}{blue:02x}"

    def close(self) -> None:
        self.xlib.XCloseDisplay(self.display)


def look(seconds: float, x: int, y: int) -> None:
    """Print how often the pixel has changed."""
    screen = Screen()
    count, last = 0, screen.pixel(x, y)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pixel = screen.pixel(x, y)
        count += pixel != last
        last = pixel
        time.sleep(0.002)
    print(count)


@dataclass
class Caption:
    """A command of examples/stage.py."""

    text: str = "the flood"

    def process(self, ctx: object) -> None: ...


COMMANDS = {"Do": Do, "Caption": Caption}


def pipeline(address: str, command: str) -> None:
    """Call with hundreds in flight, until the process is ended."""
    with Client(address, timeout=PATIENCE) as client:
        answers = client.map((COMMANDS[command]() for _ in itertools.count()), depth=200)
        next(answers)
        print("answered", flush=True)
        for _ in answers:
            pass


def ask(address: str, command: str) -> None:
    """Call again as soon as there is an answer, until the process is ended."""
    with Client(address, timeout=PATIENCE) as client:
        client.call(COMMANDS[command]())
        print("answered", flush=True)
        while True:
            client.call(COMMANDS[command]())


if __name__ == "__main__":
    match sys.argv[1:]:
        case "look", seconds, x, y:
            look(float(seconds), int(x), int(y))
        case "pipeline", address, command:
            pipeline(address, command)
        case "ask", address, command:
            ask(address, command)
