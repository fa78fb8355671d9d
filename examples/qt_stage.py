"""The stage of stage.py in a window of Qt: other processes change it, and it stays fluid.

It takes PySide6 where that is installed, else PyQt6; QT_BINDING in the environment says otherwise.
"""

import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import shell
import stage
import village

import ipcpoll
from ipcpoll.adapters import qt_loop

# A program names its binding: from PySide6 import QtCore, QtGui, QtWidgets.
BINDING = os.environ.get("QT_BINDING") or ("PyQt6" if find_spec("PySide6") is None else "PySide6")
with shell.needs("pip install PySide6-Essentials"):
    QtCore: Any = import_module(f"{BINDING}.QtCore")
    QtGui: Any = import_module(f"{BINDING}.QtGui")
    QtWidgets: Any = import_module(f"{BINDING}.QtWidgets")

FRAME_MILLISECONDS = 16


class Window:
    """Draws a stage, and a lamp that never stands still."""

    def __init__(self, app: Any, show: stage.Stage) -> None:
        self.app, self.show = app, show
        self.drawn = -1
        self.scene = QtWidgets.QGraphicsScene(0, 0, stage.WIDTH, stage.HEIGHT)
        self.view = QtWidgets.QGraphicsView(self.scene)
        self.view.setWindowTitle("Qt stage")
        self.view.setFrameShape(QtWidgets.QFrame.Shape.NoFrame)
        self.view.setFixedSize(stage.WIDTH, stage.HEIGHT)
        self.view.setRenderHint(QtGui.QPainter.RenderHint.Antialiasing)
        self.timer = QtCore.QTimer()
        self.timer.timeout.connect(self.frame)
        self.timer.start(FRAME_MILLISECONDS)
        self.frame()
        self.view.move(0, 0)
        self.view.show()

    def frame(self) -> None:
        if self.drawn != self.show.version:
            self.drawn = self.show.version
            self.draw()
        self.lamp.setBrush(QtGui.QColor(stage.lamp()))

    def draw(self) -> None:
        scene, line = self.scene, QtGui.QPen(QtCore.Qt.PenStyle.NoPen)
        scene.clear()
        scene.setBackgroundBrush(QtGui.QColor(self.show.colour))
        for shape in self.show.shapes:
            half, size = shape.size / 2, shape.size
            draw = scene.addEllipse if isinstance(shape, stage.Circle) else scene.addRect
            draw(shape.x - half, shape.y - half, size, size, line, QtGui.QColor(shape.colour))
        font = QtGui.QFont("DejaVu Sans")
        font.setPixelSize(20)
        caption = scene.addSimpleText(self.show.caption, font)
        caption.setBrush(QtGui.QColor("white"))
        room = caption.boundingRect()
        caption.setPos((stage.WIDTH - room.width()) / 2, stage.HEIGHT - 24 - room.height() / 2)
        self.lamp = scene.addEllipse(612, 12, 16, 16, line)


@contextmanager
def opened(address: str) -> Generator[Window]:
    # Qt itself would end the process.
    if not any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"))):
        raise OSError("there is no display")
    show = stage.Stage()
    with ipcpoll.Server(address, stage.Command) as server:
        app = QtWidgets.QApplication([])
        qt_loop.attach(server, show)
        yield Window(app, show)


def run(address: str) -> None:
    with opened(address) as window:
        # Nothing can be raised through Qt: Ctrl-C ends the loop.
        signal.signal(signal.SIGINT, lambda *_: window.app.exit(130))
        code = window.app.exec()
    sys.exit(code)


def check() -> None:
    """Let a client draw the scene; Qt's own scene must hold it."""
    with shell.Processes(stage.__file__) as clients, opened(clients.address) as window:
        client = clients.start("scene")
        while client.poll() is None or window.drawn != window.show.version:
            window.app.processEvents(QtCore.QEventLoop.ProcessEventsFlag.WaitForMoreEvents)
        assert client.returncode == 0
        assert window.show == village.whole_scene()
        shapes = len(window.scene.items()) - 2  # without the caption and the lamp
        assert shapes == len(window.show.shapes)


if __name__ == "__main__":
    shell.CommandLine(__doc__, run, address="stage", check=check).main()
