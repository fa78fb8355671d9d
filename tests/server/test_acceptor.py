"""New connections: how many are taken in, and what happens when there is no room for one."""

from __future__ import annotations

import errno
import os
import resource
import socket
from contextlib import contextmanager

import pytest
from harness import (
    Host,
    answers,
    readable,
    settle,
)


@contextmanager
def no_descriptor_left():
    """RLIMIT_NOFILE is what is open now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_hazard_23_client_that_comes_when_no_descriptor_is_left_is_told(make_server, connect):
    """The reserve takes it in. Nothing spins, nothing waits, and the other client is served."""
    server = make_server()
    first = connect(server)
    first.call(1, "Echo", value=1)
    assert answers(server, first, 1) == [[1, 0, 1]]
    late = [connect(server) for _ in range(5)]
    for peer in late:
        peer.call(2, "Echo", value=2)
    with no_descriptor_left():
        host = Host()
        settle(server, host)
        assert host.log == []
        assert server.next_deadline() is None, "no pause was needed"
        for peer in late:
            [[call_id, kind, error]] = peer.received()
            assert (call_id, kind, error["code"]) == (None, 1, "busy")
            assert error["message"] == "the server has no descriptor left; try again later"
            assert peer.ended
        first.call(3, "Echo", value=3)
        assert answers(server, first, 1) == [[3, 0, 3]]
        assert not readable(server)
    assert server.stats()["refused"] == 5
    later = connect(server)
    later.call(4, "Echo", value=4)
    assert answers(server, later, 1) == [[4, 0, 4]]


def test_hazard_23_reserve_that_another_thread_takes(make_server, connect, monkeypatch):
    """Nobody is accepted, nothing spins; when a client leaves, the one that waits is served."""
    server = make_server(accept_pause_seconds=30.0)
    first = connect(server)
    first.call(1, "Echo", value=1)
    assert answers(server, first, 1) == [[1, 0, 1]]
    late = connect(server)
    late.call(2, "Echo", value=2)
    stolen = []
    acceptor = server._round._acceptor

    class Watched:
        """The reserve, and a thief who is waiting for it."""

        def close(self):
            spare.close()
            stolen.append(os.open(os.devnull, os.O_RDONLY))

    spare, acceptor._spare = acceptor._spare, Watched()
    with no_descriptor_left():
        server.poll(Host())
        assert not server.pending
        assert server.stats()["clients"] == 1
        assert server.next_deadline() is not None
        assert server.poll(Host()) == 0
    assert not readable(server)
    assert late.received() == []
    first.close()  # a descriptor is free again: the pause ends
    assert answers(server, late, 1) == [[2, 0, 2]]
    assert server.next_deadline() is None
    assert acceptor._spare is not None, "there is a reserve again"
    os.close(stolen[0])


def test_hazard_23_pause_ends_by_itself_though_every_descriptor_is_taken(make_server, connect):
    """The timer has a reserve of its own: a host that waits for the descriptor is woken."""
    server = make_server(accept_pause_seconds=0.05)
    late = connect(server)
    late.call(1, "Echo", value=1)
    acceptor = server._round._acceptor
    stolen = []

    class Watched:
        def close(self):
            spare.close()
            stolen.append(os.open(os.devnull, os.O_RDONLY))

    spare, acceptor._spare = acceptor._spare, Watched()
    with no_descriptor_left():
        server.poll(Host())
        assert server.next_deadline() is not None
        assert not readable(server)
        assert readable(server, 10), "the timer tells"
    assert answers(server, late, 1) == [[1, 0, 1]]
    os.close(stolen[0])


def test_descriptor_that_can_not_be_moved_is_closed_once(server, connect, monkeypatch):
    """Closing it twice could hit a file that another thread has just opened."""
    closed = []
    close = os.close

    def no_descriptor(fd):
        close(fd)
        closed.append(fd)
        raise OSError(errno.EMFILE, "Too many open files")

    connect(server)
    with monkeypatch.context() as patch:
        patch.setattr("ipcpoll._address.listener.above_stdio", no_descriptor)
        patch.setattr(
            "ipcpoll._address.listener.os.close", lambda fd: closed.append(fd) or close(fd)
        )
        server.poll(Host())
    assert len(closed) == len(set(closed))
    settle(server)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM])
def test_hazard_51_connection_that_can_not_be_watched_is_closed(
    server, connect, monkeypatch, caplog, number
):
    good = connect(server)
    server.poll(Host())
    peer = connect(server)

    def no_space(fd, mask):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(server._hub.poller, "register", no_space)
    settle(server)
    assert server.stats()["clients"] == 1
    assert f"a new connection can't be watched: [Errno {number}]" in caplog.text
    peer.received()
    assert peer.ended
    good.call(1, "Echo", value=1)
    assert answers(server, good, 1) == [[1, 0, 1]]
    monkeypatch.undo()
    late = connect(server)
    late.call(2, "Echo", value=2)
    assert answers(server, late, 1) == [[2, 0, 2]]


def test_connection_that_went_away_in_the_backlog_is_passed_over(server, connect, monkeypatch):
    peer = connect(server)
    peer.call(1, "Echo", value=1)
    accept = socket.socket._accept
    errors = [OSError(errno.ECONNABORTED, "aborted"), OSError(errno.EPROTO, "protocol")]

    def accept_after_errors(sock):
        if errors:
            raise errors.pop()
        return accept(sock)

    monkeypatch.setattr(socket.socket, "_accept", accept_after_errors, raising=False)
    assert answers(server, peer, 1) == [[1, 0, 1]]
    assert errors == []


def test_accept_that_is_forbidden_for_ever_does_not_block(server, connect, monkeypatch, caplog):
    """A sandbox says EPERM each time; a firewall says it of one connection."""
    peer = connect(server)
    peer.call(1, "Echo", value=1)

    def forbidden(sock):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "_accept", forbidden, raising=False)
        server.poll(Host())
    assert not readable(server), "there is a pause"
    assert "no new connection for" in caplog.text
    assert answers(server, peer, 1) == [[1, 0, 1]]


def test_client_that_is_turned_away_and_has_gone(make_server, connect, monkeypatch):
    server = make_server(max_clients=1)
    good = connect(server)
    good.call(1, "Echo", value=1)
    assert answers(server, good, 1) == [[1, 0, 1]]
    connect(server).close()
    settle(server)
    assert server.stats()["refused"] == 1
