"""What is no time limit is refused where it is given, in a sentence, by every client."""

from __future__ import annotations

import asyncio
import math
import os
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from fake_server import Count
from harness import COMMANDS, Echo
from loops import need

from ipcpoll import Client, send, serve_or_send
from ipcpoll._client.connecting import TimeLimit, seconds_of
from ipcpoll.adapters import asyncio_loop

WRONG = [
    ("5", TypeError, "a timeout is a number of seconds or None, not '5'"),
    (b"5", TypeError, "a timeout is a number of seconds or None, not b'5'"),
    (True, TypeError, "a timeout is a number of seconds or None, not True"),
    ([5], TypeError, r"a timeout is a number of seconds or None, not \[5\]"),
    (5j, TypeError, "a timeout is a number of seconds or None, not 5j"),
    (timedelta(seconds=5), TypeError, r"give datetime.timedelta\(seconds=5\).total_seconds\(\)"),
    (-1, ValueError, "a timeout must be at least 0, not -1"),
    (-0.5, ValueError, "a timeout must be at least 0, not -0.5"),
    (math.nan, ValueError, "a timeout must be at least 0, not nan"),
    (Decimal(-1), ValueError, "a timeout must be at least 0, not -1"),
]


def awaited(method):
    """The same call of asyncio's client."""

    def call(path, timeout):
        async def main():
            async with asyncio_loop.AsyncClient(path) as client:
                await method(client, timeout)

        asyncio.run(main())

    return call


def of_client(method):
    """The same call of a client."""

    def call(path, timeout):
        with Client(path) as client:
            method(client, timeout)

    return call


async def async_stream(client, timeout):
    client.stream(Count(), timeout=timeout)


def in_trio(path, timeout):
    need("trio", "pip install trio")
    from ipcpoll.adapters import trio_loop

    trio_loop.AsyncClient(path, timeout=timeout)


PLACES = {
    "Client": lambda path, timeout: Client(path, timeout=timeout),
    "asyncio": lambda path, timeout: asyncio_loop.AsyncClient(path, timeout=timeout),
    "trio": in_trio,
    "send": lambda path, timeout: send(Echo(1), path, timeout=timeout),
    "serve_or_send": lambda path, timeout: serve_or_send(path, COMMANDS, Echo(1), timeout=timeout),
    "call": of_client(lambda client, timeout: client.call(Echo(1), timeout=timeout)),
    "request": of_client(lambda client, timeout: client.request("Echo", timeout=timeout)),
    "notify": of_client(lambda client, timeout: client.notify(Echo(1), timeout=timeout)),
    "map": of_client(lambda client, timeout: client.map([], timeout=timeout)),
    "submit": of_client(lambda client, timeout: client.submit(Echo(1), timeout=timeout)),
    "stream": of_client(lambda client, timeout: client.stream(Count(), timeout=timeout)),
    "await call": awaited(lambda client, timeout: client.call(Echo(1), timeout=timeout)),
    "await request": awaited(lambda client, timeout: client.request("Echo", timeout=timeout)),
    "await notify": awaited(lambda client, timeout: client.notify(Echo(1), timeout=timeout)),
    "async for": awaited(async_stream),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("timeout", "kind", "words"), WRONG, ids=repr)
def test_refused(path, place, timeout, kind, words):
    with pytest.raises(kind, match=words):
        PLACES[place](path, timeout)
    assert not os.path.exists(path)


@pytest.mark.parametrize(("timeout", "kind", "words"), WRONG[:6], ids=repr)
def test_refused_by_result(fake, client, timeout, kind, words):
    future = client.submit(Echo(1))
    end = client.stream(Count()).each(print)
    for wait in (future.result, future.exception, end.result):
        with pytest.raises(kind, match=words):
            wait(timeout)
    with pytest.raises(TimeoutError):
        future.result(-1)  # as in `concurrent.futures`
    future.cancel()
    end.cancel()


def test_refused_by_poll(client):
    for wrong in ("1", True):
        with pytest.raises(
            TypeError, match=f"max_seconds is a number of seconds or None, not {wrong!r}"
        ):
            client.poll(max_seconds=wrong)
    with pytest.raises(ValueError, match="max_seconds must be at least 0, not -1"):
        client.poll(max_seconds=-1)
    assert client.poll(max_seconds=1) == 0


def test_depth(client):
    with pytest.raises(TypeError, match="depth is a whole number, not '64'"):
        client.map([], depth="64")


@pytest.mark.parametrize("timeout", [5, 5.0, Decimal(5), Fraction(5)])
def test_numbers_of_every_kind(timeout):
    assert TimeLimit(timeout).seconds == 5.0
    assert type(TimeLimit(timeout).seconds) is float


def test_numbers_without_end():
    assert TimeLimit(None).deadline == math.inf
    assert TimeLimit(math.inf).deadline == math.inf
    assert TimeLimit(10**400).deadline == math.inf


def test_number_that_is_none_after_all():
    class Array:
        def __float__(self):
            raise TypeError("only length-1 arrays can be converted")

    with pytest.raises(TypeError, match="a timeout is a number of seconds or None"):
        seconds_of(Array())
