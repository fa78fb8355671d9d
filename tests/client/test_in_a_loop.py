"""A client in real main loops: selectors, `select_loop.run`, frames, asyncio."""

from __future__ import annotations

import asyncio
import selectors
import threading
import time

from fake_server import be_silent
from harness import (
    PATIENCE,
    Echo,
    Host,
    readable,
    serve_until,
)

from ipcpoll import (
    Client,
)
from ipcpoll.adapters import asyncio_loop, frame_loop, select_loop


def test_in_a_loop_of_selectors(server):
    got = []
    with Client(server.address) as client, selectors.DefaultSelector() as selector:
        select_loop.attach(server, Host(), selector)
        select_loop.attach(client, None, selector)
        client.submit(Echo(1)).add_done_callback(lambda future: got.append(future.result()))
        while not got:
            for key, _ in selector.select(PATIENCE):
                key.data()
        assert len(client.attachments) == 1
        client.close()
        assert client.attachments == set()
    assert got == [1]


def test_in_run(server):
    stop = threading.Event()
    thread = threading.Thread(target=serve_until, args=[server, stop.is_set])
    thread.start()
    with Client(server.address) as client:
        future = client.submit(Echo(1))
        select_loop.run(client, None, until=future.done)
        assert future.result() == 1
        client.submit(Echo(2)).add_done_callback(lambda _: client.close())
        select_loop.run(client, None)
    stop.set()
    thread.join()


def test_in_a_frame(server):
    with Client(server.address, timeout=PATIENCE) as client:
        future = client.submit(Echo(1))
        deadline = time.monotonic() + PATIENCE
        while not future.done() and time.monotonic() < deadline:
            frame_loop.spend(server, Host(), time.monotonic() + 0.005)
            frame_loop.spend(client, None, time.monotonic() + 0.005)
        assert future.result() == 1


def test_in_asyncio_with_the_attachment_alone(server):
    async def main():
        asyncio_loop.attach(server, Host())
        with Client(server.address, timeout=PATIENCE) as client:
            asyncio_loop.attach(client, None)
            futures = [asyncio.wrap_future(client.submit(Echo(i))) for i in range(10)]
            assert await asyncio.gather(*futures) == list(range(10))
        server.close()

    asyncio.run(main(), debug=True)


def test_call_on_an_attached_client(server):
    stop = threading.Event()
    thread = threading.Thread(target=serve_until, args=[server, stop.is_set])
    thread.start()
    with (
        Client(server.address, timeout=PATIENCE) as client,
        selectors.DefaultSelector() as selector,
    ):
        select_loop.attach(client, None, selector)
        future = client.submit(Echo(1))
        assert client.call(Echo(2)) == 2
        assert list(client.map(Echo(i) for i in range(100))) == list(range(100))
        client.notify(Echo(3))
        assert not future.done(), "it waits for a poll"
        assert readable(client)
        for key, _ in selector.select(0):
            key.data()
        assert future.result() == 1
        be_silent(client)
    stop.set()
    thread.join()
