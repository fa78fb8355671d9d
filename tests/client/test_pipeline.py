"""`Client.map`: many calls over one connection, with their answers in order."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest
from harness import (
    PATIENCE,
    Blob,
    Echo,
    Host,
    Refuse,
    Take,
    serve_until,
)
from serving import Find, Found, Serving

from ipcpoll import (
    Client,
    CommandError,
    NotAnswered,
    UsageError,
)


@pytest.fixture
def client(serving: Serving) -> Iterator[Client]:
    with Client(serving.server.address, timeout=PATIENCE) as client:
        yield client


def test_map_gives_the_answers_in_order(client):
    assert list(client.map(Echo(i) for i in range(1000))) == list(range(1000))


@pytest.mark.parametrize("depth", [1, 2, 3, 64, 5000])
def test_map_keeps_its_depth(client, depth):
    asked = itertools.count()
    started = 0

    def commands():
        nonlocal started
        for i in range(300):
            started = next(asked) + 1
            yield Echo(i)

    for answered, value in enumerate(client.map(commands(), depth=depth)):
        assert value == answered
        assert started - answered <= depth


def test_map_with_mixed_commands(client):
    answers = client.map([Echo(1), Find("x"), Blob(3)])
    assert list(answers) == [1, Found("/x", 3), b"\0\0\0"]


def test_map_of_nothing(client):
    assert list(client.map([])) == []


def test_map_needs_a_depth(client):
    with pytest.raises(ValueError, match="depth must be at least 1, not 0"):
        client.map([], depth=0)


def test_map_with_more_than_the_sockets_can_hold(client):
    """Both directions are full at once; neither end may wait for the other."""
    answers = client.map((Take(bytes(100_000)) for _ in range(50)), depth=50)
    assert list(answers) == [100_000] * 50
    answers = client.map((Blob(500_000) for _ in range(40)), depth=40)
    assert [len(answer) for answer in answers] == [500_000] * 40


def test_map_raises_an_error_at_its_place_and_ends(client):
    answers = client.map([Echo(1), Refuse("c"), Echo(3)])
    assert next(answers) == 1
    with pytest.raises(CommandError):
        next(answers)
    with pytest.raises(StopIteration):
        next(answers)
    assert client.call(Echo(4)) == 4


def test_map_that_is_left_early_leaves_the_connection_good(client):
    for value in client.map((Echo(i) for i in itertools.count()), depth=100):
        if value == 10:
            break
    assert client.call(Echo(-1)) == -1


def test_map_that_fails_cancels_what_is_in_flight(server):
    with Client(server.address, timeout=PATIENCE) as client:
        answers = client.map((Echo(i) for i in range(10)), timeout=0)
        with pytest.raises(NotAnswered):
            next(answers)
        host = Host()
        thread = threading.Thread(target=lambda: host.log.append(("got", client.call(Echo(99)))))
        thread.start()
        serve_until(server, lambda: ("got", 99) in host.log, host)
        thread.join()
    assert host.log == [99, ("got", 99)]


def test_map_with_a_command_that_can_not_be_carried_sends_none_of_its_batch(client, serving):
    for _ in range(2):  # on a new connection, and on one that was used
        with pytest.raises(ValueError, match="an integer"):
            list(client.map([Echo(1), Echo(2**70)]))
        assert client.call(Echo(3)) == 3
    assert serving.host.log == [3, 3]


def test_calls_between_the_answers_of_a_map(client):
    for value in client.map((Echo(i) for i in range(50)), depth=8):
        assert client.call(Echo(1000 + value)) == 1000 + value


def test_map_over_commands_that_raise_leaves_the_connection_good(client):
    def commands():
        yield Echo(1)
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        list(client.map(commands()))
    assert client.call(Echo(2)) == 2


def test_closing_in_the_midst_of_a_map(client):
    answers = client.map([Echo(i) for i in range(10)], depth=2)
    assert next(answers) == 0
    client.close()
    with pytest.raises(UsageError, match="the client is closed"):
        list(answers)
