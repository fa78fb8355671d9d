"""The client: typed calls to a program that runs. It blocks, within a time limit.

What is promised:

* Nothing waits longer than its time limit.
* A request is sent at most once. A connection that the server closed is made anew only when not
  a byte of the request was sent on it.
* A call that timed out is cancelled and its late answer dropped; the connection stays good.

One thread uses a client at a time, and a forked child none of its parent's.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from os import PathLike
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import msgspec

from . import codec, forks, reasons
from .address import is_name, socket_path
from .channel import Channel, Reply, TimedOut, WaitTime
from .command import Command
from .errors import InternalError, UsageError
from .limits import DEFAULT_LIMITS, Limits
from .protocol import Failure, call_payload_plain
from .schema import resolve

if TYPE_CHECKING:
    from concurrent.futures import Future

R = TypeVar("R")
T = TypeVar("T")

_NULL: Final = codec.encode(None)


class Client:
    """Calls the commands of the server at `address`, which is a name or a path.

    No I/O at construction: the first call connects. `timeout` is the limit for each call in
    seconds, from connecting to the answer; None: no limit; 0: only what needs no waiting. Each
    method may be given another. `limits` must be at least as wide as the server's for frames.

    Every method blocks. They raise, besides what they say: NotRunning, StaleSocket,
    UntrustedPeer when the server can't be reached; NotPolled and NotAnswered when the time is
    over; PeerGone when it went away; UsageError when the client is closed, from two threads at
    once and in a forked child.
    """

    def __init__(
        self,
        address: str | PathLike[str],
        *,
        timeout: float | None = 5.0,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._path = socket_path(address)
        self._private = is_name(address)
        self._timeout = timeout
        self._limits = limits
        self._channel: Channel | None = None
        self._door = _Door()
        forks.watch(self)

    @property
    def address(self) -> str:
        """The absolute path of the socket."""
        return self._path

    @overload
    def call(  # type: ignore[overload-overlap]  # a generator is an iterator; the first wins
        self,
        command: Command[Any, Generator[Any, Any, R]],
        *,
        timeout: float | EllipsisType | None = ...,
    ) -> R: ...
    @overload
    def call(
        self,
        command: Command[Any, Iterator[Any] | AsyncIterator[Any]],
        *,
        timeout: float | EllipsisType | None = ...,
    ) -> None: ...
    @overload
    def call(
        self, command: Command[Any, Awaitable[R]], *, timeout: float | EllipsisType | None = ...
    ) -> R: ...
    @overload
    def call(
        self, command: Command[Any, Future[R]], *, timeout: float | EllipsisType | None = ...
    ) -> R: ...
    @overload
    def call(
        self, command: Command[Any, R], *, timeout: float | EllipsisType | None = ...
    ) -> R: ...
    def call(
        self, command: Command[Any, Any], *, timeout: float | EllipsisType | None = ...
    ) -> Any:
        """Send a command and return its answer.

        Raises CommandError (one of its subclasses, or itself with an application's code) when
        the answer is an error; FrameTooLarge, TypeError or ValueError, before anything is sent,
        when the command can't be carried.
        """
        command_type = resolve(type(command))
        with self._door:
            wait = self._wait_time(timeout)
            channel, call_id = self._post(lambda channel: _post_call(channel, command), wait)
            reply = self._reply(channel, call_id, command_type.name, wait)
        return _decoded(command_type.name, reply, command_type.decode_answer)

    def request(
        self,
        name: str,
        fields: Mapping[str, Any] | None = None,
        *,
        timeout: float | EllipsisType | None = ...,
    ) -> Any:
        """Call a command by its name, with plain values, and return the answer as a plain value.

        For tools that don't know the command's class. Raises as `call`.
        """
        plain = dict(fields or {})

        def post(channel: Channel) -> int:
            call_id = channel.new_id()
            channel.post(call_id, call_payload_plain(codec.encode(call_id), name, plain))
            return call_id

        with self._door:
            wait = self._wait_time(timeout)
            channel, call_id = self._post(post, wait)
            reply = self._reply(channel, call_id, name, wait)
        return _decoded(name, reply, lambda value: value)

    def notify(
        self, command: Command[Any, Any], *, timeout: float | EllipsisType | None = ...
    ) -> None:
        """Send a command that is never answered; return when the kernel has it.

        Whether it was run is not told; what goes wrong with it is in the server's log. Raises
        NotPolled when the server reads so little that the command found no room in time, and
        FrameTooLarge, TypeError or ValueError as `call`.
        """
        command_type = resolve(type(command))
        payload = command_type.encode_call(_NULL, command)
        with self._door:
            wait = self._wait_time(timeout)
            channel, frame = self._post(lambda channel: channel.post_notification(payload), wait)
            try:
                channel.flush(wait.deadline)
            except TimedOut:
                taken_back = channel.take_back(frame)
                sent = "it was not sent" if taken_back else "a part of it was sent"
                raise reasons.no_room(
                    self._path, channel.server, command_type.name, wait.seconds, sent
                ) from None
            except (KeyboardInterrupt, SystemExit):
                channel.take_back(frame)
                raise

    def map(
        self,
        commands: Iterable[Command[Any, R]],
        *,
        depth: int = 64,
        timeout: float | EllipsisType | None = ...,
    ) -> Iterator[R]:
        """Send many commands and give their answers in order: the fast way.

        At most `depth` calls are in flight, so a command may be asked for before the answer of
        an earlier one was given. `timeout` bounds the wait for each answer. An error is raised
        at its place and ends the iteration; then, and when the iteration is left early, the
        calls in flight are cancelled (those that had their turn have run). Commands are sent in
        batches; one that can't be carried raises before any of its batch is sent. Raises
        ValueError for a `depth` below 1.
        """
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth}")
        return self._map(commands, depth, timeout)

    def close(self) -> None:
        """Close the connection. Idempotent. Calls after it raise UsageError."""
        self._door.shut("the client is closed")
        forks.unwatch(self)
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def after_fork(self) -> None:
        """Let go of the parent's connection. Called in a forked child; see `forks`."""
        self._door = _Door()  # the parent's may be locked
        self._door.shut(forks.IN_CHILD)
        self.close()

    # -----------------------------------------------------------------------------------------
    # Inside

    def _map(
        self, commands: Iterable[Command[Any, R]], depth: int, timeout: float | EllipsisType | None
    ) -> Iterator[R]:
        source = iter(commands)
        in_flight: deque[tuple[int, type]] = deque()
        channel: Channel | None = None
        more = True
        try:
            while True:
                # Filled up when half empty: frames are sent together and not one by one.
                if more and len(in_flight) <= depth // 2:
                    batch = _take(source, depth - len(in_flight))
                    more = len(batch) == depth - len(in_flight)
                    if batch:
                        with self._door:
                            channel, ids = self._post_all(batch, channel, timeout)
                        in_flight.extend(zip(ids, map(type, batch), strict=True))
                if not in_flight or channel is None:
                    return
                call_id, cls = in_flight[0]
                command_type = resolve(cls)
                with self._door:
                    reply = self._reply(
                        channel, call_id, command_type.name, self._wait_time(timeout)
                    )
                in_flight.popleft()
                yield _decoded(command_type.name, reply, command_type.decode_answer)
        finally:
            if channel is not None:
                for call_id, _ in in_flight:
                    channel.give_up(call_id)

    def _post_all(
        self,
        batch: list[Command[Any, R]],
        channel: Channel | None,
        timeout: float | EllipsisType | None,
    ) -> tuple[Channel, list[int]]:
        """Post a batch: on the connection of the earlier ones, else on one that works."""
        if channel is None:
            return self._post(lambda channel: _post_calls(channel, batch), self._wait_time(timeout))
        ids = _post_calls(channel, batch)
        channel.send()
        return channel, ids

    def _wait_time(self, timeout: float | EllipsisType | None) -> WaitTime:
        return WaitTime(self._timeout if isinstance(timeout, EllipsisType) else timeout)

    def _post(self, post: Callable[[Channel], T], wait: WaitTime) -> tuple[Channel, T]:
        """Post something on a connection that works; return that and what `post` returned."""
        channel = self._channel
        if channel is not None and channel.usable:
            posted = post(channel)
            channel.send()
            if not channel.untouched:
                return channel, posted
        if channel is not None:
            channel.close()
        channel = self._channel = Channel(self._path, self._limits, wait, private=self._private)
        posted = post(channel)
        channel.send()
        return channel, posted

    def _reply(self, channel: Channel, call_id: int, name: str, wait: WaitTime) -> Reply:
        try:
            return channel.wait_for(call_id, wait.deadline)
        except TimedOut:
            raise channel.overdue(call_id, name, wait.seconds) from None
        except (KeyboardInterrupt, SystemExit):
            channel.give_up(call_id)
            raise


class _Door:
    """Lets one thread in at a time, and nobody once it is shut.

    A class and not a generator with `contextmanager`: that costs 0.9 µs, 4 % of a call.
    """

    __slots__ = ("_lock", "_refusal")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refusal: str | None = None

    def shut(self, refusal: str) -> None:
        """Refuse everyone from now on, and say why. The first reason stays."""
        self._refusal = self._refusal or refusal

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise UsageError("this client is in use already; a client belongs to one thread")
        if self._refusal is not None:
            self._lock.release()
            raise UsageError(self._refusal)

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _post_call(channel: Channel, command: Command[Any, Any]) -> int:
    call_id = channel.new_id()
    channel.post(call_id, resolve(type(command)).encode_call(codec.encode(call_id), command))
    return call_id


def _post_calls(channel: Channel, batch: list[Command[Any, R]]) -> list[int]:
    """Post all of a batch, or, when one of them can't be carried, none."""
    ids: list[int] = []
    try:
        for command in batch:
            ids.append(_post_call(channel, command))
    except BaseException:
        for call_id in ids:
            channel.give_up(call_id)
        raise
    return ids


def _decoded(name: str, reply: Reply, decode: Callable[[Any], Any]) -> Any:
    if isinstance(reply, Failure):
        raise reply.error
    try:
        return decode(reply.value)
    except msgspec.ValidationError as error:
        raise InternalError(
            f"the answer of {name} is not what its annotation says: {error}"
        ) from None


def _take(source: Iterator[T], most: int) -> list[T]:
    return [item for _, item in zip(range(most), source)]  # noqa: B905 - the shorter one counts


# ---------------------------------------------------------------------------------------------
# One-shot


@overload
def send(  # type: ignore[overload-overlap]  # a generator is an iterator; the first wins
    command: Command[Any, Generator[Any, Any, R]],
    address: str | PathLike[str],
    *,
    timeout: float | None = ...,
) -> R: ...
@overload
def send(
    command: Command[Any, Iterator[Any] | AsyncIterator[Any]],
    address: str | PathLike[str],
    *,
    timeout: float | None = ...,
) -> None: ...
@overload
def send(
    command: Command[Any, Awaitable[R]],
    address: str | PathLike[str],
    *,
    timeout: float | None = ...,
) -> R: ...
@overload
def send(
    command: Command[Any, Future[R]], address: str | PathLike[str], *, timeout: float | None = ...
) -> R: ...
@overload
def send(
    command: Command[Any, R], address: str | PathLike[str], *, timeout: float | None = ...
) -> R: ...
def send(
    command: Command[Any, Any], address: str | PathLike[str], *, timeout: float | None = 5.0
) -> Any:
    """Connect, call one command, close; return its answer. Blocks at most `timeout` seconds.

    Raises as `Client.call`.
    """
    with Client(address, timeout=timeout) as client:
        return client.call(command)
