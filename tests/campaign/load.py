"""Load and scale: 10,000 clients at once, 1,000,000 one after the other, 100 that pipeline.

The server is in this process, its clients are in others. Measured are the memory of an idle
connection, what `poll` costs beside 10,000 of them, and the longest poll of a storm of connects.
"""

from __future__ import annotations

import math
import os
import select
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from _measure import alternate
from fellows import Fellow
from harness import Echo, Host, Peer, call, settle, wait_until
from load_clients import raise_descriptor_limit
from part import Figures, run_as_program
from process_memory import anonymous_bytes, bill

from ipcpoll import Limits, Server

MOST_KIB = 2.5
"""KiB of this process's memory that an idle connection may have."""

MOST_RATIO = 1.2
"""By how much a poll that finds nothing may cost more beside idle connections."""

MOST_CPU = 0.015
"""Seconds of CPU time that a poll with the budget of 5 ms may take in a storm."""

STORM = 1000
FRAME_SECONDS = 0.016
PIPELINES = 100
SEQUENCE = 1_000_000

Serve = Callable[[Sequence[Fellow], float], list[Any]]


def descriptors() -> int:
    """Return how many descriptors are open."""
    return len(os.listdir("/proc/self/fd"))


class Roomy(Server[Any]):
    """A server to which the host leaves more than a quarter of its descriptors.

    The bound is put aside because root may not raise it everywhere: in a container it may not.
    """

    def _most_clients(self) -> int:
        return self._limits.max_clients


@contextmanager
def serving(clients: int) -> Iterator[tuple[Server[Any], Serve, Callable[[], Fellow]]]:
    """Give a server, a loop that serves until fellows have answered, and what makes fellows."""
    with (
        tempfile.TemporaryDirectory(prefix="ipcpoll-") as directory,
        Roomy(f"{directory}/s", [Echo], limits=Limits(max_clients=clients)) as server,
        ExitStack() as stack,
    ):
        host = Host(log=deque(maxlen=1))  # type: ignore[arg-type]  # what it saw is not kept

        def serve(fellows: Sequence[Fellow], seconds: float) -> list[Any]:
            deadline = time.monotonic() + seconds
            poll = select.poll()
            poll.register(server, select.POLLIN)
            waiting = {fellow.fileno(): fellow for fellow in fellows}
            for fd in waiting:
                poll.register(fd, select.POLLIN)
            while waiting:
                for fd, _ in poll.poll(1000):
                    if fd in waiting:
                        poll.unregister(fd)
                        del waiting[fd]
                    else:
                        server.poll(host)
                assert time.monotonic() < deadline + 60, "clients were not served"
            return [fellow.answer() for fellow in fellows]

        yield (
            server,
            serve,
            lambda: stack.enter_context(Fellow("load_clients.py", server.address)),
        )


def everybody_has_gone(server: Server[Any]) -> None:
    """Poll until no client is left."""
    wait_until(lambda: server.poll(Host()) == 0 and server.stats()["clients"] == 0)
    settle(server)


# ---------------------------------------------------------------------------------------------
# Many at once


def many_at_once(wanted: int) -> Figures:
    """Serve so many clients, and measure what they cost when they are idle."""
    count = min(wanted, raise_descriptor_limit(4 * wanted) - 1000)
    few = count // 20 * 2
    figures: Figures = {"clients connected at once": count}
    with serving(count + 2) as (server, serve, make), serving(4) as (empty, _, _):
        fellows = [make(), make()]
        before = descriptors()

        def hold(clients: int) -> int:
            for fellow in fellows:
                fellow.order("hold", clients // 2)
            assert sum(serve(fellows, 60)) == clients
            settle(server)
            return anonymous_bytes()

        hold(few)  # what the first ones need that the others share
        first = hold(few)
        last = hold(count - 2 * few)
        assert server.stats()["clients"] == count
        kib = (last - first) / (count - 2 * few) / 1024
        figures["memory per idle connection, KiB"] = round(kib, 2)
        figures |= bill(server)
        figures |= poll_cost(server, empty)
        assert sum(fellow.do("let_go") for fellow in fellows) == count
        everybody_has_gone(server)
        assert descriptors() == before
    assert kib <= MOST_KIB, f"an idle connection has {kib:.2f} KiB: {figures}"
    return figures


def poll_cost(crowded: Server[Any], empty: Server[Any]) -> Figures:
    """Compare the CPU time of two servers' polls in alternating rounds; one has idle clients."""
    host = Host(log=deque(maxlen=1))  # type: ignore[arg-type]
    idle_polls, calls = 2000, 300
    frame = call(1, "Echo", value=1)

    def idle(server: Server[Any]) -> float:
        began = time.thread_time()
        for _ in range(idle_polls):
            server.poll(host)
        return (time.thread_time() - began) / idle_polls

    def busy(server: Server[Any], peer: Peer) -> float:
        spent = 0.0
        for _ in range(calls):
            peer.send(frame)
            began = time.thread_time()
            server.poll(host)
            spent += time.thread_time() - began
            assert peer.socket.recv(100)
        return spent / calls

    with Peer(crowded) as one, Peer(empty) as other:
        busy(crowded, one), busy(empty, other)
        found = alternate(
            31,
            {
                "idle": lambda: idle(empty),
                "idle beside": lambda: idle(crowded),
                "busy": lambda: busy(empty, other),
                "busy beside": lambda: busy(crowded, one),
            },
        )
    settle(empty)
    figures: Figures = {}
    for kind, what in (("idle", "a poll with nothing to do"), ("busy", "a poll with one call")):
        ratios = [a / b for a, b in zip(found[f"{kind} beside"], found[kind], strict=True)]
        figures[f"{what}, no idle clients, CPU µs"] = round(1e6 * statistics.median(found[kind]), 2)
        figures[f"{what}, beside the idle clients, times as much"] = round(
            statistics.median(ratios), 2
        )
    ratio = figures["a poll with nothing to do, beside the idle clients, times as much"]
    assert float(ratio) <= MOST_RATIO, figures
    return figures


# ---------------------------------------------------------------------------------------------
# A storm, pipelines, a sequence


def storm() -> Figures:
    """Let 1,000 clients connect and ask in one moment, of a host that polls at each frame."""
    with serving(STORM + 10) as (server, _, make):
        fellow = make()
        host = Host()
        before = descriptors()
        tries = []
        for _ in range(3):  # other programs on the same core cost CPU time as well
            fellow.order("storm", STORM)
            longest = polls = 0.0
            while not fellow.answered(FRAME_SECONDS):
                began = time.thread_time()
                polls += server.poll(host) > 0
                longest = max(longest, time.thread_time() - began)
            tries.append((longest, polls, fellow.answer()))
            everybody_has_gone(server)
            assert server.stats()["refused"] == 0
        assert server.stats()["accepted"] == 3 * STORM
        assert sorted(host.log) == sorted(list(range(STORM)) * 3), "each call was run once"
        assert descriptors() == before
    longest, polls, seconds = min(tries)
    assert longest <= MOST_CPU, tries
    return {
        "storm: connects at once": STORM,
        "storm: the longest poll, CPU ms": round(1e3 * longest, 2),
        f"storm: polls, one each {1e3 * FRAME_SECONDS:.0f} ms": int(polls),
        "storm: seconds until the last one was answered": round(seconds, 3),
    }


def pipelines(seconds: float) -> Figures:
    """Let 100 clients have 64 calls in flight each."""
    with serving(PIPELINES + 10) as (server, serve, make):
        fellows = [make() for _ in range(4)]
        for fellow in fellows:
            fellow.order("pipeline", PIPELINES // 4, seconds)
        began = time.monotonic()
        counts = [count for counts in serve(fellows, seconds) for count in counts]
        took = time.monotonic() - began
        everybody_has_gone(server)
        assert server.stats()["turns"] == sum(counts)
    assert len(counts) == PIPELINES
    assert min(counts) > 0
    return {
        "pipelining clients": PIPELINES,
        "pipelining: calls": sum(counts),
        "pipelining: calls per second": round(sum(counts) / took),
        "pipelining: least and most of one client": f"{min(counts)} and {max(counts)}",
    }


def sequence(seconds: float) -> Figures:
    """Let clients come, ask and go, one after the other in a few processes."""
    with serving(256) as (server, serve, make):
        fellows = [make() for _ in range(3)]

        def run(seconds: float, most: int) -> int:
            for fellow in fellows:
                fellow.order("one_after_the_other", seconds, math.ceil(most / len(fellows)))
            return sum(serve(fellows, seconds))

        warm = run(min(1.0, seconds / 5), SEQUENCE)
        everybody_has_gone(server)
        before, memory = descriptors(), anonymous_bytes()
        began = time.monotonic()
        count = run(seconds, SEQUENCE)
        took = time.monotonic() - began
        everybody_has_gone(server)
        stats = server.stats()
        assert stats["accepted"] == stats["turns"] == warm + count
        assert stats["refused"] == stats["faults"] == stats["dropped"] == 0
        grown = anonymous_bytes() - memory
        assert descriptors() == before
        assert grown < max(1 << 20, 2 * count), f"{count} connections left {grown} bytes"
    return {
        "connections in sequence": count,
        "connections in sequence, per second": round(count / took),
        "memory that they left behind, KiB": round(grown / 1024),
    }


def campaign(seconds: float) -> Figures:
    """Run all of it; the sequence gets the time that the others leave."""
    ends = time.monotonic() + seconds
    figures = many_at_once(10_000 if seconds >= 30 else 1_000)
    figures |= storm()
    figures |= pipelines(min(30.0, seconds / 8))
    figures |= sequence(max(seconds / 8, ends - time.monotonic()))
    return figures


if __name__ == "__main__":
    run_as_program(campaign, about=__doc__)
