"""What the benchmarks of calls between two processes share: where both run, and what a call took.

Each server runs in a process of its own. Both processes are pinned, with all their threads: left
alone, the scheduler changes between one core and two as it likes, and no ratio would be worth much.
"""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TypeAlias

import _servers
import cbor2
from _measure import ProcessClock, child, percentile, ratio
from _servers import PING_BYTES, READ_BYTES, Add

import ipcpoll

WARM_UP = 20

Call: TypeAlias = Callable[[], object]
Opened: TypeAlias = Callable[[str], Generator[Call]]
"""Connects to the server at a path, gives what makes one call, closes."""

ONE_CORE = "both processes on one core"
TWO_CORES = "each process on a core of its own"


@dataclass(frozen=True)
class Sample:
    """What the calls of one candidate in one round took, in microseconds for one call."""

    each: list[float]  # wall time, call by call; of a pipeline the mean alone
    wall: float  # the median of these
    client: float  # processor time
    server: float

    @property
    def processor(self) -> float:
        return self.client + self.server

    def derived(self) -> dict[str, float]:
        """Return what is written beside the fields."""
        return {"p99": percentile(self.each, 0.99), "processor": self.processor}


# ---------------------------------------------------------------------------------------------
# The candidates that every suite of calls is measured beside


def ping(path: str) -> Generator[Call]:
    message = bytes(PING_BYTES)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)

        def call() -> bytes:
            sock.sendall(message)
            return sock.recv(PING_BYTES)

        yield call


def bare(path: str) -> Generator[Call]:
    decode = _servers.make_decode()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)

        def call() -> int:
            sock.sendall(cbor2.dumps([1, "Add", {"a": 2, "b": 3}]))
            answer: int = decode(sock.recv(READ_BYTES))[2]
            return answer

        yield call


def ipcpoll_call(path: str) -> Generator[Call]:
    with ipcpoll.Client(path) as client:
        yield lambda: client.call(Add(2, 3))


def ping_once(path: str) -> Generator[Call]:
    message = bytes(PING_BYTES)

    def call() -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            sock.sendall(message)
            return sock.recv(PING_BYTES)

    yield call


def ipcpoll_once(path: str) -> Generator[Call]:
    yield lambda: ipcpoll.send(Add(2, 3), path)


# ---------------------------------------------------------------------------------------------
# Where they run


@dataclass(frozen=True)
class Cores:
    """Where the two processes run."""

    client: int
    server: int


def placements() -> dict[str, Cores]:
    cores = sorted(os.sched_getaffinity(0))
    found = {ONE_CORE: Cores(cores[0], cores[0])}
    if len(cores) > 1:
        found[TWO_CORES] = Cores(cores[0], cores[-1])
    return found


def pin(pid: int, core: int) -> None:
    """Put a process on a core, with the threads that it has; those it starts later follow."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            os.sched_setaffinity(int(thread), {core})
        except ProcessLookupError:
            pass  # it has just ended


class Server:
    """A server in a process of its own."""

    def __init__(
        self,
        name: str,
        directory: Path,
        stack: ExitStack,
        *arguments: str,
        program: str = _servers.__file__,
    ) -> None:
        self.path = str(directory / name)
        self.pid = stack.enter_context(child(Path(program), name, self.path, *arguments))
        self.clock = ProcessClock(self.pid)

    def place(self, cores: Cores) -> None:
        """Put this process and the server's on their cores."""
        pin(os.getpid(), cores.client)
        pin(self.pid, cores.server)


# ---------------------------------------------------------------------------------------------
# Measuring


class Clocks:
    """The processor time of both processes, from now on."""

    def __init__(self, server: Server) -> None:
        self._server = server.clock
        self._client_began, self._server_began = time.process_time_ns(), server.clock.nanoseconds()

    def sample(self, took: list[int]) -> Sample:
        """Return what calls took whose nanoseconds these are."""
        client = (time.process_time_ns() - self._client_began) / len(took) / 1000
        server = (self._server.nanoseconds() - self._server_began) / len(took) / 1000
        each = [nanoseconds / 1000 for nanoseconds in took]
        return Sample(each, statistics.median(each), client, server)

    def mean(self, took: int, count: int) -> Sample:
        """Return what so many calls took together."""
        client = (time.process_time_ns() - self._client_began) / count / 1000
        server = (self._server.nanoseconds() - self._server_began) / count / 1000
        wall = took / count / 1000
        return Sample([wall], wall, client, server)


def time_calls(call: Call, server: Server, count: int) -> Sample:
    """Make one call after the other, each timed alone."""
    for _ in repeat(None, WARM_UP):
        call()
    now, took = time.perf_counter_ns, [0] * count
    clocks = Clocks(server)
    for number in range(count):
        began = now()
        call()
        took[number] = now() - began
    return clocks.sample(took)


async def time_awaited(call: Callable[[], Awaitable[object]], server: Server, count: int) -> Sample:
    """Do the same inside a running loop, whichever it is."""
    for _ in repeat(None, WARM_UP):
        await call()
    now, took = time.perf_counter_ns, [0] * count
    clocks = Clocks(server)
    for number in range(count):
        began = now()
        await call()
        took[number] = now() - began
    return clocks.sample(took)


def measure_calls(opened: Opened, server: Server, count: int, cores: Cores) -> Sample:
    """Make calls over one connection, one after the other."""
    server.place(cores)
    with contextmanager(opened)(server.path) as call:
        return time_calls(call, server, count)


def measure_map(server: Server, count: int, depth: int, cores: Cores) -> Sample:
    """Make all calls at once, `depth` of them in flight."""
    server.place(cores)
    with ipcpoll.Client(server.path) as client:
        for _ in client.map(repeat(Add(2, 3), WARM_UP), depth=depth):
            pass
        clocks = Clocks(server)
        began = time.perf_counter_ns()
        for _ in client.map((Add(2, 3) for _ in repeat(None, count)), depth=depth):
            pass
        return clocks.mean(time.perf_counter_ns() - began, count)


# ---------------------------------------------------------------------------------------------
# Showing

COSTS = ("median", "p99", "CPU client", "CPU server")


def row(name: str, samples: list[Sample]) -> list[str]:
    each = [took for sample in samples for took in sample.each]
    return [
        name,
        f"{statistics.median(sample.wall for sample in samples):.1f}",
        f"{percentile(each, 0.99):.1f}",
        f"{statistics.median(sample.client for sample in samples):.1f}",
        f"{statistics.median(sample.server for sample in samples):.1f}",
    ]


def wall_ratio(samples: list[Sample], base: list[Sample]) -> str:
    return ratio([sample.wall for sample in samples], [sample.wall for sample in base])


def processor_ratio(samples: list[Sample], base: list[Sample]) -> str:
    return ratio([sample.processor for sample in samples], [sample.processor for sample in base])
