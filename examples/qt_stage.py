"""The stage of stage.py in a window of Qt: other processes change it, and it stays fluid.

It takes PySide6 where that is installed, else PyQt6; QT_BINDING in the environment says otherwise.
"""

import os
import signal
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import stage

import ipcpoll
from ipcpoll.adapters import qt_loop

# A program names its binding: from PySide6 import QtCore, QtGui, QtWidgets.
BINDING = os.environ.get("QT_BINDING") or ("PySide6" if find_spec("PySide6") else "PyQt6")
QtCore: Any = import_module(f"{BINDING}.QtCore")
QtGui: Any = import_module(f"{BINDING}.QtGui")
QtWidgets: Any = import_module(f"{BINDING}.QtWidgets")

FRAME_MILLISECONDS = 16


class Window:
    """Draws a stage, and a lamp that never stands still."""

    def __init__(self, show: stage.Stage) -> None:
        self.show = show
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
        bright = stage.lamp(time.monotonic())
        self.lamp.setBrush(QtGui.QColor(bright, bright, 0x40))

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


def check(window: Window, app: Any, address: str) -> bool:
    """Let a client process draw the scene; return whether Qt's scene shows it."""
    wait = QtCore.QEventLoop.ProcessEventsFlag.WaitForMoreEvents
    with stage.checking(address) as client:
        while client.poll() is None or window.drawn != window.show.version:
            app.processEvents(wait)
    shapes = len(window.scene.items()) - 2  # without the caption and the lamp
    return stage.shows_the_scene(window.show) and shapes == len(window.show.shapes)


def main() -> int:
    arguments = stage.window_arguments(__doc__)
    show = stage.Stage()
    try:
        # Qt itself would end the process.
        if not any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"))):
            raise OSError("there is no display")
        with stage.serving(arguments) as server:
            app = QtWidgets.QApplication([])
            qt_loop.attach(server, show)
            window = Window(show)
            if arguments.check:
                good = check(window, app, server.address)
                print("the scene is on the stage" if good else "the scene is not on the stage")
                return 0 if good else 1
            signal.signal(signal.SIGINT, lambda *_: app.exit(130))  # nothing can be raised in Qt
            code: int = app.exec()
            return code
    except (ipcpoll.IpcError, OSError, ValueError) as error:
        print(f"qt_stage.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
