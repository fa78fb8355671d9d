"""`AsyncClient` of asyncio and trio: the same cases in both, and nothing left in the loop."""

from __future__ import annotations

import asyncio
import gc
import os
import time
import weakref
from typing import Any

import pytest
from fake_server import Count, FakeServer, Hear
from harness import PATIENCE, Echo, Take, full_backlog
from loops import need

from ipcpoll import (
    CommandError,
    FrameTooLarge,
    NotAnswered,
    NotPolled,
    NotRunning,
    PeerGone,
    UsageError,
)


class InAsyncio:
    """What the cases need of asyncio."""

    cancelled = asyncio.CancelledError

    def __init__(self):
        from ipcpoll.adapters import asyncio_loop

        self.AsyncClient = asyncio_loop.AsyncClient

    def run(self, main):
        async def all_of_it():
            await asyncio.wait_for(main(), PATIENCE)
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(all_of_it(), debug=True)

    async def turn(self):
        await asyncio.sleep(0)

    async def together(self, *functions):
        """Run all; return what each returned, or raised."""
        return await asyncio.gather(*(function() for function in functions), return_exceptions=True)

    async def cancelled_after(self, condition, function):
        """Run a function, and cancel it when the condition holds."""
        task = asyncio.create_task(function())
        await self.until(condition)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def accept(self, fake):
        """Accept the next client."""
        await self.until(lambda: fake.is_asked)
        return fake.accept()

    async def hear(self, connection, count=1):
        """Return so many messages of a client."""
        messages: list[Any] = []
        await self.until(
            lambda: (
                messages.extend(connection.heard(count - len(messages))) or len(messages) == count
            )
        )
        return messages

    async def within(self, seconds, function):
        """Return what a function returns within the time, else None."""
        try:
            return await asyncio.wait_for(function(), seconds)
        except TimeoutError:
            return None

    async def until(self, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.001)


class InTrio(InAsyncio):
    """What the cases need of trio."""

    def __init__(self):
        need("trio", "pip install trio")
        import trio

        from ipcpoll.adapters import trio_loop

        self.trio = trio
        self.AsyncClient = trio_loop.AsyncClient

    def run(self, main):
        async def all_of_it():
            with self.trio.fail_after(PATIENCE):
                tasks = self.trio.lowlevel.current_statistics().tasks_living
                await main()
                await self.until(
                    lambda: self.trio.lowlevel.current_statistics().tasks_living == tasks
                )

        self.trio.run(all_of_it)

    async def turn(self):
        await self.trio.lowlevel.checkpoint()

    async def together(self, *functions):
        results: dict[int, Any] = {}

        async def keep(number, function):
            try:
                results[number] = await function()
            except Exception as error:
                results[number] = error

        async with self.trio.open_nursery() as nursery:
            for number, function in enumerate(functions):
                nursery.start_soon(keep, number, function)
        return [results[number] for number in range(len(functions))]

    async def cancelled_after(self, condition, function):
        async with self.trio.open_nursery() as nursery:
            nursery.start_soon(function)
            await self.until(condition)
            nursery.cancel_scope.cancel()

    async def within(self, seconds, function):
        with self.trio.move_on_after(seconds):
            return await function()

    async def until(self, condition):
        with self.trio.fail_after(PATIENCE):
            while not condition():
                await self.trio.sleep(0.001)


@pytest.fixture(params=[InAsyncio, InTrio], ids=["asyncio", "trio"])
def loop(request):
    return request.param()


def test_calls_at_once(loop, fake):
    async def main():
        async with loop.AsyncClient(fake.path) as client:

            async def answer():
                connection = await loop.accept(fake)
                ids = [message[0] for message in await loop.hear(connection, 3)]
                connection.say(*([call_id, 0, 10 * call_id] for call_id in reversed(ids)))

            calls = [lambda i=i: client.call(Echo(i)) for i in range(3)]
            assert sorted((await loop.together(*calls, answer))[:3]) == [10, 20, 30]

    loop.run(main)


def test_request_and_errors(loop, fake):
    async def main():
        async with loop.AsyncClient(fake.path) as client:

            async def answer():
                connection = await loop.accept(fake)
                assert await loop.hear(connection) == [[1, "Thing", {"a": 1}]]
                connection.say([1, 0, {"b": [2]}])
                assert await loop.hear(connection) == [[2, "Other", {}]]
                connection.say([2, 1, {"code": "mine", "message": "no"}])

            async def ask():
                assert await client.request("Thing", {"a": 1}) == {"b": [2]}
                with pytest.raises(CommandError, match=r"no \[mine\]"):
                    await client.request("Other")

            assert await loop.together(ask, answer) == [None, None]

    loop.run(main)


def test_notify(loop, fake):
    async def main():
        async with loop.AsyncClient(fake.path) as client:
            await client.notify(Echo(7))
            assert fake.accept().next() == [None, "Echo", {"value": 7}]

    loop.run(main)


def test_notify_that_finds_no_room(loop, fake):
    async def main():
        async with loop.AsyncClient(fake.path, timeout=0.05) as client:

            async def notify(size=200_000):
                await client.notify(Take(bytes(size)))

            results = await loop.together(*[notify] * 4)
            assert NotPolled in map(type, results)
            connection = fake.accept()
            await loop.cancelled_after(lambda: True, lambda: notify(9))
            count = results.count(None) + 1

            async def last():
                await client.notify(Take(b"last"), timeout=PATIENCE)

            async def read():
                sizes: list[int] = []
                while not sizes or sizes[-1] != 4:
                    (message,) = await loop.hear(connection)
                    sizes.append(len(message[2]["data"]))
                return sizes

            sizes, nothing = await loop.together(read, last)
            # One of those that were too late was sent in part, and so the rest had to follow.
            assert sizes == [200_000] * count + [4]
            assert nothing is None

    loop.run(main)


def test_notify_before_there_is_a_connection(loop, path):
    async def main():
        async with loop.AsyncClient(path, timeout=0.05) as client:
            with full_backlog(path):
                with pytest.raises(NotPolled, match="its backlog is full"):
                    await client.notify(Echo(1))
                await loop.cancelled_after(lambda: True, lambda: client.notify(Echo(2)))

    loop.run(main)


def test_notify_when_the_server_goes(loop, path):
    async def main():
        async with loop.AsyncClient(path, timeout=PATIENCE) as client:
            with FakeServer(path) as fake:
                fill = [lambda: client.notify(Take(bytes(250_000)))] * 4

                async def go():
                    connection = await loop.accept(fake)
                    await loop.turn()
                    connection.close()

                results = await loop.together(*fill, go)
            assert PeerGone in map(type, results)

    loop.run(main)


def test_cancelled_task_cancels_its_call(loop, fake):
    async def main():
        async with loop.AsyncClient(fake.path) as client:
            connections = []

            def asked():
                if fake.is_asked:
                    connections.append(fake.accept())
                    connections[0].next()
                return connections

            await loop.cancelled_after(asked, lambda: client.call(Echo(1)))
            assert connections[0].next() == [1]
            connections[0].say([1, 0, 5])

    loop.run(main)


def test_time_limit(loop, fake):
    async def main():
        async with loop.AsyncClient(fake.path, timeout=0.02) as client:
            with pytest.raises(NotPolled):
                await client.call(Echo(1))
            connection = fake.accept()
            await loop.hear(connection, 2)

            async def read():
                await loop.hear(connection)

            results = await loop.together(lambda: client.call(Echo(2), timeout=0.05), read)
            assert type(results[0]) is NotAnswered

    loop.run(main)


def test_server_that_does_not_run(loop, path):
    async def main():
        async with loop.AsyncClient(path) as client:
            with pytest.raises(NotRunning):
                await client.call(Echo(1))
            with pytest.raises(NotRunning):
                await client.notify(Echo(1))
            with pytest.raises(NotRunning):
                async for _ in client.stream(Count()):
                    pass
            with FakeServer(path):
                await client.notify(Echo(1))
                with pytest.raises(FrameTooLarge):
                    await client.call(Take(bytes(300_000)))

    loop.run(main)


def test_close_ends_what_waits(loop, fake):
    async def main():
        client = loop.AsyncClient(fake.path)
        stream = client.stream(Count())

        async def pieces():
            return [piece async for piece in stream]

        async def close():
            for _ in range(2):
                await loop.accept(fake)
            client.close()

        results = await loop.together(lambda: client.call(Echo(1)), pieces, close)
        assert [type(result) for result in results] == [PeerGone, PeerGone, type(None)]
        with pytest.raises(UsageError, match="the client is closed"):
            await client.call(Echo(1))
        client.close()

    loop.run(main)


def test_stream(loop, fake):
    async def main():
        async with loop.AsyncClient(fake.path) as client:
            stream = client.stream(Count())

            async def speak():
                connection = await loop.accept(fake)
                for number in range(100):
                    connection.say([1, 2, number, {"lost": 1}])
                    await loop.turn()
                connection.say([1, 0, "done"])

            async def pieces():
                return [piece async for piece in stream]

            got, _ = await loop.together(pieces, speak)
            assert got == list(range(100))
            assert (stream.result, stream.lost, stream.gaps) == ("done", 100, 0)

    loop.run(main)


def test_slow_reader_of_a_stream(loop, fake):
    async def main():
        async with loop.AsyncClient(fake.path) as client:
            stream = client.stream(Count())
            connection = fake.accept()
            sent = connection.fill([1, 2, 7])

            async def pieces():
                got = 0
                async for _ in stream:
                    got += 1
                    if got % 100 == 0:
                        await loop.turn()
                    if got == sent:
                        return got

            assert await loop.together(pieces) == [sent]
            stream.close()

    loop.run(main)


def test_cancelled_reader_leaves_the_stream_as_it_is(loop, fake):
    async def main():
        async with loop.AsyncClient(fake.path, timeout=0.05) as client:
            stream = client.stream(Count())
            connection = fake.accept()
            connection.next()
            for _ in range(2):
                await loop.cancelled_after(lambda: stream._waits, lambda: anext(stream))
            # Nobody waits now, so nobody's time runs.
            began = time.monotonic()
            await loop.until(lambda: time.monotonic() > began + 0.06)
            assert connection.is_silent
            connection.say([1, 2, 1], [1, 2, 2])
            assert [await anext(stream), await anext(stream)] == [1, 2]
            connection.say([1, 0, "done"])
            assert [piece async for piece in stream] == []
            assert stream.result == "done"

    loop.run(main)


def test_time_limit_of_ones_own_for_a_piece(loop, fake):
    async def main():
        async with loop.AsyncClient(fake.path) as client:
            stream = client.stream(Count())
            connection = await loop.accept(fake)
            for number in range(5):
                assert await loop.within(0.01, lambda: anext(stream)) is None
                connection.say([1, 2, number])
                assert await loop.within(PATIENCE, lambda: anext(stream)) == number
            assert (stream.lost, stream.gaps) == (0, 0)
            stream.close()

    loop.run(main)


def test_no_piece_is_lost_to_a_time_limit_of_ones_own(loop, fake):
    """However the end of the time and the coming of the piece meet."""

    async def main():
        async with loop.AsyncClient(fake.path) as client:
            stream = client.stream(Count())
            connection = await loop.accept(fake)
            got: list[int] = []
            over = 0
            said = 0
            while len(got) < 200:
                if said < 200 and (over + len(got)) % 3:
                    connection.say([1, 2, said])
                    said += 1
                piece = await loop.within(
                    0.00005 * (1 + (over + len(got)) % 7), lambda: anext(stream)
                )
                if piece is None:
                    over += 1
                else:
                    got.append(piece)
            assert got == list(range(200))
            assert over, "some were too late"
            stream.close()

    loop.run(main)


def test_stream_that_is_left_and_forgotten_is_cancelled(loop, fake):
    async def main():
        async with loop.AsyncClient(fake.path) as client:

            async def read():
                async for piece in client.stream(Count()):
                    assert piece == 1
                    break

            async def speak():
                connection = await loop.accept(fake)
                connection.next()
                connection.say([1, 2, 1], [1, 2, 2])
                return connection

            with pytest.warns(ResourceWarning, match="of Count> was left before its end"):
                _, connection = await loop.together(read, speak)
            assert connection.next() is None

    loop.run(main)


def test_stream_that_is_forgotten_in_a_cycle_is_cancelled(loop, fake):
    async def main():
        async with loop.AsyncClient(fake.path) as client:
            cycle: list[Any] = [client.stream(Count())]
            cycle.append(cycle)
            connection = await loop.accept(fake)
            connection.next()
            del cycle
            with pytest.warns(ResourceWarning, match="of Count> was left before its end"):
                gc.collect()
            assert connection.next() is None

    loop.run(main)


def test_stream_whose_reader_was_cancelled_and_is_forgotten_is_cancelled(loop, fake):
    async def main():
        async with loop.AsyncClient(fake.path) as client:
            streams = [client.stream(Count())]
            connection = await loop.accept(fake)
            connection.next()

            async def read():
                stream = streams.pop()
                async for _ in stream:
                    pass

            async def forget():
                await loop.cancelled_after(lambda: not streams, read)
                await loop.turn()  # until then asyncio holds the task's exception
                gc.collect()

            with pytest.warns(ResourceWarning, match="of Count> was left before its end"):
                await forget()
            assert connection.next() is None

    loop.run(main)


def test_quiet_subscription_has_no_time_limit_of_the_client(loop, fake):
    async def main():
        async with loop.AsyncClient(fake.path, timeout=0.02) as client:
            stream = client.stream(Hear())
            connection = await loop.accept(fake)
            connection.say([1, 2, 1])
            assert await anext(stream) == 1
            began = time.monotonic()

            async def speak():
                await loop.until(lambda: time.monotonic() > began + 0.05)
                connection.say([1, 2, 2])

            assert await loop.together(lambda: anext(stream), speak) == [2, None]
            stream.close()
            with pytest.raises(NotPolled, match="has not read Hear within"):
                await anext(client.stream(Hear(), timeout=0.02))

    loop.run(main)


def test_two_tasks_that_read_one_stream(loop, fake):
    async def main():
        async with loop.AsyncClient(fake.path) as client:
            stream = client.stream(Count())

            async def one():
                return await anext(stream)

            async def speak():
                connection = await loop.accept(fake)
                for _ in range(3):
                    await loop.turn()
                connection.say([1, 2, 5])

            *results, _ = await loop.together(one, one, speak)
            error, piece = sorted(results, key=lambda result: result == 5)
            assert (type(error), piece) == (UsageError, 5)
            stream.close()

    loop.run(main)


def test_stream_that_is_left_early(loop, fake):
    async def main():
        async with loop.AsyncClient(fake.path) as client:
            async with client.stream(Count()) as stream:
                connection = fake.accept()
                connection.next()
                connection.say([1, 2, 1], [1, 2, 2])
                async for piece in stream:
                    assert piece == 1
                    break
            assert connection.next() is None

    loop.run(main)


def test_stream_resumes(loop, path):
    async def main():
        async with loop.AsyncClient(path) as client:
            stream = client.stream(Count(), resume=True)
            for number in range(3):

                async def serve(number=number):
                    with FakeServer(path) as fake:
                        await loop.until(lambda: fake.is_asked)
                        fake.accept().say([1, 2, number])
                    os.unlink(path)

                got, _ = await loop.together(lambda: anext(stream), serve)
                assert (got, stream.gaps) == (number, number)
            stream.close()

    loop.run(main)


def test_nothing_is_kept(loop, fake):
    before = len(os.listdir("/proc/self/fd"))
    references = []

    async def main():
        inside = len(os.listdir("/proc/self/fd"))
        client = loop.AsyncClient(fake.path)
        stream = client.stream(Count())
        await client.notify(Echo(1))
        references.extend(weakref.ref(thing) for thing in (client, client._client, stream))
        client.close()
        assert len(os.listdir("/proc/self/fd")) == inside

    loop.run(main)
    gc.collect()
    assert [reference() for reference in references] == [None] * 3
    assert len(os.listdir("/proc/self/fd")) == before
