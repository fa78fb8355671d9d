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

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from _calls import (
    COSTS,
    Cores,
    Sample,
    Server,
    bare,
    ipcpoll_call,
    ipcpoll_once,
    measure_calls,
    measure_map,
    ping,
    ping_once,
    placements,
    processor_ratio,
    row,
    wall_ratio,
)
from _measure import Options, alternate, run, table, working_directory

DEPTH = 64


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
            "map": partial(measure_map, server, 2 * count, DEPTH),
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
            samples = alternate(options.rounds, placed)
            show(samples)
            options.keep(placement, samples, over=("ping", "bare", "ping once"))


if __name__ == "__main__":
    run(benchmark, about=__doc__, rounds=20)
