"""Draw a village in the evening."""

import time
from collections.abc import Iterator

import shell
import stage
from stage import Box, Caption, Circle, Clear, Command, Paint, Stage

import ipcpoll
from ipcpoll.adapters import frame_loop


def scene() -> Iterator[Command]:
    """Yield the commands, one for each shape."""
    yield Clear()
    yield Paint("#2b2350")
    for size, colour in ((300, "#4a2f63"), (230, "#7d3f6b"), (160, "#c75b63"), (96, "#ffb454")):
        yield Circle(430, 250, size, colour)
    for star in range(26):
        yield Circle(17 + star * 97 % 610, 12 + star * 59 % 110, 2 + star % 3, "#fff3d0")
    for x, size, colour in ((90, 330, "#3a2a58"), (300, 280, "#34254f"), (560, 360, "#2e2147")):
        yield Circle(x, 400, size, colour)
    for x, y, size in ((130, 300, 52), (196, 312, 40), (262, 290, 64), (500, 296, 56)):
        yield Box(x, y, size, "#17122b")
        for pane in range(4):
            dx, dy = (pane % 2 * 2 - 1) * size // 5, (pane // 2 * 2 - 1) * size // 5
            yield Box(x + dx, y + dy, size // 6, "#ffd873" if (pane + x) % 3 else "#3d3354")
    yield Caption("drawn by another process")


def whole_scene() -> Stage:
    """Return what the stage must be when the scene is drawn."""
    show = Stage()
    for command in scene():
        command.process(show)
    return show


def draw(address: str) -> None:
    with ipcpoll.Client(address) as client:
        for command in scene():
            client.call(command)


def check() -> None:
    """Let a client draw the scene on a stage without a window."""
    show = Stage()
    with (
        shell.Processes(stage.__file__) as clients,
        ipcpoll.Server(clients.address, Command) as server,
    ):
        client = clients.start("scene")
        while client.poll() is None:
            frame_loop.spend(server, show, time.monotonic() + 0.02)
        assert client.returncode == 0
        assert show == whole_scene()
