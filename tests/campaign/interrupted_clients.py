"""What a client does while an interruption strikes, and what must hold after it.

The server is another process, so a client may block. Each scenario acts through an `Interrupter`
and is played by `run_interrupted_client`, which then checks that the client is as good as new: at
worst one call more ends with PeerGone, nothing is left in flight on either side, nothing ran twice.
"""

from __future__ import annotations

import gc
import os
import select
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from harness import finish, readable, run_python, wait_until

from ipcpoll import Client, NotAnswered, NotPolled, PeerGone, Server, Subscription, Topic, Turn


@dataclass
class Program:
    """What the commands see of the server's program."""

    server: Server[Any] | None = None
    ran: Counter[int] = field(default_factory=Counter)
    topic: Topic[int] = field(default_factory=lambda: Topic[int](state=lambda: 7))


@dataclass
class Echo:
    """Answers its value."""

    value: int

    def process(self, ctx: Program) -> int:
        ctx.ran[self.value] += 1
        return self.value


@dataclass
class Steps:
    """Answers in so many pieces."""

    to: int

    def process(self, ctx: Program) -> Generator[int | Turn, None, str]:
        yield from range(self.to)
        return "done"


@dataclass
class Never:
    """Is never answered."""

    def process(self, ctx: Program) -> Future[int]:
        return Future()


@dataclass
class Watch:
    """Says 7, and then nothing for ever."""

    def process(self, ctx: Program) -> Subscription[int]:
        return ctx.topic.subscribe()


@dataclass
class Look:
    """Answers how many clients there are, how many calls in flight, and how often something ran."""

    def process(self, ctx: Program) -> tuple[int, int, int]:
        assert ctx.server is not None
        stats = ctx.server.stats()
        return stats["clients"], stats["in_flight"], max(ctx.ran.values(), default=0)


@dataclass
class Quit:
    """Ends the program."""

    def process(self, ctx: Program) -> None:
        assert ctx.server is not None
        ctx.server.close()


def serve(path: str) -> None:
    """Be the server, in a process of its own."""
    with Server(path, [Echo, Steps, Never, Watch, Look, Quit]) as server:
        program = Program(server)
        print("ready")
        while not server.closed:
            select.select([server], [], [])
            server.poll(program)


_SERVE = """
import sys
sys.path.insert(0, sys.argv[2])
from interrupted_clients import serve
serve(sys.argv[1])
"""


@contextmanager
def server_process(path: str) -> Iterator[subprocess.Popen[str]]:
    """Let a server run at `path`, in another process."""
    process = run_python(_SERVE, path, os.path.dirname(__file__))
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        with Client(path) as client:
            client.call(Quit())
        finish(process)
    finally:
        process.kill()
        process.communicate()


_values = count(1000)


# ---------------------------------------------------------------------------------------------
# Scenarios: each gets a client, and does all it does of interest inside `act`


Act = Callable[[Callable[[], object]], bool]


def first_call(client: Client, act: Act) -> None:
    """Connect and call."""
    act(lambda: client.call(Echo(next(_values))))


def warm_call(client: Client, act: Act) -> None:
    """Call on a connection that is there."""
    client.call(Echo(next(_values)))
    act(lambda: client.call(Echo(next(_values))))


def request(client: Client, act: Act) -> None:
    """Call by name."""
    act(lambda: client.request("Echo", {"value": next(_values)}))


def notify(client: Client, act: Act) -> None:
    """Send what is not answered."""
    act(lambda: client.notify(Echo(next(_values))))


def time_limit(client: Client, act: Act) -> None:
    """A call whose time is over."""

    def call() -> None:
        try:
            client.call(Never(), timeout=0.001)
        except (NotAnswered, NotPolled):  # its server is a thread, which may be slow
            pass

    client.call(Echo(next(_values)))
    act(call)


def whole_map(client: Client, act: Act) -> None:
    """Many calls."""
    act(lambda: list(client.map((Echo(next(_values)) for _ in range(9)), depth=4)))


def map_left_early(client: Client, act: Act) -> None:
    """Many calls, of which some are given up."""

    def some() -> None:
        for _ in client.map((Echo(next(_values)) for _ in range(9)), depth=4):
            break

    act(some)


def submit_and_result(client: Client, act: Act) -> None:
    """Futures, without a loop."""

    def submit() -> None:
        futures = [client.submit(Echo(next(_values))) for _ in range(3)]
        for future in futures:
            future.result()

    act(submit)


def submit_and_poll(client: Client, act: Act) -> None:
    """Futures in a loop, of which one is cancelled."""
    cancelled: list[Future[int]] = []

    def submit() -> None:
        client.fileno()
        futures = [client.submit(Echo(next(_values))) for _ in range(3)]
        cancelled.append(client.submit(Never()))
        cancelled[0].cancel()
        while not all(future.done() for future in futures):
            client.poll()
            readable(client, 0.01)

    act(submit)
    for future in cancelled:
        assert future.cancel(), "what was interrupted is done by the next"


def stream_to_its_end(client: Client, act: Act) -> None:
    """All pieces."""

    def read() -> None:
        with client.stream(Steps(3)) as stream:
            assert list(stream) == [0, 1, 2]
        assert stream.result == "done"

    act(read)


def stream_left_and_forgotten(client: Client, act: Act) -> None:
    """A subscription that is left by ``break``."""

    def read() -> None:
        for piece in client.stream(Watch()):
            assert piece == 7
            break

    act(read)


def stream_closed(client: Client, act: Act) -> None:
    """A subscription that is closed."""

    def read() -> None:
        with client.stream(Watch()) as stream:
            assert next(stream) == 7

    act(read)


def stream_in_a_loop(client: Client, act: Act) -> None:
    """Pieces for a function."""
    pieces: list[int] = []

    def read() -> None:
        client.fileno()
        end = client.stream(Steps(3)).each(pieces.append)
        while not end.done():
            client.poll()
            readable(client, 0.01)

    act(read)
    assert pieces == sorted(set(pieces)), "each once, in order"


def close(client: Client, act: Act) -> None:
    """Close with things in flight; what was interrupted is done by the next close."""
    client.fileno()
    future = client.submit(Never())
    stream = client.stream(Watch())
    if act(client.close):
        client.close()
    try:
        future.exception(0)
    except (CancelledError, TimeoutError):
        pass
    stream.close()


CLIENT_SCENARIOS = (
    first_call,
    warm_call,
    request,
    notify,
    time_limit,
    whole_map,
    map_left_early,
    submit_and_result,
    submit_and_poll,
    stream_to_its_end,
    stream_left_and_forgotten,
    stream_closed,
    stream_in_a_loop,
    close,
)


def run_interrupted_client(
    path: str, scenario: Callable[[Client, Act], None], interrupter: Any
) -> None:
    """Play a scenario with a new client, and look whether it is as good as new."""
    with Client(path, timeout=20) as client:
        scenario(client, interrupter.run)
        if scenario is close:
            with Client(path, timeout=20) as witness:
                _nothing_is_left(witness.call, 1)
            return
        gone = 0
        while True:
            value = next(_values)
            try:
                assert client.call(Echo(value)) == value
                break
            except PeerGone:
                gone += 1
                assert gone == 1, "gone again"
        values = [next(_values) for _ in range(5)]
        assert list(client.map(map(Echo, values), depth=2)) == values
        assert list(client.stream(Steps(3))) == [0, 1, 2]
        assert client.submit(Echo(values[0] + 1_000_000)).result() == values[0] + 1_000_000
        client.notify(Echo(values[0] + 2_000_000))
        gc.collect(0)
        client.fileno()
        until = time.monotonic() + 20
        while readable(client):
            client.poll()
            assert time.monotonic() < until, "the descriptor never fell silent"
        assert not client.pending
        assert client.next_deadline() is None
        _nothing_is_left(client.call, 1)
        # On this side too: what waits for nobody would be kept, and make each call slower.
        channel = client._session.connection
        assert channel is not None
        assert not channel._protocol.calls
        assert not channel._out
        assert not channel._wants_room
        assert channel.usable
        forgotten = [*channel._replies, *channel._awaited, *channel._takers]
        assert not forgotten
        pump = client._pump
        assert pump is not None
        assert list(pump._sessions) == [client._session], "the line of a stream is left"
        assert (pump._polls, *pump.ready, *pump._row, *client._guard._inside) == (0,)


def _nothing_is_left(call: Callable[[Look], tuple[int, int, int]], clients: int) -> None:
    wait_until(lambda: call(Look())[:2] == (clients, 0), "the end of what was interrupted")
    assert call(Look())[2] <= 1, "run twice"
