"""The one descriptor that a client in a loop has."""

from __future__ import annotations

import os
import select
import selectors
import threading

from fake_server import be_silent, poll_until
from harness import (
    COMMANDS,
    PATIENCE,
    Do,
    Echo,
    Take,
    both_until,
    serve_until,
    settle,
)

from ipcpoll import (
    Client,
    Server,
)
from ipcpoll._system.poller import SelectorPoller


def test_descriptor_is_made_when_it_is_asked_for(server):
    with Client(server.address) as client:
        client.submit(Echo(1))
        assert client._pump._polled is None
        fd = client.fileno()
        assert os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[eventpoll]"
        assert not os.get_inheritable(fd)
        both_until(server, client, lambda: not client._pump._sessions or server.stats()["turns"])
        assert client.fileno() == fd
    assert client.fileno() == -1


def test_descriptor_is_constant_across_reconnects(path, client):
    fd = client.fileno()
    for i in range(3):
        with Server(path, COMMANDS) as server:
            future = client.submit(Echo(i))
            both_until(server, client, future.done)
            assert future.result() == i
        poll_until(client, lambda: client._session.connection is None)
        be_silent(client)
        assert client.fileno() == fd


def test_idle_second_without_a_poll(server):
    with Client(server.address) as client, select.epoll() as epoll:
        future = client.submit(Echo(1), timeout=0.3)
        both_until(server, client, future.done)
        waiting = client.submit(Do(1), timeout=PATIENCE)
        epoll.register(client, select.EPOLLIN)
        assert epoll.poll(1.0) == [], "neither an answered call nor one that waits wakes the loop"
        waiting.cancel()
        be_silent(client)
        assert epoll.poll(0.1) == []
    settle(server)


def test_plain_client_makes_no_descriptor(server):
    stop = threading.Event()
    thread = threading.Thread(target=serve_until, args=[server, stop.is_set])
    thread.start()
    with Client(server.address, timeout=PATIENCE) as client:
        assert client.call(Echo(1)) == 1
        assert client._pump is None
        assert client.next_deadline() is None
        assert not client.pending
    stop.set()
    thread.join()


def test_on_the_portable_poller(path, monkeypatch):
    monkeypatch.setattr(
        "ipcpoll._system.hub.make_poller", lambda: SelectorPoller(selectors.EpollSelector())
    )
    with Server(path, COMMANDS) as server, Client(path) as client:
        futures = [client.submit(Take(bytes(100_000))) for _ in range(10)]
        both_until(server, client, lambda: all(future.done() for future in futures))
        be_silent(client)
