"""Many calls, each answer in its place: the fast way to send many (`Client.map`).

Here stands too how a command becomes a call on a connection, and a reply an answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from . import codec
from .channel import Channel, Reply
from .command import Command
from .connecting import WaitTime
from .door import Door
from .line import Line
from .messages import Answer, Failure
from .schema import CommandType, resolve
from .submitted import decoded

T = TypeVar("T")


def post_call(channel: Channel, command: Command[Any, Any]) -> int:
    """Let a command wait to be sent; return the id of its call."""
    call_id = channel.new_id()
    channel.post(call_id, resolve(type(command)).encode_call(codec.encode(call_id), command))
    return call_id


def answer_of(name: str, reply: Reply, decode: Callable[[Any], Any]) -> Any:
    """Return what a reply stands for, or raise the error that it is."""
    if type(reply) is Answer:
        return decoded(name, decode, reply.value)
    assert isinstance(reply, Failure)
    raise reply.error


def answers(
    commands: Iterable[Command[Any, Any]],
    depth: int,
    door: Door,
    line: Line,
    wait_time: Callable[[], WaitTime],
    reply_to: Callable[[Channel, int, str, WaitTime], Reply],
) -> Iterator[Any]:
    """Give the answer of each command; at most `depth` calls are in flight."""
    source = iter(commands)
    in_flight: deque[tuple[int, CommandType]] = deque()
    channel: Channel | None = None
    more = True
    try:
        while True:
            # Filled up when half empty: frames are sent together and not one by one.
            if more and len(in_flight) <= depth // 2:
                batch = _take(source, depth - len(in_flight))
                more = len(batch) == depth - len(in_flight)
                if batch:
                    with door:
                        channel, ids = _post_all(batch, channel, line, wait_time)
                    in_flight.extend(zip(ids, map(resolve, map(type, batch)), strict=True))
            if not in_flight or channel is None:
                return
            call_id, command_type = in_flight[0]
            with door:
                replies = [reply_to(channel, call_id, command_type.name, wait_time())]
                # Those that have come with it need not be waited for.
                replies += channel.come(call_id for call_id, _ in islice(in_flight, 1, None))
            answered = [in_flight.popleft() for _ in replies]
            for (_, command_type), reply in zip(answered, replies, strict=True):
                yield answer_of(command_type.name, reply, command_type.decode_answer)
    finally:
        if channel is not None:
            for call_id, _ in in_flight:
                channel.give_up(call_id)


def _post_all(
    batch: list[Command[Any, Any]],
    channel: Channel | None,
    line: Line,
    wait_time: Callable[[], WaitTime],
) -> tuple[Channel, list[int]]:
    """Post a batch: on the connection of the earlier ones, else on one that works."""
    if channel is None:
        return line.post(lambda channel: _post_calls(channel, batch), wait_time())
    ids = _post_calls(channel, batch)
    channel.send()
    return channel, ids


def _post_calls(channel: Channel, batch: list[Command[Any, Any]]) -> list[int]:
    """Post all of a batch, or, when one of them can't be carried, none."""
    ids: list[int] = []
    try:
        for command in batch:
            ids.append(post_call(channel, command))
    except BaseException:
        for call_id in ids:
            channel.give_up(call_id)
        raise
    return ids


def _take(source: Iterator[T], most: int) -> list[T]:
    return [item for _, item in zip(range(most), source)]  # noqa: B905 - the shorter one counts
