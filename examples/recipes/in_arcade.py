"""arcade: it sleeps between frames, so clients are served through most of each frame."""

import time

import arcade
from calc import Add, Program, Stop

import ipcpoll
from ipcpoll.adapters import frame_loop


class Game(arcade.Window):
    def on_update(self, delta_time: float) -> None:
        frame_loop.spend(server, Program(arcade.exit, label), time.monotonic() + 0.012)

    def on_draw(self) -> None:
        self.clear(color=arcade.color.DARK_MIDNIGHT_BLUE)
        label.draw()


with ipcpoll.Server("calc", Add | Stop) as server:
    Game(200, 100, "served by arcade")
    label = arcade.Text("served by arcade", 30, 45)
    arcade.run()
