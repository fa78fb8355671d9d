"""The windows of threads.py, each run in a process of its own: ``_windows.py NAME PATH``.

All show what a client has added. With ipcpoll the window's loop serves; else a thread for each
client does, which hands over what it has read: a queue that the loop looks into twenty times a
second, an event of Tk, or a signal of Qt. Those take JSON, a line for a command. They are what one
writes in an afternoon: without limits, without a time for slow clients, and the second one to start
takes the socket away from the first.
"""

from __future__ import annotations

import json
import os
import queue
import socketserver
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what all benchmarks share

from _loops import adapter
from _servers import end_with_parent, ready

import ipcpoll

Show: TypeAlias = Callable[[str], object]
Request: TypeAlias = tuple[bytes, "queue.SimpleQueue[bytes]"]
"""A line, and where its answer is to go."""

QUEUE_MILLISECONDS: Final = 50
# socketserver looks every half second whether it is to end; these end with their process.
NEVER_SECONDS: Final = 86400.0


def tk_window() -> tuple[Any, Show]:
    """Return a window, and what changes its text."""
    tkinter: Any = import_module("tkinter")
    root = tkinter.Tk()
    label = tkinter.Label(root, text="nothing yet")
    label.pack()
    return root, lambda text: label.configure(text=text)


def qt_window() -> tuple[Any, Any]:
    """Return an application, and a label that is its window."""
    widgets: Any = import_module("PySide6.QtWidgets")
    app = widgets.QApplication([])
    label = widgets.QLabel("nothing yet")
    label.show()
    return app, label


# ---------------------------------------------------------------------------------------------
# With ipcpoll


@dataclass
class Add:
    """The one command."""

    a: int
    b: int

    def process(self, ctx: Show) -> int:
        ctx(f"{self.a} + {self.b}")
        return self.a + self.b


def tk_ipcpoll(path: str) -> None:
    root, show = tk_window()
    with ipcpoll.Server(path, Add) as server:
        adapter("tk_loop").attach(server, show, root)
        ready()
        root.mainloop()


def qt_ipcpoll(path: str) -> None:
    app, label = qt_window()
    with ipcpoll.Server(path, Add) as server:
        adapter("qt_loop").attach(server, label.setText)
        ready()
        app.exec()


# ---------------------------------------------------------------------------------------------
# With threads


def answer(line: bytes, show: Show) -> bytes:
    """Run the command of a line, and return the line that answers it."""
    result: dict[str, Any]
    try:
        match json.loads(line):
            case {"add": [int(a), int(b)]}:
                show(f"{a} + {b}")
                result = {"result": a + b}
            case other:
                result = {"error": f"no such command: {other}"}
    except ValueError as error:
        result = {"error": f"no JSON: {error}"}
    return json.dumps(result).encode() + b"\n"


@contextmanager
def threads(path: str, hand_over: Callable[[Request], object]) -> Generator[None]:
    """Serve with a thread for each client. It hands over what it reads, and waits."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
                hand_over((line, answers))
                self.wfile.write(answers.get())

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

    Path(path).unlink(missing_ok=True)
    with Server(path, Handler) as server:
        os.chmod(path, 0o600)
        serve = threading.Thread(target=server.serve_forever, args=(NEVER_SECONDS,), daemon=True)
        serve.start()
        yield
    Path(path).unlink()


def tk_queue(path: str) -> None:
    root, show = tk_window()
    requests: queue.SimpleQueue[Request] = queue.SimpleQueue()

    def look() -> None:
        while not requests.empty():
            line, answers = requests.get()
            answers.put(answer(line, show))
        root.after(QUEUE_MILLISECONDS, look)

    look()
    with threads(path, requests.put):
        ready()
        root.mainloop()


def tk_event(path: str) -> None:
    root, show = tk_window()
    requests: queue.SimpleQueue[Request] = queue.SimpleQueue()

    def look(_: object) -> None:
        while not requests.empty():
            line, answers = requests.get()
            answers.put(answer(line, show))

    def hand_over(request: Request) -> None:
        requests.put(request)
        root.event_generate("<<Request>>", when="tail")

    root.bind("<<Request>>", look)
    with threads(path, hand_over):
        ready()
        root.mainloop()


def qt_signal(path: str) -> None:
    app, label = qt_window()
    core: Any = import_module("PySide6.QtCore")

    class Bridge(core.QObject):  # type: ignore[misc]
        asked = core.Signal(object)

        def look(self, request: Request) -> None:
            line, answers = request
            answers.put(answer(line, label.setText))

    bridge = Bridge()
    bridge.asked.connect(bridge.look)  # queued, where the signal comes from another thread
    with threads(path, bridge.asked.emit):
        ready()
        app.exec()


class Window(NamedTuple):
    """One program: how it serves, and what that takes beside the window itself."""

    run: Callable[[str], None]
    parts: tuple[Any, ...]
    needs: str
    ipcpoll: bool = False


WINDOWS: Final = {
    "Tk: ipcpoll": Window(tk_ipcpoll, (Add,), "tkinter", ipcpoll=True),
    "Tk: thread, event": Window(tk_event, (answer, threads), "tkinter"),
    "Tk: thread, queue every 50 ms": Window(tk_queue, (answer, threads), "tkinter"),
    "Qt: ipcpoll": Window(qt_ipcpoll, (Add,), "PySide6", ipcpoll=True),
    "Qt: thread, signal": Window(qt_signal, (answer, threads), "PySide6"),
}


if __name__ == "__main__":
    end_with_parent()
    WINDOWS[sys.argv[1]].run(sys.argv[2])
