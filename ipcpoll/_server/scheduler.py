"""The round: who has the next turn. What `Server.poll` does when something is ready.

In this order (docs/design.md tells why):

1. *Take in*: everything that the poller shows as ready joins the row, new connections too.
2. *Turns*: the first of the row has one frame served and goes to the end of the row. The row
   lives across polls. After every turn the budgets are looked at.
3. *Settle*: answers are sent, and the wake descriptor is set if work is left, else silenced.

Most often one client that waits for its answer is all there is, with one whole call. That is served
in short (`_serve_alone`): the same, without the sets in which nobody else stands.

A round inside a round (a command opened a main loop of its own, which polled) is the same; the
connections whose commands are running are muted when they are seen ready, and come back as their
commands return. Nested too deeply, everything that is seen ready is muted, or the innermost loop
would spin.

What is done in a turn stands in `turns`; what is legal on a connection is decided in `protocol`,
what it may do in `connection`, what a call is answered in `calls`, who is let in and who has to go
in `clients`. One thread at a time; `server` sees to that.
"""

from __future__ import annotations

import math
from typing import Any, Final

from .._address.listener import Listener
from .._system.hub import Hub
from .._system.log import Log
from .._system.poller import HANGUP, MOST_EVENTS, READ, WRITE
from ..limits import Limits
from .acceptor import Acceptor
from .clients import Clients
from .connection import ServerConnection
from .jobs import Job, Jobs
from .running import Running
from .turns import Turns

_LOOK_SECONDS: Final = 0.00005
"""How long turns are given before it is looked who has called meanwhile: they must not wait for all
that others have sent before. A look costs a thirtieth of that."""

_ANSWERS_WAIT: Final = 0.0005  # seconds for steps of late calls, before what is answered is sent


class Scheduler:
    """The turns of the clients of one server."""

    def __init__(
        self,
        hub: Hub,
        acceptor: Acceptor,
        clients: Clients,
        jobs: Jobs,
        turns: Turns,
        limits: Limits,
        log: Log,
        running: Running,
    ) -> None:
        self.serial = 0
        """Counts the rounds, and the closing: whoever has looked what is ready can find out whether
        a signal handler has polled since, or closed the server."""
        self._running = running
        self._hub = hub
        self._wakeup = hub.wakeup
        self._deadlines = hub.deadlines
        self._acceptor = acceptor
        self._limits = limits
        self._log = log
        self._jobs = jobs
        self.clients = clients
        clients.forsake = jobs.forsake
        jobs.deliver = turns.deliver
        self._connections = clients.connections
        self._row = clients.row
        self._dirty = clients.dirty
        self._counts = clients.counts
        self._turns = turns
        self._more_ready = False  # the poller has told of as many as it tells of at once
        self._unclean = False  # a round runs, or ended in the midst of its work
        self._quieted = False  # nested too deeply: what was seen ready is muted
        self._at_rest = False  # the last round has left nothing behind

    @property
    def pending(self) -> bool:
        """Whether work was left, as far as it is known here."""
        return bool(self._row) or self._acceptor.more or self._more_ready

    @property
    def running(self) -> bool:
        """Whether a round is on the stack."""
        return self._running.depth > 0

    def run(
        self,
        events: list[tuple[int, int]],
        ctx: Any,
        max_commands: int | None,
        max_seconds: float | None,
        serial: int,
    ) -> int:
        """Serve what is ready, within the budgets of `Server.poll`; return the turns taken.

        `serial` is that of the moment before it was looked what is ready.
        """
        if max_seconds is not None and not max_seconds >= 0:  # NaN is not
            raise ValueError(f"max_seconds must be at least 0, not {max_seconds}")
        if max_commands is not None and max_commands < 0:
            raise ValueError(f"max_commands must be at least 0, not {max_commands}")
        running = self._running
        depth = running.depth
        alone = self._at_rest and not depth and len(events) == 1 and max_commands != 0
        whole = False
        try:
            running.depth = depth + 1
            running.own = True
            if serial != self.serial:  # what is ready was taken in, or all is closed
                whole = True
                return 0
            self.serial = serial + 1
            if self._unclean:
                self.clients.drop_interrupted("an interruption", depth)
                self._jobs.recover(depth)
            self._unclean = True
            turns = self._serve_alone(events, ctx) if alone else None
            if turns is None:
                self._at_rest = False
                turns = self._work(events, ctx, max_commands, max_seconds)
            whole = True
            return turns
        except BaseException as error:
            if self._let_go(error, depth):
                raise
            return 0
        finally:
            try:
                if not (self._at_rest and whole):
                    self._at_rest = False
                    self._settle(whole)
                    self._at_rest = whole and not (depth or self.pending or self._quieted)
                if self._deadlines.by_hand:
                    self._deadlines.settle()  # there may be a descriptor for the timer now
                self._unclean = depth > 0
            except BaseException as error:
                if self._let_go(error, depth):
                    raise
            finally:
                running.depth = depth
                running.own = False

    def _serve_alone(self, events: list[tuple[int, int]], ctx: Any) -> int | None:
        """Serve the only one that is ready, if it sent one call, all of it, and nothing else.

        It may have come just now. Or see it off, if it has gone and left nothing. Returns the
        turns. None: it is not so simple, and what there is to take in stands in `events`.
        """
        if events[0][0] == self._acceptor.fd:
            self._accept(math.inf, 1)
            self._acceptor.more = False
            events[:] = self._hub.poll()  # what it has sent, or that there are more
            if len(events) != 1 or self._row:  # or who had to make room for it wants a turn
                return None
        fd, mask = events[0]
        connection = self._connections.get(fd)
        if connection is None or mask & WRITE or connection.unsent or connection.jobs:
            return None
        connection.in_hand = True
        protocol = connection.protocol
        if mask & HANGUP:
            connection.hang_up()
        data = connection.read()
        if not data and connection.hung_up and not protocol.waiting:
            self.clients.drop(connection)
            return 0
        call = protocol.only_call(data) if data else None
        if call is None or not call.command_type.is_plain:
            if call is not None and call.call_id is not None:
                protocol.forget(call.call_id)  # its turn is to come
            events.clear()
            connection.take_in(data, self._hub.clock())
            self._turns.rest(connection)
            connection.in_hand = False
            return None
        connection.finished_a_frame = True
        self._counts["turns"] += 1
        frame = self._turns.run(connection, call, ctx)
        # If its command has left all as it was, the reply goes out at once: it may have polled,
        # closed the server, or bound it anew.
        if self._at_rest and not (connection.readable or self._row or self.clients.closed):
            sent = 0 if frame is None else connection.send_alone(frame)
            if frame is None or sent == len(frame):
                connection.in_hand = False
                return 1
            frame = frame[sent:]
        self._at_rest = False
        self._turns.finish(connection, frame)
        if not connection.closed:
            self._turns.rest(connection)
        connection.in_hand = False
        return 1

    def _work(
        self,
        events: list[tuple[int, int]],
        ctx: Any,
        max_commands: int | None,
        max_seconds: float | None,
    ) -> int:
        began = self._hub.clock()
        least = self._limits.poll_seconds
        seconds = least if max_seconds is None else max_seconds
        self._more_ready = len(events) >= MOST_EVENTS
        if self._running.depth > self._limits.max_nested_polls:
            self._quiet(events)
            return 0
        self._take_in(events, began + seconds)
        if max_commands == 0:
            self._only_read()
            return 0
        # A read that completes no frame is no turn, and looking for the first is bounded too.
        return self._take_turns(ctx, max_commands, began + seconds, began + max(seconds, least))

    def _let_go(self, error: BaseException, depth: int) -> bool:
        """After an exception in the midst of the work: close what was being changed.

        A KeyboardInterrupt, or what a signal handler raises, can come between any two steps, and
        in here as well; what is left undone then, the next round does first. Returns whether the
        exception is the host's; a MemoryError, say, is not, and ends in the log.
        """
        self.clients.drop_interrupted(type(error).__name__, depth)
        self._jobs.recover(depth)
        self._wakeup.signal()  # work may be left that nothing else tells of
        if isinstance(error, Exception):
            self._log.exception("unforeseen", "poll met what it did not foresee", error)
            return False
        return True

    # -----------------------------------------------------------------------------------------
    # 1. Take in

    def _take_in(self, events: list[tuple[int, int]], deadline: float) -> None:
        """Let everything that is ready join the row."""
        acceptor = self._acceptor
        if self._sort(events) or acceptor.more:
            # As a rule one has come. Whether there are more behind it is told by the look that
            # takes in what the new ones have sent, and which of them have gone again meanwhile.
            most = self._limits.max_accepts
            if not acceptor.more:
                self._accept(deadline, 1)
                most -= 1
                acceptor.more = self._sort(self._hub.poll())
            if acceptor.more and most:
                self._accept(deadline, most)
                self._sort(self._hub.poll())
        self._jobs.take_in()  # behind the last look: that may have silenced their wake-up

    def _accept(self, deadline: float, most: int) -> None:
        for sock, room in self._acceptor.accept(deadline, most):
            if room:
                self.clients.admit(sock)
            else:
                self.clients.turn_away(sock, "no descriptor left")

    def _look_again(self) -> bool:
        """Take in what has become ready meanwhile; return whether somebody joined the row."""
        waiting = len(self._row)
        events = self._hub.poll()
        self._more_ready = self._more_ready or len(events) >= MOST_EVENTS
        if self._wakeup.is_only_signalled:
            # As a rule it is all there is. It would be silenced, and said again by the next turn.
            events = [event for event in events if event[0] != self._hub.wake_fd]
        if events:
            if self._sort(events):
                self._acceptor.more = True  # taken in by the next round
            self._jobs.take_in()
        return len(self._row) > waiting

    def _sort(self, events: list[tuple[int, int]]) -> bool:
        """Take in what the poller says; return whether there are new connections."""
        connections = self._connections
        accept = False
        for fd, mask in events:
            connection = connections.get(fd)
            if connection is not None:
                held = connection.in_hand  # an outer poll runs its command
                connection.in_hand = True
                self._notice(connection, mask)
                connection.in_hand = held
            elif fd == self._acceptor.fd:
                accept = True
            elif fd == self._hub.wake_fd:
                self._wakeup.seen()
            else:
                self._deadlines.run_due(self._hub.clock())
        return accept

    def _notice(self, connection: ServerConnection, mask: int) -> None:
        """Take in what the poller says of one connection."""
        if mask & HANGUP:
            connection.hang_up()
        else:
            if mask & WRITE:
                connection.flush()
            if mask & READ:
                connection.readable = True
                if connection.busy or not connection.can_read:
                    connection.mute()
        self._turns.rest(connection)

    def _only_read(self) -> None:
        """Take in what came, and run nothing."""
        for connection in list(self._row):
            if isinstance(connection, Job) or connection.closed:  # an earlier one made room
                continue
            connection.in_hand = True
            del self._row[connection]
            if connection.readable and connection.can_read:
                self._turns.receive(connection)
            self._turns.rest(connection)
            connection.in_hand = False

    # -----------------------------------------------------------------------------------------
    # 2. Turns

    def _take_turns(
        self, ctx: Any, max_commands: int | None, deadline: float, patience: float
    ) -> int:
        row = self._row
        turns = self._turns
        running = self._running
        most = math.inf if max_commands is None else max_commands
        taken = 0
        now = looked = self._hub.clock()
        sent = -math.inf
        while row:
            first = next(iter(row))
            if isinstance(first, Job):
                # Steps may be long. Answers don't wait for all of them, and who has called during
                # the last one goes before the next.
                if first.gave_way or now - sent >= _ANSWERS_WAIT:
                    turns.send_answers()
                    sent = now
                if taken and not first.gave_way and self._look_again():
                    first.gave_way = True
                    row.move_to_end(first)
                    continue
                first.gave_way = False
                taken += turns.advance(first)
                now = self._hub.clock()
            else:
                first.in_hand = True
                del row[first]
                taken += turns.take(first, ctx)
                now = self._hub.clock()
                # While nobody else waits it need not go around the row.
                until = min(deadline, looked + _LOOK_SECONDS)
                while (
                    not row and taken < most and now < until and first.can_run and not running.stop
                ):
                    taken += turns.take(first, ctx)
                    now = self._hub.clock()
                if not first.closed:
                    turns.rest(first)
                    if row and first not in row:
                        turns.send_answers_of(first)  # nothing more of it comes to be joined
                first.in_hand = False
                if row and now - looked >= _LOOK_SECONDS and not running.stop:
                    self._look_again()
                    looked = now
            if taken >= most or now >= (deadline if taken else patience) or running.stop:
                break
        self._counts["turns"] += taken
        return taken

    # -----------------------------------------------------------------------------------------
    # 3. Settle

    def _settle(self, whole: bool) -> None:
        """Send what was answered, and say whether work is left. `whole`: nothing went wrong."""
        if self.clients.closed:
            return
        if self._dirty:
            self._turns.send_answers()
        if self._quieted and self._running.depth <= self._limits.max_nested_polls:
            self._unquiet()
        if self._deadlines.are_set:
            self._deadlines.settle()  # that of a call that was answered must wake nobody
        if (self.pending and not self._quieted) or not whole:
            # What waits in our own memory wakes no loop.
            self._wakeup.signal()
        else:
            self._wakeup.silence()

    def move_to(self, listener: Listener, old: Listener) -> None:
        """Take connections from another listener; those that wait in the old one come along."""
        self.clients.move_to(listener, old)

    def close(self) -> None:
        """End every connection; one with a command that goes on is ended as that returns."""
        self.serial += 1
        self._running.stop = True
        self._acceptor.more = False
        self._jobs.mark_closing()
        for connection, frames in self._jobs.answer_ready():
            self._turns.reply_all(connection, frames)
        self.clients.close()
        self._jobs.close()

    def abandon(self) -> None:
        """Close the descriptors; touch nothing that a parent process shares."""
        self._acceptor.more = False
        self._jobs.abandon()
        self.clients.abandon()

    # -----------------------------------------------------------------------------------------
    # Nested too deeply

    def _quiet(self, events: list[tuple[int, int]]) -> None:
        """Mute all that is ready: too many rounds are on the stack to serve anyone."""
        self._quieted = True
        for fd, mask in events:
            connection = self._connections.get(fd)
            if connection is not None:
                if mask & HANGUP:
                    connection.hang_up()
                else:
                    connection.readable = connection.readable or bool(mask & READ)
                    connection.mute_all()
            elif fd == self._acceptor.fd:
                self._acceptor.mute()
            elif fd == self._hub.wake_fd:
                self._wakeup.seen()
                self._jobs.take_in()
            else:
                self._deadlines.run_due(self._hub.clock())

    def _unquiet(self) -> None:
        self._quieted = False
        self._acceptor.unmute()
        for connection in list(self._connections.values()):
            if connection.closed:  # an earlier one made room
                continue
            held = connection.in_hand
            connection.in_hand = True
            connection.watch()
            self._turns.rest(connection)
            connection.in_hand = held
