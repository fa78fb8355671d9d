"""Kivy: run as a task of asyncio it can be served; its own loop watches nothing but SDL."""

import asyncio

from calc import Add, Program, Stop
from kivy.app import App
from kivy.uix.label import Label

import ipcpoll
from ipcpoll.adapters import asyncio_loop


async def main() -> None:
    app = App(title="served by Kivy")
    app.root = Label(text=app.title, font_size=60)
    with ipcpoll.Server("calc", Add | Stop) as server:
        asyncio_loop.attach(server, Program(app.stop, app.root))
        await app.async_run()


asyncio.run(main())
