"""What an idle connection takes: memory of the server's process, and what it is made of.

Server and clients are two other processes. Memory is what the server's process has to itself (the
private pages in `/proc/PID/smaps_rollup`), before the clients come and after; the kernel's part of
a connection is not in it. Then Python's allocations are traced, here and with fewer connections,
and summed up by the file that made them.
"""

from __future__ import annotations

import re
import statistics
import time
import tracemalloc
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import _grown
from _calls import Server
from _measure import Options, alternate, child, run, table, working_directory
from _servers import Add

import ipcpoll

CONNECTIONS = (100, 1000, 4000, 10_000)
QUICK_CONNECTIONS = (100,)
TRACED = 500  # fewer than a backlog: they connect before the server polls
MOST_SHOWN = 8
PRIVATE = re.compile(r"^Private_(?:Clean|Dirty): +(\d+) kB", re.MULTILINE)
PATIENCE_SECONDS = 30


def private_bytes(pid: int) -> int:
    return sum(map(int, PRIVATE.findall(Path(f"/proc/{pid}/smaps_rollup").read_text()))) * 1024


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def measure(directory: Path, count: int) -> float:
    """Return bytes for each of so many idle connections."""
    with ExitStack() as stack:
        server = Server("clients", directory, stack, f"{count}", program=_grown.__file__)
        with ipcpoll.Client(server.path) as client:
            client.call(Add(2, 3))  # what the first call loads is not a connection's
        before, open_files = private_bytes(server.pid), descriptors(server.pid)
        stack.enter_context(child(Path(_grown.__file__), "hold", server.path, f"{count}"))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while descriptors(server.pid) < open_files + count - 1:  # the first client may be there yet
            if time.monotonic() > deadline:
                raise RuntimeError(f"{server.path} does not take in {count} clients")
            with ipcpoll.Client(server.path) as client:
                client.call(Add(2, 3))  # answered after a poll, which accepts
        return (private_bytes(server.pid) - before) / count


def trace(directory: Path) -> dict[str, float]:
    """Return bytes for one connection by the file that allocated them."""
    path = str(directory / "traced")
    limits = ipcpoll.Limits(max_clients=TRACED + 1)
    with ipcpoll.Server(path, Add, limits=limits) as server:
        server.poll(None)
        with child(Path(_grown.__file__), "hold", path, f"{TRACED}"):
            tracemalloc.start()
            before = tracemalloc.take_snapshot()
            while server.poll(None, max_commands=0) or server.stats()["clients"] < TRACED:
                pass
            found = tracemalloc.take_snapshot().compare_to(before, "filename")
            tracemalloc.stop()
    return {
        Path(each.traceback[0].filename).name: each.size_diff / TRACED
        for each in found
        if each.size_diff > TRACED  # a byte for each
    }


def benchmark(options: Options) -> None:
    sizes = QUICK_CONNECTIONS if options.quick else CONNECTIONS
    fitting = _grown.affordable(sizes)
    with working_directory() as directory:
        samples = alternate(
            options.rounds,
            {f"{size}": partial(measure, directory, size) for size in fitting},
        )
        traced = trace(directory)
    options.keep("memory", samples)
    options.keep("allocated by", {name: [size] for name, size in traced.items()})
    print("Bytes of the server's process for one idle connection (median).\n")
    table(
        ["connections", "bytes each"],
        [[name, f"{statistics.median(each):.0f}"] for name, each in samples.items()],
    )
    print(f"Python's allocations for one of {TRACED}, by file: {sum(traced.values()):.0f} bytes\n")
    dearest = sorted(traced, key=traced.__getitem__, reverse=True)[:MOST_SHOWN]
    table(["file", "bytes each"], [[name, f"{traced[name]:.0f}"] for name in dearest])


if __name__ == "__main__":
    run(benchmark, about=__doc__, rounds=3)
