"""A polite client beside one that floods, and how much longer a poll takes than it was allowed.

The flooder holds four connections and sends whole buffers of commands as fast as they are taken.

First another client calls `Add(2, 3)`, one at a time, alone and beside it. The server has the
default budget and a core to itself; the two clients share the other.

Then a server of this process is polled with `max_seconds=0.002` under the flood. A poll ends
between two commands, so it takes longer than allowed by what is left of a command, and by what the
machine does meanwhile. Beside it, in the same rounds: a loop that looks at the clock until the same
time is over, the same loop with one send(2) behind it that wakes another process, and polls of a
single command. A poll ends with a send to each client.
"""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import _grown
from _calls import COSTS, Cores, Sample, Server, ipcpoll_call, measure_calls, pin, placements, row
from _measure import Options, alternate, child, percentile, ratio, run, table, working_directory
from _servers import Add, listen

import ipcpoll

CONNECTIONS = "4"
BUDGET = 0.002
ANSWERS = bytes(160)  # 16 small answers
AIM = 3.0  # times the p99 alone


@dataclass(frozen=True)
class Times:
    """What was timed, in microseconds: by the clock, and of this thread's CPU time."""

    each: list[float]
    median: float
    p999: float
    processor: list[float]
    processor_median: float
    processor_p999: float

    @classmethod
    def of(cls, each: list[float], processor: list[float]) -> Times:
        return cls(
            each,
            statistics.median(each),
            percentile(each, 0.999),
            processor,
            statistics.median(processor),
            percentile(processor, 0.999),
        )

    @classmethod
    def together(cls, rounds: list[Times]) -> Times:
        """One in a thousand is rare: a round has none. So these are of all rounds together."""
        return cls.of(
            [took for sample in rounds for took in sample.each],
            [took for sample in rounds for took in sample.processor],
        )


def measure_polite(server: Server, flooded: bool, count: int, cores: Cores) -> Sample:
    """Call one at a time, alone or beside a flooder."""
    wait_until_idle(server)
    with ExitStack() as stack:
        if flooded:
            program = Path(_grown.__file__)
            pin(
                stack.enter_context(child(program, "flood", server.path, CONNECTIONS)), cores.client
            )
        return measure_calls(ipcpoll_call, server, count, cores)


def wait_until_idle(server: Server) -> None:
    """Wait until a server has served what a flooder has left behind."""
    while True:
        before = server.clock.nanoseconds()
        time.sleep(0.05)
        if server.clock.nanoseconds() - before < 1_000_000:
            return


def time_each(turn: Callable[[], object], allowed: float, count: int) -> Times:
    """Time so many turns, each without what it was allowed."""
    now, processor = time.perf_counter_ns, time.thread_time_ns
    took, used = [0] * count, [0] * count
    for number in range(count):
        spent, began = processor(), now()
        turn()
        took[number] = now() - began
        used[number] = processor() - spent
    each, own = (
        [nanoseconds / 1000 - allowed * 1e6 for nanoseconds in measured]
        for measured in (took, used)
    )
    return Times.of(each, own)


def spin() -> None:
    """Do nothing until the budget is over."""
    end = time.monotonic() + BUDGET
    while time.monotonic() < end:
        pass


def spin_and_send(sock: socket.socket) -> None:
    """Do nothing until the budget is over, and then wake another process."""
    spin()
    sock.send(ANSWERS)


def show_polite(samples: dict[str, list[Sample]]) -> None:
    tails = {
        name: [percentile(sample.each, 0.99) for sample in each] for name, each in samples.items()
    }
    table(
        ["a polite client", *COSTS, "p99 / alone"],
        [[*row(name, each), ratio(tails[name], tails["alone"])] for name, each in samples.items()],
    )


def show_overrun(samples: dict[str, list[Times]]) -> None:
    rows: list[list[str]] = []
    for name, rounds in samples.items():
        times = Times.together(rounds)
        for what, each in (("", times.each), (", CPU", times.processor)):
            cells = (percentile(each, share) for share in (0.5, 0.99, 0.999))
            rows.append([name + what, *(f"{cell:.1f}" for cell in cells)])
    table(["", "median", "p99", "p99.9"], rows)


def benchmark(options: Options) -> None:
    count, polls = (20, 5) if options.quick else (1000, 600)
    placement, cores = list(placements().items())[-1]
    with working_directory() as directory, ExitStack() as stack:
        server = Server("ipcpoll", directory, stack)
        polite = alternate(
            options.rounds,
            {
                "alone": partial(measure_polite, server, False, count, cores),
                "beside a flooder": partial(measure_polite, server, True, count, cores),
            },
        )
        print(f"Microseconds, with {placement}. Aim: p99 at most {AIM} times that alone.\n")
        show_polite(polite)
        options.keep("polite", polite, over=["alone"])

        wait_until_idle(server)
        path = str(directory / "flooded")
        flooded = stack.enter_context(ipcpoll.Server(path, Add))
        pin(os.getpid(), cores.server)
        pid = stack.enter_context(child(Path(_grown.__file__), "flood", path, CONNECTIONS))
        pin(pid, cores.client)
        for _ in range(3):
            flooded.poll(None)
        bare = stack.enter_context(listen(str(directory / "bare")))
        pid = stack.enter_context(
            child(Path(_grown.__file__), "sleep_and_read", bare.getsockname(), "1")
        )
        pin(pid, cores.client)
        sleeper = stack.enter_context(bare.accept()[0])
        overrun = alternate(
            options.rounds,
            {
                "overrun of poll": partial(
                    time_each, partial(flooded.poll, None, max_seconds=BUDGET), BUDGET, polls
                ),
                "overrun of an empty loop": partial(time_each, spin, BUDGET, polls),
                "overrun of an empty loop and a send": partial(
                    time_each, partial(spin_and_send, sleeper), BUDGET, polls
                ),
                "poll of one command": partial(
                    time_each, partial(flooded.poll, None, max_commands=1), 0.0, polls
                ),
            },
        )
    print(f"Microseconds beyond the {BUDGET * 1000:.0f} ms that were allowed, of all polls; aim at")
    print("p99.9: below the other two together.\n")
    show_overrun(overrun)
    options.keep("overrun", {name: [Times.together(rounds)] for name, rounds in overrun.items()})


if __name__ == "__main__":
    run(benchmark, about=__doc__, rounds=10)
