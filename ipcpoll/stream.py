"""A command's answer in pieces, on the client's side.

Each stream has a connection of its own. So pieces that nobody reads fill that connection and
nothing else: the server sees it and waits, or counts what is lost, while calls go on; and what is
kept here is bounded, because at 64 unread pieces the connection is not read.

Who reads: a ``for`` loop, which blocks; a function that `Client.poll` calls for each piece
(`Stream.each`); or an ``async for`` of an adapter's AsyncClient, which the pump wakes (`notify`).
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from .channel import Channel
from .connecting import WaitTime
from .errors import (
    CommandError,
    InternalError,
    NotRunning,
    PeerGone,
    ShuttingDown,
    UsageError,
)
from .framing import Payload
from .line import Line, Pending, patient_back_off
from .messages import Answer, Failure, Piece
from .pump import Pump
from .submitted import PumpedFuture, decoded

P = TypeVar("P")
R = TypeVar("R")

_MOST_UNREAD = 64
_READ_ON = 32  # a full one is read again when so few are left


class Stream(Pending, Generic[P, R]):
    """The pieces of an answer: an iterator, and a context manager that ends it. From
    `Client.stream`.

    `next` blocks, at most for the time limit, and raises what `Client.call` would. Behind the last
    piece `result` is the answer. The methods belong to the client's thread.
    """

    def __init__(
        self,
        pump: Pump,
        line: Line,
        name: str,
        body: Payload,
        decode_piece: Callable[[Any], P],
        decode_answer: Callable[[Any], R],
        wait: WaitTime,
        *,
        resume: bool,
    ) -> None:
        super().__init__(line, name, body, wait)
        self.deadline = math.inf  # of a wait, and nobody waits yet
        self.lost = 0
        """How many pieces were lost before those that were read: the reader was too slow."""
        self.gaps = 0
        """How often pieces may be missing because the server went away and came back."""
        self._pump = pump
        self._decode_piece = decode_piece
        self._decode_answer = decode_answer
        self._resume = resume
        self._back_off = patient_back_off()
        self._away: Exception | None = None  # why the server is not there just now
        self._gap = False  # before the next piece
        self._unread: deque[tuple[Any, int, bool]] = deque()
        self._reply: Answer | None = None
        self._error: Exception | None = None
        self._over = False
        self._each: _Each[P, R] | None = None
        self._wake: Callable[[], None] | None = None

    # -----------------------------------------------------------------------------------------
    # For programs

    def __iter__(self) -> Stream[P, R]:
        return self

    def __next__(self) -> P:
        """Return the next piece, and wait for it. Raises UsageError when `each` gets them."""
        if self._each is not None:
            raise UsageError("the pieces of this stream go to a function already")
        if not self.has_come:
            self._wait(math.inf)
        return self.next_come()

    @property
    def result(self) -> R:
        """The answer, behind the last piece. Raises UsageError before that, and the error of a
        stream that has failed."""
        if self._error is not None:
            raise self._error
        if self._reply is None or self._unread:
            raise UsageError(
                "the stream was closed before its end"
                if self._over and self._reply is None
                else "the stream has not ended yet, and its result comes at the end"
            )
        return decoded(self.name, self._decode_answer, self._reply.value)

    def each(
        self, function: Callable[[P], object], *, gap: Callable[[], object] | None = None
    ) -> Future[R]:
        """Let `Client.poll` call `function` for each piece; return a future of the answer.

        For programs with a loop and no thread. `gap` is called before the first piece behind each
        gap. The time limit bounds the wait for each piece, from now on. What a function raises
        comes out of ``poll`` (the adapters tell the loop's users of it), and the stream goes on.
        Cancelling the future closes the stream. Does not block.
        """
        if self._each is not None:
            raise UsageError("the pieces of this stream go to a function already")
        self._each = _Each(self._pump, self, function, gap)
        self.await_next()
        self._pump.arrange()
        return self._each

    def close(self) -> None:
        """End it: cancel the command if it still runs. Unread pieces are dropped. Idempotent."""
        self.give_up()
        self._pump.arrange()

    def __enter__(self) -> Stream[P, R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -----------------------------------------------------------------------------------------
    # For clients that await

    def next_come(self) -> P:
        """Return a piece that has come, or raise what is behind the last one. Never waits."""
        if self._unread:
            # It stays where it is until all else is done: an interruption must not lose it.
            item, lost, gap = self._unread[0]
            self.lost += lost
            self.gaps += gap
            if lost or gap:
                self._unread[0] = item, 0, False
            if len(self._unread) == _READ_ON + 1:
                self._pump.fill(self.line, full=False)
            try:
                piece = decoded(self.name, self._decode_piece, item)
            except InternalError as error:
                self._unread.clear()
                self._finish(error)
                raise
            self._unread.popleft()
            return piece
        if self._error is not None:
            raise self._error
        if self._over:
            raise StopIteration
        raise UsageError("no piece has come")

    def notify(self, function: Callable[[], None]) -> None:
        """Call `function` once, inside `poll`, when there is something for `next_come`."""
        self._wake = function
        self.await_next()
        self._pump.arrange()

    def await_next(self) -> None:
        """Let the time limit of the next piece begin, for `poll` to hand it over."""
        if self.has_come:
            self._pump.ready[self] = None
            self._pump.expect_a_loop()
        if not self._over:
            self.deadline = time.monotonic() + self.seconds
            self._pump.remind(self)

    # -----------------------------------------------------------------------------------------
    # For the pump

    @property
    def has_come(self) -> bool:
        """Whether a piece or the end is here."""
        return bool(self._unread) or self._over

    def take(self, response: Answer | Failure | Piece) -> None:
        """Get a piece, or the end."""
        if isinstance(response, Piece):
            self._unread.append((response.item, response.lost, self._gap))
            self._gap = False
            self._back_off = patient_back_off()
            if len(self._unread) >= _MOST_UNREAD:
                self._pump.fill(self.line, full=True)
            self._ready()
        elif isinstance(response, Answer):
            self._reply = response
            self._finish(None)
        else:
            self._fail(response.error)

    def posted(self, channel: Channel) -> None:
        """Note where it is in flight."""
        self._away = None
        super().posted(channel)

    def lose(self, end: Callable[[], Exception]) -> None:
        """Learn that nothing will come."""
        if not self._over:
            self._fail(end())

    def overdue(self) -> Exception:
        """Give it up because its time is over, and return what is known of it. Never waits."""
        self._resume = False
        error = super().overdue()
        return error if self._away is None else self._away

    def give_up(self) -> None:
        """End it."""
        self._unread.clear()
        if not self._over:
            self._finish(None)
        self._pump.ready.pop(self, None)
        if self._each is not None:
            self._each.ended()

    def deliver(self) -> None:
        """Wake who waits, or call the function for one piece, or for the end."""
        if self._wake is not None:
            wake, self._wake = self._wake, None
            self.deadline = math.inf
            wake()
        elif self._each is not None:
            self._each.deliver()

    def _ready(self) -> None:
        if self._each is not None or self._wake is not None:
            self._pump.ready[self] = None

    def _fail(self, error: Exception) -> None:
        if self._resume and _comes_back(error) and not self._pump.door.is_shut:
            self._away = error
            self._gap = self._gap or self.channel is not None
            self.line.start_later(self, self._back_off.next())
        else:
            self._finish(error)

    def _finish(self, error: Exception | None) -> None:
        self._error = error
        self.channel = None
        self.deadline = math.inf
        self._over = True
        self._ready()  # before the rest, in which an interruption may come
        self._pump.release(self.line)

    def _wait(self, until: float) -> None:
        self.deadline = time.monotonic() + self.seconds
        try:
            self._pump.wait(self, until)
        finally:
            self.deadline = math.inf


class _Each(PumpedFuture[R], Generic[P, R]):
    """The future of a stream's end, and the functions that get what is before it."""

    def __init__(
        self,
        pump: Pump,
        stream: Stream[P, R],
        function: Callable[[P], object],
        gap: Callable[[], object] | None,
    ) -> None:
        super().__init__(pump)
        self._stream = stream
        self._function = function
        self._gap = gap

    def cancel(self) -> bool:
        """Close the stream. See `concurrent.futures.Future`."""
        was_cancelled = self.cancelled()
        if not super().cancel():
            return False
        if not was_cancelled:
            self._pump.give_up(self._stream)
        return True

    def deliver(self) -> None:
        """Call the function for one piece, or finish the future."""
        stream = self._stream
        if self.done():
            return
        gaps = stream.gaps
        try:
            piece = stream.next_come()
        except StopIteration:
            self._finish(stream)
        except Exception as error:
            self._fail(error)
        else:
            try:
                stream.await_next()
            except BaseException:  # Ctrl-C, between the piece and the function that was to get it
                stream.lost += 1
                raise
            try:
                if stream.gaps > gaps and self._gap is not None:
                    self._gap()
            finally:
                self._function(piece)

    def ended(self) -> None:
        """Learn that the stream was closed."""
        if not self.done():
            super().cancel()
        if self.cancelled():
            self._tell()

    def _finish(self, stream: Stream[P, R]) -> None:
        try:
            result = stream.result
        except Exception as error:
            self._fail(error)
        else:
            if self._tell():
                self.set_result(result)

    def _fail(self, error: Exception) -> None:
        if self._tell():
            self.set_exception(error.with_traceback(None))

    def _advance(self, until: float) -> bool:
        stream = self._stream
        if not stream.has_come:
            self._pump.wait(stream, until)
            if not stream.has_come:
                return False
        self._pump.ready.pop(stream, None)
        stream.deliver()
        return True


def _comes_back(error: Exception) -> bool:
    """Return whether the server has gone, or is not there, and may be again."""
    if isinstance(error, CommandError):
        return error.told_to_all or isinstance(error, ShuttingDown)
    return isinstance(error, (PeerGone, NotRunning))
