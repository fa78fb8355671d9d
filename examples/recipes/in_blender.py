"""A Blender add-on: a timer polls, because Blender watches no descriptor. (None runs under -b.)"""

from contextlib import ExitStack

import bpy
from calc import Add, Stop

import ipcpoll

enabled = ExitStack()


def register() -> None:
    server = enabled.enter_context(ipcpoll.Server("calc", Add | Stop))

    def serve() -> float:
        server.poll(bpy.ops.wm.quit_blender)
        return 0.02  # seconds, which a call waits at most

    bpy.app.timers.register(serve, persistent=True)  # also when another file is opened
    enabled.callback(bpy.app.timers.unregister, serve)


def unregister() -> None:
    enabled.close()
