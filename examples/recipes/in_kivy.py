"""Kivy: run as a task of asyncio it can be served; its own loop watches nothing but SDL."""

import asyncio

from calc import Add, Stop
from kivy.app import App
from kivy.uix.label import Label

import ipcpoll
from ipcpoll.adapters import asyncio_loop


class Calculator(App):
    def build(self) -> Label:
        return Label(text="served by Kivy")


async def main() -> None:
    app = Calculator()
    with ipcpoll.Server("calc", Add | Stop) as server:
        asyncio_loop.attach(server, app.stop)
        await app.async_run()


asyncio.run(main())
