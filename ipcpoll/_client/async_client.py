"""The calls to `await`: the half of an adapter's AsyncClient that knows no loop.

An adapter says how its loop watches the client (`_attach`) and how a task waits until a function is
called (`_until`). What is promised: a task that is cancelled while it waits for an answer cancels
its call at the server, one that waits for a piece leaves the stream as it is; and `close` leaves
nothing in the loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Mapping
from concurrent.futures import Future
from os import PathLike
from types import EllipsisType
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar, overload

from .._attach.attachment import Attachment
from .._schema.answers import Turn
from .._schema.commands import Command, resolve
from .._schema.plain import encode_request
from .._wire import codec
from ..errors import UsageError
from ..limits import DEFAULT_LIMITS, Limits
from .client import Client
from .futures import CallFuture, Later, NotificationFuture, Pieces
from .stream import Stream

A = TypeVar("A", bound="AwaitingClient")
P = TypeVar("P")
R = TypeVar("R")
Timeout: TypeAlias = "float | EllipsisType | None"

_IN_ANOTHER_LOOP: Final = (
    "a loop that runs in another thread has this client; a client belongs to one thread: make one "
    "for each"
)


class _Loop(Protocol):
    """As much of a loop of asyncio as is needed here."""

    def is_running(self) -> bool: ...
    def is_closed(self) -> bool: ...
    def call_soon_threadsafe(self, callback: Callable[[], object]) -> object: ...


class _Waits:
    """A task that waits for a piece, and the loop that may run it."""

    __slots__ = ("loop",)

    def __init__(self) -> None:
        self.loop: _Loop | None = None

    @property
    def are_over(self) -> bool:
        """Whether its loop was closed, which forgets the task."""
        return self.loop is not None and self.loop.is_closed()


class AwaitingClient(ABC):
    """A client whose calls are awaited, in the loop's thread. See `Client` for the arguments.

    It attaches itself to the running loop at the first call. Leave it with ``async with``, or
    `close` it. What the calls raise is as for `Client`.
    """

    def __init__(
        self,
        address: str | PathLike[str],
        *,
        timeout: float | None = 5.0,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._client = Client(address, timeout=timeout, limits=limits)
        self._attachments: dict[_Loop, Attachment] = {}
        self._waiting: Counter[_Loop] = Counter()  # tasks

    @abstractmethod
    def _attach(self, client: Client) -> None:
        """Let the running loop watch the client."""

    @abstractmethod
    async def _until(self, start: Callable[[Callable[[], None]], None]) -> None:
        """Call `start` with a function, and return when that was called."""

    def _running_loop(self) -> _Loop | None:
        """Return the running loop, where it may be left, or closed, with tasks that wait in it.

        None, as here: when a loop ends, its tasks do, and it watches nothing any more.
        """
        return None

    # -----------------------------------------------------------------------------------------
    # For programs

    @overload
    async def call(self, command: Command[Any, Later[R]], *, timeout: Timeout = ...) -> R: ...
    @overload
    async def call(self, command: Command[Any, Pieces[Any]], *, timeout: Timeout = ...) -> None: ...
    @overload
    async def call(self, command: Command[Any, R], *, timeout: Timeout = ...) -> R: ...
    async def call(self, command: Command[Any, Any], *, timeout: Timeout = ...) -> Any:
        """Send a command and return its answer."""
        return await self._answer(self._attached().submit(command, timeout=timeout))

    async def request(
        self, name: str, fields: Mapping[str, Any] | None = None, *, timeout: Timeout = ...
    ) -> Any:
        """Call a command by its name, with plain values, and return the answer as a plain value."""
        body = encode_request(name, fields)
        client = self._attached()
        return await self._answer(
            client.begin(CallFuture, name, body, lambda value: value, timeout)
        )

    async def notify(self, command: Command[Any, Any], *, timeout: Timeout = ...) -> None:
        """Send a command that is never answered; return when the kernel has it."""
        command_type = resolve(type(command))
        body = command_type.encode_call(_NULL, command)[1:]
        client = self._attached()
        await self._answer(
            client.begin(NotificationFuture, command_type.name, body, lambda value: None, timeout)
        )

    @overload
    def stream(  # type: ignore[overload-overlap]  # a generator is an iterator; the first wins
        self,
        command: Command[Any, Generator[P | Turn, Any, R]],
        *,
        timeout: Timeout = ...,
        resume: bool = ...,
    ) -> AsyncStream[P, R]: ...
    @overload
    def stream(
        self, command: Command[Any, Pieces[P]], *, timeout: Timeout = ..., resume: bool = ...
    ) -> AsyncStream[P, None]: ...
    def stream(
        self, command: Command[Any, Any], *, timeout: Timeout = ..., resume: bool = False
    ) -> AsyncStream[Any, Any]:
        """Send a command that answers in pieces, and return them for ``async for``."""
        stream: Stream[Any, Any] = self._attached().stream(command, timeout=timeout, resume=resume)
        return AsyncStream(stream, self._wait_for_piece)

    def close(self) -> None:
        """Close it, and leave nothing in the loop. Tasks that wait get PeerGone. Idempotent.

        Legal in a signal handler, as `Client.close`.
        """
        self._client.close()
        for loop in self._attachments:
            if loop.is_running():  # and may sleep, if a signal handler closes
                loop.call_soon_threadsafe(lambda: None)
        self._attachments.clear()

    async def __aenter__(self: A) -> A:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    # -----------------------------------------------------------------------------------------
    # Inside

    def _attached(self) -> Client:
        client = self._client
        loop = self._running_loop()
        if loop is None:
            attachments = list(client.attachments)
            if not all(each.is_of_this_loop() for each in attachments):
                raise UsageError(_IN_ANOTHER_LOOP)
            if not attachments and client.fileno() >= 0:
                self._attach(client)
        else:
            attachment = self._attachments.get(loop)
            if (attachment is None or not attachment.attached) and client.fileno() >= 0:
                self._leave_others()
                before = set(client.attachments)
                self._attach(client)
                (self._attachments[loop],) = client.attachments - before
        return client

    def _leave_others(self) -> None:
        """Leave the loops that need this client no more."""
        for loop, attachment in list(self._attachments.items()):
            if loop.is_running():
                raise UsageError(_IN_ANOTHER_LOOP)
            # One in which tasks wait may be run again, and then nobody else tells it of them.
            if loop.is_closed() or not self._waiting[loop]:
                attachment.detach()
                del self._attachments[loop], self._waiting[loop]

    async def _wait(self, start: Callable[[Callable[[], None]], None]) -> None:
        """As `_until`, and be counted."""
        loop = self._running_loop()
        if loop is None:
            await self._until(start)
            return
        self._waiting[loop] += 1
        try:
            await self._until(start)
        finally:
            self._waiting[loop] -= 1
            if self._waiting[loop] <= 0:
                del self._waiting[loop]

    async def _wait_for_piece(
        self, start: Callable[[Callable[[], None]], None], own: _Waits
    ) -> None:
        """As `_wait`, also in another loop than that in which the stream was begun."""
        own.loop = self._running_loop()
        self._attached()
        await self._wait(start)

    async def _answer(self, future: Future[R]) -> R:
        try:
            if not future.done():
                await self._wait(_when_done(future))
            return future.result()
        finally:
            future.cancel()  # a task that was cancelled waits no more
            del future  # its exception holds this frame


def _when_done(future: Future[Any]) -> Callable[[Callable[[], None]], None]:
    return lambda wake: future.add_done_callback(lambda _: wake())


class AsyncStream(Generic[P, R]):
    """The pieces of an answer, for ``async for`` and ``async with``. See `Stream`."""

    def __init__(
        self,
        stream: Stream[P, R],
        wait: Callable[[Callable[[Callable[[], None]], None], _Waits], Awaitable[None]],
    ) -> None:
        self._stream = stream
        self._wait = wait
        self._waits: _Waits | None = None  # the task that waits for a piece

    @property
    def result(self) -> R:
        """The answer, behind the last piece. See `Stream.result`."""
        return self._stream.result

    @property
    def lost(self) -> int:
        """How many pieces were lost before those that were read. See `Stream.lost`."""
        return self._stream.lost

    @property
    def gaps(self) -> int:
        """How often the server went away and came back. See `Stream.gaps`."""
        return self._stream.gaps

    def close(self) -> None:
        """End it: cancel the command if it still runs. Idempotent."""
        self._stream.close()

    def __aiter__(self) -> AsyncStream[P, R]:
        return self

    async def __anext__(self) -> P:
        """Return the next piece.

        A task that is cancelled here (by a time limit of its own, say) waits no more, and that is
        all: the stream goes on, and the next one that waits gets the piece.
        """
        stream = self._stream
        if self._waits is not None and not self._waits.are_over:
            raise UsageError("another task waits for the next piece of this stream already")
        if not stream.has_come:
            self._waits = waits = _Waits()
            try:
                await self._wait(stream.notify, waits)
            finally:
                if self._waits is waits:  # else its loop was closed, and another task waits now
                    self._waits = None
                    stream.notify_no_more()
        try:
            return stream.next_come()
        except StopIteration:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> AsyncStream[P, R]:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


_NULL = codec.encode(None)
