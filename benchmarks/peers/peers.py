"""One small typed call, `Add(2, 3)`, through ipcpoll and through every peer, in the same rounds.

Beside them the floor, a ping-pong of 24 bytes between blocking sockets, and a bare loop with the
same codec and no library. First over one connection, one call at a time; then one-shot: connect,
call, close. All that with both processes on one core, and with each on a core of its own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what all benchmarks share

import _peers
from _calls import (
    COSTS,
    Clocks,
    Cores,
    Opened,
    Sample,
    Server,
    bare,
    ipcpoll_call,
    ipcpoll_once,
    measure_calls,
    ping,
    ping_once,
    placements,
    processor_ratio,
    row,
    time_awaited,
    wall_ratio,
)
from _measure import Options, alternate, run, table, working_directory
from _peers import PEERS, Peer

OURS = {
    "ping": "bare ping-pong, 24 bytes",
    "bare": "bare loop, same codec",
    "ipcpoll": "ipcpoll",
}
AIM = 1.2  # times ahead of every peer
BARE_AIM = 1.25  # times the bare loop, at most
ONCE_AIM = 3.5


def usable() -> dict[str, Peer]:
    """Return the peers that are installed, and name the others."""
    found: dict[str, Peer] = {}
    for name, peer in PEERS.items():
        if peer.installed:
            found[name] = peer
        else:
            print(f"{peer.shown}: left out, {peer.package} is not installed (`make bench` does)")
    return found


def measure_peer(peer: Peer, server: Server, count: int, cores: Cores) -> Sample:
    """Call through a peer, over one connection."""
    if peer.call is not None:
        return measure_calls(peer.call, server, count, cores)
    assert peer.awaited is not None
    opened = asynccontextmanager(peer.awaited)

    async def calls() -> Sample:
        async with opened(server.path) as call:
            return await time_awaited(call, server, count)

    server.place(cores)
    sample: Sample = peer.run(calls())
    return sample


def once(opened: Opened, path: str) -> Callable[[], None]:
    """Return what connects, calls and closes."""
    connect = contextmanager(opened)

    def call() -> None:
        with connect(path) as one:
            one()

    return call


def measure_peer_once(peer: Peer, server: Server, count: int, cores: Cores) -> Sample:
    """Connect, call and close through a peer; its loop, where it has one, runs already."""
    if peer.call is not None:
        shot = once(peer.call, server.path)
        server.place(cores)
        return time_shots(shot, server, count)
    assert peer.awaited is not None
    opened = asynccontextmanager(peer.awaited)

    async def call() -> None:
        async with opened(server.path) as one:
            await one()

    async def shots() -> Sample:
        return await time_awaited(call, server, count)

    server.place(cores)
    sample: Sample = peer.run(shots())
    return sample


def time_shots(shot: Callable[[], None], server: Server, count: int) -> Sample:
    """Time one-shot calls, with a short warm-up: some of them take milliseconds."""
    shot()
    now, took = time.perf_counter_ns, [0] * count
    clocks = Clocks(server)
    for number in range(count):
        began = now()
        shot()
        took[number] = now() - began
    return clocks.sample(took)


def show(head: str, samples: dict[str, list[Sample]], bases: dict[str, str]) -> None:
    """Print a row for each candidate, and ipcpoll beside each."""
    names = OURS | {name: peer.shown for name, peer in PEERS.items()}
    ours = samples["ipcpoll"]
    rows = [
        [
            *row(names[name], each),
            *(wall_ratio(each, samples[base]) for base in bases),
            *(
                (wall_ratio(each, ours), processor_ratio(each, ours))
                if name != "ipcpoll"
                else ("", "")
            ),
        ]
        for name, each in samples.items()
    ]
    table([head, *COSTS, *bases.values(), "wall / ipcpoll", "CPU / ipcpoll"], rows)


def benchmark(options: Options) -> None:
    count = 20 if options.quick else 600
    shots = 5 if options.quick else 60
    peers = usable()
    with working_directory() as directory, ExitStack() as stack:
        pinger, looper, served = (
            Server(name, directory, stack) for name in ("ping", "bare", "ipcpoll")
        )
        servers = {name: Server(name, directory, stack, program=_peers.__file__) for name in peers}
        calls: dict[str, Callable[[Cores], Sample]] = {
            "ping": partial(measure_calls, ping, pinger, count),
            "bare": partial(measure_calls, bare, looper, count),
            "ipcpoll": partial(measure_calls, ipcpoll_call, served, count),
        }
        one_shots: dict[str, Callable[[Cores], Sample]] = {
            "ping": partial(measure_calls, ping_once, pinger, 2 * shots),
            "ipcpoll": partial(measure_calls, ipcpoll_once, served, 2 * shots),
        }
        for name, peer in peers.items():
            calls[name] = partial(measure_peer, peer, servers[name], count)
            one_shots[name] = partial(measure_peer_once, peer, servers[name], shots)
        print("Microseconds for one call (medians; p99 of all calls), processor time of each")
        print("process, and ratios within a round (median, middle half).")
        print(f"Aims: {BARE_AIM} times the bare loop; each peer {AIM} times ipcpoll or more;")
        print(f"one-shot {ONCE_AIM} times the bare one.")
        for placement, cores in placements().items():
            print(f"\nWith {placement}\n", flush=True)
            placed = {name: partial(measure, cores) for name, measure in calls.items()}
            samples = alternate(options.rounds, placed)
            show("one call at a time", samples, {"ping": "/ ping-pong", "bare": "/ bare loop"})
            options.keep(f"calls, {placement}", samples, over=("ping", "bare", "ipcpoll"))
            placed = {name: partial(measure, cores) for name, measure in one_shots.items()}
            samples = alternate(options.rounds, placed)
            show("one-shot", samples, {"ping": "/ bare"})
            options.keep(f"one-shot, {placement}", samples, over=("ping", "ipcpoll"))


if __name__ == "__main__":
    run(benchmark, about=__doc__, rounds=15)
