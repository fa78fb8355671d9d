"""Ways to break the library: the host of the soak breaks it in one of them on demand.

Each is an example of a kind of bug that the soak must find, with the words of the finding.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from ipcpoll._server import replies
from ipcpoll._server.connection import ServerConnection
from ipcpoll._system.log import Log
from ipcpoll._system.wakeup import Wakeup
from ipcpoll._wire.protocol import ServerProtocol

_kept: list[Any] = []


def _now_and_then(each: int) -> Callable[[], bool]:
    """Return what is True once in so many times."""
    count = itertools.count(1)
    return lambda: next(count) % each == 0


def lose_an_answer() -> None:
    queue, now = ServerConnection.queue, _now_and_then(200)
    ServerConnection.queue = lambda self, frame: None if now() else queue(self, frame)  # type: ignore[method-assign]


def send_an_answer_twice() -> None:
    queue, now = ServerConnection.queue, _now_and_then(200)

    def broken(self: ServerConnection, frame: bytes) -> None:
        queue(self, frame)
        if now():
            queue(self, frame)

    ServerConnection.queue = broken  # type: ignore[method-assign]


def mix_answers_up() -> None:
    answer, last = ServerProtocol.answer, [b"\x00"]

    def broken(self: ServerProtocol, call_id: int, item: bytes) -> bytes:
        item, last[0] = (last[0], item) if now() else (item, item)
        return answer(self, call_id, item)

    now = _now_and_then(200)
    ServerProtocol.answer = broken  # type: ignore[method-assign]


def run_a_call_twice() -> None:
    run, now = replies.run_call, _now_and_then(200)

    def broken(call: Any, ctx: Any, *rest: Any) -> Any:
        if call.name == "Tell" and now():
            fields = call.fields or vars(call.command)
            ctx.ledger.took(fields["client"], fields["number"], fields["data"])
        return run(call, ctx, *rest)

    replies.run_call = broken


def lose_a_notification() -> None:
    run, now = replies.run_call, _now_and_then(30)
    replies.run_call = lambda call, *rest: (
        None if call.name == "Note" and now() else run(call, *rest)
    )


def leak_a_descriptor() -> None:
    close, now = ServerConnection.close, _now_and_then(20)

    def broken(self: ServerConnection) -> None:
        if now() and not self.closed:
            os.dup(self.fd)
        close(self)

    ServerConnection.close = broken  # type: ignore[method-assign]


def leak_memory() -> None:
    run = replies.run_call

    def broken(*arguments: Any) -> Any:
        _kept.append(b"x" * 20_000)  # not of zeros: those pages would not be there
        return run(*arguments)

    replies.run_call = broken


def leak_a_little_memory() -> None:
    """Only a slope shows it: a hundred bytes for a message."""
    run = replies.run_call

    def broken(*arguments: Any) -> Any:
        _kept.append(b"x" * random.randrange(50, 70))
        return run(*arguments)

    replies.run_call = broken


def raise_in_poll() -> None:
    flush, now = ServerConnection.flush, _now_and_then(500)

    class Foreseen(BaseException):
        pass

    def broken(self: ServerConnection) -> None:
        if now():
            raise Foreseen
        flush(self)

    ServerConnection.flush = broken  # type: ignore[method-assign]


def take_too_long() -> None:
    receive, now = ServerConnection.receive, _now_and_then(200)

    def broken(self: ServerConnection, when: float) -> None:
        if now():
            began = time.thread_time()
            while time.thread_time() < began + 0.04:
                pass
        receive(self, when)

    ServerConnection.receive = broken  # type: ignore[method-assign]


def flood_the_log() -> None:
    write = Log._write

    def broken(self: Log, *arguments: Any) -> None:
        self._kinds.clear()
        write(self, *arguments)

    Log._write = broken  # type: ignore[method-assign]


def wake_for_nothing() -> None:
    Wakeup.silence = lambda self: self.signal()  # type: ignore[method-assign]


class Break(NamedTuple):
    """How the library is broken, and what the soak says then."""

    do: Callable[[], None]
    words: str


BREAKS = [
    Break(run_a_call_twice, "doubled"),
    Break(leak_a_descriptor, "descriptors"),
    Break(lose_a_notification, "not all of them came"),
    Break(mix_answers_up, "the answer to|AssertionError|InternalError|PeerGone"),
    Break(send_an_answer_twice, "not in flight|in streams"),
    Break(lose_an_answer, "NotAnswered|was not answered|hangs|in streams"),
    Break(leak_memory, "the memory grew"),
    Break(raise_in_poll, "poll raised|PeerGone"),
    Break(take_too_long, "a poll took"),
    Break(flood_the_log, "lines in the log"),
    Break(wake_for_nothing, "idle, it polls"),
]
BY_NAME = {each.do.__name__: each for each in [*BREAKS, Break(leak_a_little_memory, "slope")]}
