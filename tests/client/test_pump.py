"""`Client.poll`: its budget, and the time limits of submitted calls."""

from __future__ import annotations

import select
import time

import pytest
from fake_server import FakeServer, be_silent, poll_until
from harness import (
    PATIENCE,
    Blob,
    Echo,
    readable,
    serve_until,
    wait_until,
)

from ipcpoll import (
    Client,
    Limits,
    NotAnswered,
    NotPolled,
)
from ipcpoll._wire.protocol import ClientProtocol

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


def test_poll_without_a_call(client):
    assert client.poll() == 0
    be_silent(client)


# ---------------------------------------------------------------------------------------------
# In loops


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
