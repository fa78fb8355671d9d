"""The calls to `await`: the half of an adapter's AsyncClient that knows no loop.

An adapter says how its loop watches the client (`_attach`) and how a task waits until a function is
called (`_until`). What is promised: a task that is cancelled while it waits for an answer cancels
its call at the server, one that waits for a piece leaves the stream as it is; and `close` leaves
nothing in the loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from os import PathLike
from types import EllipsisType
from typing import Any, Generic, TypeAlias, TypeVar, overload

from . import codec
from .answers import Turn
from .client import Client
from .command import Command
from .errors import UsageError
from .limits import DEFAULT_LIMITS, Limits
from .messages import call_payload_plain
from .schema import resolve
from .stream import Stream
from .submitted import Later, Pieces, Submitted, SubmittedNotification

A = TypeVar("A", bound="AwaitingClient")
P = TypeVar("P")
R = TypeVar("R")
Timeout: TypeAlias = "float | EllipsisType | None"


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

    @abstractmethod
    def _attach(self, client: Client) -> None:
        """Let the running loop watch the client."""

    def _is_attached(self, client: Client) -> bool:
        """Return whether the running loop watches the client.

        For loops that end and leave what they watched as it is; the others detach it.
        """
        return bool(client.attachments)

    def _watch_the_loop(self) -> Callable[[], bool]:
        """Return a function that tells whether the loop that runs now may still run.

        For loops that can be closed while tasks wait in them, and forget those.
        """
        return _always

    @abstractmethod
    async def _until(self, start: Callable[[Callable[[], None]], None]) -> None:
        """Call `start` with a function, and return when that was called."""

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
        body = call_payload_plain(b"", name, dict(fields or {}))[1:]
        client = self._attached()
        return await self._answer(client.begin(Submitted, name, body, lambda value: value, timeout))

    async def notify(self, command: Command[Any, Any], *, timeout: Timeout = ...) -> None:
        """Send a command that is never answered; return when the kernel has it."""
        command_type = resolve(type(command))
        body = command_type.encode_call(_NULL, command)[1:]
        client = self._attached()
        await self._answer(
            client.begin(
                SubmittedNotification, command_type.name, body, lambda value: None, timeout
            )
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
        return AsyncStream(stream, self._when, self._watch_the_loop)

    def close(self) -> None:
        """Close it, and leave nothing in the loop. Tasks that wait get PeerGone. Idempotent."""
        self._client.close()

    async def __aenter__(self: A) -> A:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    # -----------------------------------------------------------------------------------------
    # Inside

    def _attached(self) -> Client:
        client = self._client
        if not self._is_attached(client) and client.fileno() >= 0:
            self._attach(client)
        return client

    async def _when(self, start: Callable[[Callable[[], None]], None]) -> None:
        """As `_until`, also in another loop than that in which what is waited for was begun."""
        self._attached()
        await self._until(start)

    async def _answer(self, future: Future[R]) -> R:
        try:
            if not future.done():
                await self._until(_when_done(future))
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
        when: Callable[[Callable[[Callable[[], None]], None]], Any],
        watch_the_loop: Callable[[], Callable[[], bool]],
    ) -> None:
        self._stream = stream
        self._when = when
        self._watch_the_loop = watch_the_loop
        self._waits: Callable[[], bool] | None = None
        """Whether the task that waits for a piece may still run; None: no task waits."""

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
        if self._waits is not None and self._waits():
            raise UsageError("another task waits for the next piece of this stream already")
        if not stream.has_come:
            self._waits = waits = self._watch_the_loop()
            try:
                await self._when(stream.notify)
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


def _always() -> bool:
    return True


_NULL = codec.encode(None)
