"""Futures that a client finishes inside its `poll`, or inside their own `result`.

What is promised: on the client's thread ``result()`` and ``exception()`` move the client on instead
of waiting for themselves, and on another thread they wait until the client's thread has moved it.
Functions given to ``add_done_callback`` are called on the client's thread.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from concurrent.futures import Future
from typing import Any, TypeAlias, TypeVar

import msgspec

from .._schema.answers import Subscription
from .._schema.declared import as_declared
from .._wire.framing import Payload
from .._wire.messages import Answer, Failure, Piece, call_payload
from ..errors import InternalError
from .connecting import TimeLimit, seconds_of
from .connection import ClientConnection, Outgoing
from .pump import Pump
from .session import Pending, Session

P = TypeVar("P")
R = TypeVar("R")

Later: TypeAlias = Generator[Any, Any, R] | Awaitable[R] | Future[R]
"""What `process` returns in place of an answer that comes later, or behind pieces."""

Pieces: TypeAlias = Iterator[P] | AsyncIterator[P] | Subscription[P]
"""What `process` returns for pieces without an answer."""


def decoded(name: str, decode: Callable[[Any], R], value: Any) -> R:
    """Return what a plain value stands for. Raises InternalError."""
    try:
        return decode(value)
    except msgspec.ValidationError as error:
        wrong = not_as_annotated(name, error)
    raise wrong


def not_as_annotated(name: str, error: msgspec.ValidationError) -> InternalError:
    """Return the error for an answer that its annotation rules out."""
    return InternalError(
        f"the answer of {name} is not what its annotation says here: {error}; the two sides seem "
        f"to have different versions of {name}"
    )


class PumpedFuture(Future[R]):
    """A future that is finished on the client's thread, by whatever moves the client."""

    def __init__(self, pump: Pump) -> None:
        super().__init__()
        self._pump = pump
        self._told = False

    def _tell(self) -> bool:
        """Let nobody cancel it any more; return False, and tell who waits, if somebody has.

        For the client's thread. The second time it only says whether the end is still to be set, as
        it is behind an interruption.
        """
        if self._told:
            return not self.done()
        self._told = True
        return self.set_running_or_notify_cancel()

    def _advance(self, until: float) -> bool:
        """Wait for one thing, at most until then, and hand it over; False: nothing came."""
        raise NotImplementedError

    def result(self, timeout: float | None = None) -> R:
        """Return the answer, or raise the error. See `concurrent.futures.Future`.

        On the client's thread it moves the client on until this one is done; what comes for others
        meanwhile waits for the next `Client.poll`. Raises UsageError when the client is closed.
        """
        try:
            return super().result(self._wait(timeout))
        finally:
            del self  # the traceback holds this frame, and the future the exception

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error, or None. Waits as `result`."""
        return super().exception(self._wait(timeout))

    def _wait(self, timeout: float | None) -> float | None:
        if timeout is not None:
            timeout = seconds_of(max(0, timeout) if type(timeout) in (int, float) else timeout)
        if self._told or not self._pump.is_mine or self.done():
            return timeout
        until = math.inf if timeout is None else time.monotonic() + timeout
        while not self.done():
            if not self._advance(until):
                break
        return 0


class CallFuture(PumpedFuture[R], Pending):
    """The answer of a submitted call. Made by `Client.submit`."""

    def __init__(
        self,
        pump: Pump,
        session: Session,
        name: str,
        body: Payload,
        decode: Callable[[Any], R],
        wait: TimeLimit,
    ) -> None:
        PumpedFuture.__init__(self, pump)
        Pending.__init__(self, session, name, body, wait)
        self._decode = decode
        self._come: Answer | Failure | Callable[[], Exception] | None = None

    def cancel(self) -> bool:
        """Cancel the call, here and at the server, unless its answer was handed over already.

        Its answer is dropped. It may have run. Never blocks. See `concurrent.futures.Future`.
        """
        try:
            return super().cancel()
        finally:  # also behind an interruption; what that leaves undone, the next `cancel` does
            if self.cancelled() and not self._told:
                self._pump.give_up(self)

    # -----------------------------------------------------------------------------------------
    # For the pump

    @property
    def has_come(self) -> bool:
        """Whether the answer, or the reason why there is none, is here."""
        return self._come is not None

    def take(self, response: Answer | Failure | Piece) -> None:
        """Get the reply; pieces are for streams."""
        if not isinstance(response, Piece):
            self._end(response)

    def lose(self, end: Callable[[], Exception]) -> None:
        """Learn that there will be no reply."""
        self._end(end)

    def deliver(self) -> None:
        """Finish the future."""
        come, decode, run = self._come, self._decode, self._pump.running_out
        if come is None or not self._tell():
            return
        if isinstance(come, Answer):
            try:
                answer = decode(come.value)
            except msgspec.ValidationError as error:
                run(self.set_exception, not_as_annotated(self.name, error))
            else:
                run(self.set_result, answer)
        else:
            run(self.set_exception, self._error_of(come))

    def _error_of(self, come: Failure | Callable[[], Exception]) -> Exception:
        if isinstance(come, Failure):
            return as_declared(come.error, self.command_class)
        return come()

    def give_up(self) -> None:
        """Cancel the call at the server."""
        super().give_up()
        self.connection = None
        if self.cancelled():
            self._tell()

    def _end(self, come: Answer | Failure | Callable[[], Exception]) -> None:
        self.connection = None
        self.deadline = math.inf
        self._come = come
        self._pump.ready[self] = None

    def _advance(self, until: float) -> bool:
        if self._come is None:
            self._pump.wait(self, until)
            if self._come is None:
                return False
        self._pump.ready.pop(self, None)
        self._pump.hand_over(self)
        return True


class NotificationFuture(CallFuture[None]):
    """Done when the kernel has a notification. For clients that await."""

    _frame: Outgoing

    def post(self, connection: ClientConnection) -> None:
        """Let it wait to be sent. Raises FrameTooLarge."""
        self._frame = connection.post_notification(call_payload(b"", self._body))

    def is_unsent(self, connection: ClientConnection) -> bool:
        """Return whether not a byte of it was sent."""
        return connection.waits(self._frame)

    def posted(self, connection: ClientConnection) -> None:
        """Note where it waits to be sent."""
        self.connection = connection
        connection.expect_sent(self._frame, self)

    def overdue(self) -> Exception:
        """Take it back because its time is over, and return what is known of it. Never waits."""
        connection = self.connection
        if connection is None:
            return super().overdue()
        return connection.overdue_notification(self._frame, self.name, self.seconds)

    def give_up(self) -> None:
        """Take it back, if nothing of it was sent."""
        if self.connection is not None:
            self._frame.taker = None
            self.connection.take_back(self._frame)
        super().give_up()
