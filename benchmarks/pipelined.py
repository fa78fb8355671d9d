"""Many commands in flight: `Client.map` and `Client.submit`, at depths of 1 to 256.

What is shown is how many commands are answered in the time of one bare ping-pong of the same round.

`submit` is driven as a program with a loop would: it waits for the client's descriptor and polls
the client, and a callback of each future submits the next command. Beside it, the same with the
oldest future's `result()` in place of the loop.
"""

from __future__ import annotations

import select
import statistics
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import repeat

from _calls import (
    WARM_UP,
    Clocks,
    Cores,
    Sample,
    Server,
    measure_calls,
    measure_map,
    ping,
    placements,
    wall_ratio,
)
from _measure import Options, alternate, run, table, working_directory
from _servers import Add

import ipcpoll

DEPTHS = (1, 4, 16, 64, 256)
QUICK_DEPTHS = (1, 16)
AIMS = {"map": 1.6, "submit": 1.0}  # commands per ping-pong, at depth 64


def drive(client: ipcpoll.Client, waiting: select.poll, count: int, depth: int) -> None:
    """Submit so many, each next one from the callback of one that is done."""
    submit, command = client.submit, Add(2, 3)
    left, done = count, 0

    def begin() -> None:
        nonlocal left
        left -= 1
        submit(command).add_done_callback(end)

    def end(_: object) -> None:
        nonlocal done
        done += 1
        if left:
            begin()

    for _ in repeat(None, min(depth, count)):
        begin()
    while done < count:
        waiting.poll()
        client.poll()


def measure_submit(server: Server, count: int, depth: int, cores: Cores) -> Sample:
    """Keep `depth` futures in flight from a loop that waits for the descriptor."""
    server.place(cores)
    with ipcpoll.Client(server.path) as client:
        waiting = select.poll()
        waiting.register(client, select.POLLIN)
        drive(client, waiting, WARM_UP, depth)
        clocks, began = Clocks(server), time.perf_counter_ns()
        drive(client, waiting, count, depth)
        return clocks.mean(time.perf_counter_ns() - began, count)


def measure_result(server: Server, count: int, depth: int, cores: Cores) -> Sample:
    """Keep `depth` futures in flight, and wait for the oldest each time."""
    server.place(cores)
    with ipcpoll.Client(server.path) as client:
        client.call(Add(2, 3))
        clocks, began = Clocks(server), time.perf_counter_ns()
        flying = deque(client.submit(Add(2, 3)) for _ in repeat(None, depth))
        for _ in repeat(None, count - depth):
            flying.popleft().result()
            flying.append(client.submit(Add(2, 3)))
        for future in flying:
            future.result()
        return clocks.mean(time.perf_counter_ns() - began, count)


WAYS = {"map": measure_map, "submit": measure_submit, "submit, result()": measure_result}


def show(depths: tuple[int, ...], samples: dict[str, list[Sample]]) -> None:
    floor = samples["ping"]
    print(f"one ping-pong: {statistics.median(sample.wall for sample in floor):.1f} µs\n")
    rows: list[list[str]] = []
    for way in WAYS:
        for depth in depths:
            each = samples[f"{way} {depth}"]
            rows.append(
                [
                    f"{way}, depth {depth}",
                    f"{statistics.median(sample.wall for sample in each):.1f}",
                    f"{statistics.median(sample.client for sample in each):.1f}",
                    f"{statistics.median(sample.server for sample in each):.1f}",
                    wall_ratio(floor, each),
                ]
            )
    table(["", "µs each", "CPU client", "CPU server", "commands per ping-pong"], rows)


def benchmark(options: Options) -> None:
    depths = QUICK_DEPTHS if options.quick else DEPTHS
    count = 64 if options.quick else 2048
    with working_directory() as directory, ExitStack() as stack:
        pinger, server = (Server(name, directory, stack) for name in ("ping", "ipcpoll"))
        candidates: dict[str, Callable[[Cores], Sample]] = {
            "ping": partial(measure_calls, ping, pinger, count)
        }
        for way, measure in WAYS.items():
            for depth in depths:
                candidates[f"{way} {depth}"] = partial(measure, server, count, depth)
        print("Microseconds for one command, the mean of all (medians of the rounds), and commands")
        print("in the time of one ping-pong of the same round (median, middle half). Aims at depth")
        print(f"64: map {AIMS['map']}, submit {AIMS['submit']}.")
        for placement, cores in placements().items():
            print(f"\nWith {placement}\n", flush=True)
            placed = {name: partial(each, cores) for name, each in candidates.items()}
            samples = alternate(options.rounds, placed)
            show(depths, samples)
            options.keep(placement, samples, over=("ping",))


if __name__ == "__main__":
    run(benchmark, about=__doc__, rounds=15)
