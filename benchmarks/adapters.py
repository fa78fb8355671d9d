"""What an adapter costs: a round trip through each main loop, and what it does while it is idle.

Beside each adapter, in the same rounds: a hand-written callback in the same loop, which sends back
the bytes that come. The same client, a bare socket, sends the same bytes to three: that callback,
the same echo attached by the adapter (what the adapter takes), and a server attached by it (what
decoding, checking, running and encoding take as well). `Client.call` is what a user waits.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import statistics
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import TypeAlias

import _loops
import cbor2
from _calls import Cores, placements
from _loops import LOOPS, MARK, USAGE, Usage
from _measure import Options, alternate, child, ratio, run, table, working_directory
from _servers import READ_BYTES, Add

import ipcpoll
from ipcpoll._wire.framing import frame

WARM_UP = 20
IDLE_SECONDS = 3.0
QUICK_IDLE_SECONDS = 0.1
AIM = 1.5

Address: TypeAlias = tuple[str, int]
"""A process that serves: the path of its socket, and its process id."""


def usable() -> list[str]:
    """Return the loops that can be measured here; say of each other one why it can't."""
    names: list[str] = []
    for name, known in LOOPS.items():
        if importlib.util.find_spec(f"ipcpoll.adapters.{known.adapter}") is None:
            print(f"{name}: skipped, there is no {known.adapter}")
        elif importlib.util.find_spec(known.needs) is None:
            print(f"{name}: skipped, {known.needs} is not installed")
        elif known.display and not os.environ.get("DISPLAY"):
            print(f"{name}: skipped, there is no display")
        else:
            names.append(name)
    return names


@contextmanager
def connected(address: Address, cores: Cores) -> Generator[socket.socket]:
    """Put the two processes on their cores, and give a connection."""
    path, pid = address
    os.sched_setaffinity(0, {cores.client})
    os.sched_setaffinity(pid, {cores.server})
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        yield sock


def time_calls(call: Callable[[], object], count: int) -> float:
    """Return microseconds for one call, the median."""
    for _ in repeat(None, WARM_UP):
        call()
    now, took = time.perf_counter_ns, list[int]()
    for _ in repeat(None, count):
        began = now()
        call()
        took.append(now() - began)
    return statistics.median(took) / 1000


def time_bytes(address: Address, count: int, cores: Cores) -> float:
    """Send one frame after the other over a bare socket."""
    message = frame(cbor2.dumps([1, "Add", {"a": 2, "b": 3}]))
    with connected(address, cores) as sock:

        def call() -> bytes:
            sock.sendall(message)
            return sock.recv(READ_BYTES)

        return time_calls(call, count)


def time_client(address: Address, count: int, cores: Cores) -> float:
    """Use `ipcpoll.Client`."""
    with connected(address, cores), ipcpoll.Client(address[0]) as client:
        return time_calls(lambda: client.call(Add(2, 3)), count)


def idle(address: Address, kind: str, seconds: float) -> tuple[int, int]:
    """Stay silent for a while; return how often the process waited meanwhile, and was polled.

    To be woken by the second mark costs one wait and one poll; the poll is not counted.
    """
    with ExitStack() as stack:
        if kind == "bare":
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(address[0])

            def usage() -> tuple[int, ...]:
                sock.sendall(MARK)
                return USAGE.unpack(sock.recv(READ_BYTES))
        else:
            client = stack.enter_context(ipcpoll.Client(address[0]))

            def usage() -> tuple[int, ...]:
                return tuple(client.call(Usage()))

        usage()
        time.sleep(seconds / 10)  # what the start has left to do
        waits, polls = usage()
        time.sleep(seconds)
        waits_now, polls_now = usage()
    return waits_now - waits, max(0, polls_now - polls - 1)


def measure(address: dict[str, Address], options: Options, cores: Cores) -> dict[str, list[float]]:
    """Return the microseconds of each round, by candidate."""
    count = 50 if options.quick else 1000
    return alternate(
        options.rounds,
        {
            "bare": partial(time_bytes, address["bare"], count, cores),
            "attached": partial(time_bytes, address["attached"], count, cores),
            "server": partial(time_bytes, address["ipcpoll"], count, cores),
            "client": partial(time_client, address["ipcpoll"], count, cores),
        },
    )


def benchmark(options: Options) -> None:
    seconds = QUICK_IDLE_SECONDS if options.quick else IDLE_SECONDS
    everywhere = os.sched_getaffinity(0)
    names = usable()
    with working_directory() as directory, ExitStack() as stack:
        addresses: dict[str, dict[str, Address]] = {}
        for number, name in enumerate(names):
            addresses[name] = {}
            for kind in ("bare", "attached", "ipcpoll"):
                path = str(directory / f"{number}.{kind}")
                pid = stack.enter_context(child(Path(_loops.__file__), name, kind, path))
                addresses[name][kind] = (path, pid)
        print("\nMicroseconds for one round trip (medians), and ratios within a round (median,")
        print(f"middle half). Aim for the adapter: {AIM} times the callback written by hand.")
        for placement, cores in placements().items():
            print(f"\nWith {placement}\n", flush=True)
            rows: list[list[str]] = []
            for name in names:
                samples = measure(addresses[name], options, cores)
                options.keep(f"{name}, {placement}", samples, over=["bare"])
                bare, *others = samples.values()
                medians = [f"{statistics.median(took):.1f}" for took in (bare, *others)]
                rows.append([name, *medians, *(ratio(took, bare) for took in others)])
            measured = ["adapter", "server", "Client.call"]
            ratios = [f"{what} / by hand" for what in measured]
            table(["loop", "by hand", *measured, *ratios], rows)
        os.sched_setaffinity(0, everywhere)
        print(
            f"Idle for {seconds:g} s with a client that says nothing: how often the process waited"
        )
        print("(1 is the client that ends it), and how often the server was polled.\n")
        rows = []
        for name in names:
            waits, _ = idle(addresses[name]["bare"], "bare", seconds)
            waits_attached, polls = idle(addresses[name]["ipcpoll"], "ipcpoll", seconds)
            rows.append([name, str(waits), str(waits_attached), str(polls)])
            idled = {"waits by hand": [waits], "waits": [waits_attached], "polls": [polls]}
            options.keep(f"{name}, idle", idled)
        table(["loop", "waits, by hand", "waits, adapter", "polls"], rows)


if __name__ == "__main__":
    run(benchmark, about=__doc__, rounds=20)
