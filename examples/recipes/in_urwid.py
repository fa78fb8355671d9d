"""urwid, whichever event loop it runs on: `watch_file`."""

import urwid
from calc import Add, Stop

import ipcpoll


def leave(*_: object) -> None:
    raise urwid.ExitMainLoop


def stop() -> None:
    loop.set_alarm_in(0, leave)  # what a command raises would be its answer


loop = urwid.MainLoop(urwid.Filler(urwid.Text("served by urwid")))
with ipcpoll.Server("calc", Add | Stop) as server:
    watch = loop.watch_file(server.fileno(), lambda: server.poll(stop))
    loop.run()
    loop.remove_watch_file(watch)
