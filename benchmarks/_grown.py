"""The other processes of growth.py, payloads.py and fairness.py: ``_grown.py NAME PATH COUNT``.

Servers with many commands, or that carry much; and those who come in numbers: clients that say
nothing, and clients that flood.
"""

from __future__ import annotations

import dataclasses
import select
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import cbor2
from _measure import allow_open_files
from _servers import Add, end_with_parent, listen, ready

import ipcpoll
from ipcpoll._wire.framing import frame

MIB: Final = 1024 * 1024
LENGTH_BYTES: Final = 4
SPARE_DESCRIPTORS: Final = 100
FLOOD: Final = frame(cbor2.dumps([1, "Add", {"a": 2, "b": 3}])) * 2000


@dataclass
class Echo:
    """Carries bytes there and back."""

    data: bytes

    def process(self, ctx: None) -> bytes:
        return self.data


@dataclass
class Point:
    """One of the many inside a `Shape`."""

    x: float
    y: float
    name: str


@dataclass
class Shape:
    """Carries a nested dataclass there and back."""

    points: list[Point]

    def process(self, ctx: None) -> list[Point]:
        return self.points


def affordable(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return so many clients as a server here may have: a quarter of the open files allowed."""
    most = allow_open_files(4 * (sizes[-1] + SPARE_DESCRIPTORS))
    fitting = tuple(size for size in sizes if 4 * (size + SPARE_DESCRIPTORS) <= most)
    if fitting != sizes:
        print(f"{most} open files are allowed, so {fitting[-1]} connections at most")
    return fitting


def serve(path: str, *commands: Any, clients: int = 300) -> None:
    """Serve, waiting on the descriptor."""
    allow_open_files(4 * (clients + SPARE_DESCRIPTORS))
    limits = ipcpoll.Limits(max_clients=clients + 16, max_frame=2 * MIB)
    with ipcpoll.Server(path, commands, limits=limits) as server, select.epoll() as epoll:
        epoll.register(server, select.EPOLLIN)
        ready()
        while True:
            epoll.poll()
            server.poll(None)


def serve_clients(path: str, count: int) -> None:
    """Serve what is called while that many clients are connected."""
    serve(path, Add, Echo, Shape, clients=count)


def serve_commands(path: str, count: int) -> None:
    """Serve that many commands, `Add` among them."""
    others = [
        dataclasses.make_dataclass(
            f"Command{number}", [("a", int), ("b", int)], namespace={"process": Add.process}
        )
        for number in range(count - 1)
    ]
    serve(path, *others, Add)


def serve_bytes(path: str, _: int) -> None:
    """Send back what comes behind its length: a blocking socket and one buffer."""
    buffer = bytearray(2 * MIB)
    view = memoryview(buffer)
    with listen(path) as listener:
        while True:
            sock, _ = listener.accept()
            with sock:
                while receive(sock, view[:LENGTH_BYTES]):
                    size = int.from_bytes(view[:LENGTH_BYTES], "big")
                    receive(sock, view[LENGTH_BYTES : LENGTH_BYTES + size])
                    sock.sendall(view[: LENGTH_BYTES + size])


def receive(sock: socket.socket, view: memoryview) -> bool:
    """Fill the view; False: the other end is gone."""
    got = 0
    while got < len(view):
        count = sock.recv_into(view[got:])
        if not count:
            return False
        got += count
    return True


def hold(path: str, count: int) -> None:
    """Connect that many clients, which then say nothing."""
    allow_open_files(count + SPARE_DESCRIPTORS)
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(path)
        ready()
        select.select([], [], [])  # its end comes from its parent


def sleep_and_read(path: str, _: int) -> None:
    """Sleep until something comes, and read it."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        ready()
        while sock.recv(MIB):
            pass


def flood(path: str, count: int) -> None:
    """Send commands as fast as they are taken, on that many connections; discard the answers."""
    with ExitStack() as stack, select.epoll() as epoll:
        sockets: dict[int, socket.socket] = {}
        left: dict[int, memoryview] = {}
        for _ in range(count):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(path)
            sock.setblocking(False)
            sockets[sock.fileno()], left[sock.fileno()] = sock, memoryview(FLOOD)
            epoll.register(sock, select.EPOLLIN | select.EPOLLOUT)
        ready()
        while True:
            for fd, events in epoll.poll():
                if events & select.EPOLLIN:
                    sockets[fd].recv(MIB)
                if events & select.EPOLLOUT:
                    left[fd] = left[fd][sockets[fd].send(left[fd]) :] or memoryview(FLOOD)


PROGRAMS: Final[dict[str, Callable[[str, int], None]]] = {
    "clients": serve_clients,
    "commands": serve_commands,
    "bytes": serve_bytes,
    "hold": hold,
    "flood": flood,
    "sleep_and_read": sleep_and_read,
}

if __name__ == "__main__":
    end_with_parent()
    PROGRAMS[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
