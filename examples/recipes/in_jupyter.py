"""Jupyter: this is a cell. Clients are served between cells, on the loop of the kernel.

The kernel is the user's: Stop ends the server, and not the kernel.
"""

import atexit

from calc import Add, Stop

import ipcpoll
from ipcpoll.adapters import asyncio_loop

server = ipcpoll.Server("calc", Add | Stop)
atexit.register(server.close)
asyncio_loop.attach(server, server.close)
