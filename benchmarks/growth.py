"""What a command costs as a program grows: commands, clients, idle connections, subscribers.

One small command at a time, `Add(2, 3)`, while one of these grows and the rest stays: the classes
that the server knows; clients that all call at the same time; connections that say nothing. Then
one publisher and its subscribers. payloads.py has the bytes of a command.

What is shown first is the processor time of the server, the kernel's part included, for one
command (or one piece to one subscriber), over that of the smallest number in the same round.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import repeat
from pathlib import Path

import _grown
import cbor2
from _calls import Clocks, Cores, Sample, Server, ipcpoll_call, measure_calls, placements
from _measure import Options, alternate, child, ratio, run, table, working_directory
from _servers import READ_BYTES
from topics import measure as measure_topic

from ipcpoll._wire.framing import frame

SIZES = {
    "commands": (1, 10, 100, 1000),
    "clients": (1, 4, 16, 64, 256),
    "idle connections": (0, 10, 100, 1000, 4000, 10_000),
    "subscribers": (1, 4, 16, 64, 250),
}
QUICK_SIZES = {
    "commands": (1, 10),
    "clients": (1, 4),
    "idle connections": (0, 10),
    "subscribers": (1, 4),
}
SPARE_CLIENTS = 20
CALL = cbor2.dumps([1, "Add", {"a": 2, "b": 3}])


def known_commands(count: int, directory: Path, stack: ExitStack) -> Server:
    """Start a server that knows so many commands."""
    folder = directory / f"commands-{count}"
    folder.mkdir()
    return Server("commands", folder, stack, f"{count}", program=_grown.__file__)


def served_beside(idle: int, directory: Path, stack: ExitStack) -> Server:
    """Start a server, and another process with idle clients of it."""
    folder = directory / f"idle-{idle}"
    folder.mkdir()
    most = f"{idle + SPARE_CLIENTS}"
    server = Server("clients", folder, stack, most, program=_grown.__file__)
    stack.enter_context(child(Path(_grown.__file__), "hold", server.path, f"{idle}"))
    return server


@contextmanager
def connected(path: str, clients: int) -> Generator[list[socket.socket]]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(clients)]
        for sock in sockets:
            sock.connect(path)
        yield sockets


def measure_clients(
    server: Server, message: bytes, clients: int, count: int, cores: Cores
) -> Sample:
    """Let each client send one command; when all are answered, again."""
    server.place(cores)
    turns = max(1, count // clients)
    with connected(server.path, clients) as sockets:

        def turn() -> None:
            for sock in sockets:
                sock.sendall(message)
            for sock in sockets:
                sock.recv(READ_BYTES)

        turn()
        clocks, began = Clocks(server), time.perf_counter_ns()
        for _ in repeat(None, turns):
            turn()
        return clocks.mean(time.perf_counter_ns() - began, turns * clients)


def measure_subscribers(directory: Path, subscribers: int, pieces: int, cores: Cores) -> Sample:
    """Publish from this process; return microseconds for one piece to one subscriber."""
    sample = measure_topic(str(directory / "topic"), subscribers, 0, pieces)
    each = sample.processor / (pieces * subscribers) * 1e6
    return Sample([each], each, 0.0, each)


def show(grown: str, sizes: tuple[int, ...], samples: dict[str, list[Sample]], base: str) -> None:
    least = [sample.server for sample in samples[f"{sizes[0]}"]]
    rows: list[list[str]] = []
    for size in sizes:
        each = samples[f"{size}"]
        cpu = [sample.server for sample in each]
        wall = statistics.median(sample.wall for sample in each)
        cells = [f"{size}", f"{statistics.median(cpu):.1f}", ratio(cpu, least), f"{wall:.1f}"]
        if base:
            other = [sample.server for sample in samples[f"{base} {size}"]]
            cells += [f"{statistics.median(other):.1f}", ratio(cpu, other)]
        rows.append(cells)
    head = [grown, "CPU server", f"/ {sizes[0]}", "wall"]
    table(head + ([f"CPU of the {base}", f"/ {base}"] if base else []), rows)


def benchmark(options: Options) -> None:
    sizes = QUICK_SIZES if options.quick else SIZES
    sizes = sizes | {"idle connections": _grown.affordable(sizes["idle connections"])}
    count = 20 if options.quick else 512
    pieces = 50 if options.quick else 1000
    candidates: dict[str, dict[str, Callable[[Cores], Sample]]] = {name: {} for name in sizes}
    with working_directory() as directory, ExitStack() as stack:
        for size in sizes["commands"]:
            server = known_commands(size, directory, stack)
            candidates["commands"][f"{size}"] = partial(measure_calls, ipcpoll_call, server, count)
        for size in sizes["idle connections"]:
            server = served_beside(size, directory, stack)
            candidates["idle connections"][f"{size}"] = partial(
                measure_calls, ipcpoll_call, server, count
            )
        server = Server(
            "clients", directory, stack, f"{sizes['clients'][-1]}", program=_grown.__file__
        )
        bare = Server("bare", directory, stack)
        for size in sizes["clients"]:
            candidates["clients"] |= {
                f"{size}": partial(measure_clients, server, frame(CALL), size, 4 * count),
                f"bare loop {size}": partial(measure_clients, bare, CALL, size, 4 * count),
            }
        for size in sizes["subscribers"]:
            candidates["subscribers"][f"{size}"] = partial(
                measure_subscribers, directory, size, pieces
            )
        placement, cores = next(iter(placements().items()))
        print(f"Microseconds for one command (medians), with {placement}; ratios within a round")
        print("(median, middle half).\n")
        for grown, growing in candidates.items():
            placed = {name: partial(each, cores) for name, each in growing.items()}
            samples = alternate(options.rounds, placed)
            show(grown, sizes[grown], samples, "bare loop" if grown == "clients" else "")
            options.keep(grown, samples, over=[f"{sizes[grown][0]}"])


if __name__ == "__main__":
    run(benchmark, about=__doc__, rounds=7)
