"""A client in a loop does what comes to mind, against a server that dies at times.

Whatever happens: each future ends, each once; the descriptor is silent when nothing is left; and
nothing is kept.
"""

from __future__ import annotations

import gc
import os
import random
import time
import weakref
from collections.abc import Generator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from harness import PATIENCE, readable, settle

from ipcpoll import Client, IpcError, Server, Turn


@dataclass
class Now:
    """Answers at once."""

    data: bytes

    def process(self, ctx: Any) -> bytes:
        return self.data


@dataclass
class Later:
    """Answers when the program says so, or never."""

    value: int

    def process(self, ctx: list[Future[int]]) -> Future[int]:
        future: Future[int] = Future()
        ctx.append(future)
        return future


@dataclass
class Count:
    """Gives numbers."""

    to: int

    def process(self, ctx: Any) -> Generator[int | Turn, Any, int]:
        for number in range(self.to):
            yield number
            if number % 3 == 0:
                yield Turn()
        return self.to


class World:
    """A server that comes and goes, one client, and what they have to do with each other."""

    def __init__(self, path: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.path = path
        self.late: list[Future[int]] = []
        self.calls: list[tuple[Future[Any], Any]] = []
        self.streams: list[Any] = []
        self.ends: list[int] = []
        self.server: Server[Any] | None = None
        self.client = Client(path, timeout=PATIENCE)
        self.client.fileno()

    def start_or_stop(self) -> None:
        if self.server is None:
            self.server = Server(self.path, [Now, Later, Count])
        elif self.random.random() < 0.2:
            self.server.close()
            self.server = None

    def serve(self) -> None:
        if self.server is not None and readable(self.server):
            self.server.poll(self.late, max_seconds=self.random.choice([0, None]))

    def poll(self) -> None:
        if readable(self.client):
            self.client.poll(max_seconds=self.random.choice([0, None]))
        else:
            assert not self.client.pending

    def submit(self) -> None:
        size = self.random.choice([0, 10, 100_000])
        command: Any = self.random.choice([Now(bytes(size)), Later(len(self.calls)), Count(20)])
        timeout = self.random.choice([0.005, PATIENCE, PATIENCE, None])
        future: Future[Any] = self.client.submit(command, timeout=timeout)
        number = len(self.calls)
        future.add_done_callback(lambda _: self.ends.append(number))
        if self.random.random() < 0.1:
            future.add_done_callback(lambda _: self.random.choice([self.submit, self.poll])())
        self.calls.append((future, command))

    def stream(self) -> None:
        stream = self.client.stream(Count(self.random.choice([1, 200])), resume=self.coin())
        self.streams.append(stream)
        if self.coin():
            got: list[int] = []
            number = len(self.calls)
            end = stream.each(got.append)
            end.add_done_callback(lambda _: self.ends.append(number))
            self.calls.append((end, None))

    def coin(self) -> bool:
        return self.random.random() < 0.5

    def cancel(self) -> None:
        if self.calls:
            self.random.choice(self.calls)[0].cancel()

    def close_stream(self) -> None:
        if self.streams:
            self.streams.pop(self.random.randrange(len(self.streams))).close()

    def finish_late(self) -> None:
        if self.late:
            future = self.late.pop(self.random.randrange(len(self.late)))
            if future.set_running_or_notify_cancel():
                future.set_result(7)

    def look(self) -> None:
        """Wait a moment for one of them, as an impatient program does."""
        if self.calls:
            with suppress(TimeoutError, CancelledError):
                self.random.choice(self.calls)[0].exception(0)

    def step(self) -> None:
        actions = [
            self.serve,
            self.poll,
            self.serve,
            self.poll,
            self.submit,
            self.stream,
            self.cancel,
            self.close_stream,
            self.finish_late,
            self.look,
            self.start_or_stop,
        ]
        self.random.choice(actions)()

    def come_to_rest(self) -> None:
        """Let the server go, and poll until nothing is left."""
        for stream in self.streams:
            stream.close()
        if self.server is not None:
            self.server.close()
        deadline = time.monotonic() + PATIENCE
        while not all(future.done() for future, _ in self.calls):
            assert time.monotonic() < deadline, "a future never ended"
            if readable(self.client, 0.02):
                self.client.poll()
        while readable(self.client):
            assert time.monotonic() < deadline, "the descriptor never fell silent"
            self.client.poll()


@pytest.mark.parametrize("seed", range(60))
def test_whatever_a_program_does(directory, caplog, seed):
    before = set(os.listdir("/proc/self/fd"))
    world = World(f"{directory}/s", seed)
    for _ in range(300):
        world.step()
    world.come_to_rest()
    assert not [record for record in caplog.records if record.name == "concurrent.futures"]
    assert not world.client.pending
    assert sorted(world.ends) == list(range(len(world.calls))), "each ends once"
    for future, command in world.calls:
        error = None if future.cancelled() else future.exception()
        assert error is None or isinstance(error, IpcError), error
        if error is None and not future.cancelled() and isinstance(command, Now):
            assert future.result() == command.data
    pump = world.client._pump
    assert pump is not None
    assert not pump.ready
    assert list(pump._sessions) == [world.client._session]
    assert pump.next_deadline() is None
    world.client.close()
    assert set(os.listdir("/proc/self/fd")) == before
    references = [weakref.ref(future) for future, _ in world.calls]
    world.calls.clear()
    world.streams.clear()
    del future
    gc.collect()
    assert not [reference for reference in references if reference() is not None]


def test_rest(directory):
    """The server of these tests is silent, too, when its client has gone."""
    world = World(f"{directory}/s", 1)
    world.server = Server(world.path, [Now, Later, Count])
    for _ in range(20):
        world.submit()
        world.serve()
    world.client.close()
    settle(world.server, world.late)
    assert world.server.stats()["clients"] == 0
    world.server.close()
