"""Many calls, each answer in its place: the fast way to send many (`Client.map`).

What is promised: when the iteration is left, in whatever way, its calls in flight are cancelled,
and the client is whole. An iterator that is forgotten may be closed by the garbage collector, in
any thread and in the midst of anything.

Here stands too how a command becomes a call on a connection, and a reply an answer.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from .._schema.commands import Command, CommandType, resolve
from .._schema.declared import as_declared
from .._system.guard import ThreadGuard
from .._wire import codec
from .._wire.messages import Answer, Failure
from ..errors import UsageError
from .connecting import TimeLimit
from .connection import ClientConnection, Reply
from .futures import decoded
from .session import Session

T = TypeVar("T")


def post_call(connection: ClientConnection, command: Command[Any, Any]) -> int:
    """Let a command wait to be sent; return the id of its call."""
    call_id = connection.new_id()
    connection.post(call_id, resolve(type(command)).encode_call(codec.encode(call_id), command))
    return call_id


def answer_of(
    name: str, reply: Reply, decode: Callable[[Any], Any], cls: type | None = None
) -> Any:
    """Return what a reply stands for, or raise the error that it is, as `cls` declares it."""
    if type(reply) is Answer:
        return decoded(name, decode, reply.value)
    assert isinstance(reply, Failure)
    raise as_declared(reply.error, cls)


class Answers:
    """The calls of one `Client.map`: what is in flight, and the answers that have come."""

    def __init__(
        self,
        guard: ThreadGuard,
        session: Session,
        wait_time: Callable[[], TimeLimit],
        reply_to: Callable[[ClientConnection, int, str, TimeLimit], Reply],
        settle: Callable[[], None],
    ) -> None:
        self._guard = guard
        self._session = session
        self._wait_time = wait_time
        self._reply_to = reply_to
        self._settle = settle
        self._connection: ClientConnection | None = None
        self._in_flight: deque[tuple[int, CommandType]] = deque()
        self._thread = threading.get_ident()

    def give(self, commands: Iterable[Command[Any, Any]], depth: int) -> Iterator[Any]:
        """Give the answer of each command; at most `depth` calls are in flight."""
        source = iter(commands)
        in_flight = self._in_flight
        more = True
        # The guard is for frames that end as they leave it, and a generator may be left for good:
        # so it is entered in what is called here.
        try:
            while True:
                # Filled up when half empty: frames are sent together and not one by one.
                if more and len(in_flight) <= depth // 2:
                    batch = _take(source, depth - len(in_flight))
                    more = len(batch) == depth - len(in_flight)
                    if batch:
                        self._post(batch)
                if not in_flight:
                    return
                for command_type, reply in self._replies():
                    yield answer_of(
                        command_type.name, reply, command_type.decode_answer, command_type.cls
                    )
        finally:
            self._leave()

    def _post(self, batch: list[Command[Any, Any]]) -> None:
        """Post a batch: on the connection of the earlier ones, else on one that works."""
        self._thread = threading.get_ident()
        with self._guard:
            connection = self._connection
            if connection is None:
                self._session.post(lambda to: self._post_first(to, batch), self._wait_time())
            else:
                self._post_calls(connection, batch)
                connection.send()

    def _post_first(self, connection: ClientConnection, batch: list[Command[Any, Any]]) -> None:
        self._in_flight.clear()  # of a connection that had been closed by the other end
        self._connection = connection
        self._post_calls(connection, batch)

    def _post_calls(self, connection: ClientConnection, batch: list[Command[Any, Any]]) -> None:
        """Post all of a batch, or, when one of them can't be carried, none."""
        before = len(self._in_flight)
        try:
            for command in batch:
                command_type = resolve(type(command))
                # It is noted before it is in flight: an interruption must not lose it.
                call_id = connection.new_id()
                self._in_flight.append((call_id, command_type))
                connection.post(call_id, command_type.encode_call(codec.encode(call_id), command))
        except BaseException:
            while len(self._in_flight) > before:
                connection.give_up(self._in_flight.pop()[0])
            raise

    def _replies(self) -> list[tuple[CommandType, Reply]]:
        """Wait for the first reply; return it, and those that have come with it."""
        in_flight, connection = self._in_flight, self._connection
        assert connection is not None
        with self._guard:
            call_id, command_type = in_flight[0]
            replies = [self._reply_to(connection, call_id, command_type.name, self._wait_time())]
            # Those that have come with it need not be waited for.
            replies += connection.come(call_id for call_id, _ in islice(in_flight, 1, None))
        return [(in_flight.popleft()[1], reply) for reply in replies]

    def _leave(self) -> None:
        """Give up what is in flight: now, or when the client is used next."""
        if self._in_flight:
            self._guard.leave_note(self._give_up)
            if self._thread == threading.get_ident():
                # Closed, or a method is inside, in the midst of which the garbage collector struck.
                with contextlib.suppress(UsageError), self._guard:
                    pass  # whoever comes in follows the notes

    def _give_up(self) -> None:
        while self._in_flight and self._connection is not None:
            self._connection.give_up(self._in_flight[0][0])
            self._in_flight.popleft()
        self._settle()

    def __del__(self) -> None:
        self._leave()  # if that was interrupted


def _take(source: Iterator[T], most: int) -> list[T]:
    return [item for _, item in zip(range(most), source)]  # noqa: B905 - the shorter one counts
