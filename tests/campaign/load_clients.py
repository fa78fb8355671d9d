"""The clients of load.py: many at once, one after the other, pipelining, all in one moment."""

from __future__ import annotations

import os
import resource
import select
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from fellows import take_orders
from harness import PATIENCE, Echo, call, encode

from ipcpoll import Client, send

SMALL = 4096
THROUGH_THE_LIBRARY = 100
"""Of so many one-shot clients one is ipcpoll's own; the others are made by hand and cost less."""

path = sys.argv[1] if len(sys.argv) > 1 else ""
held: list[socket.socket] = []


def raise_descriptor_limit(wanted: int) -> int:
    """Let this process have so many descriptors, or as many as it may; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    except (PermissionError, ValueError):  # not root, or more than the kernel allows
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def ask(sock: socket.socket, value: int) -> None:
    """Send a call on a socket that has room."""
    data = call(1, "Echo", value=value)
    assert sock.send(data) == len(data)


def expect(sock: socket.socket, value: int) -> None:
    """Receive the answer, which comes in one piece."""
    got = sock.recv(SMALL)
    assert got == encode([1, 0, value]), f"the answer to {value} is {got!r}"


def connect() -> socket.socket:
    """Connect, and wait while the backlog is full."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(None)  # a full backlog makes it wait; with a time limit it would be EAGAIN
    sock.connect(path)
    return sock


def hold(count: int) -> int:
    """Connect so many clients more, let each be served once, and keep them connected."""
    raise_descriptor_limit(len(held) + count + 100)
    fresh = [connect() for _ in range(count)]
    held.extend(fresh)
    for value, sock in enumerate(fresh):
        ask(sock, value)
    for value, sock in enumerate(fresh):
        expect(sock, value)
    return len(fresh)


def let_go() -> int:
    """Close those that are held."""
    count = len(held)
    while held:
        held.pop().close()
    return count


def one_after_the_other(seconds: float, most: int) -> int:
    """Connect, ask, read the answer, close: until the time is over; return how many."""
    deadline = time.monotonic() + seconds
    done = 0
    base = 2**63 + (os.getpid() << 32)  # the last eight bytes of a frame, whatever is added
    question = call(1, "Echo", value=base)[:-8]
    answer = encode([1, 0, base])[:-8]
    while done < most and (done % 64 or time.monotonic() < deadline):
        value = base + done
        if done % THROUGH_THE_LIBRARY == 0:
            assert send(Echo(value), path, timeout=PATIENCE) == value
        else:
            number = value.to_bytes(8, "big")
            with connect() as sock:
                sock.send(question + number)
                got = sock.recv(SMALL)
            assert got == answer + number, f"the answer to {value} is {got!r}"
        done += 1
    return done


def pipeline(clients: int, seconds: float) -> list[int]:
    """Let clients have 64 calls in flight each; return how many each had answered."""
    deadline = time.monotonic() + seconds
    done = [0] * clients

    def commands() -> Iterator[Echo]:
        value = 0
        while value < 64 or value % 64 or time.monotonic() < deadline:  # each gets its share
            yield Echo(value)
            value += 1

    with ExitStack() as stack:
        answers: list[Iterator[Any] | None] = []
        for _ in range(clients):
            client = stack.enter_context(Client(path, timeout=PATIENCE))
            answers.append(client.map(commands()))
        while any(answers):
            for number, each in enumerate(answers):
                for value in each or ():
                    assert value == done[number]
                    done[number] += 1
                    break
                else:
                    answers[number] = None
    return done


def storm(count: int) -> float:
    """Connect and ask all in one moment; return the seconds until the last one was answered."""
    raise_descriptor_limit(count + 100)
    with ExitStack() as stack:
        began = time.monotonic()
        waiting = {}
        poll = select.poll()
        for value in range(count):
            sock = stack.enter_context(connect())
            ask(sock, value)
            waiting[sock.fileno()] = value, sock
            poll.register(sock, select.POLLIN)
        while waiting:
            events = poll.poll(PATIENCE * 1000)
            assert events, f"{len(waiting)} of {count} were not answered"
            for fd, _ in events:
                value, sock = waiting.pop(fd)
                poll.unregister(fd)
                expect(sock, value)
        return time.monotonic() - began


if __name__ == "__main__":
    take_orders(
        {each.__name__: each for each in (hold, let_go, one_after_the_other, pipeline, storm)}
    )
