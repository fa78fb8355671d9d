"""Bytes there and back, from 10 B to 1 MiB, and a nested dataclass of 50 elements.

Beside ipcpoll, in the same rounds: a bare socket that sends the same bytes behind their length and
gets them back, into one buffer at each end. The share of its throughput is what is shown.
"""

from __future__ import annotations

import socket
import statistics
from collections.abc import Callable, Generator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import _grown
import cbor2
from _calls import (
    COSTS,
    Call,
    Cores,
    Sample,
    Server,
    measure_calls,
    placements,
    processor_ratio,
    row,
    wall_ratio,
)
from _grown import LENGTH_BYTES, MIB, Echo, Point, Shape, receive
from _measure import Options, alternate, ratio, run, table, working_directory

import ipcpoll

SIZES = (10, 100, 1024, 10 * 1024, 100 * 1024, MIB)
QUICK_SIZES = (10, MIB)
ELEMENTS = 50
AIM = 0.5  # of the bare socket's throughput, at 1 MiB
LIMITS = ipcpoll.Limits(max_frame=2 * MIB)
SHAPE = Shape([Point(number / 3, number / 7, f"point {number}") for number in range(ELEMENTS)])
SHAPE_BYTES = len(cbor2.dumps([[point.x, point.y, point.name] for point in SHAPE.points]))


def call_echo(size: int, path: str) -> Generator[Call]:
    data = bytes(size)
    with ipcpoll.Client(path, limits=LIMITS) as client:
        yield lambda: client.call(Echo(data))


def call_shape(path: str) -> Generator[Call]:
    with ipcpoll.Client(path) as client:
        yield lambda: client.call(SHAPE)


def send_bytes(size: int, path: str) -> Generator[Call]:
    data = size.to_bytes(LENGTH_BYTES, "big") + bytes(size)
    view = memoryview(bytearray(len(data)))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)

        def call() -> None:
            sock.sendall(data)
            receive(sock, view)

        yield call


def shown(size: int) -> str:
    for unit, factor in (("MiB", MIB), ("KiB", 1024)):
        if size >= factor:
            return f"{size // factor} {unit}"
    return f"{size} B"


def servers(directory: Path, stack: ExitStack) -> tuple[Server, Server]:
    """Start the bare one and ipcpoll's."""
    bare, served = (
        Server(name, directory, stack, "16", program=_grown.__file__)
        for name in ("bytes", "clients")
    )
    return bare, served


def counted(size: int, options: Options) -> int:
    """Return how many calls are made of that size: fewer of those that take long."""
    return 5 if options.quick else max(30, min(400, 4 * MIB // size))


def benchmark(options: Options) -> None:
    sizes = QUICK_SIZES if options.quick else SIZES
    candidates: dict[str, Callable[[Cores], Sample]] = {}
    pairs: dict[str, str] = {}
    with working_directory() as directory, ExitStack() as stack:
        bare, served = servers(directory, stack)
        for size in sizes:
            name, count = shown(size), counted(size, options)
            pairs[f"ipcpoll, {name}"] = f"bare socket, {name}"
            candidates[f"bare socket, {name}"] = partial(
                measure_calls, partial(send_bytes, size), bare, count
            )
            candidates[f"ipcpoll, {name}"] = partial(
                measure_calls, partial(call_echo, size), served, count
            )
        name, count = f"{ELEMENTS} elements", counted(SHAPE_BYTES, options)
        pairs[f"ipcpoll, {name}"] = f"bare socket, {name}"
        candidates[f"bare socket, {name}"] = partial(
            measure_calls, partial(send_bytes, SHAPE_BYTES), bare, count
        )
        candidates[f"ipcpoll, {name}"] = partial(measure_calls, call_shape, served, count)
        print("Microseconds for one call that carries that much there and back (medians), and")
        print(f"throughput over the bare socket's in a round. Aim at 1 MiB: {AIM}.")
        print(f"{ELEMENTS} elements: a nested dataclass, {SHAPE_BYTES} bytes without field names.")
        for placement, cores in placements().items():
            print(f"\nWith {placement}\n", flush=True)
            placed = {name: partial(each, cores) for name, each in candidates.items()}
            samples = alternate(options.rounds, placed)
            show(samples, pairs)
            options.keep(placement, samples, over=list(pairs.values()))


def show(samples: dict[str, list[Sample]], pairs: dict[str, str]) -> None:
    rows = [
        [
            *row(name, samples[name]),
            f"{statistics.median(sample.wall for sample in samples[bare]):.1f}",
            wall_ratio(samples[name], samples[bare]),
            ratio(
                [sample.wall for sample in samples[bare]],
                [sample.wall for sample in samples[name]],
            ),
            processor_ratio(samples[name], samples[bare]),
        ]
        for name, bare in pairs.items()
    ]
    table(["", *COSTS, "bare socket", "wall / bare", "throughput / bare", "CPU / bare"], rows)


if __name__ == "__main__":
    run(benchmark, about=__doc__, rounds=10)
