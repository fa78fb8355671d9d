"""pyglet on X11, with a set of devices that it watches and does not document."""

import pyglet.app.xlib
from calc import Add, Program, Stop

import ipcpoll


class Device(pyglet.app.xlib.XlibSelectDevice):
    def fileno(self) -> int:
        return server.fileno()

    def select(self) -> None:
        if server.poll(Program(pyglet.app.exit, label)):
            window.draw(0)


window = pyglet.window.Window(200, 100, "served by pyglet")
label = pyglet.text.Label("served by pyglet", 30, 45)
window.push_handlers(on_draw=window.clear, on_refresh=lambda _: label.draw())
window.push_handlers(on_expose=lambda: window.draw(0))
with ipcpoll.Server("calc", Add | Stop) as server:
    vars(pyglet.app.platform_event_loop)["select_devices"].add(Device())
    pyglet.app.run(interval=None)  # draws when there is news; a game draws 60 times a second
