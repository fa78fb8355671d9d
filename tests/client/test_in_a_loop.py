"""A client inside a loop: futures of submitted calls, and the descriptor that tells of them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import select
import selectors
import signal
import socket
import threading
import time
import weakref
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from fake_server import FakeServer, be_silent, poll_until
from harness import (
    COMMANDS,
    PATIENCE,
    Blob,
    Do,
    Echo,
    Host,
    Refuse,
    Take,
    encode,
    full_backlog,
    readable,
    serve_until,
    settle,
    wait_until,
)

from ipcpoll import (
    Client,
    CommandError,
    FrameTooLarge,
    InternalError,
    InvalidArguments,
    Limits,
    NotAnswered,
    NotPolled,
    NotRunning,
    PeerGone,
    Server,
    ShuttingDown,
    StaleSocket,
    UsageError,
)
from ipcpoll._system.guard import IN_USE
from ipcpoll._system.poller import SelectorPoller
from ipcpoll._wire.protocol import ClientProtocol
from ipcpoll.adapters import asyncio_loop, frame_loop, select_loop


def both_until(server, client, condition, host=None):
    """Serve and poll in turns, each when its descriptor says so."""
    host = host or Host()
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        select.select([server, client], [], [], 0.02)
        if readable(server):
            server.poll(host)
        if readable(client):
            client.poll()


# ---------------------------------------------------------------------------------------------
# Futures


def test_submitted_call_is_done_inside_poll(server):
    with Client(server.address) as client:
        assert not readable(client)
        future = client.submit(Echo(5))
        assert not readable(client), "nothing has come"
        serve_until(server, lambda: readable(client))
        assert not future.done()
        assert client.poll() == 1
        assert future.done()
        assert future.result() == 5
        be_silent(client)


def test_many_are_pipelined_over_one_connection(server):
    got = []
    with Client(server.address) as client:
        futures = [client.submit(Echo(i)) for i in range(1000)]
        for future in futures:
            future.add_done_callback(lambda future: got.append(future.result()))
        both_until(server, client, lambda: len(got) == 1000)
        assert got == list(range(1000))
        be_silent(client)
    assert server.stats()["accepted"] == 1


def test_more_than_the_socket_takes_is_sent_when_there_is_room(make_server):
    server = make_server(max_unsent=1)
    with Client(server.address) as client:
        futures = [client.submit(Take(bytes(100_000))) for _ in range(20)]
        assert not readable(client), "there is no room"
        both_until(server, client, lambda: all(future.done() for future in futures))
        assert [future.result() for future in futures] == [100_000] * 20
        be_silent(client)


def test_answers_may_overtake_each_other(fake, client):
    first, second = client.submit(Echo(1)), client.submit(Echo(2))
    connection = fake.accept()
    ids = [connection.next()[0], connection.next()[0]]
    connection.say([ids[1], 0, 22])
    assert second.result() == 22
    assert not first.done()
    connection.say([ids[0], 0, 11])
    assert first.result() == 11


def test_result_moves_the_client_on(fake, client):
    future = client.submit(Echo(1))
    connection = fake.accept()
    answerer = threading.Thread(target=lambda: connection.say([connection.next()[0], 0, 5]))
    answerer.start()
    assert future.result() == 5
    answerer.join()


def test_result_leaves_the_others_for_the_next_poll(fake, client):
    called = []
    first, second = client.submit(Echo(1)), client.submit(Echo(2))
    first.add_done_callback(lambda _: called.append("first"))
    connection = fake.accept()
    connection.say([1, 0, 11], [2, 0, 22])
    assert second.result() == 22
    assert (first.done(), called) == (False, [])
    assert readable(client)
    assert client.pending
    assert client.poll() == 1
    assert (first.result(), called) == (11, ["first"])


def test_result_with_a_time_limit(fake, client):
    future = client.submit(Echo(1))
    connection = fake.accept()
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(0.01)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.exception(0)
    connection.say([1, 0, 5])
    assert future.result(PATIENCE) == 5
    assert future.exception() is None


def test_result_in_another_thread_waits_for_the_poll(fake, client):
    future = client.submit(Echo(1))
    got = []
    waiter = threading.Thread(target=lambda: got.append(future.result(PATIENCE)))
    waiter.start()
    fake.accept().say([1, 0, 5])
    poll_until(client, future.done)
    waiter.join()
    assert got == [5]


@dataclass
class OtherEcho:
    """Another version of `Echo`."""

    value: str

    def process(self, ctx: object) -> str: ...


OtherEcho.__name__ = "Echo"


def test_errors_have_their_classes(server):
    with Client(server.address) as client:
        wrong, refused = client.submit(OtherEcho("x")), client.submit(Refuse("mine", "no"))
        both_until(server, client, refused.done)
        assert isinstance(wrong.exception(), InvalidArguments)
        with pytest.raises(CommandError, match=r"no \[mine\]"):
            refused.result()


def test_answer_that_is_not_as_annotated(fake, client):
    future = client.submit(Echo(1))
    fake.accept().say([1, 0, "text"])
    with pytest.raises(InternalError, match="the answer of Echo is not what its annotation says"):
        future.result()


def test_what_can_not_be_carried_is_raised_at_once(fake, client):
    client.submit(Echo(0))
    for _ in range(2):
        with pytest.raises(FrameTooLarge):
            client.submit(Take(bytes(300_000)))
        with pytest.raises(ValueError, match="an integer"):
            client.submit(Echo(2**70))
        with pytest.raises(TypeError, match="a command must be a dataclass"):
            client.submit(5)
    connection = fake.accept()
    connection.next()
    assert connection.is_silent


def test_pieces_of_a_submitted_call_are_thrown_away(fake, client):
    future = client.submit(Echo(1))
    fake.accept().say([1, 2, "a"], [1, 2, "b", {"lost": 3}], [1, 0, 5])
    assert future.result() == 5


# ---------------------------------------------------------------------------------------------
# Functions that are called when it is done


def test_exception_of_a_function_is_logged_and_breaks_nothing(fake, client, caplog):
    first, second = client.submit(Echo(1)), client.submit(Echo(2))
    first.add_done_callback(lambda _: 1 / 0)
    fake.accept().say([1, 0, 11], [2, 0, 22])
    poll_until(client, second.done)
    assert "exception calling callback" in caplog.text
    assert second.result() == 22


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
def test_wish_to_end_comes_out_of_poll_and_breaks_nothing(fake, client, exception):
    def wish(_):
        raise exception

    first, second = client.submit(Echo(1)), client.submit(Echo(2))
    first.add_done_callback(wish)
    fake.accept().say([1, 0, 11], [2, 0, 22])
    assert readable(client, PATIENCE)
    with pytest.raises(exception):
        client.poll()
    assert readable(client), "the other one is left"
    poll_until(client, second.done)
    assert (first.result(), second.result()) == (11, 22)


def test_call_inside_a_function(server):
    got = []
    host = Host()
    stop = threading.Event()
    thread = threading.Thread(target=serve_until, args=[server, stop.is_set, host])
    with Client(server.address, timeout=PATIENCE) as client:
        thread.start()
        future = client.submit(Echo(1))
        future.add_done_callback(lambda future: got.append((future.result(), client.call(Echo(2)))))
        poll_until(client, lambda: got)
        be_silent(client)
    stop.set()
    thread.join()
    assert got == [(1, 2)]


def test_poll_and_result_inside_a_function(fake, client):
    got = []

    def inside(_):
        got.append(client.poll())
        got.append(third.result())

    first, second, third = (client.submit(Echo(i)) for i in range(3))
    first.add_done_callback(inside)
    second.add_done_callback(lambda future: got.append(future.result()))
    connection = fake.accept()
    connection.say([1, 0, 11], [2, 0, 22])
    answerer = threading.Thread(target=lambda: wait_until(lambda: got) or connection.say([3, 0, 3]))
    answerer.start()
    poll_until(client, first.done)
    answerer.join()
    assert got == [22, 1, 3]


def test_submit_inside_a_function_is_sent_at_the_end_of_the_poll(fake, client):
    again = []
    client.submit(Echo(0)).add_done_callback(
        lambda _: again.extend(client.submit(Echo(i)) for i in range(40))
    )
    connection = fake.accept()
    connection.next()
    connection.say([1, 0, 0])
    poll_until(client, lambda: again)
    assert [connection.next()[2]["value"] for _ in range(40)] == list(range(40))
    connection.say(*([i + 2, 0, i] for i in range(40)))
    assert again[0].result() == 0
    poll_until(client, again[-1].done)
    assert [future.result() for future in again] == list(range(40))


def test_submit_and_result_inside_a_function(fake, client):
    got = []
    client.submit(Echo(0)).add_done_callback(lambda _: got.append(client.submit(Echo(1)).result()))
    connection = fake.accept()
    connection.say([1, 0, 0])

    def answer():
        connection.next()
        connection.say([connection.next()[0], 0, 5])

    answerer = threading.Thread(target=answer)
    answerer.start()
    poll_until(client, lambda: got)
    answerer.join()
    assert got == [5]


def test_cancel_of_what_a_function_has_just_submitted(fake, client):
    cancelled = []

    def submit_and_cancel(_):
        future = client.submit(Echo(7))
        cancelled.append(future.cancel())

    client.submit(Echo(0)).add_done_callback(submit_and_cancel)
    connection = fake.accept()
    connection.next()
    connection.say([1, 0, 0])
    poll_until(client, lambda: cancelled)
    assert client.submit(Echo(8)) is not None
    assert connection.next()[2] == {"value": 8}, "not a byte of the other one was sent"


def test_submit_inside_a_function_when_the_server_has_just_gone(path, client):
    with FakeServer(path) as fake:
        first = client.submit(Echo(1))
        connection = fake.accept()
        connection.next()
        connection.say([1, 0, 1])
        connection.close()  # nothing of ours is unread: the end of file follows the answer
        second = []
        first.add_done_callback(lambda _: second.append(client.submit(Echo(2))))
        poll_until(client, lambda: second)
        fake.accept().say([1, 0, 22])
        assert second[0].result() == 22, "not a byte of it was sent, so it connected anew"


def test_loop_inside_a_function(fake, client):
    """A dialog that a function opens: what came for others, and what it submits, goes on."""
    got = []

    def dialog(_):
        future = client.submit(Echo(4))
        poll_until(client, lambda: second.done() and third.done())
        connection.say([connection.next()[0], 0, 4])
        poll_until(client, future.done)
        got.append(future.result())

    first, second, third = (client.submit(Echo(i)) for i in range(3))
    first.add_done_callback(dialog)
    connection = fake.accept()
    for _ in range(3):
        connection.next()
    connection.say(*([i, 0, i] for i in (1, 2, 3)))
    poll_until(client, lambda: got)
    assert got == [4]


def test_close_inside_a_function(fake, client):
    first, second = client.submit(Echo(1)), client.submit(Echo(2))
    first.add_done_callback(lambda _: client.close())
    fake.accept().say([1, 0, 11])
    assert readable(client, PATIENCE)
    client.poll()
    assert first.result() == 11
    with pytest.raises(PeerGone, match="this client closed the connection"):
        second.result()
    assert client.fileno() == -1
    assert repr(client) == f"<ipcpoll.Client {client.address} (closed)>"
    with pytest.raises(UsageError, match="the client is closed"):
        client.poll()


# ---------------------------------------------------------------------------------------------
# Cancel


def test_cancel_cancels_the_call_at_the_server_and_drops_the_answer(fake, client):
    called = []
    future = client.submit(Echo(1))
    future.add_done_callback(lambda future: called.append(future.cancelled()))
    connection = fake.accept()
    assert connection.next()[:2] == [1, "Echo"]
    assert future.cancel()
    assert called == [True]
    assert connection.next() == [1]
    connection.say([1, 0, 5])
    be_silent(client)
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()
    assert future.cancel(), "it is cancelled"
    assert connection.is_silent


def test_cancel_that_crosses_the_answer(fake, client):
    future, other = client.submit(Echo(1)), client.submit(Echo(2))
    fake.accept().say([1, 0, 5], [2, 0, 6])
    assert other.result() == 6
    assert future.cancel(), "it was not handed over yet"
    be_silent(client)
    assert future.cancelled()


def test_cancel_of_what_is_done(fake, client):
    future = client.submit(Echo(1))
    fake.accept().say([1, 0, 5])
    assert future.result() == 5
    assert not future.cancel()


def test_cancel_in_another_thread_is_carried_out_by_the_next_poll(fake, client):
    client.fileno()
    future = client.submit(Echo(1))
    connection = fake.accept()
    connection.next()
    thread = threading.Thread(target=future.cancel)
    thread.start()
    thread.join()
    assert connection.is_silent
    assert readable(client, PATIENCE)
    client.poll()
    assert connection.next() == [1]
    assert concurrent.futures.wait([future], PATIENCE).done == {future}


def test_cancel_in_another_thread_when_the_answer_is_here(fake, client):
    future = client.submit(Echo(1))
    fake.accept().say([1, 0, 5])
    assert readable(client, PATIENCE)
    thread = threading.Thread(target=future.cancel)
    thread.start()
    thread.join()
    be_silent(client)
    assert future.cancelled()


# ---------------------------------------------------------------------------------------------
# Time limits


def test_deadline_ends_a_call_that_was_read(fake, client):
    future = client.submit(Echo(1), timeout=0.05)
    connection = fake.accept()
    connection.next()
    assert not readable(client)
    assert client.next_deadline() == pytest.approx(time.monotonic() + 0.05, abs=0.05)
    assert readable(client, PATIENCE), "the timer tells"
    assert client.poll() == 1
    with pytest.raises(NotAnswered, match=r"has not answered Echo within 0.05 s; it may still"):
        future.result()
    assert connection.next() == [1]
    connection.say([1, 0, "late"])
    be_silent(client)
    assert client.next_deadline() is None


def test_deadline_ends_a_call_that_was_not_read(path, client):
    with FakeServer(path):
        future = client.submit(Echo(1), timeout=0.02)
        poll_until(client, future.done)
        with pytest.raises(NotPolled, match=r"has not read Echo within 0.02 s; it was cancelled"):
            future.result()


def test_result_keeps_the_deadline_without_a_loop(fake, client):
    future = client.submit(Echo(1), timeout=0.02)
    fake.accept().next()
    with pytest.raises(NotAnswered, match=r"within 0\.02 s"):
        future.result()


def test_answer_and_deadline_in_the_same_poll(fake, client):
    future = client.submit(Echo(1), timeout=0.02)
    fake.accept().say([1, 0, 5])
    wait_until(lambda: time.monotonic() > client.next_deadline())
    assert readable(client)
    assert client.poll() == 1
    assert future.result() == 5, "it came in time"
    be_silent(client)


def test_answer_behind_others_counts_at_the_deadline(path):
    with FakeServer(path) as fake, Client(path, limits=Limits(read_size=16)) as client:
        future = client.submit(Echo(1), timeout=0.02)
        other = client.submit(Blob(1), timeout=PATIENCE)
        fake.accept().say([2, 0, bytes(60)], [1, 0, 5])
        wait_until(lambda: time.monotonic() > client.next_deadline())
        poll_until(client, future.done)
        assert future.result() == 5
        assert other.result() == bytes(60)


def test_deadlines_in_any_order(fake, client):
    order = []
    for seconds in (0.06, 0.02, 0.04):
        client.submit(Echo(1), timeout=seconds).add_done_callback(
            lambda _, seconds=seconds: order.append(seconds)
        )
    connection = fake.accept()
    for _ in range(3):
        connection.next()
    poll_until(client, lambda: len(order) == 3)
    assert order == [0.02, 0.04, 0.06]


def test_moments_of_calls_that_are_over_are_forgotten(fake, client):
    slow = client.submit(Echo(0), timeout=1)
    connection = fake.accept()
    for i in range(2, 1002):
        future = client.submit(Echo(i))
        connection.say([i, 0, i])
        assert future.result() == i
    assert len(client._pump._moments) < 200
    slow.cancel()


def test_without_a_timer_next_deadline_says_when_to_poll(fake, client, monkeypatch):
    def no_timer():
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("ipcpoll._system.timers.Timer", no_timer)
    client.fileno()
    future = client.submit(Echo(1), timeout=0.02)
    fake.accept().next()
    wait_until(lambda: time.monotonic() > client.next_deadline())
    assert not readable(client)
    assert client.poll() == 1
    assert isinstance(future.exception(), NotAnswered)


def test_timer_that_can_not_be_watched(fake, client, monkeypatch):
    """The user has no watch left: as if there were no timer."""

    def full(fd, mask):
        raise OSError(28, "No space left on device")

    client.submit(Echo(0), timeout=None)
    fake.accept().next()
    client.fileno()
    monkeypatch.setattr(client._pump._polled._poller, "register", full)
    future = client.submit(Echo(1), timeout=0.02)
    wait_until(lambda: time.monotonic() > client.next_deadline())
    assert not readable(client)
    client.poll()
    assert future.done()


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_budget_and_time_limit_must_make_sense(client, seconds):
    with pytest.raises(ValueError, match="max_seconds must be at least 0"):
        client.poll(max_seconds=seconds)
    with pytest.raises(ValueError, match="a timeout must be at least 0"):
        client.submit(Echo(1), timeout=seconds)


# ---------------------------------------------------------------------------------------------
# The descriptor, and the budget


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


def test_one_turn_a_poll(fake, client):
    futures = [client.submit(Echo(i)) for i in range(5)]
    fake.accept().say(*([i + 1, 0, i] for i in range(5)))
    for number in range(1, 6):
        assert readable(client, PATIENCE)
        assert client.poll(max_seconds=0) == 1
        assert sum(future.done() for future in futures) == number
        assert client.pending is (number < 5)
    be_silent(client)


def test_edge_triggered_host_polls_until_nothing_is_pending(path):
    limits = Limits(read_size=64)
    with FakeServer(path) as fake, Client(path, limits=limits) as client, select.epoll() as epoll:
        epoll.register(client, select.EPOLLIN | select.EPOLLET)
        futures = [client.submit(Echo(i)) for i in range(100)]
        fake.accept().say(*([i + 1, 0, i] for i in range(100)))
        deadline = time.monotonic() + PATIENCE
        while not all(future.done() for future in futures):
            assert time.monotonic() < deadline
            if epoll.poll(0.5):
                client.poll(max_seconds=0)
                while client.pending:
                    client.poll(max_seconds=0)


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


def test_poll_without_a_call(client):
    assert client.poll() == 0
    be_silent(client)


def test_on_the_portable_poller(path, monkeypatch):
    monkeypatch.setattr(
        "ipcpoll._system.hub.make_poller", lambda: SelectorPoller(selectors.EpollSelector())
    )
    with Server(path, COMMANDS) as server, Client(path) as client:
        futures = [client.submit(Take(bytes(100_000))) for _ in range(10)]
        both_until(server, client, lambda: all(future.done() for future in futures))
        be_silent(client)


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


# ---------------------------------------------------------------------------------------------
# In loops


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


def _result_and_interrupt(future):
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    future.result()


def test_interrupted_result_leaves_the_client_good(fake, client):
    def interrupt(*_):
        raise KeyboardInterrupt

    future = client.submit(Echo(1))
    connection = fake.accept()
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            _result_and_interrupt(future)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    connection.say([1, 0, 5])
    assert future.result() == 5


class Clock:
    """A clock that goes on by a millisecond for each answer that is taken."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        self.taken = 0
        next_response = ClientProtocol.next_response
        monkeypatch.setattr("ipcpoll._client.pump.time", self)

        def slow(protocol):
            response = next_response(protocol)
            if response is not None:
                self.now += 0.001
                self.taken += 1
            return response

        monkeypatch.setattr(ClientProtocol, "next_response", slow)

    def monotonic(self):
        return self.now


@pytest.mark.parametrize(
    ("seconds", "turns", "most_taken"), [(0, 1, 1), (0.0005, 1, 1), (0.0035, 4, 4), (None, 5, 5)]
)
def test_answers_that_are_slow_to_take_keep_to_the_budget(
    server, monkeypatch, seconds, turns, most_taken
):
    """Whatever is taken before the budget is over is handed over as well, at least one."""
    with Client(server.address, timeout=None) as client:
        futures = [client.submit(Echo(i)) for i in range(12)]
        serve_until(server, lambda: readable(client) and server.stats()["turns"] == 12)
        clock = Clock(monkeypatch)
        assert 1 <= client.poll(max_seconds=seconds) <= turns
        assert clock.taken <= most_taken
        assert clock.now < 100 + (0.005 if seconds is None else seconds) + 0.002
        while not futures[-1].done():
            before = clock.taken
            assert client.poll(max_seconds=seconds) >= 1, "it found something"
            assert clock.taken <= before + most_taken
        assert [future.result() for future in futures] == list(range(12))
