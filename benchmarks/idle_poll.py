"""What `Server.poll` costs a program's loop when nothing is ready.

Beside it, in the same rounds and through the same loop: `select.epoll.poll(0)` on an epoll set with
as many idle sockets, which is the least that any answer to "is anything ready?" can cost.
"""

from __future__ import annotations

import functools
import select
import socket
import statistics
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate, repeat
from pathlib import Path
from typing import Any

from _measure import Options, allow_open_files, alternate, ratio, run, table, working_directory

import ipcpoll

CONNECTIONS = (0, 1, 10, 100, 1000, 5000, 10_000)
QUICK_CONNECTIONS = (0, 1, 100)
SPARE_DESCRIPTORS = 100  # the interpreter's own, listeners, epoll sets
CONNECTS_AT_ONCE = 32  # fewer than a server's backlog, and than it accepts in one poll
AIM = 1.6


@dataclass
class Nothing:
    """The server's only command. Nobody calls it."""

    def process(self, ctx: None) -> None:
        pass


@contextmanager
def idle_server(path: Path, connections: int) -> Generator[tuple[Callable[..., int], Any]]:
    """Give the `poll` of a server with idle clients, and of a bare epoll set of the same size.

    The bare set watches the clients' ends of the same connections: idle Unix sockets as well.
    """
    limits = ipcpoll.Limits(max_clients=connections + 1)
    with ExitStack() as stack:
        server = stack.enter_context(ipcpoll.Server(path, Nothing, limits=limits))
        bare = stack.enter_context(select.epoll())
        for number in range(connections):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(path))
            bare.register(client, select.EPOLLIN)
            if number % CONNECTS_AT_ONCE == 0:
                server.poll(None)
        # A server watches two more: its listener, and the descriptor that wakes it.
        for extra in stack.enter_context(idle_pair()):
            bare.register(extra, select.EPOLLIN)
        while server.poll(None, max_commands=0) or server.stats()["clients"] < connections:
            pass
        watch = select.poll()
        watch.register(server)
        watch.register(bare)
        if watch.poll(0):
            raise RuntimeError("something is ready, so this is not what an idle poll costs")
        yield server.poll, bare.poll


@contextmanager
def idle_pair() -> Generator[tuple[socket.socket, socket.socket]]:
    """Give two connected sockets with nothing to read."""
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def time_polls(poll: Callable[[Any], object], argument: Any, count: int) -> float:
    """Return microseconds for one call."""
    began = time.perf_counter_ns()
    for _ in repeat(None, count):
        poll(argument)
    return (time.perf_counter_ns() - began) / count / 1000


def affordable(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Raise the limit of open files as far as it goes; return the sizes that it allows together.

    A server takes in no more clients than a quarter of it.
    """
    needed = [
        max(2 * total + SPARE_DESCRIPTORS, 4 * size)
        for size, total in zip(sizes, accumulate(sizes), strict=True)
    ]
    most = allow_open_files(needed[-1])
    fitting = tuple(size for size, need in zip(sizes, needed, strict=True) if need <= most)
    if fitting != sizes:
        print(f"{most} open files are allowed and {needed[-1]} were wanted: {fitting[-1]} at most")
    return fitting


def benchmark(options: Options) -> None:
    sizes = affordable(QUICK_CONNECTIONS if options.quick else CONNECTIONS)
    count = 200 if options.quick else 10_000
    candidates: dict[str, Callable[[], float]] = {}
    with working_directory() as directory, ExitStack() as stack:
        for size in sizes:
            poll, bare_poll = stack.enter_context(idle_server(directory / f"{size}", size))
            candidates[f"bare {size}"] = functools.partial(time_polls, bare_poll, 0, count)
            candidates[f"server {size}"] = functools.partial(time_polls, poll, None, count)
        samples = alternate(options.rounds, candidates)
    options.keep("idle poll", samples, over=[f"bare {size}" for size in sizes])

    print("One poll with nothing ready, in microseconds (medians), and ratios within a round")
    print(f"(median, middle half). Aim: {AIM} times the bare poll, and flat.\n")
    rows = []
    for size in sizes:
        server, bare = samples[f"server {size}"], samples[f"bare {size}"]
        row = [f"{size}", f"{statistics.median(bare):.3f}", f"{statistics.median(server):.3f}"]
        rows.append([*row, ratio(server, bare), ratio(server, samples["server 0"])])
    table(["connections", "epoll.poll(0)", "Server.poll", "ratio", "to no connection"], rows)


if __name__ == "__main__":
    run(benchmark, about=__doc__, rounds=80)
