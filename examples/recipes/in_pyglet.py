"""pyglet on X11, with a set of devices that it watches and does not document."""

from typing import Any

import pyglet
from calc import Add, Stop
from pyglet.app.xlib import XlibSelectDevice

import ipcpoll


class Device(XlibSelectDevice):
    def fileno(self) -> int:
        return server.fileno()

    def select(self) -> None:
        server.poll(pyglet.app.exit)


loop: Any = pyglet.app.platform_event_loop
window = pyglet.window.Window(200, 100, "served by pyglet")
with ipcpoll.Server("calc", Add | Stop) as server:
    loop.select_devices.add(device := Device())
    pyglet.app.run(interval=None)  # draws when there is news; a game draws 60 times a second
    loop.select_devices.remove(device)
