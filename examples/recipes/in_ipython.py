"""IPython: clients are served at its prompt, after `%run in_ipython.py` or `ipython -i` with it.

The prompt is the user's: Stop ends the server, and not IPython.
"""

import atexit

from calc import Add, Stop
from IPython import get_ipython
from IPython.core.async_helpers import get_asyncio_loop

import ipcpoll
from ipcpoll.adapters import asyncio_loop

server = ipcpoll.Server("calc", Add | Stop)
atexit.register(server.close)
asyncio_loop.attach(server, server.close, get_asyncio_loop())
get_ipython().run_line_magic("gui", "asyncio")  # the prompt shall wait in that loop
