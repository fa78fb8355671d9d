"""One-shot commands to a program that polls in a tight loop: what they cost, and how many are lost.

Beside ipcpoll stands a server that does exactly what the Rust crate `ipc-server` does, in Python
and with the codec of the others: each poll accepts what waits, and reads from each connection right
then, once, at most 1,024 bytes. That is one command; if the bytes are not there yet, the connection
is dropped and its command is lost. The tighter the loop, the more are.

Both servers poll without ever waiting, so each process needs a core of its own: on one core the
client is mostly done with sending before the server's turn comes, and few are lost.
"""

from __future__ import annotations

import math
import socket
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what all benchmarks share

import cbor2
from _calls import Cores, Server, placements
from _measure import Options, alternate, percentile, ratio, run, table, working_directory
from _servers import READ_BYTES, Add, make_decode

import ipcpoll


@dataclass(frozen=True)
class Sample:
    """One-shot commands of one round."""

    each: list[float]  # microseconds of those that were answered
    wall: float  # their median
    p99: float
    sent: int
    lost: int


def send_bare(decode: Callable[[bytes], Any], path: str) -> bool:
    """Connect, send, receive, close; False: it was lost."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        try:
            sock.sendall(cbor2.dumps([1, "Add", {"a": 2, "b": 3}]))
            data = sock.recv(READ_BYTES)
        except ConnectionError:  # BrokenPipe: dropped before it could send
            return False
        return bool(data) and decode(data)[2] == 5


def send_ipcpoll(path: str) -> bool:
    try:
        return ipcpoll.send(Add(2, 3), path) == 5
    except ipcpoll.IpcError:
        return False


def measure(
    name: str, send: Callable[[str], bool], directory: Path, count: int, cores: Cores
) -> Sample:
    """Start a server, which takes a core all the time, and send it so many commands."""
    with ExitStack() as stack:
        server = Server(name, directory, stack)
        server.place(cores)
        send(server.path)
        now, took, lost = time.perf_counter_ns, list[float](), 0
        for _ in range(count):
            began = now()
            if send(server.path):
                took.append((now() - began) / 1000)
            else:
                lost += 1
    Path(server.path).unlink(missing_ok=True)
    each = took or [math.nan]
    return Sample(each, statistics.median(each), percentile(each, 0.99), count, lost)


def benchmark(options: Options) -> None:
    count = 20 if options.quick else 1000
    sends: dict[str, Callable[[str], bool]] = {
        "read after accept": partial(send_bare, make_decode()),
        "ipcpoll, tight loop": send_ipcpoll,
    }
    with working_directory() as directory:
        placement, cores = list(placements().items())[-1]
        print(f"With {placement}\n", flush=True)
        samples = alternate(
            options.rounds,
            {
                name: partial(measure, name, send, directory, count, cores)
                for name, send in sends.items()
            },
        )
    show(samples)
    options.keep(placement, samples, over=("read after accept",))


def show(samples: dict[str, list[Sample]]) -> None:
    walls = {name: [sample.wall for sample in each] for name, each in samples.items()}
    rows = [
        [
            name,
            f"{sum(sample.sent for sample in each)}",
            f"{sum(sample.lost for sample in each)}",
            f"{statistics.median(walls[name]):.1f}",
            f"{percentile([took for sample in each for took in sample.each], 0.99):.1f}",
            ratio(walls[name], walls["read after accept"]),
        ]
        for name, each in samples.items()
    ]
    table(["one-shot", "sent", "lost", "µs, answered ones", "p99", "ratio"], rows)


if __name__ == "__main__":
    run(benchmark, about=__doc__, rounds=10)
