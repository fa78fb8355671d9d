"""One pollable, several loops: one attachment for each, and what is left when loops end.

That a second attachment to the same loop is refused is a case of the conformance suite, in every
loop. This file has what one loop alone can't show.
"""

from __future__ import annotations

import asyncio
import gc
import selectors
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
import trio
from harness import PATIENCE, Echo, Host
from loops import need

from ipcpoll import Client, InternalError, Server, UsageError
from ipcpoll.adapters import anyio_loop, asyncio_loop, select_loop, trio_loop
from ipcpoll.testing import FakePollable

ALREADY = "attached to this loop already"


@dataclass
class WhichLoop:
    """Answers which loop runs its coroutine."""

    async def process(self, ctx: object) -> int:
        return id(asyncio.get_running_loop())


@pytest.fixture
def server(path: str) -> Iterator[Server[Any]]:
    with Server(path, [Echo, WhichLoop]) as server:
        yield server


@pytest.fixture
def loops() -> Iterator[tuple[asyncio.AbstractEventLoop, asyncio.AbstractEventLoop]]:
    loops = asyncio.SelectorEventLoop(), asyncio.SelectorEventLoop()
    yield loops
    for loop in loops:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def ask(server: Server[Any], command: Any) -> Any:
    with Client(server.address, timeout=PATIENCE) as client:
        return client.call(command)


def asked_in(loop: asyncio.AbstractEventLoop, server: Server[Any], command: Any) -> Any:
    """Run a loop until a client in a thread has its answer."""
    return loop.run_until_complete(loop.run_in_executor(None, ask, server, command))


def test_whichever_loop_runs_serves(server, loops):
    """Two loops may watch one server; a thread runs one of them at a time."""
    first, second = (asyncio_loop.attach(server, Host(), loop) for loop in loops)
    for loop in (*loops, *loops):
        assert asked_in(loop, server, Echo(1)) == 1
    first.detach()
    assert asked_in(loops[1], server, Echo(2)) == 2
    assert server.attachments == {second}


def test_coroutines_go_back_to_the_loop_that_is_left(server, loops):
    """They run in the loop that attached last; when it is detached, in the one before it."""
    first = asyncio_loop.attach(server, None, loops[0])
    second = asyncio_loop.attach(server, None, loops[1])
    assert asked_in(loops[1], server, WhichLoop()) == id(loops[1])
    second.detach()
    assert asked_in(loops[0], server, WhichLoop()) == id(loops[0])
    first.detach()
    with selectors.DefaultSelector() as selector:
        attachment = select_loop.attach(server, None, selector)
        errors: list[BaseException] = []

        def refused() -> None:
            try:
                ask(server, WhichLoop())
            except InternalError as error:
                errors.append(error)

        thread = threading.Thread(target=refused)
        thread.start()
        while thread.is_alive():
            for key, _ in selector.select(0.05):
                key.data()
        attachment.detach()
    assert "asyncio" in str(errors[0])


def test_loop_that_was_detached_first_gets_nothing_back(server, loops):
    first = asyncio_loop.attach(server, None, loops[0])
    second = asyncio_loop.attach(server, None, loops[1])
    first.detach()
    assert asked_in(loops[1], server, WhichLoop()) == id(loops[1])
    second.detach()
    assert server.spawn is None
    assert server.make_event is None


def test_attachments_of_closed_loops_do_not_pile_up(server):
    """`asyncio.run` again and again, and nobody detaches."""

    async def main() -> None:
        asyncio_loop.attach(server, Host())
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, ask, server, Echo(3)) == 3

    for _ in range(5):
        asyncio.run(main())
        assert len(server.attachments) == 1


def test_task_that_never_began_is_left_behind_by_its_loop(server):
    """asyncio cancels a task before its first step, so it can't detach at its end."""

    class Never:
        def start_soon(self, *_: object, **__: object) -> None:
            pass

    async def main() -> None:
        anyio_loop.attach(server, None, Never())

    for _ in range(3):
        anyio.run(main)
        assert len(server.attachments) == 1


@pytest.mark.parametrize("first", ["asyncio", "anyio"])
def test_anyio_and_asyncio_are_one_loop(server, first):
    """anyio's wait would take the place of asyncio's reader, and take it away at its end."""

    async def main() -> None:
        async with anyio.create_task_group() as group:

            def by_asyncio() -> Any:
                return asyncio_loop.attach(server, Host())

            def by_anyio() -> Any:
                return anyio_loop.attach(server, Host(), group)

            one, other = (by_asyncio, by_anyio) if first == "asyncio" else (by_anyio, by_asyncio)
            attachment = one()
            with pytest.raises(UsageError, match=ALREADY):
                other()
            assert await anyio.to_thread.run_sync(ask, server, Echo(4)) == 4
            attachment.detach()
            attachment = other()
            assert await anyio.to_thread.run_sync(ask, server, Echo(5)) == 5
            attachment.detach()

    anyio.run(main, backend="asyncio")


def test_anyio_and_trio_are_one_loop(server):
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            attachment = trio_loop.attach(server, Host(), nursery)
            with pytest.raises(UsageError, match=ALREADY):
                await anyio_loop.serve(server, Host())
            assert await trio.to_thread.run_sync(ask, server, Echo(6)) == 6
            attachment.detach()

    trio.run(main)


def test_a_reactor_on_asyncio_is_its_loop(server):
    need("twisted", "pip install twisted")
    from twisted.internet.asyncioreactor import AsyncioSelectorReactor

    from ipcpoll.adapters import twisted_loop

    loop = asyncio.SelectorEventLoop()
    reactor = AsyncioSelectorReactor(loop)
    attachment = twisted_loop.attach(server, Host(), reactor)
    with pytest.raises(UsageError, match=ALREADY):
        asyncio_loop.attach(server, Host(), loop)
    attachment.detach()
    asyncio_loop.attach(server, Host(), loop).detach()
    reactor.disconnectAll()
    loop.close()


def test_selector_in_which_the_program_has_registered_it(server):
    """A sentence in place of the selector's bare number."""
    with selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ)
        with pytest.raises(UsageError, match="unregister it before attach"):
            select_loop.attach(server, Host(), selector)
        assert server.attachments == set()
        selector.unregister(server)
        select_loop.attach(server, Host(), selector).detach()


def test_pollable_that_keeps_no_attachments():
    """It is known all the same; nothing keeps it alive for that."""
    fake = FakePollable()
    del fake.attachments
    with selectors.DefaultSelector() as selector, selectors.DefaultSelector() as other:
        first = select_loop.attach(fake, None, selector)
        with pytest.raises(UsageError, match=ALREADY):
            select_loop.attach(fake, None, selector)
        select_loop.attach(fake, None, other).detach()
        first.detach()
        second = select_loop.attach(fake, None, selector)
        del first
        second.pause()
        del second
        gc.collect()
        select_loop.attach(fake, None, selector).detach()
    fake.forget()


def test_nested_loop_of_its_own(server):
    """`run` in a program that is attached elsewhere is another loop, and leaves the first alone."""
    with selectors.DefaultSelector() as selector:
        attachment = select_loop.attach(server, Host(), selector)
        answers: list[int] = []

        def ask_and_wake() -> None:
            answers.append(ask(server, Echo(7)))
            server.wake()

        thread = threading.Thread(target=ask_and_wake)
        thread.start()
        select_loop.run(server, Host(), until=lambda: bool(answers))
        thread.join()
        assert server.attachments == {attachment}
        thread = threading.Thread(target=ask, args=[server, Echo(8)])
        thread.start()
        while thread.is_alive():
            for key, _ in selector.select(0.05):
                key.data()
        attachment.detach()
