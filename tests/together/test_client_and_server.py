"""Late answers, generators and topics, from a real server to a client inside a loop."""

from __future__ import annotations

import asyncio
import random
import select
import threading
import time
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from harness import PATIENCE, readable, settle

from ipcpoll import Client, CommandError, Limits, PeerGone, Server, Subscription, Topic, Turn
from ipcpoll.adapters import asyncio_loop


@dataclass
class Program:
    """What the commands see."""

    topic: Topic[int] = field(default_factory=Topic)
    futures: list[Future[int]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)


@dataclass
class Count:
    """Counts, with a turn for others in between."""

    to: int

    def process(self, ctx: Program) -> Generator[int | Turn, Any, str]:
        try:
            for number in range(self.to):
                yield number
                yield Turn()
            if self.to == 13:
                raise CommandError("unlucky", "thirteen")
            return "done"
        finally:
            ctx.log.append("ended")


@dataclass
class Watch:
    """The pieces of the topic."""

    def process(self, ctx: Program) -> Subscription[int]:
        return ctx.topic.subscribe()


@dataclass
class Later:
    """Answered from a thread."""

    value: int

    def process(self, ctx: Program) -> Future[int]:
        future: Future[int] = Future()
        ctx.futures.append(future)
        return future


@dataclass
class Now:
    """Answered at once."""

    def process(self, ctx: Program) -> int:
        return 1


COMMANDS = [Count, Watch, Later, Now]


@pytest.fixture
def program():
    return Program()


@pytest.fixture
def server(path, program):
    with Server(path, COMMANDS) as server:
        yield server
        if not server.closed:
            settle(server, program)


@pytest.fixture
def client(server):
    with Client(server.address, timeout=PATIENCE) as client:
        yield client


def turn(server, client, program, seconds=0.02):
    select.select([server, client], [], [], seconds)
    if readable(server):
        server.poll(program)
    if readable(client):
        client.poll()


def both_until(server, client, program, condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        turn(server, client, program)


def test_generator(server, client, program):
    got = []
    end = client.stream(Count(200)).each(got.append)
    both_until(server, client, program, end.done)
    assert (got, end.result(), program.log) == (list(range(200)), "done", ["ended"])
    assert not readable(client)


def test_submit_of_a_generator(server, client, program):
    future = client.submit(Count(50))
    both_until(server, client, program, future.done)
    assert future.result() == "done"


def test_generator_that_fails(server, client, program):
    got = []
    end = client.stream(Count(13)).each(got.append)
    both_until(server, client, program, end.done)
    assert len(got) == 13
    with pytest.raises(CommandError, match=r"thirteen \[unlucky\]"):
        end.result()


def test_closed_stream_ends_the_generator(server, client, program):
    got = []
    stream = client.stream(Count(1_000_000_000))
    stream.each(got.append)
    both_until(server, client, program, lambda: got)
    stream.close()
    both_until(server, client, program, lambda: program.log)
    assert program.log == ["ended"]


def test_generator_of_a_reader_that_does_not_read_is_parked(server, client, program):
    """And calls of the same client go on meanwhile."""
    stream = client.stream(Count(1_000_000_000))
    deadline = time.monotonic() + PATIENCE
    while readable(server) or readable(client):
        assert time.monotonic() < deadline, "it never stood still"
        turn(server, client, program, 0)
    assert program.log == []
    future = client.submit(Now())
    both_until(server, client, program, future.done)
    assert future.result() == 1
    stream.close()
    both_until(server, client, program, lambda: program.log)


def test_blocking_client_of_a_generator(server, program):
    stop = threading.Event()

    def serve():
        while not stop.is_set():
            if readable(server, 0.02):
                server.poll(program)

    thread = threading.Thread(target=serve)
    thread.start()
    with Client(server.address, timeout=PATIENCE) as client:
        with client.stream(Count(300)) as stream:
            for number in stream:
                if number % 100 == 0:
                    assert client.call(Now()) == 1
        assert stream.result == "done"
        assert client.call(Count(3)) == "done"
        assert list(client.map([Count(2)] * 5)) == ["done"] * 5
    stop.set()
    thread.join()


def test_topic(server, client, program):
    got = []
    stream = client.stream(Watch(), timeout=None)
    end = stream.each(got.append)
    both_until(server, client, program, lambda: program.topic.subscribers)
    for number in range(100):
        program.topic.publish(number)
    both_until(server, client, program, lambda: len(got) == 100)
    assert (got, stream.lost) == (list(range(100)), 0)
    program.topic.close()
    both_until(server, client, program, end.done)
    assert end.result() is None


def test_slow_reader_of_a_topic_is_told_what_it_lost(server, client, program):
    stream = client.stream(Watch(), timeout=None)
    both_until(server, client, program, lambda: program.topic.subscribers)
    for number in range(100_000):
        program.topic.publish(number)
        if number % 100 == 0:
            turn(server, client, program, 0)
    program.topic.close()
    read = []
    deadline = time.monotonic() + PATIENCE
    while not (stream._flow._over and stream.has_come and not stream._flow._unread):
        assert time.monotonic() < deadline
        turn(server, client, program, 0)
        while stream._flow._unread:
            read.append(stream.next_come())
    assert read == sorted(read)
    assert read[-1] == 99_999
    assert stream.lost > 0
    assert len(read) + stream.lost == 100_000


def test_stream_goes_on_when_the_server_restarts(path, program):
    got, gaps = [], []
    with Client(path, timeout=PATIENCE) as client:
        stream = client.stream(Watch(), timeout=None, resume=True)
        stream.each(got.append, gap=lambda: gaps.append(len(got)))
        for number in range(3):
            with Server(path, COMMANDS) as server:
                both_until(server, client, program, lambda: program.topic.subscribers == 1)
                program.topic.publish(number)
                both_until(server, client, program, lambda number=number: len(got) > number)
            assert program.topic.subscribers == 0
    assert (got, gaps, stream.gaps) == ([0, 1, 2], [1, 2], 2)


def test_late_answers_from_threads(server, client, program):
    futures = {value: client.submit(Later(value)) for value in range(100)}
    both_until(server, client, program, lambda: len(program.futures) == 100)
    order = list(enumerate(program.futures))
    random.Random(1).shuffle(order)

    def finish(part):
        for value, future in part:
            if future.set_running_or_notify_cancel():
                future.set_result(value)

    for value in range(0, 100, 10):
        assert futures.pop(value).cancel()
    both_until(server, client, program, program.futures[90].cancelled)
    threads = [threading.Thread(target=finish, args=[order[i::4]]) for i in range(4)]
    for thread in threads:
        thread.start()
    both_until(server, client, program, lambda: all(future.done() for future in futures.values()))
    for thread in threads:
        thread.join()
    assert {value: future.result() for value, future in futures.items()} == {
        value: value for value in futures
    }


def test_server_that_closes_with_all_of_it_pending(server, client, program):
    late, end = client.submit(Later(1)), client.stream(Watch(), timeout=None).each(print)
    both_until(server, client, program, lambda: program.futures and program.topic.subscribers)
    server.close()
    deadline = time.monotonic() + PATIENCE
    while not (late.done() and end.done()):
        assert time.monotonic() < deadline
        if readable(client, 0.02):
            client.poll()
    for future in (late, end):
        assert isinstance(future.exception(), (CommandError, PeerGone))
    assert program.futures[0].cancelled()


def test_both_ends_in_one_asyncio_loop(server, program):
    async def main():
        asyncio_loop.attach(server, program)
        async with asyncio_loop.AsyncClient(server.address, timeout=PATIENCE) as client:
            stream = client.stream(Count(100))
            assert [number async for number in stream] == list(range(100))
            assert stream.result == "done"
            calls = [client.call(Count(5)), client.call(Now())]
            assert await asyncio.gather(*calls) == ["done", 1]
            asking = asyncio.create_task(client.call(Later(1)))
            while not program.futures:
                await asyncio.sleep(0.001)
            asking.cancel()
            while not program.futures[0].cancelled():
                await asyncio.sleep(0.001)
            with pytest.raises(asyncio.CancelledError):
                await asking
        for attachment in list(server.attachments):
            attachment.detach()

    asyncio.run(asyncio.wait_for(main(), PATIENCE), debug=True)


# ---------------------------------------------------------------------------------------------
# Large frames


@dataclass
class Raw:
    """Gives bytes back."""

    data: bytes
    number: int = 0

    def process(self, ctx: Any) -> bytes:
        return self.data


@dataclass
class Words:
    """Gives a text back, and keeps its length."""

    text: str

    def process(self, ctx: Program) -> str:
        ctx.log.append(f"{len(self.text)}")
        return self.text


MIB = 1 << 20
RAW = bytes(range(256)) * (MIB // 256)
TEXT = "né€" * (MIB // 6)


def test_large_texts_go_there_and_back_between_small_ones(path, program):
    """Blocking, in a map, as futures and as notifications; more at once than a socket takes."""
    limits = Limits(max_frame=2 * MIB, max_answer=2 * MIB)

    def use() -> list[Any]:
        with Client(path, limits=limits, timeout=PATIENCE) as client:
            client.notify(Words(TEXT))
            got: list[Any] = [client.call(Raw(RAW)), client.call(Words(TEXT))]
            got += client.map([Raw(b"small"), Raw(RAW), Raw(RAW, 1), Raw(b""), Raw(RAW)])
            futures = [client.submit(Words(text)) for text in ("", TEXT, "x", TEXT)]
            got += [future.result() for future in futures]
        return got

    with Server(path, [Raw, Words], limits=limits) as server, ThreadPoolExecutor(1) as pool:
        used = pool.submit(use)
        deadline = time.monotonic() + PATIENCE
        while not used.done():
            assert time.monotonic() < deadline, "it did not come"
            select.select([server], [], [], 0.01)
            server.poll(program)
        got = used.result()
        settle(server, program)
    expected = [RAW, TEXT, b"small", RAW, RAW, b"", RAW, "", TEXT, "x", TEXT]
    assert [len(value) for value in got] == [len(value) for value in expected]
    assert got == expected
    assert program.log == [f"{len(text)}" for text in (TEXT, TEXT, "", TEXT, "x", TEXT)]
