"""One `AsyncClient` in several loops in turn: what began in one continues in the next."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from typing import Any

import pytest
from fake_server import Count
from harness import PATIENCE, Echo
from loops import need

from ipcpoll import Client, NotAnswered, NotPolled, PeerGone, UsageError
from ipcpoll.adapters import asyncio_loop

pytestmark = pytest.mark.filterwarnings("ignore:.*uvloop.*:DeprecationWarning")


@pytest.fixture(params=["asyncio", "uvloop"])
def new_loop(request):
    """Makes loops of a kind; those that are left open are closed."""
    if request.param == "uvloop":
        need("uvloop", "pip install uvloop")
        import uvloop

        make = uvloop.new_event_loop
    else:
        make = asyncio.new_event_loop
    loops: list[asyncio.AbstractEventLoop] = []

    def new() -> asyncio.AbstractEventLoop:
        loops.append(make())
        return loops[-1]

    yield new
    for loop in loops:
        loop.close()


def run(loop, coroutine):
    """Run it in this loop, which stays open."""
    return loop.run_until_complete(asyncio.wait_for(coroutine, PATIENCE))


def run_and_close(loop, coroutine):
    """As `asyncio.run` does."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(asyncio.wait_for(coroutine, PATIENCE))


@pytest.fixture
def client(fake):
    client = asyncio_loop.AsyncClient(fake.path, timeout=PATIENCE)
    yield client
    client.close()


async def answered(client, fake, connection=None):
    """Call, be the server too, and return the connection."""
    call = asyncio.create_task(client.call(Echo(1)))
    if connection is None:
        await until(lambda: fake.is_asked)
        connection = fake.accept()
    messages: list[Any] = []
    await until(lambda: messages.extend(connection.heard(1)) or messages)
    connection.say([messages[0][0], 0, 7])
    assert await call == 7
    return connection


async def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("end", [run, run_and_close])
def test_one_loop_after_the_other(new_loop, client, fake, end):
    connection = None
    for _ in range(4):
        connection = end(new_loop(), answered(client, fake, connection))
    assert len(client._client.attachments) == 1, "what has ended is not kept"
    assert len(client._attachments) == 1
    assert not client._waiting


def test_asyncio_run_again_and_again(client, fake):
    connection = None
    for _ in range(3):
        connection = asyncio.run(answered(client, fake, connection))


def test_loop_that_is_left_and_run_again(new_loop, client, fake):
    first, second = new_loop(), new_loop()
    connection = run(first, answered(client, fake))
    run(second, answered(client, fake, connection))
    run(first, answered(client, fake, connection))
    run(second, answered(client, fake, connection))


@pytest.mark.parametrize("end", [run, run_and_close])
def test_time_limit_is_kept_in_the_second_loop(new_loop, client, fake, end):
    connection = end(new_loop(), answered(client, fake))

    async def too_late():
        began = time.monotonic()
        with pytest.raises((NotAnswered, NotPolled)):
            await client.call(Echo(2), timeout=0.02)
        assert time.monotonic() - began < PATIENCE / 2
        with pytest.raises((NotAnswered, NotPolled)):
            await anext(client.stream(Count(), timeout=0.02))

    end(new_loop(), too_late())
    assert connection.next() == [2, "Echo", {"value": 2}]


@pytest.mark.parametrize("end", [run, run_and_close])
def test_stream_goes_on_in_the_second_loop(new_loop, client, fake, end):
    async def begin():
        stream = client.stream(Count())
        connection = fake.accept()
        connection.say([1, 2, 1])
        assert await anext(stream) == 1
        return stream, connection

    stream, connection = end(new_loop(), begin())

    async def go_on():
        async def speak():
            await until(lambda: stream._waits)
            connection.say([1, 2, 2], [1, 0, "done"])

        speaker = asyncio.create_task(speak())
        assert [piece async for piece in stream] == [2]
        await speaker

    end(new_loop(), go_on())
    assert stream.result == "done"


def test_call_of_a_loop_that_is_run_again_gets_its_answer(new_loop, client, fake):
    first, second = new_loop(), new_loop()

    async def begin():
        call = asyncio.create_task(client.call(Echo(5)))
        await until(lambda: fake.is_asked)
        return call, fake.accept()

    call, connection = run(first, begin())
    run(second, second_call(client, connection, answer_first=True))
    assert not call.done(), "its loop does not run"
    assert run(first, call) == 50
    assert len(client._client.attachments) <= 2


def test_call_whose_answer_comes_when_its_loop_is_run_again(new_loop, client, fake):
    first, second = new_loop(), new_loop()

    async def begin():
        call = asyncio.create_task(client.call(Echo(5)))
        await until(lambda: fake.is_asked)
        return call, fake.accept()

    call, connection = run(first, begin())
    run(second, second_call(client, connection, answer_first=False))
    connection.say([1, 0, 50])
    assert run(first, call) == 50


async def second_call(client, connection, *, answer_first):
    """Call while an earlier call is in flight, which is answered first, or not."""
    call = asyncio.create_task(client.call(Echo(6)))
    messages: list[Any] = []
    await until(lambda: messages.extend(connection.heard(2)) or len(messages) == 2)
    if answer_first:
        connection.say([1, 0, 50])
    connection.say([2, 0, 60])
    assert await call == 60


def test_loop_that_was_closed_while_tasks_waited(new_loop, client, fake):
    """They are never told, and nothing comes out of the second loop's polls."""
    first = new_loop()

    async def begin():
        stream = client.stream(Count())
        connection = fake.accept()
        piece = asyncio.create_task(stream.__anext__())
        call = asyncio.create_task(client.call(Echo(5)))
        await until(lambda: fake.is_asked and stream._waits)
        return piece, call, stream, connection, fake.accept()

    piece, call, stream, pieces, calls = run(first, begin())
    first.close()
    reported: list[Any] = []

    async def go_on():
        asyncio.get_running_loop().set_exception_handler(lambda _, what: reported.append(what))
        # Before anything else comes: whoever waits is told, and its loop is closed.
        pieces.say([1, 2, 1])
        calls.say([1, 0, 50])
        assert await anext(stream) == 1
        speaker = asyncio.create_task(speak())
        assert await anext(stream) == 2
        await speaker
        await second_call(client, calls, answer_first=False)

    async def speak():
        await until(lambda: stream._waits)
        pieces.say([1, 2, 2])

    calls.next()

    async def second_call(client, connection, *, answer_first):
        task = asyncio.create_task(client.call(Echo(6)))
        messages: list[Any] = []
        await until(lambda: messages.extend(connection.heard(1)) or messages)
        connection.say([messages[0][0], 0, 60])
        assert await task == 60

    run(new_loop(), go_on())
    assert not reported
    assert not piece.done()
    assert not call.done()
    stream.close()
    for task in (piece, call):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    del piece, call, task
    gc.collect()


def test_second_loop_while_the_first_runs_in_another_thread(new_loop, client, fake):
    raised: list[BaseException] = []

    def other():
        try:
            run(new_loop(), client.call(Echo(1)))
        except BaseException as error:
            raised.append(error)

    async def main():
        connection = await answered(client, fake)
        thread = threading.Thread(target=other)
        thread.start()
        await until(lambda: not thread.is_alive())
        thread.join()
        await answered(client, fake, connection)

    run(new_loop(), main())
    assert [type(error) for error in raised] == [UsageError]
    assert "runs in another thread has this client" in str(raised[0])


def test_close_in_the_second_loop_ends_what_waits_in_the_first(new_loop, client, fake):
    first, second = new_loop(), new_loop()

    async def begin():
        call = asyncio.create_task(client.call(Echo(5)))
        await until(lambda: fake.is_asked)
        return call

    call = run(first, begin())

    async def close():
        client._attached()
        client.close()

    run(second, close())
    with pytest.raises(PeerGone):
        run(first, call)


def test_no_descriptor_is_kept(new_loop, client, fake):
    connection = run_and_close(new_loop(), answered(client, fake))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        run_and_close(new_loop(), answered(client, fake, connection))
    assert len(os.listdir("/proc/self/fd")) == before


# ---------------------------------------------------------------------------------------------
# trio and anyio, which end their tasks with the loop


def test_trio_run_again_and_again(fake):
    need("trio", "pip install trio")
    import trio

    from ipcpoll.adapters import trio_loop

    client = trio_loop.AsyncClient(fake.path, timeout=PATIENCE)

    async def main(kept: list[Any]) -> None:
        with trio.fail_after(PATIENCE):
            if not kept:
                kept.append(client.stream(Count()))
                kept.append(fake.accept())
            stream, connection = kept
            with trio.move_on_after(0.01):
                await anext(stream)
            connection.say([1, 2, 5])
            assert await anext(stream) == 5
            with pytest.raises((NotAnswered, NotPolled)):
                await client.call(Echo(1), timeout=0.01)

    kept: list[Any] = []
    for _ in range(3):
        trio.run(main, kept)
    kept[0].close()
    client.close()


def test_second_run_of_trio_while_the_first_runs_in_another_thread(fake):
    need("trio", "pip install trio")
    import trio

    from ipcpoll.adapters import trio_loop

    client = trio_loop.AsyncClient(fake.path, timeout=PATIENCE)
    raised: list[BaseException] = []

    async def ask() -> None:
        with trio.fail_after(PATIENCE / 4):
            await client.call(Echo(1))

    def other() -> None:
        try:
            trio.run(ask)
        except BaseException as error:
            raised.append(error)

    async def main() -> None:
        with trio.fail_after(PATIENCE), trio.move_on_after(0):
            await client.call(Echo(0))  # it is attached now
        thread = threading.Thread(target=other)
        thread.start()
        while thread.is_alive():
            await trio.sleep(0.001)
        thread.join()
        client.close()

    trio.run(main)
    assert [type(error) for error in raised] == [UsageError]
    assert "runs in another thread has this client" in str(raised[0])


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_client_served_by_anyio_again_and_again(fake, backend):
    need("anyio", "pip install anyio")
    need("trio", "pip install trio")
    import anyio

    from ipcpoll.adapters import anyio_loop

    got: list[int] = []

    async def main(client: Client, connection: list[Any]) -> None:
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                await group.start(anyio_loop.serve, client, None)
                future = client.submit(Echo(1))
                if not connection:
                    client.stream(Count()).each(got.append)
                    connection += [fake.accept(), fake.accept()]
                calls, pieces = connection
                calls.say([calls.next()[0], 0, 7])
                before = len(got)
                pieces.say([1, 2, 5])
                while not (future.done() and len(got) > before):
                    await anyio.sleep(0.001)
                assert future.result() == 7
                group.cancel_scope.cancel()

    with Client(fake.path, timeout=PATIENCE) as client:
        connection: list[Any] = []
        for _ in range(3):
            anyio.run(main, client, connection, backend=backend)
    assert got == [5, 5, 5]
