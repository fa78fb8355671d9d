"""What one small typed call between two processes costs: `Add(2, 3)`, answered with an int.

Beside it, in the same rounds: a ping-pong of 24 bytes between blocking sockets, which is the floor
for Python, and a bare loop that does the same typed call with epoll, cbor2 and msgspec and without
a library. Then the same command pipelined (`Client.map`), and one-shot (`ipcpoll.send`) beside
connecting, sending, receiving and closing by hand.

All that twice: with both processes on one core, where a call takes what the two compute and nothing
else, and with each on its own, where each has to be woken for each message. Left alone, the
scheduler changes between the two as it likes, and no ratio would be worth much.
"""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import TypeAlias

import _servers
import cbor2
from _measure import Options, ProcessClock, alternate, child, ratio, run, table, working_directory
from _servers import PING_BYTES, READ_BYTES, Add

import ipcpoll

DEPTH = 64
WARM_UP = 20

Call: TypeAlias = Callable[[], object]
Opened: TypeAlias = Callable[[str], Generator[Call]]
"""Connects to the server at a path, gives what makes one call, closes."""


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


# ---------------------------------------------------------------------------------------------
# Candidates


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
# Measuring


class Server:
    """A server in a process of its own."""

    def __init__(self, name: str, directory: Path, stack: ExitStack) -> None:
        self.path = str(directory / name)
        program = Path(_servers.__file__)
        self._pid = stack.enter_context(child(program, name, self.path))
        self.clock = ProcessClock(self._pid)

    def place(self, cores: Cores) -> None:
        """Put this process and the server's on their cores."""
        os.sched_setaffinity(0, {cores.client})
        os.sched_setaffinity(self._pid, {cores.server})


@dataclass(frozen=True)
class Cores:
    """Where the two processes run."""

    client: int
    server: int


def placements() -> dict[str, Cores]:
    cores = sorted(os.sched_getaffinity(0))
    found = {"both processes on one core": Cores(cores[0], cores[0])}
    if len(cores) > 1:
        found["each process on a core of its own"] = Cores(cores[0], cores[-1])
    return found


def measure_calls(opened: Opened, server: Server, count: int, cores: Cores) -> Sample:
    """Make one call after the other, each timed alone."""
    server.place(cores)
    now = time.perf_counter_ns
    took = [0] * count
    with contextmanager(opened)(server.path) as call:
        for _ in repeat(None, WARM_UP):
            call()
        client_began, server_began = time.process_time_ns(), server.clock.nanoseconds()
        for number in range(count):
            began = now()
            call()
            took[number] = now() - began
        client_took = time.process_time_ns() - client_began
        server_took = server.clock.nanoseconds() - server_began
    each = [nanoseconds / 1000 for nanoseconds in took]
    wall = statistics.median(each)
    return Sample(each, wall, client_took / count / 1000, server_took / count / 1000)


def measure_map(server: Server, count: int, cores: Cores) -> Sample:
    """Make all calls at once, `DEPTH` of them in flight."""
    server.place(cores)
    with ipcpoll.Client(server.path) as client:
        for _ in client.map(repeat(Add(2, 3), WARM_UP), depth=DEPTH):
            pass
        client_began, server_began = time.process_time_ns(), server.clock.nanoseconds()
        began = time.perf_counter_ns()
        for _ in client.map((Add(2, 3) for _ in repeat(None, count)), depth=DEPTH):
            pass
        wall = (time.perf_counter_ns() - began) / count / 1000
        client_took = time.process_time_ns() - client_began
        server_took = server.clock.nanoseconds() - server_began
    return Sample([wall], wall, client_took / count / 1000, server_took / count / 1000)


# ---------------------------------------------------------------------------------------------
# Showing


def row(name: str, samples: list[Sample]) -> list[str]:
    each = sorted(took for sample in samples for took in sample.each)
    return [
        name,
        f"{statistics.median(sample.wall for sample in samples):.1f}",
        f"{each[len(each) * 99 // 100]:.1f}",
        f"{statistics.median(sample.client for sample in samples):.1f}",
        f"{statistics.median(sample.server for sample in samples):.1f}",
    ]


def wall_ratio(samples: list[Sample], base: list[Sample]) -> str:
    return ratio([sample.wall for sample in samples], [sample.wall for sample in base])


def processor_ratio(samples: list[Sample], base: list[Sample]) -> str:
    return ratio([sample.processor for sample in samples], [sample.processor for sample in base])


COSTS = ("median", "p99", "CPU client", "CPU server")


def show(samples: dict[str, list[Sample]]) -> None:
    floor, loop, once = samples["ping"], samples["bare"], samples["ping once"]
    names = {"ping": "bare ping-pong, 24 bytes", "bare": "bare loop, same codec"}
    names["call"] = "ipcpoll, Client.call"
    table(
        ["one call at a time", *COSTS, "wall / ping-pong", "wall / bare loop", "CPU / bare loop"],
        [
            [
                *row(shown, samples[name]),
                wall_ratio(samples[name], floor),
                wall_ratio(samples[name], loop),
                processor_ratio(samples[name], loop),
            ]
            for name, shown in names.items()
        ],
    )
    mean, _, *processor_times = row("", samples["map"])[1:]
    table(
        [f"pipelined, depth {DEPTH}", "mean", *COSTS[2:], "commands per ping-pong"],
        [["ipcpoll, Client.map", mean, *processor_times, wall_ratio(floor, samples["map"])]],
    )
    names = {"ping once": "bare connect-send-recv-close", "send": "ipcpoll.send"}
    table(
        ["one-shot", *COSTS, "wall / bare", "CPU / bare"],
        [
            [
                *row(shown, samples[name]),
                wall_ratio(samples[name], once),
                processor_ratio(samples[name], once),
            ]
            for name, shown in names.items()
        ],
    )


def benchmark(options: Options) -> None:
    count = 50 if options.quick else 1000
    candidates: dict[str, Callable[[Cores], Sample]]
    with working_directory() as directory, ExitStack() as stack:
        pinger, looper, server = (
            Server(name, directory, stack) for name in ("ping", "bare", "ipcpoll")
        )
        candidates = {
            "ping": partial(measure_calls, ping, pinger, count),
            "bare": partial(measure_calls, bare, looper, count),
            "call": partial(measure_calls, ipcpoll_call, server, count),
            "map": partial(measure_map, server, 2 * count),
            "ping once": partial(measure_calls, ping_once, pinger, count // 2),
            "send": partial(measure_calls, ipcpoll_once, server, count // 2),
        }
        print(
            "Microseconds for one call, wall time and processor time of both processes (medians),"
        )
        print("and ratios within a round (median, middle half).")
        for placement, cores in placements().items():
            placed = {name: partial(measure, cores) for name, measure in candidates.items()}
            print(f"\nWith {placement}\n", flush=True)
            show(alternate(options.rounds, placed))


if __name__ == "__main__":
    run(benchmark, about=__doc__, rounds=20)
