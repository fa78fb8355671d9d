"""The commands of the soak, and what both sides know of a numbered message.

A good client has a number, and numbers its messages from 0. Their payloads follow from the number,
and so do the answers', so each side knows what has to come. The host's ledger keeps the last number
of each client: what is lost, doubled or out of its order is seen at once, by whoever it happens to.

A command does what the host does for it: the host is the context.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ipcpoll import CommandError, Turn

_PATTERN = random.Random(7).randbytes(1 << 17)
_OFFSETS = 1 << 16
_SIZES = [8, 20, 40, 20, 100, 20, 700, 20, 60, 30]
LARGE = 60_000
"""Bytes of every 2,000th payload; a small frame and a large one take different ways."""


def question(number: int) -> bytes:
    """Return the payload of a message."""
    size = _SIZES[number % 10] if number % 2000 else LARGE
    start = number * 7919 % _OFFSETS
    return _PATTERN[start : start + size]


def answer_to(number: int) -> bytes:
    """Return the payload of its answer, which no other message of about the same time has."""
    size = _SIZES[number % 9] if number % 3000 else LARGE
    start = (number * 7919 + 13) % _OFFSETS
    return _PATTERN[start : start + size]


class Ledger:
    """What came from whom."""

    def __init__(self) -> None:
        self.last: dict[str, int] = {}
        self.lost = self.doubled = 0
        self.violations: list[str] = []

    def took(self, client: str, number: int, data: bytes) -> None:
        """Write down that a message was run."""
        last = self.last.get(client, -1)
        if number > last + 1:
            self.lost += number - last - 1
            self.violations.append(f"lost: {client}: behind {last} {number} was run")
        elif number <= last:
            self.doubled += 1
            self.violations.append(f"doubled: {client}: behind {last} {number} was run")
        if data != question(number):
            self.violations.append(f"{client}: the payload of {number} is another one")
        self.last[client] = number


class Context(Protocol):
    """What the host does for commands."""

    ledger: Ledger
    late: list[tuple[Future[bytes], int]]
    longest: float

    def nest(self, seconds: float) -> None: ...
    def fork(self) -> None: ...
    def starve(self) -> None: ...
    def sample(self) -> dict[str, float]: ...
    def reopen(self) -> None: ...
    def end(self) -> None: ...


R = TypeVar("R")


def timed(process: Callable[[Any, Any], R]) -> Callable[[Any, Any], R]:
    """Tell the host how long its commands take: a poll can't be shorter."""

    @functools.wraps(process)
    def timed_process(self: Any, ctx: Any) -> R:
        began = time.thread_time()
        try:
            return process(self, ctx)
        finally:
            ctx.longest = max(ctx.longest, time.thread_time() - began)

    return timed_process


# ---------------------------------------------------------------------------------------------
# Of the good clients


@dataclass
class Tell:
    """A numbered message, and its answer."""

    client: str
    number: int
    data: bytes

    def process(self, ctx: Context) -> bytes:
        ctx.ledger.took(self.client, self.number, self.data)
        return answer_to(self.number)


@dataclass
class Note:
    """A numbered message that nobody answers."""

    client: str
    number: int
    data: bytes

    def process(self, ctx: Context) -> None:
        ctx.ledger.took(self.client, self.number, self.data)


@dataclass
class Seen:
    """Answers the last number that came from a client, -1 if there was none."""

    client: str

    def process(self, ctx: Context) -> int:
        return ctx.ledger.last.get(self.client, -1)


@dataclass
class Later:
    """A numbered message that is answered when the host's timer comes."""

    client: str
    number: int
    data: bytes

    def process(self, ctx: Context) -> Future[bytes]:
        ctx.ledger.took(self.client, self.number, self.data)
        future: Future[bytes] = Future()
        ctx.late.append((future, self.number))
        return future


@dataclass
class Count:
    """Answers in pieces: the numbers up to `to`, then `to`."""

    to: int

    def process(self, ctx: Context) -> Generator[int | Turn, None, int]:
        for number in range(self.to):
            yield number
            if number % 7 == 0:
                yield Turn()
        return self.to


# ---------------------------------------------------------------------------------------------
# Of the liars


@dataclass
class Waste:
    """Answers so many bytes, which nobody may read."""

    data: bytes
    size: int

    @timed
    def process(self, ctx: Context) -> bytes:
        return bytes(self.size)


class _Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("its text can't be shown")


FAILURES: list[Callable[[], BaseException]] = [
    lambda: ValueError("on purpose"),
    lambda: CommandError("on-purpose", "no", {"why": [1, 2]}),
    lambda: CommandError("on-purpose", "no", object()),
    lambda: RecursionError("on purpose"),
    MemoryError,
    StopIteration,
    lambda: OSError(5, "on purpose"),
    _Mute,
]


@dataclass
class Fail:
    """Raises."""

    kind: int

    @timed
    def process(self, ctx: Context) -> None:
        raise FAILURES[self.kind % len(FAILURES)]()


@dataclass
class Nest:
    """Runs the host's loop inside the command, as a modal dialog does."""

    seconds: float

    @timed
    def process(self, ctx: Context) -> None:
        ctx.nest(self.seconds)


@dataclass
class Fork:
    """Forks the host; the child lives for a while."""

    @timed
    def process(self, ctx: Context) -> None:
        ctx.fork()


@dataclass
class Starve:
    """Takes all descriptors of the host for a moment."""

    @timed
    def process(self, ctx: Context) -> None:
        ctx.starve()


# ---------------------------------------------------------------------------------------------
# Of the judge


@dataclass
class Sample:
    """Answers what the host has and has counted."""

    @timed
    def process(self, ctx: Context) -> dict[str, float]:
        return ctx.sample()


@dataclass
class Reopen:
    """Closes the server, and opens it again at the same place."""

    @timed
    def process(self, ctx: Context) -> None:
        ctx.reopen()


@dataclass
class End:
    """Ends the host."""

    def process(self, ctx: Context) -> None:
        ctx.end()


COMMANDS = [Tell, Note, Seen, Later, Count, Waste, Fail, Nest, Fork, Starve, Sample, Reopen, End]
