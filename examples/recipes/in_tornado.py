"""Tornado: its loop is asyncio's, and so is the adapter."""

import asyncio

import tornado.web
from calc import Add, Stop

import ipcpoll
from ipcpoll.adapters import asyncio_loop


async def main() -> None:
    stopping = asyncio.Event()
    site = tornado.web.Application().listen(0, "localhost")
    with ipcpoll.Server("calc", Add | Stop) as server:
        asyncio_loop.attach(server, stopping.set)
        await stopping.wait()
    site.stop()


asyncio.run(main())
