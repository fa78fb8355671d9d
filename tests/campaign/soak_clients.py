"""The good clients of the soak. Each message is numbered, and each answer known beforehand.

A client that comes while the host is out of descriptors gets the error that there is no room, and
connects again. Nothing else may go wrong.
"""

from __future__ import annotations

import os
import select
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any, TypeVar

from fellows import PATIENCE, take_orders
from soak_commands import Count, Later, Note, Seen, Tell, answer_to, question

from ipcpoll import Busy, Client, send

path = ""
next_number: Counter[str] = Counter()
counts: Counter[str] = Counter()

T = TypeVar("T")


def name(what: str) -> str:
    """Return the name of one of this process's clients."""
    return f"{os.getpid()} {what}"


def fresh(client: str) -> tuple[str, int, bytes]:
    """Return the fields of the next message of a client."""
    number = next_number[client]
    next_number[client] += 1
    return client, number, question(number)


def until_there_is_room(act: Callable[[], T]) -> T:
    """Try until there is room. What was refused was not run."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return act()
        except Busy as error:
            counts["turned away"] += 1
            if error.began or not error.told_to_all or time.monotonic() > deadline:
                raise
            select.select([], [], [], 0.01)


def connected(stack: ExitStack) -> Client:
    """Return a client that is connected already."""
    client = stack.enter_context(Client(path, timeout=PATIENCE))
    until_there_is_room(lambda: client.call(Seen("")))
    return client


def all_came(client: Client, who: str) -> None:
    """Check that the host has run all messages of a client, and not one more."""
    assert client.call(Seen(who)) == next_number[who] - 1, f"{who}: not all of them came"


# ---------------------------------------------------------------------------------------------
# Ways to ask


def calls(client: Client) -> None:
    """One at a time."""
    who = name("calls")
    for _ in range(20):
        command = Tell(*fresh(who))
        assert client.call(command) == answer_to(command.number)
    counts["calls"] += 20


def submits(client: Client) -> None:
    """In a loop, ten futures at a time, some of them answered later."""
    who = name("submits")
    futures: list[tuple[Future[bytes], int]] = []
    done: list[int] = []
    for turn in range(10):
        kind = Later if turn == 5 else Tell
        command = kind(*fresh(who))
        future = client.submit(command)
        future.add_done_callback(lambda _, number=command.number: done.append(number))  # type: ignore[misc]
        futures.append((future, command.number))
    deadline = time.monotonic() + PATIENCE
    while len(done) < len(futures):
        assert time.monotonic() < deadline, "futures were not done"
        select.select([client], [], [], 1)
        client.poll()
    for future, number in futures:
        assert future.result() == answer_to(number)
    late = futures[5][1]
    assert sorted(done) == [number for _, number in futures]
    assert [n for n in done if n != late] == [number for _, number in futures if number != late]
    counts["submits"] += len(futures)


def notifications(client: Client) -> None:
    """Nobody answers, but what is called behind them is run behind them."""
    who = name("notifications")
    for _ in range(20):
        client.notify(Note(*fresh(who)))
    all_came(client, who)
    counts["notifications"] += 20


def streams(client: Client) -> None:
    """An answer in pieces, on a connection of its own."""

    def read() -> int:
        with client.stream(Count(30)) as stream:
            assert list(stream) == list(range(30))
            return stream.result

    assert until_there_is_room(read) == 30
    counts["pieces"] += 30


def one_shots(client: Client) -> None:
    """A connection for each."""
    who = name("one-shots")
    for _ in range(3):
        command = Tell(*fresh(who))
        got = until_there_is_room(lambda sent=command: send(sent, path, timeout=PATIENCE))  # type: ignore[misc]
        assert got == answer_to(command.number)
    counts["one-shots"] += 3


# ---------------------------------------------------------------------------------------------
# Orders


def at(address: str) -> None:
    """Turn to another host, which knows none of the messages that others had."""
    global path  # noqa: PLW0603 - a fellow has one host at a time
    path = address
    next_number.clear()


def mix(seconds: float) -> dict[str, int]:
    """Ask in every way, in turn, until the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with ExitStack() as stack:
            client = connected(stack)
            for ask in (calls, submits, notifications, streams, one_shots) * 3:
                ask(client)
            for who in next_number:
                all_came(client, who)
    return taken()


def pipeline(seconds: float, clients: int) -> dict[str, int]:
    """Let some clients have many calls in flight, until the time is over."""
    deadline = time.monotonic() + seconds

    def commands(who: str) -> Iterator[Tell]:
        while next_number[who] % 32 or time.monotonic() < deadline:
            yield Tell(*fresh(who))

    with ExitStack() as stack:
        going: dict[str, tuple[Client, Iterator[Any], int]] = {}
        for i in range(clients):
            who, client = name(f"pipeline {i}"), connected(stack)
            going[who] = client, client.map(commands(who)), next_number[who]
        while going:
            for who, (client, answers, before) in list(going.items()):
                number = before
                for answer in answers:
                    assert answer == answer_to(number), f"{who}: the answer to {number}"
                    number += 1
                    if number % 32 == 0:
                        break
                counts["pipelined"] += number - before
                going[who] = client, answers, number
                if number == next_number[who] and not number % 32 and time.monotonic() >= deadline:
                    assert next(answers, None) is None
                    all_came(client, who)
                    del going[who]
    return taken()


def taken() -> dict[str, int]:
    """Return what was counted since the last time."""
    found = dict(counts)
    counts.clear()
    return found


if __name__ == "__main__":
    take_orders({"at": at, "mix": mix, "pipeline": pipeline})
