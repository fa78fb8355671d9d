"""A program with a window of Qt that runs macros, as FreeCAD does: qt_host.py FILE.

Nothing keeps the names of a macro when it has run. A line on standard input closes the window.
"""

import runpy
import sys

from PySide6.QtCore import QSocketNotifier, QTimer
from PySide6.QtWidgets import QApplication, QMainWindow

application = QApplication([])
window = QMainWindow()
window.show()
QTimer.singleShot(0, lambda: runpy.run_path(sys.argv[1]) and None)
line = QSocketNotifier(sys.stdin.fileno(), QSocketNotifier.Type.Read)
line.activated.connect(lambda *_: window.close())
sys.exit(application.exec())
