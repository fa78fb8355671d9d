"""The loops of adapters.py, each run in a process of its own: ``_loops.py LOOP KIND PATH``.

`KIND` is ``ipcpoll``, a server attached by its adapter, or ``bare``, which is what that is measured
against: a hand-written callback in the same loop that sends back what comes, or ``attached``: the
same echo as a `Pollable`, attached by the adapter, which shows what the adapter alone takes. The
first two say how often the process has waited, and the server been polled.
"""

from __future__ import annotations

import resource
import selectors
import socket
import struct
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from _servers import READ_BYTES, Add, end_with_parent, listen, ready

import ipcpoll
from ipcpoll.adapters import select_loop
from ipcpoll.testing import Watched

MARK: Final = b"mark"
USAGE: Final = struct.Struct("!QQ")


def waited() -> int:
    """Return how often this process has given up the processor by itself."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


class Loop(ABC):
    """One main loop: how a descriptor is watched by hand, how the adapter attaches, and `run`."""

    @abstractmethod
    def watch(self, sock: socket.socket, callback: Callable[[], bool]) -> None:
        """Call back when `sock` is readable, until that returns False."""

    @abstractmethod
    def attach(self, pollable: ipcpoll.Pollable, ctx: Any) -> None: ...

    @abstractmethod
    def run(self) -> None: ...


class Select(Loop):
    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()

    def watch(self, sock: socket.socket, callback: Callable[[], bool]) -> None:
        def ready() -> None:
            if not callback():
                self.selector.unregister(sock)

        self.selector.register(sock, selectors.EVENT_READ, ready)

    def attach(self, pollable: ipcpoll.Pollable, ctx: Any) -> None:
        select_loop.attach(pollable, ctx, self.selector)

    def run(self) -> None:
        while True:
            for key, _ in self.selector.select():
                key.data()


class Asyncio(Loop):
    def __init__(self) -> None:
        self.loop: Any = module("asyncio.new_event_loop")()

    def watch(self, sock: socket.socket, callback: Callable[[], bool]) -> None:
        def ready() -> None:
            if not callback():
                self.loop.remove_reader(sock)

        self.loop.add_reader(sock, ready)

    def attach(self, pollable: ipcpoll.Pollable, ctx: Any) -> None:
        adapter("asyncio_loop").attach(pollable, ctx, self.loop)

    def run(self) -> None:
        self.loop.run_forever()


class Uvloop(Asyncio):
    def __init__(self) -> None:
        self.loop = module("uvloop.new_event_loop")()


class Tasks(Loop):
    """By hand: a task for each descriptor. What is started before the loop runs waits for it."""

    adapter: str
    run_main: Any
    open_group: Any
    wait_readable: Any

    def __init__(self) -> None:
        self.waiting: list[Callable[[Any], object]] = []
        self.group: Any = None

    def start(self, begin: Callable[[Any], object]) -> None:
        if self.group is None:
            self.waiting.append(begin)
        else:
            begin(self.group)

    def watch(self, sock: socket.socket, callback: Callable[[], bool]) -> None:
        async def task() -> None:
            going = True
            while going:
                await self.wait_readable(sock)
                going = callback()

        self.start(lambda group: group.start_soon(task))

    def attach(self, pollable: ipcpoll.Pollable, ctx: Any) -> None:
        self.start(lambda group: adapter(self.adapter).attach(pollable, ctx, group))

    async def main(self) -> None:
        async with self.open_group() as self.group:
            for begin in self.waiting:
                begin(self.group)

    def run(self) -> None:
        self.run_main(self.main)


class Trio(Tasks):
    adapter = "trio_loop"

    def __init__(self) -> None:
        super().__init__()
        trio: Any = __import__("trio")
        self.run_main, self.open_group = trio.run, trio.open_nursery
        self.wait_readable = trio.lowlevel.wait_readable


class Anyio(Tasks):
    """On asyncio."""

    adapter = "anyio_loop"

    def __init__(self) -> None:
        super().__init__()
        anyio: Any = __import__("anyio")
        self.run_main, self.open_group = anyio.run, anyio.create_task_group
        self.wait_readable = anyio.wait_readable


class Tk(Loop):
    def __init__(self) -> None:
        self.tkinter: Any = __import__("tkinter")
        self.root = self.tkinter.Tk()

    def watch(self, sock: socket.socket, callback: Callable[[], bool]) -> None:
        def ready(*_: object) -> None:
            if not callback():
                self.root.tk.deletefilehandler(sock)

        self.root.tk.createfilehandler(sock, self.tkinter.READABLE, ready)

    def attach(self, pollable: ipcpoll.Pollable, ctx: Any) -> None:
        adapter("tk_loop").attach(pollable, ctx, self.root)

    def run(self) -> None:
        self.root.mainloop()


class GLib(Loop):
    def __init__(self) -> None:
        self.glib: Any = module("gi.repository.GLib")

    def watch(self, sock: socket.socket, callback: Callable[[], bool]) -> None:
        condition = self.glib.IOCondition.IN | self.glib.IOCondition.HUP
        self.glib.io_add_watch(
            sock.fileno(), self.glib.PRIORITY_DEFAULT, condition, lambda *_: callback()
        )

    def attach(self, pollable: ipcpoll.Pollable, ctx: Any) -> None:
        adapter("glib_loop").attach(pollable, ctx)

    def run(self) -> None:
        self.glib.MainLoop().run()


class Twisted(Loop):
    def __init__(self) -> None:
        self.reactor: Any = module("twisted.internet.reactor")

    def watch(self, sock: socket.socket, callback: Callable[[], bool]) -> None:
        self.reactor.addReader(Reader(sock, callback, self.reactor))

    def attach(self, pollable: ipcpoll.Pollable, ctx: Any) -> None:
        adapter("twisted_loop").attach(pollable, ctx, self.reactor)

    def run(self) -> None:
        self.reactor.run()


@dataclass(eq=False)
class Reader:
    """What a reactor watches."""

    sock: socket.socket
    callback: Callable[[], bool]
    reactor: Any

    def fileno(self) -> int:
        return self.sock.fileno()

    def doRead(self) -> None:
        if not self.callback():
            self.reactor.removeReader(self)

    def connectionLost(self, _: object) -> None:
        pass

    def logPrefix(self) -> str:
        return "bare"


def module(name: str) -> Any:
    """Import what the type checkers know nothing of."""
    parent, _, last = name.rpartition(".")
    return getattr(__import__(parent, fromlist=[last]), last)


def adapter(name: str) -> Any:
    return module(f"ipcpoll.adapters.{name}")


@dataclass(frozen=True)
class Known:
    """A loop, its adapter, and the module that must be installed."""

    loop: type[Loop]
    adapter: str
    needs: str
    display: bool = False


LOOPS: Final = {
    "select": Known(Select, "select_loop", "selectors"),
    "asyncio": Known(Asyncio, "asyncio_loop", "asyncio"),
    "uvloop": Known(Uvloop, "asyncio_loop", "uvloop"),
    "trio": Known(Trio, "trio_loop", "trio"),
    "anyio": Known(Anyio, "anyio_loop", "anyio"),
    "Tk": Known(Tk, "tk_loop", "tkinter", display=True),
    "GLib": Known(GLib, "glib_loop", "gi"),
    "Twisted": Known(Twisted, "twisted_loop", "twisted"),
}


class Usages:
    """The context of the server: who counts its polls."""

    watched: Watched


@dataclass
class Usage:
    """Answers how often the process has waited, and the server been polled."""

    def process(self, ctx: Usages) -> list[int]:
        return [waited(), ctx.watched.polls]


def serve(loop: Loop, path: str) -> None:
    """Attach a server."""
    ctx = Usages()
    ctx.watched = Watched(ipcpoll.Server(path, [Add, Usage]))
    loop.attach(ctx.watched, ctx)
    ready()
    loop.run()


class Echo:
    """One connection, as a `Pollable`: sends back what comes."""

    pending = False

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.attachments: set[ipcpoll.Attachment] = set()

    def fileno(self) -> int:
        return self.sock.fileno()

    def poll(self, ctx: Any, *, max_seconds: float | None = None) -> int:
        data = self.sock.recv(READ_BYTES)
        if data:
            self.sock.send(data)
        else:
            for attachment in list(self.attachments):
                attachment.detach()
            self.sock.close()
        return 1


def echo_attached(loop: Loop, path: str) -> None:
    with listen(path) as listener:

        def accept() -> bool:
            sock, _ = listener.accept()
            sock.setblocking(False)
            loop.attach(Echo(sock), None)
            return True

        loop.watch(listener, accept)
        loop.run()


def echo(loop: Loop, path: str) -> None:
    """By hand. It trusts that one recv brings one message."""
    with listen(path) as listener:
        clients: list[socket.socket] = []

        def accept() -> bool:
            sock, _ = listener.accept()
            sock.setblocking(False)
            clients.append(sock)

            def read() -> bool:
                data = sock.recv(READ_BYTES)
                if data == MARK:
                    data = USAGE.pack(waited(), 0)
                if data:
                    sock.send(data)
                return bool(data)

            loop.watch(sock, read)
            return True

        loop.watch(listener, accept)
        loop.run()


if __name__ == "__main__":
    end_with_parent()
    name, kind, path = sys.argv[1:]
    loop = LOOPS[name].loop()
    {"ipcpoll": serve, "bare": echo, "attached": echo_attached}[kind](loop, path)
