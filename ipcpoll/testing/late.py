"""The cases of `ipcpoll.testing` about answers that come later: see there.

An adapter has nothing to do for them but to come back while the descriptor is readable. One whose
loop runs coroutines proves that as well: it says `runs_coroutines`, and how its loop sleeps.
"""

from __future__ import annotations

import functools
import threading
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest import SkipTest

from .._attach.attachment import Attachment
from .._attach.pollable import Pollable
from .._client.client import Client
from .._server.server import Server
from ..errors import InternalError, NotAnswered, ShuttingDown
from .commands import (
    LATE_COMMANDS,
    LateContext,
    Later,
    Now,
    Sleep,
    Steps,
    StopAtOnce,
    StopLater,
    StopNow,
    StopSleep,
    StopSteps,
    StopTicks,
    Ticks,
)
from .fakes import PATIENCE, Watched


class LateAnswers:
    """The cases. `AdapterConformance` has what they use."""

    runs_coroutines = False
    """Whether the adapter lets asynchronous commands run in the loop; then `sleep` says how it
    sleeps."""

    async def sleep(self, seconds: float) -> None:
        """Sleep in the loop, inside a coroutine that it runs."""
        raise NotImplementedError

    directory: str
    open: ExitStack

    @abstractmethod
    def attach(
        self, pollable: Pollable, ctx: Any, *, max_seconds: float | None = None
    ) -> Attachment: ...
    @abstractmethod
    def call_later(self, seconds: float, function: Callable[[], None]) -> None: ...
    @abstractmethod
    def run(self, *clients: Callable[[], None], seconds: float = 0) -> None: ...

    @abstractmethod
    def _client(self, body: Callable[[], None]) -> None: ...

    def _serve_late(self) -> tuple[Server[Any], LateContext]:
        """Return a new server that answers later, and its context."""
        server: Server[Any] = Server(f"{self.directory}/late.sock", LATE_COMMANDS)
        self.open.callback(server.close)
        return server, LateContext(self.sleep, close=server.close)

    # The cases

    def test_late_calls_wait_without_a_poll(self) -> None:
        """100 of them for a second; then another thread finishes all, and they are answered."""
        server, ctx = self._serve_late()
        watched = Watched(server)
        self.attach(watched, ctx)
        answers: list[int] = []

        def ask() -> None:
            with Client(server.address, timeout=PATIENCE) as client:
                commands: list[Any] = [Later()] * 100
                answers.extend(client.map(commands, depth=100))

        asking = threading.Thread(target=self._client, args=[ask])

        def all_are_there() -> None:
            asking.start()
            wait_until(lambda: len(ctx.futures) == 100)

        self.run(all_are_there)
        self.run(seconds=0.1)
        before = watched.polls
        self.run(seconds=1.0)
        assert watched.polls == before, "it polls while nothing is done"

        def finish() -> None:
            for number, future in enumerate(ctx.futures):
                future.set_result(number)
            asking.join(PATIENCE)

        self.run(finish)
        assert answers == list(range(100))
        assert server.stats()["in_flight"] == 0

    def test_generator_is_stepped_between_timers(self) -> None:
        """A long job in slices: timers go on, and another client is served meanwhile."""
        server, ctx = self._serve_late()
        self.attach(server, ctx, max_seconds=0)  # one step a poll
        ticks: list[int] = []
        over = threading.Event()

        def tick() -> None:
            ticks.append(len(ctx.log))
            if not over.is_set():
                self.call_later(0.002, tick)

        def work() -> None:
            wait_until(lambda: bool(served))  # the other client is there
            with Client(server.address, timeout=PATIENCE) as client:
                assert client.call(Steps(200)) == 200
            over.set()

        def ask() -> None:
            with Client(server.address, timeout=PATIENCE) as client:
                while not over.is_set():
                    served.append(client.call(Now()))

        served: list[int] = []
        self.call_later(0, tick)
        self.run(work, ask)
        assert ctx.log == ["step"] * 200
        assert len({steps for steps in ticks if 0 < steps < 200}) >= 3, "the timers waited"
        assert len({steps for steps in served if 0 < steps < 200}) >= 3, "the other client waited"

    def test_late_call_of_a_client_that_goes(self) -> None:
        """Its future is cancelled, in the loop, without a further word from anybody."""
        server, ctx = self._serve_late()
        self.attach(server, ctx)

        def ask() -> None:
            with Client(server.address, timeout=PATIENCE) as client:
                for _ in range(2):  # one is cancelled, one goes with its client
                    try:
                        client.call(Later(), timeout=0.1)
                    except NotAnswered:
                        continue
                    raise AssertionError("it was answered")
                wait_until(lambda: len(ctx.futures) == 2)
            wait_until(lambda: all(future.cancelled() for future in ctx.futures))

        self.run(ask)

    def test_asynchronous_command(self) -> None:
        """It runs in the loop, is answered, and cancelled; others are served meanwhile."""
        server, ctx = self._serve_late()
        self.attach(server, ctx)
        messages: list[str] = []

        def ask() -> None:
            with Client(server.address, timeout=PATIENCE) as client:
                if not self.runs_coroutines:
                    try:
                        client.call(Sleep(0))
                    except InternalError as error:
                        messages.append(error.message)
                    assert "asyncio_loop" in messages[0]
                    return
                assert client.call(Sleep(0.01)) == "slept"
                sleepers: list[Any] = [Sleep(0.01)] * 20
                assert list(client.map(sleepers)) == ["slept"] * 20
                try:
                    client.call(Sleep(PATIENCE), timeout=0.05)
                except NotAnswered:
                    assert client.call(Now()) >= 21
                wait_until(lambda: ctx.log == ["awake"] * 22)

        self.run(ask)
        assert server.stats()["in_flight"] == 0

    def test_asynchronous_generator(self) -> None:
        """Its pieces come, it waits for a client that does not read, and ends with it."""
        if not self.runs_coroutines:
            raise SkipTest("does not apply: the loop runs no coroutines")
        server, ctx = self._serve_late()
        self.attach(server, ctx)

        def ask() -> None:
            with Client(server.address, timeout=PATIENCE) as client:
                client.call(Ticks(100))
            assert ctx.log == ["tick"] * 100 + ["ended"]
            with Client(server.address, timeout=PATIENCE) as client:
                try:
                    client.call(Ticks(10**9), timeout=0.05)
                except NotAnswered:
                    pass
                wait_until(lambda: ctx.log.count("ended") == 2)

        self.run(ask)
        assert server.stats()["in_flight"] == 0

    def test_server_closed_with_late_calls_in_flight(self) -> None:
        """They are told, futures and coroutines are cancelled, generators closed."""
        server, ctx = self._serve_late()
        self.attach(server, ctx)
        commands: list[Any] = [Later(), Steps(10**9)]
        if self.runs_coroutines:
            commands += [Sleep(PATIENCE), Ticks(10**9)]
        told: list[bool] = []

        def ask(command: Any) -> None:
            with Client(server.address, timeout=PATIENCE) as client:
                try:
                    client.call(command)
                except ShuttingDown as error:
                    told.append(error.began)

        def all_have_begun() -> bool:
            coroutines = not self.runs_coroutines or (ctx.asleep == 1 and "tick" in ctx.log)
            return coroutines and server.stats()["in_flight"] == len(commands)

        def close() -> None:
            if all_have_begun():
                server.close()
            else:
                self.call_later(0.005, close)

        self.call_later(0, close)
        self.run(*[functools.partial(ask, command) for command in commands])
        assert told == [True] * len(commands)
        assert ctx.futures[0].cancelled()
        self.run(seconds=0.05)
        if self.runs_coroutines:
            assert {"awake", "ended"} <= set(ctx.log)

    def test_command_that_closes_the_server_and_answers(self) -> None:
        """Whatever its kind, its own client gets its answer, and every other one is told."""
        kinds: list[Any] = [StopNow(), StopLater(), StopSteps()]
        streams: list[Any] = [StopSteps()]
        if self.runs_coroutines:
            kinds += [StopSleep(), StopAtOnce()]
            streams += [StopTicks()]
        for command in kinds:
            self._stop(command, Client.call)
        for command in streams:
            self._stop(command, _result_or_last_piece)

    def _stop(self, command: Any, ask: Callable[[Client, Any], Any]) -> None:
        """Ask a new server to stop, beside a client whose call has begun."""
        server, ctx = self._serve_late()
        self.attach(server, ctx)
        answers: list[Any] = []
        told: list[bool] = []

        def wait() -> None:
            with Client(server.address, timeout=PATIENCE) as client:
                try:
                    client.call(Later())
                except ShuttingDown as error:
                    told.append(error.began)

        def stop() -> None:
            wait_until(lambda: bool(ctx.futures))
            with Client(server.address, timeout=PATIENCE) as client:
                answers.append(ask(client, command))

        self.run(wait, stop)
        assert server.closed
        assert answers == ["stopped"]
        assert told == [True]
        assert server.stats()["in_flight"] == server.stats()["clients"] == 0


def _result_or_last_piece(client: Client, command: Any) -> Any:
    stream: Any = client.stream(command)
    *_, last = stream
    return stream.result or last


def wait_until(condition: Callable[[], object]) -> None:
    """Wait, in a client's thread."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"it did not come within {PATIENCE:g} s")
        time.sleep(0.001)
