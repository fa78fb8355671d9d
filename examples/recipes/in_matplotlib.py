"""A window of matplotlib: the adapter is that of its toolkit, here Tk's."""

from typing import Any

import matplotlib.pyplot as plt
from calc import Add, Stop

import ipcpoll
from ipcpoll.adapters import tk_loop

plt.switch_backend("TkAgg")
figure, axes = plt.subplots()
axes.plot([1, 4, 9, 16])
manager: Any = figure.canvas.manager  # the toolkit's, too
with ipcpoll.Server("calc", Add | Stop) as server:
    tk_loop.attach(server, lambda: plt.close(figure), manager.window)
    plt.show()
