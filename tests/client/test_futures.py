"""Submitted calls: their futures, functions that are called when one is done, and `cancel`."""

from __future__ import annotations

import concurrent.futures
import signal
import threading
from dataclasses import dataclass

import pytest
from fake_server import FakeServer, be_silent, poll_until
from harness import (
    PATIENCE,
    Echo,
    Host,
    Refuse,
    Take,
    both_until,
    readable,
    serve_until,
    wait_until,
)

from ipcpoll import (
    Client,
    CommandError,
    FrameTooLarge,
    InternalError,
    InvalidArguments,
    PeerGone,
    UsageError,
)

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
# In loops


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
