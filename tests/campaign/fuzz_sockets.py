"""Nonsense over real sockets: at a server beside a good client, and at a client from a bad server.

Hostile clients write streams that are nearly right (`streams_at_random.py`) in pieces of any size,
read or don't, half-close, hang up, and come again. One good client calls all the while, and each of
its calls must be run once and answered once, in order. `poll` must never raise and never take long,
the server send nothing but good messages, and at the end nothing may be left: no client, no
descriptor, no work.

A bad server answers a real client in a loop with such streams. Each of its futures must end once,
with a value that the annotation promises or an `IpcError`, and the descriptor fall silent.

    python tests/campaign/fuzz_sockets.py --seconds 300

The same seed does the same, but for where the kernel cuts what is read.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import fuzz_properties  # noqa: E402
from fuzz_parser import quiet, resident  # noqa: E402
from harness import PATIENCE, Peer, readable, settle  # noqa: E402
from part import Figures, run_as_program  # noqa: E402
from streams_at_random import Maker  # noqa: E402

from ipcpoll import Client, IpcError, Limits, Server  # noqa: E402
from ipcpoll._wire.codec import encode  # noqa: E402

MOST_CPU: Final = 0.1
"""CPU seconds that one poll may take. Its budget is 5 ms and one command."""

MOST_HOSTILE: Final = 40
ACTIONS: Final = 1500
"""Of one round against a server."""

MOST_GROWTH: Final = 32 << 20


@dataclass
class Note:
    """The good client's: leaves its number in the list that the server is polled with."""

    number: int

    def process(self, ctx: list[int]) -> int:
        ctx.append(self.number)
        return self.number


@dataclass
class Pieces:
    """Answers in pieces."""

    count: int

    def process(self, ctx: list[int]) -> Iterator[int]:
        yield from range(min(self.count, 50))


@dataclass
class Never:
    """Is answered only with an error: when it is cancelled, or its time is over."""

    value: int = 0

    def process(self, ctx: list[int]) -> Future[int]:
        return Future()


ASKED: Final = [
    fuzz_properties.Echo(1),
    fuzz_properties.Plain(),
    fuzz_properties.Boxes(),
    fuzz_properties.Words(),
]
COMMANDS: Final = [*fuzz_properties.COMMANDS, Pieces, Never]
ITEMS: Final = {
    **fuzz_properties.ITEMS,
    "Pieces": {"count": tuple(map(encode, (0, 1, 3, 50)))},
    "Never": {"value": (encode(1),)},
}


class Hostile:
    """A client that writes a stream, and behaves badly."""

    def __init__(self, path: str, stream: bytes) -> None:
        self.peer = Peer(path)
        self.rest = stream
        self.half_closed = False

    def write(self, size: int) -> int:
        """Write some of what is left; return how much."""
        if self.half_closed or not self.rest:
            return 0
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            sent = self.peer.socket.send(self.rest[:size])
            self.rest = self.rest[sent:]
            return sent
        return 0

    def half_close(self) -> None:
        with contextlib.suppress(OSError):
            self.peer.socket.shutdown(socket.SHUT_WR)
        self.half_closed = True

    def read(self) -> int:
        """Read what has come, and see that it is good; return how many messages."""
        messages = self.peer.received(1 << 16)
        for message in messages:
            call_id, kind, item, *notes = message
            assert call_id is None or type(call_id) is int, message
            assert kind in (0, 1, 2), message
            assert len(notes) == 0, message
            assert kind != 1 or item.keys() >= {"code", "message"}, message
        return len(messages)


class Assault:
    """One server, a good client, and many others."""

    def __init__(self, path: str, seed: int) -> None:
        self.chance = random.Random(seed)
        self.maker = Maker(self.chance, ITEMS)
        pick = self.chance.choice
        limits = Limits(
            max_frame=pick([2000, 262144]),
            max_frames_waiting=pick([1, 3, 16]),
            max_unsent=pick([1000, 262144]),
            max_in_flight=pick([1, 4, 128]),
            read_size=pick([7, 1000, 65536]),
            answers_joined=pick([1, 16]),
        )
        self.server: Server[list[int]] = Server(path, [Note, *COMMANDS], limits=limits)
        self.path = path
        self.ran: list[int] = []
        self.good = Peer(path)
        self.asked = self.answered = 0
        self.hostile: list[Hostile] = []
        self.counts: Counter[str] = Counter()
        self.longest = 0.0

    def act(self) -> None:
        """Let somebody do something."""
        pick = self.chance.random()
        if pick < 0.3:
            self.poll()
        elif pick < 0.4:
            self.ask()
        elif not self.hostile or (pick < 0.45 and len(self.hostile) < MOST_HOSTILE):
            stream = self.maker.stream(self.maker.request)
            for _ in range(self.chance.randrange(4)):
                stream = self.maker.mutated(stream, self.maker.request)
            self.hostile.append(Hostile(self.path, stream))
            self.counts["hostile clients"] += 1
        else:
            self.misbehave(self.chance.choice(self.hostile), self.chance.random())

    def misbehave(self, one: Hostile, pick: float) -> None:
        if pick < 0.7:
            size = self.chance.choice([1, 2, 10, 1000])
            self.counts["bytes written"] += one.write(size)
        elif pick < 0.85:
            self.counts["messages read"] += one.read()
        elif pick < 0.92:
            one.half_close()
        else:
            self.hostile.remove(one)
            one.peer.close()

    def ask(self) -> None:
        """The good client calls, and reads."""
        if self.asked - self.answered < 8:
            self.good.call(self.asked, "Note", number=self.asked)
            self.asked += 1
        self.hear()

    def hear(self) -> None:
        for message in self.good.received():
            assert message == [self.answered, 0, self.answered], "each is answered once, in order"
            self.answered += 1
        assert not self.good.ended, "the good client was thrown out"

    def poll(self) -> None:
        if not readable(self.server):
            assert not self.server.pending, "work is left, and the descriptor is silent"
            return
        began = time.thread_time()
        self.server.poll(self.ran, max_commands=self.chance.choice([None, None, 0, 1, 3]))
        self.longest = max(self.longest, time.thread_time() - began)
        self.counts["polls"] += 1

    def end(self) -> None:
        """Let everybody go, the good one last, and see that nothing is left."""
        for one in self.hostile:
            one.read()
            one.peer.close()
        deadline = time.monotonic() + PATIENCE
        while self.answered < self.asked:
            assert time.monotonic() < deadline, "the good client's calls are not answered"
            self.poll()
            self.hear()
        settle(self.server, self.ran)
        assert self.ran == list(range(self.asked)), "each call is run once"
        stats = self.server.stats()
        assert stats["clients"] == 1, stats
        self.good.close()
        settle(self.server, self.ran)
        assert self.server.stats()["clients"] == 0
        self.server.close()
        self.counts["faults found by the server"] += stats["faults"]
        self.counts["good calls"] += self.answered


def assault(path: str, seed: int) -> Assault:
    """Play one round against a server; return what was counted."""
    before = os.listdir("/proc/self/fd")
    one = Assault(path, seed)
    for _ in range(ACTIONS):
        one.act()
    one.end()
    assert len(os.listdir("/proc/self/fd")) == len(before), "descriptors are left"
    return one


# ---------------------------------------------------------------------------------------------
# A bad server


def deceive(path: str, seed: int) -> Counter[str]:
    """Answer a client's calls with nonsense; return how its futures have ended."""
    chance = random.Random(seed)
    maker = Maker(chance, fuzz_properties.ITEMS)
    stream = b"".join(maker.frame(maker.response()) for _ in range(chance.randrange(6)))
    for _ in range(chance.randrange(2)):
        stream = maker.mutated(stream, maker.response)
    ended: list[int] = []
    with socket.socket(socket.AF_UNIX) as listener, Client(path, timeout=PATIENCE) as client:
        listener.bind(path)
        listener.listen()
        asked = [ASKED[number % len(ASKED)] for number in range(1, 6)]  # ids count from 1
        futures = [client.submit(command) for command in asked]
        for number, future in enumerate(futures):
            future.add_done_callback(lambda _, number=number: ended.append(number))
        with listener.accept()[0] as server:
            server.setblocking(False)
            while stream and len(ended) < len(futures):
                size = chance.choice([1, 10, 1000])
                try:
                    server.send(stream[:size])
                except (BrokenPipeError, ConnectionResetError):
                    break
                stream = stream[size:]
                move(client)
            if chance.random() < 0.5:
                with contextlib.suppress(BlockingIOError, ConnectionResetError):
                    server.recv(1 << 16)  # else it goes away with bytes unread
        deadline = time.monotonic() + PATIENCE
        while len(ended) < len(futures):
            assert time.monotonic() < deadline, "a future never ends"
            move(client)
        move(client)
        assert sorted(ended) == list(range(len(futures))), "each ends once"
        assert not readable(client), "the descriptor is never silent"
    os.unlink(path)
    return Counter(map(end_of, asked, futures))


def end_of(command: Any, future: Future[Any]) -> str:
    """Return how a future has ended, which must be one of the ways that are promised."""
    error = future.exception(0)
    if error is None:
        wanted = int if isinstance(command, fuzz_properties.Echo) else type(command)
        assert type(future.result()) is wanted, "not what the annotation promises"
        return "answered"
    assert isinstance(error, IpcError), repr(error)
    return type(error).__name__


def move(client: Client) -> None:
    while readable(client):
        client.poll(max_seconds=math.inf)


# ---------------------------------------------------------------------------------------------


def play(seeds: Iterator[int], seconds: float) -> Figures:
    """Play rounds until the time is over."""
    counts: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    longest = 0.0
    before = 0
    deadline = time.monotonic() + seconds
    with quiet(), tempfile.TemporaryDirectory(prefix="ipcpoll-") as folder:
        for number, seed in enumerate(seeds):
            if number == 3:
                before = resident()  # by then everything was imported and its pools are there
            if number > 3 and time.monotonic() > deadline:
                break
            one = assault(f"{folder}/server", seed)
            counts += one.counts
            counts["rounds"] += 1
            longest = max(longest, one.longest)
            for part in range(20):
                ends += deceive(f"{folder}/bad", 20 * seed + part)
                counts["bad servers"] += 1
        grown = resident() - before
    figures: Figures = dict(counts)
    figures.update({f"futures, {name}": count for name, count in ends.items()})
    figures["longest poll (ms of CPU)"] = round(longest * 1000, 1)
    figures["grown (KiB)"] = grown // 1024
    assert longest < MOST_CPU, figures
    assert grown < MOST_GROWTH, figures
    return figures


def campaign(seconds: float) -> Figures:
    """Play for about so long."""
    first = time.time_ns() // 10**9
    return {"first seed": first, **play(iter(range(first, first + 10**9)), seconds)}


if __name__ == "__main__":
    run_as_program(campaign, about=__doc__)
