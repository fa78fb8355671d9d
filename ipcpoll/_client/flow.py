"""What flows in a stream: a command that answers in pieces, on the client's side.

Each stream has a connection of its own. So pieces that nobody reads fill that connection and
nothing else: the server sees it and waits, or counts what is lost, while calls go on; and what is
kept here is bounded, because at 64 unread pieces the connection is not read.

Who reads: a ``for`` loop, which blocks; a function that `Client.poll` calls for each piece
(`each`); or an ``async for`` of an adapter's AsyncClient, which the pump wakes (`notify`).

The program holds a `stream.Stream`, and the pump and the connection hold this, which knows nothing
of it: so it is noticed when nobody holds the stream any more.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from .._schema.declared import as_declared
from .._wire.framing import Payload
from .._wire.messages import Answer, Failure, Piece
from ..errors import (
    CommandError,
    InternalError,
    NotRunning,
    PeerGone,
    ShuttingDown,
    UsageError,
)
from . import reasons
from .connecting import TimeLimit
from .connection import ClientConnection
from .futures import PumpedFuture, decoded
from .pump import Pump
from .session import Pending, Session, patient_back_off

P = TypeVar("P")
R = TypeVar("R")

_MOST_UNREAD = 64
_READ_ON = 32  # a full one is read again when so few are left


class Flow(Pending, Generic[P, R]):
    """The pieces of an answer, as they come, and who gets them. The time limit bounds each wait."""

    def __init__(
        self,
        pump: Pump,
        session: Session,
        name: str,
        body: Payload,
        decode_piece: Callable[[Any], P],
        decode_answer: Callable[[Any], R],
        wait: TimeLimit,
        *,
        resume: bool,
    ) -> None:
        super().__init__(session, name, body, wait)
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
        self._has_spoken = False  # a piece has come
        self._unread: deque[tuple[Any, int, bool]] = deque()
        self._reply: Answer | None = None
        self._error: Exception | None = None
        self._over = False
        self._each: _Each[P, R] | None = None
        self._wake: Callable[[], None] | None = None
        self.is_taken = False
        """Whether a function gets the pieces."""
        self.holder: object = None
        """What notices that nobody holds the stream any more, while that matters."""

    # -----------------------------------------------------------------------------------------
    # For who reads

    @property
    def wants_a_reader(self) -> bool:
        """Whether the command runs, as far as is known, and its pieces are for whoever asks."""
        return not self._over and self._each is None and not self._pump.guard.is_shut

    def wait(self) -> None:
        """Wait for the next piece, or the end, or until the time is over."""
        self.deadline = time.monotonic() + self.seconds
        try:
            self._pump.wait(self, math.inf)
        finally:
            self.deadline = math.inf

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

    def each(self, function: Callable[[P], object], gap: Callable[[], object] | None) -> Future[R]:
        """See `stream.Stream.each`."""
        self._each = _Each(self._pump, self, function, gap)
        self.is_taken = True
        self.holder = None
        self.await_next()
        self._pump.arrange()
        if self._pump.guard.is_shut and not self._pump.own:  # there is no poll that would tell it
            self._pump.close()
        return self._each

    def close(self) -> None:
        """End it: cancel the command if it still runs. Unread pieces are dropped. Idempotent."""
        self.give_up()
        self._pump.arrange()

    def forget(self) -> None:
        """End it soon, because nobody holds it any more.

        For the garbage collector: in any thread, in the midst of anything.
        """
        self._pump.give_up(self)

    @property
    def notes(self) -> deque[Callable[[], None]]:
        """What the client does when it is used next."""
        return self._pump.guard.notes

    def abandon(self) -> None:
        """End it, because nobody holds it any more. ThreadGuard open."""
        if self.wants_a_reader:
            self._pump.withdraw(self)

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
                self._pump.fill(self.session, full=False)
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

    def notify_no_more(self) -> None:
        """Call nothing: whoever waited waits no more. The pieces stay, and nobody's time runs."""
        self._wake = None
        self.deadline = math.inf
        if self._each is None:
            self._pump.ready.pop(self, None)

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
            self._has_spoken = True
            self._unread.append((response.item, response.lost, self._gap))
            self._gap = False
            self._back_off = patient_back_off()
            if len(self._unread) >= _MOST_UNREAD:
                self._pump.fill(self.session, full=True)
            self._ready()
        elif isinstance(response, Answer):
            self._reply = response
            self._finish(None)
        else:
            self._fail(as_declared(response.error, self.command_class))

    def posted(self, connection: ClientConnection) -> None:
        """Note where it is in flight."""
        self._away = None
        super().posted(connection)

    def lose(self, end: Callable[[], Exception]) -> None:
        """Learn that nothing will come."""
        if not self._over:
            self._fail(end())

    def overdue(self) -> Exception:
        """Give it up because its time is over, and return what is known of it. Never waits."""
        self._resume = False
        connection = self.connection
        error = super().overdue()
        if self._away is not None:
            return self._away
        if self._has_spoken and connection is not None:
            return reasons.no_more_pieces(
                connection.path, connection.server, self.name, self.seconds
            )
        return error

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
            self._pump.running_out(wake)
        elif self._each is not None:
            self._each.deliver()

    def _ready(self) -> None:
        if self._each is not None or self._wake is not None:
            self._pump.ready[self] = None

    def _fail(self, error: Exception) -> None:
        if self._resume and _comes_back(error):
            if not self._pump.guard.is_shut:
                self._away = error
                self._gap = self._gap or self.connection is not None
                self.session.retry_later(self, self._back_off.next())
                return
            error = reasons.closed_here()  # else it would have waited on
        self._finish(error)

    def _finish(self, error: Exception | None) -> None:
        self._error = error
        self.connection = None
        self.deadline = math.inf
        self.session.is_over = True
        self._over = True
        self.holder = None
        # An interruption may come from here on. What it leaves undone, `Pump.settle` does.
        self._ready()
        self._pump.release(self.session)


class _Each(PumpedFuture[R], Generic[P, R]):
    """The future of a stream's end, and the functions that get what is before it."""

    def __init__(
        self,
        pump: Pump,
        flow: Flow[P, R],
        function: Callable[[P], object],
        gap: Callable[[], object] | None,
    ) -> None:
        super().__init__(pump)
        self._flow = flow
        self._function = function
        self._gap = gap

    def cancel(self) -> bool:
        """Close the flow. See `concurrent.futures.Future`."""
        try:
            return super().cancel()
        finally:
            if self.cancelled() and not self._told:
                self._pump.give_up(self._flow)

    def deliver(self) -> None:
        """Call the function for one piece, or finish the future."""
        flow = self._flow
        if self.done():
            return
        gaps = flow.gaps
        try:
            piece = flow.next_come()
        except StopIteration:
            self._finish(flow)
        except Exception as error:
            self._fail(error)
        else:
            try:
                flow.await_next()
            except BaseException:  # Ctrl-C, between the piece and the function that was to get it
                flow.lost += 1
                raise
            try:
                if flow.gaps > gaps and self._gap is not None:
                    self._pump.running_out(self._gap)
            finally:
                self._pump.running_out(self._function, piece)

    def ended(self) -> None:
        """Learn that the stream was closed."""
        if not self.done():
            self._pump.running_out(super().cancel)
        if self.cancelled():
            self._tell()

    def _finish(self, flow: Flow[P, R]) -> None:
        try:
            result = flow.result
        except Exception as error:
            self._fail(error)
        else:
            if self._tell():
                self._pump.running_out(self.set_result, result)

    def _fail(self, error: Exception) -> None:
        if self._tell():
            self._pump.running_out(self.set_exception, error.with_traceback(None))

    def _advance(self, until: float) -> bool:
        flow = self._flow
        if not flow.has_come:
            self._pump.wait(flow, until)
            if not flow.has_come:
                return False
        self._pump.ready.pop(flow, None)
        self._pump.hand_over(flow)
        return True


def _comes_back(error: Exception) -> bool:
    """Return whether the server has gone, or is not there, and may be again."""
    if isinstance(error, CommandError):
        return error.told_to_all or isinstance(error, ShuttingDown)
    return isinstance(error, (PeerGone, NotRunning))
