"""FreeCAD, Maya and their like, whose loop is Qt's: this is a macro, whichever binding they have.

The program is the user's: Stop ends the server, and not the program.
"""

import atexit

from calc import Add, Stop

import ipcpoll
from ipcpoll.adapters import qt_loop

server = ipcpoll.Server("calc", Add | Stop)
atexit.register(server.close)
qt_loop.attach(server, server.close)
