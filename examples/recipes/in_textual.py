"""Textual: it offers no way to watch a descriptor, but it runs on asyncio, which does."""

from calc import Add, Stop
from textual.app import App, ComposeResult
from textual.widgets import Label

import ipcpoll
from ipcpoll.adapters import asyncio_loop


class Calculator(App[None]):
    def compose(self) -> ComposeResult:
        yield Label("served by Textual")

    def on_mount(self) -> None:
        asyncio_loop.attach(server, self.exit)


with ipcpoll.Server("calc", Add | Stop) as server:
    Calculator().run()
