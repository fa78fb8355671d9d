"""arcade: it sleeps between frames, so clients are served through most of each frame."""

import time

import arcade
from calc import Add, Stop

import ipcpoll
from ipcpoll.adapters import frame_loop


class Game(arcade.Window):
    def on_update(self, delta_time: float) -> None:
        frame_loop.spend(server, arcade.exit, time.monotonic() + 0.012)

    def on_draw(self) -> None:
        self.clear()


with ipcpoll.Server("calc", Add | Stop) as server:
    Game(200, 100, "served by arcade")
    arcade.run()
