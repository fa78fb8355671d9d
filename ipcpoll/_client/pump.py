"""What moves the calls of a client that nobody waits for: futures and streams. No thread.

They move inside `Client.poll`, and each inside its own ``result()`` or ``next()``, and nowhere
else: so a function of the program is called where the program expects it. `call`, `map`, `notify`
and `submit` only take in what comes, and leave it for the next poll.

What one `poll` does:

1. It takes in what is ready: bytes, room, moments that have come. Then it tries to connect where
   that is due, and ends the calls whose time is over. What has come in time counts.
2. It gives turns until nothing is left or the time is over: one thing that has come is handed
   over, or, when nothing is left to hand over, a few frames are taken of one connection, and each
   connection has its turn.
3. It says what to watch for: bytes (but not where a stream has 64 pieces unread), room where
   something waits to be sent, the next moment; and that work is left, where it is.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from .._system.guard import IN_USE, ThreadGuard
from .._system.poller import HANGUP, READ, WRITE
from ..errors import UsageError
from ..limits import Limits
from .connecting import seconds_of
from .connection import MOST_LATE, TimedOut
from .descriptor import ClientDescriptor
from .session import Pending, Session

_MOST_JOINED = 16  # calls that are sent together
_MOST_TAKEN = 16  # frames that are taken of a connection before what has come is handed over
_FEW = 64  # moments that are not worth sorting out


class Pump:
    """The calls in flight that no method waits for, and the lines that they use."""

    def __init__(self, guard: ThreadGuard, limits: Limits, main: Session) -> None:
        self.guard = guard
        self.ready: dict[Pending, None] = {}
        """What has come and waits to be handed over."""
        self.thread = threading.get_ident()
        """The client's thread."""
        self._poll_seconds = limits.poll_seconds
        self._sessions: dict[Session, None] = {main: None}
        self._full: set[Session] = set()  # not to be read now
        self._row: dict[Session, None] = {}  # lines with frames to take
        self.own = False
        """Whether a step of a poll's own is taken; else the program's code runs."""
        self._polled: ClientDescriptor | None = None
        self._polls = 0  # on the stack
        # When the time of which call is over. What ended, or has more time by now, is sorted out
        # as it comes to the top. Weakly, or it would keep answers alive.
        self._moments: list[tuple[float, int, weakref.ref[Pending]]] = []
        self._order = itertools.count()
        self._most_moments = _FEW

    # -----------------------------------------------------------------------------------------
    # For the client

    def fileno(self) -> int:
        """Return the descriptor to watch, which is made when it is asked for first."""
        return self._in_loop().fileno()

    @property
    def pending(self) -> bool:
        """Whether work was left that is known of."""
        return bool(self.ready or self._row or self.guard.notes)

    def next_deadline(self) -> float | None:
        """Return the next moment at which there is something to do; None: there is none."""
        call = self._next_call()
        moment = math.inf if call is None else call.deadline
        for session in self._sessions:
            if session.waiting:
                moment = min(moment, session.retry_at)
        return None if moment == math.inf else moment

    def start(self, pending: Pending) -> None:
        """Send a call, or let it wait for a connection. Raises FrameTooLarge. ThreadGuard open."""
        session = pending.session
        self.thread = threading.get_ident()
        self._sessions[session] = None
        session.start(pending)
        self.remind(pending)
        if self._polls and len(session.begun) < _MOST_JOINED:
            self.expect_a_loop()  # sent together at the end of the poll, or of one inside it
            return
        session.send_begun()
        connection = session.connection
        if self._polled is not None and (
            connection is None
            or connection.on_close is None
            or connection.wants_room
            or self.ready
            or self._polled.is_late(pending.deadline)
        ):
            self.settle()

    def remind(self, pending: Pending) -> None:
        """Look after a call's deadline from now on."""
        if pending.deadline == math.inf:
            return
        heapq.heappush(self._moments, (pending.deadline, next(self._order), weakref.ref(pending)))
        if len(self._moments) > self._most_moments:  # of calls that are over, for the most part
            orders = {call: order for _, order, ref in self._moments if (call := ref()) is not None}
            self._moments = [
                (call.deadline, order, weakref.ref(call))
                for call, order in orders.items()
                if call.deadline != math.inf
            ]
            heapq.heapify(self._moments)
            self._most_moments = 2 * len(self._moments) + _FEW

    def poll(self, max_seconds: float | None) -> int:
        """Take in what is ready, and hand over what has come; return the turns. Never waits."""
        least = self._poll_seconds
        seconds = least if max_seconds is None else seconds_of(max_seconds, "max_seconds")
        patience = max(seconds, least)
        began = time.monotonic()
        turns = 0
        if self.own:
            raise UsageError(IN_USE)
        with self.guard:
            self.thread = threading.get_ident()
            polled = self._in_loop()
        polls = self._polls
        try:
            self.own = True
            self._polls = polls + 1
            self._inside(self._take_in, polled)
            while (self.ready or self._row) and not self.guard.is_shut:
                if self.ready:
                    turns += 1
                    self._deliver()
                else:
                    self._inside(self._take_frames, began + seconds, began + patience)
                    if self.ready and not turns:
                        continue  # however long it took: a poll that finds something hands it over
                # A frame that is nobody's any more is no turn, and looking for one ends too.
                if time.monotonic() - began >= (seconds if turns else patience):
                    break
        finally:
            try:
                self._inside(self.settle)
            finally:
                self._polls = polls
                self.own = False
                if self.guard.is_shut:
                    self.guard.follow_notes()
        return turns

    def _inside(self, step: Callable[..., None], *args: Any) -> None:
        """Take a step under the guard; not, if a signal handler has closed the client."""
        is_inside = False
        try:
            with self.guard:
                is_inside = True
                step(*args)
        except UsageError:
            if is_inside or not self.guard.is_shut:
                raise

    def running_out(self, function: Callable[..., object], *args: object) -> None:
        """Call what is the program's, or calls that: it may poll and close."""
        before, self.own = self.own, False
        try:
            function(*args)
        finally:
            self.own = before

    def hand_over(self, pending: Pending) -> None:
        """Hand over what has come for a call. A signal handler must not poll in the midst of it."""
        before, self.own = self.own, True
        try:
            pending.deliver()
        finally:
            self.own = before
            if self.guard.is_shut and not before:
                self.guard.follow_notes()

    def hurry(self) -> None:
        """Let whoever waits wait no more. Legal in signal handlers."""
        for session in list(self._sessions):
            session.hurry()

    def settle(self) -> None:
        """Send what was begun, and let the descriptor say what there is to do. ThreadGuard open."""
        for session in list(self._sessions):
            if session.begun:
                session.send_begun()
            if session.is_over:
                self.release(session)  # which was interrupted
        polled = self._polled
        if polled is None:
            return
        for session in list(self._sessions):
            connection = session.connection
            if connection is None:
                continue
            if not connection.usable:
                session.drop()
                continue
            if connection.has_work and session not in self._full:
                self._row[session] = None
            mask = 0 if session in self._full else READ
            polled.watch(session, connection, mask | (WRITE if connection.wants_room else 0))
        polled.arm(self.next_deadline())
        if self.pending:
            polled.wakeup.signal()
        else:
            polled.wakeup.silence()

    def close(self) -> None:
        """Close every connection, and hand over that they are closed."""
        for session in list(self._sessions):
            session.end()
        if self._polled is not None:
            self._polled.close()
        self._row.clear()
        self._moments.clear()
        self._sessions.clear()
        while self.ready:
            self._deliver()

    def abandon(self) -> None:
        """Close the descriptors in a forked child, and touch nothing that the parent shares."""
        if self._polled is not None:
            self._polled.close()
        for session in self._sessions:
            session.abandon()

    # -----------------------------------------------------------------------------------------
    # For futures and streams

    @property
    def is_mine(self) -> bool:
        """Whether this is the client's thread."""
        return self.thread == threading.get_ident()

    def wait(self, pending: Pending, until: float) -> None:
        """Wait until something has come for this call, or its time is over, or until a moment.

        What comes for others waits for the next poll.
        """
        with self.guard:
            try:
                self.thread = threading.get_ident()
                self._wait(pending, until)
            finally:
                self.settle()

    def give_up(self, pending: Pending) -> None:
        """Cancel a call: now, or when the client is used or polled next.

        Any thread may ask for that, and the garbage collector, in the midst of anything.
        """
        self.guard.leave_note(lambda: self.withdraw(pending))
        if self.is_mine:
            try:
                with self.guard:
                    return  # whoever comes in follows the notes
            except UsageError:
                pass  # closed, or a method is inside
        if self._polled is not None:
            self._polled.wakeup.wake()

    def withdraw(self, pending: Pending) -> None:
        """Cancel a call. ThreadGuard open."""
        pending.deadline = math.inf
        self.ready.pop(pending, None)
        pending.give_up()
        if self._polled is None or self._polled.fileno() >= 0:  # else it is all being forgotten
            self.settle()

    def arrange(self) -> None:
        """Let the descriptor say what there is to do, after a change from outside of a poll."""
        if self._polled is not None and not self.guard.is_shut:
            # Who is inside settles before it leaves.
            with contextlib.suppress(UsageError), self.guard:
                self.settle()

    def expect_a_loop(self) -> None:
        """Let the descriptor tell a loop that the program may open inside a poll what is left."""
        if self._polls and self._polled is not None:
            self._polled.wakeup.signal()

    def release(self, session: Session) -> None:
        """Forget a line, whose call is over."""
        session.end()
        self._sessions.pop(session, None)
        self._row.pop(session, None)
        self._full.discard(session)

    def fill(self, session: Session, *, full: bool) -> None:
        """Stop reading a line, or go on."""
        if full:
            self._full.add(session)
        elif session in self._full:
            self._full.discard(session)
            if session.connection is not None and session.connection.has_work:
                self._row[session] = None
            self.arrange()

    # -----------------------------------------------------------------------------------------
    # Inside

    def _in_loop(self) -> ClientDescriptor:
        if self._polled is None:
            self._polled = ClientDescriptor()
            self.settle()
        return self._polled

    def _take_in(self, polled: ClientDescriptor) -> None:
        for session in list(self._sessions):
            if session.begun:
                session.send_begun()
        for session, mask in polled.ready():
            connection = session.connection
            if connection is None:
                continue
            if mask & WRITE:
                connection.send()
            if mask & (READ | HANGUP) and session not in self._full:
                connection.receive()
                if connection.has_work:
                    self._row[session] = None
        now = time.monotonic()
        for session in list(self._sessions):
            if session.waiting and session.retry_at <= now:
                session.attempt()
        late = 0
        while (call := self._next_call()) is not None and call.deadline <= now:
            connection = call.connection
            more = connection is not None and late < MOST_LATE and connection.receive()
            while connection is not None and connection.take():
                pass  # what has come in time counts
            late += 1
            if not more:
                self._expire(call)

    def _next_call(self) -> Pending | None:
        """Return the call whose time is over first."""
        moments = self._moments
        while moments:
            when, order, ref = moments[0]
            pending = ref()
            if pending is None or pending.deadline == math.inf:
                heapq.heappop(moments)
            elif pending.deadline == when:
                return pending
            else:
                heapq.heapreplace(moments, (pending.deadline, order, ref))
        return None

    def _deliver(self) -> None:
        pending = next(iter(self.ready), None)
        if pending is None:  # a function of the program's, or the garbage collector, ended it
            return
        try:
            self.ready.pop(pending, None)
            if self.ready or self._row:
                self.expect_a_loop()
            self.hand_over(pending)
        except BaseException:  # a function of the program's, or Ctrl-C
            if pending.has_come:
                self.ready[pending] = None
            raise

    def _take_frames(self, until: float, patience: float) -> None:
        """Give a line its turn: take some frames, as long as there is time.

        Until the first moment if there is something to hand over, else until the second.
        """
        session = next(iter(self._row), None)
        if session is None:  # it was given up just now
            return
        del self._row[session]
        connection = session.connection
        if connection is None or session in self._full:
            return
        for _ in range(_MOST_TAKEN):
            if not connection.take():
                if connection.more:
                    connection.receive()
                break
            if session in self._full or time.monotonic() >= (until if self.ready else patience):
                break
        if connection.has_work:
            self._row[session] = None  # at the end

    def _wait(self, pending: Pending, until: float) -> None:
        late = 0
        if pending.session.begun:
            pending.session.send_begun()
        while not pending.has_come and not self.guard.is_shut:
            now = time.monotonic()
            connection = pending.connection
            end = min(pending.deadline, until)
            if connection is None:
                session = pending.session
                if now >= end or pending not in session.waiting:
                    break
                if now < session.retry_at:
                    session.refuse_oneself(end)
                    time.sleep(min(session.retry_at, end) - now)
                else:
                    session.attempt()
                continue
            if connection.take():
                continue
            if not connection.usable:
                pending.session.drop()  # and so tell who was not told, behind an interruption
                if pending.connection is connection:
                    break
                continue
            if now >= end:
                late += 1
                if late > MOST_LATE:
                    break
            try:
                connection.wait_for_others(end)
            except TimedOut:
                break
        if not pending.has_come and time.monotonic() >= pending.deadline:
            self._expire(pending)

    def _expire(self, pending: Pending) -> None:
        if pending.has_come:
            pending.deadline = math.inf
            return
        error = pending.overdue()
        pending.lose(lambda: error)
