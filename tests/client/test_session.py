"""A connection when it is needed: made while calls wait, lost with calls in flight, and its end."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import socket
import threading
import time
import weakref
from contextlib import contextmanager

import pytest
from fake_server import FakeServer, be_silent, poll_until
from harness import (
    PATIENCE,
    Do,
    Echo,
    Host,
    Take,
    both_until,
    encode,
    full_backlog,
    readable,
    settle,
    wait_until,
)

from ipcpoll import (
    Client,
    CommandError,
    FrameTooLarge,
    NotAnswered,
    NotPolled,
    NotRunning,
    PeerGone,
    ShuttingDown,
    StaleSocket,
    UsageError,
)
from ipcpoll._system.guard import IN_USE

# ---------------------------------------------------------------------------------------------
# Connecting


def test_nobody_is_there(client):
    future = client.submit(Echo(1))
    assert readable(client), "that is an answer too"
    assert client.poll() == 1
    with pytest.raises(NotRunning, match="the program does not run"):
        future.result()


def test_each_future_has_an_exception_of_its_own(client):
    with full_backlog(client.address):
        futures = [client.submit(Echo(i)) for i in range(2)]
    os.unlink(client.address)
    poll_until(client, lambda: all(future.done() for future in futures))
    first, second = (future.exception() for future in futures)
    assert isinstance(first, NotRunning)
    assert isinstance(second, NotRunning)
    assert first is not second


def test_stale_socket_is_tried_a_few_times(path, client):
    with FakeServer(path):
        pass
    future = client.submit(Echo(1))
    poll_until(client, future.done)
    assert isinstance(future.exception(), StaleSocket)


def test_full_backlog_is_tried_again_by_a_timer(path, client):
    with full_backlog(path):
        future = client.submit(Echo(1), timeout=0.1)
        assert client.next_deadline() < time.monotonic() + 0.09, "the next attempt"
        poll_until(client, future.done)
        with pytest.raises(NotPolled, match=r"has not taken in this connection within 0.1 s"):
            future.result()
        be_silent(client)


def test_full_backlog_and_result_without_a_loop(path, client):
    with full_backlog(path):
        with pytest.raises(NotPolled, match="its backlog is full"):
            client.submit(Echo(1), timeout=0.03).result()
        future = client.submit(Echo(1))
        with pytest.raises(concurrent.futures.TimeoutError):
            future.result(0.02)
        assert future.cancel()


@contextmanager
def not_yet_listening(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        yield listener


def test_server_that_has_bound_and_does_not_listen_yet(path, client):
    with not_yet_listening(path) as listener:
        futures = [client.submit(Echo(i)) for i in range(3)]
        assert client.next_deadline() is not None
        listener.listen()
        connection = None
        poll_until(client, lambda: readable(listener))
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"".join(encode([i + 1, 0, i]) for i in range(3)))
            poll_until(client, lambda: all(future.done() for future in futures))
        assert [future.result() for future in futures] == [0, 1, 2]


def test_call_sends_what_waits_for_the_connection_first(path, client):
    with not_yet_listening(path) as listener:
        future = client.submit(Echo(1))
        listener.listen()
        said = []

        def answer():
            connection, _ = listener.accept()
            with connection:
                wait_until(
                    lambda: said.append(connection.recv(4096)) or b"".join(said).count(b"Echo") == 2
                )
                connection.sendall(encode([1, 0, 11]) + encode([2, 0, 22]))

        answerer = threading.Thread(target=answer)
        answerer.start()
        assert client.call(Echo(2)) == 22
        answerer.join()
        assert future.result() == 11


def test_too_large_for_a_connection_that_is_being_made(path):
    with full_backlog(path):
        client = Client(path, timeout=PATIENCE)
        future = client.submit(Take(bytes(300_000)))
    os.unlink(path)
    with client, FakeServer(path):
        poll_until(client, future.done)
        assert isinstance(future.exception(), FrameTooLarge)


# ---------------------------------------------------------------------------------------------
# The end


def test_server_that_goes_with_calls_in_flight(path, client):
    with FakeServer(path) as fake:
        futures = [client.submit(Echo(i)) for i in range(3)]
        connection = fake.accept()
        for _ in range(3):
            connection.next()
        connection.say([2, 0, 1])
    poll_until(client, lambda: all(future.done() for future in futures))
    assert futures[1].result() == 1
    for future in futures[::2]:
        with pytest.raises(PeerGone, match="before the answer; the call may have run"):
            future.result()
    be_silent(client)


def test_server_that_goes_and_has_not_read_all(path, client):
    """What was not sent at all was not run, and is said so."""
    with FakeServer(path) as fake:
        futures = [client.submit(Take(bytes(200_000))) for _ in range(5)]
        connection = fake.accept()
        connection.next()
        connection.close()
        poll_until(client, lambda: all(future.done() for future in futures))
    assert not futures[0].exception().unread
    assert futures[-1].exception().unread
    be_silent(client)


def test_error_that_concerns_all(fake, client):
    futures = [client.submit(Echo(i)) for i in range(2)]
    fake.accept().say([None, 1, {"code": "shutting-down", "message": "bye"}])
    poll_until(client, lambda: all(future.done() for future in futures))
    errors = [future.exception() for future in futures]
    assert [type(error) for error in errors] == [ShuttingDown] * 2
    assert errors[0] is not errors[1]


def test_what_is_no_answer(fake, client):
    future = client.submit(Echo(1))
    fake.accept().say([99, 0, 1])
    poll_until(client, future.done)
    with pytest.raises(PeerGone, match="sent what is no answer: an answer to 99"):
        future.result()


def test_close_ends_what_is_in_flight_and_what_waits(path):
    client = Client(path)
    with full_backlog(path):
        future = client.submit(Echo(1))
        client.close()
        assert isinstance(future.exception(), PeerGone)
        client.close()
    with pytest.raises(UsageError, match="the client is closed"):
        client.submit(Echo(1))


def test_nothing_is_left_after_close(server):
    before = set(os.listdir("/proc/self/fd"))
    client = Client(server.address)
    client.fileno()
    futures = [client.submit(Echo(i)) for i in range(3)]
    both_until(server, client, lambda: all(future.done() for future in futures))
    last = client.submit(Do(1))
    client.submit(Echo(5)).cancel()
    client.close()
    settle(server, Host(do=lambda: None))
    assert set(os.listdir("/proc/self/fd")) == before
    references = [weakref.ref(thing) for thing in (client, *futures, last, client._pump)]
    gc.collect()
    gc.disable()
    try:
        client = futures = last = None
        assert [reference() for reference in references] == [None] * len(references)
    finally:
        gc.enable()


def test_done_futures_are_not_kept(fake, client):
    future = client.submit(Echo(1))
    client.submit(Echo(2))
    fake.accept().say([1, 0, 1])
    poll_until(client, future.done)
    reference = weakref.ref(future)
    del future
    assert reference() is None


def test_failed_future_is_not_kept_by_its_exception(fake, client):
    future = client.submit(Echo(1))
    fake.accept().say([1, 1, {"code": "c", "message": "m"}])
    with pytest.raises(CommandError):
        future.result()
    reference = weakref.ref(future)
    gc.disable()
    try:
        del future
        assert reference() is None
    finally:
        gc.enable()


def test_client_that_is_forgotten_leaves_no_descriptor(server):
    before = set(os.listdir("/proc/self/fd"))
    client = Client(server.address)
    client.fileno()
    del client
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before


def test_two_threads(fake, client):
    client.submit(Echo(1))
    fake.accept()
    inside = threading.Event()
    errors = []

    def wait():
        inside.set()
        with pytest.raises(NotAnswered):
            client.call(Echo(2), timeout=0.3)

    thread = threading.Thread(target=wait)
    thread.start()
    inside.wait()
    wait_until(lambda: client._guard._inside)
    for use in (client.poll, lambda: client.submit(Echo(3))):
        try:
            use()
        except UsageError as error:
            errors.append(str(error))
    thread.join()
    assert errors == [IN_USE] * 2


def test_forked_child_lets_go(server):
    with Client(server.address) as client:
        future = client.submit(Echo(5))
        client.fileno()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                assert client.fileno() == -1
                for use in (client.poll, future.result, lambda: client.submit(Echo(1))):
                    try:
                        use()
                    except UsageError:
                        code -= 1
                future.cancel()
                client.close()
            finally:
                os._exit(0 if code == -2 else 1)
        assert os.waitpid(pid, 0)[1] == 0
        both_until(server, client, future.done)
        assert future.result() == 5
        be_silent(client)
