"""The recipes in examples/recipes, each run as a process, and what it takes while it is idle."""

from __future__ import annotations

import ast
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from harness import PATIENCE, ROOT, wait_until

import ipcpoll

FOLDER = ROOT / "examples" / "recipes"
HELPERS = ROOT / "tests" / "recipes"


class Recipe(NamedTuple):
    """One recipe, and how it is run."""

    title: str
    module: str
    """What has to be installed."""
    install: str
    watches: str
    """How it hears of clients."""
    terminal: bool = False
    display: bool = False
    runner: tuple[str, ...] = ()
    """What the command line has between the interpreter and the file."""
    goodbye: bytes = b""
    """What its user types at the end, where Stop ends the server only."""
    own: int = 0
    """How often a second it wakes up by itself, at most."""
    can_be_bare: bool = True
    """Whether it is a program still when the server is taken out."""


RECIPES = {
    "tornado": Recipe("Tornado", "tornado", "pip install tornado", "`asyncio_loop`"),
    "gevent": Recipe(
        "gevent",
        "gevent",
        "pip install gevent",
        "a greenlet on the hub's watcher",
        can_be_bare=False,
    ),
    "urwid": Recipe("urwid", "urwid", "pip install urwid", "`watch_file`", terminal=True),
    "prompt_toolkit": Recipe(
        "prompt_toolkit",
        "prompt_toolkit",
        "pip install prompt_toolkit",
        "`asyncio_loop`",
        terminal=True,
        own=4,
    ),
    "textual": Recipe(
        "Textual", "textual", "pip install textual", "`asyncio_loop`", terminal=True, own=20
    ),
    "ipython": Recipe(
        "IPython",
        "IPython",
        "pip install ipython",
        "`asyncio_loop` and `%gui asyncio`",
        terminal=True,
        # Its tip of the day may well speak of exceptions.
        runner=("-m", "IPython", "--TerminalInteractiveShell.enable_tip=False", "-i"),
        goodbye=b"exit\r",
        own=4,
    ),
    "jupyter": Recipe(
        "Jupyter",
        "ipykernel",
        "pip install ipykernel",
        "`asyncio_loop` in a cell",
        runner=(str(HELPERS / "notebook.py"),),
        goodbye=b"\n",
        own=10,
    ),
    "pyglet": Recipe("pyglet", "pyglet", "pip install pyglet", "`select_devices`", display=True),
    "arcade": Recipe(
        "arcade", "arcade", "pip install arcade", "`frame_loop`", display=True, own=2000
    ),
    "kivy": Recipe("Kivy", "kivy", "pip install kivy", "`asyncio_loop`", display=True, own=200),
    "wx": Recipe("wx", "wx", "apt-get install python3-wxgtk4.0", "`glib_loop`", display=True),
    "matplotlib": Recipe(
        "matplotlib",
        "matplotlib",
        "pip install matplotlib",
        "the adapter of its toolkit",
        display=True,
    ),
    "blender": Recipe(
        "Blender (a stand-in for `bpy`)",
        "ipcpoll",
        "",
        "a timer of 20 ms",
        runner=(str(HELPERS / "bpy.py"),),
        own=60,
        can_be_bare=False,
    ),
    "qt_host": Recipe(
        "FreeCAD, Maya (a stand-in with PySide6)",
        "PySide6",
        "pip install PySide6-Essentials",
        "`qt_loop` in a macro",
        display=True,
        runner=(str(HELPERS / "qt_host.py"),),
        goodbye=b"\n",
    ),
    "curses": Recipe("curses", "_curses", "", "its own `select`", terminal=True, can_be_bare=False),
}


def program(name: str) -> Path:
    """Return the file of a recipe."""
    return FOLDER / f"in_{name}.py"


class Running:
    """A recipe that runs, with a runtime directory of its own, and a terminal where it needs one.

    The environment of this process has to name the same directory: there its clients look.
    """

    def __init__(
        self,
        name: str,
        directory: str,
        display: str,
        *,
        file: Path | None = None,
        runner: Sequence[str] = (),
    ) -> None:
        self.recipe = RECIPES[name]
        self.said = bytearray()
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(FOLDER))),
            # PyGObject of Debian 12 imports in an old way, ipykernel calls itself in one.
            "PYTHONWARNINGS": "error,ignore::ImportWarning,ignore::PendingDeprecationWarning",
            "XDG_RUNTIME_DIR": directory,
            "HOME": directory,  # for what they put down there
            "TERM": "xterm",
            "PROMPT_TOOLKIT_NO_CPR": "1",  # this terminal does not say where its cursor is
            "KIVY_NO_CONSOLELOG": "1",
        }
        environment.pop("DISPLAY", None)
        if self.recipe.display:
            environment["DISPLAY"] = display
        if self.recipe.terminal:
            own_end, its_end = os.openpty()
            self.keys: IO[bytes] = os.fdopen(own_end, "r+b", buffering=0)
            streams = {"stdin": its_end, "stdout": its_end, "stderr": its_end}
        else:
            streams = {
                "stdin": subprocess.PIPE,
                "stdout": subprocess.DEVNULL,
                "stderr": subprocess.PIPE,
            }
        self.process = subprocess.Popen(
            [sys.executable, *(runner or self.recipe.runner), str(file or program(name))],
            env=environment,
            start_new_session=True,  # signals of the terminal are this test's
            **streams,
        )
        if self.recipe.terminal:
            os.close(its_end)
            output = self.keys
        else:
            assert self.process.stdin is not None
            assert self.process.stderr is not None
            self.keys, output = self.process.stdin, self.process.stderr
        self.pid = self.process.pid
        self._reader = threading.Thread(target=self._read, args=(output,))
        self._reader.start()

    def _read(self, output: IO[bytes]) -> None:
        """Take what it prints, or it would wait for that: all of a terminal, or its errors."""
        try:
            while data := os.read(output.fileno(), 65536):
                self.said += data
        except OSError:
            pass  # a terminal that nobody has open any more

    def connect(self) -> ipcpoll.Client:
        """Wait until it can be called, and return a client. Learn who answers: a child, maybe."""
        path = ipcpoll.runtime_path("calc")

        def listens() -> bool:
            assert self.process.poll() is None, self.said.decode()
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(os.fspath(path)):
                    return False
                credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                self.pid = struct.unpack("3i", credentials)[0]
            return True

        wait_until(listens, f"the socket of {self.recipe.title}")
        return ipcpoll.Client("calc", timeout=PATIENCE)

    def wake_ups(self) -> int:
        """Return how often its threads have slept and were woken so far."""
        statuses = [task / "status" for task in Path(f"/proc/{self.pid}/task").iterdir()]
        lines = [line for status in statuses for line in status.read_text().splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt"))

    def idle(self, seconds: float) -> int:
        """Leave it alone for a while, and return how often it woke up."""
        before = self.wake_ups()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return self.wake_ups() - before
        raise AssertionError(f"it has ended: {self.said.decode()}")

    def end(self) -> tuple[int, str]:
        """Say goodbye, wait for its end, and return its exit code and what it printed."""
        self.keys.write(self.recipe.goodbye)
        self.keys.flush()
        code = self.process.wait(PATIENCE)
        self._reader.join()
        return code, self.said.decode()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        self.keys.close()
        if self.process.stderr is not None:
            self.process.stderr.close()


class _Without(ast.NodeTransformer):
    """Takes the server out of a program: what mentions it, and what mentions that."""

    def __init__(self) -> None:
        self.gone = {"server", "ipcpoll"}

    def _mentions(self, node: ast.AST) -> bool:
        return any(isinstance(one, ast.Name) and one.id in self.gone for one in ast.walk(node))

    def visit(self, node: ast.AST) -> object:
        if isinstance(node, ast.With) and self._mentions(node.items[0]):
            return [kept for one in node.body if (kept := self.visit(one)) is not None]
        if isinstance(node, ast.Expr | ast.Assign | ast.Return) and self._mentions(node):
            names = [one for one in ast.walk(node) if isinstance(one, ast.Name)]
            self.gone.update(one.id for one in names if isinstance(one.ctx, ast.Store))
            return None
        if isinstance(node, ast.If) and self._mentions(node.test):
            return None
        self.generic_visit(node)
        if isinstance(node, ast.stmt) and getattr(node, "body", None) == []:
            self.gone.add(getattr(node, "name", ""))
            return None
        return node


def without_ipcpoll(source: str) -> str:
    """Return the program that a recipe is without its server."""
    tree = ast.parse(source)
    _Without().visit(tree)
    return ast.unparse(tree)
