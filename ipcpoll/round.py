"""The round: who has the next turn. What `Server.poll` does when something is ready.

In this order (docs/design.md tells why):

1. *Take in*: everything that the poller shows as ready joins the row, new connections too.
2. *Turns*: the first of the row has one frame served and goes to the end of the row. The row
   lives across polls. After every turn the budgets are looked at.
3. *Settle*: answers are sent, and the wake descriptor is set if work is left, else silenced.

A round inside a round (a command opened a main loop of its own, which polled) is the same; the
connections whose commands are running are muted when they are seen ready, and come back as their
commands return. Nested too deeply, everything that is seen ready is muted, or the innermost loop
would spin.

What is legal on a connection is decided in `protocol`, what it may do in `connection`, what a call
is answered in `calls`. One thread at a time; `server` sees to that.
"""

from __future__ import annotations

import os
import socket
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Final

from . import calls
from .acceptor import Acceptor
from .codec import Decoder
from .connection import SEND_FLAGS, Connection
from .errors import Busy, CommandError, InternalError, ShuttingDown, WireError, error_from_wire
from .limits import Limits
from .listener import Listener
from .log import Log
from .peer import credentials, reset_caller, set_caller
from .poller import HANGUP, READ, WRITE, Poller, has_hung_up
from .protocol import Call, ServerProtocol
from .schema import CommandSet
from .wakeup import Deadlines, Wakeup

COUNTED: Final = ("accepted", "refused", "untrusted", "evicted", "turns", "faults", "dropped")

_FAREWELL: Final = "the server closed before the call had its turn"


class Round:
    """The connections of one server and the row of those that have work."""

    def __init__(
        self,
        poller: Poller,
        wakeup: Wakeup,
        deadlines: Deadlines,
        acceptor: Acceptor,
        commands: CommandSet,
        limits: Limits,
        max_clients: int,
        log: Log,
        clock: Callable[[], float],
    ) -> None:
        self._max_clients = max_clients
        self._poller = poller
        self._wakeup = wakeup
        self._wake_fd = wakeup.fileno()
        self._deadlines = deadlines
        self._acceptor = acceptor
        self._commands = commands
        self._limits = limits
        self._log = log
        self._clock = clock
        self._decoder = Decoder()
        # Ordered sets: one step puts a connection in, so that no interruption can halve it.
        self._row: OrderedDict[Connection, None] = OrderedDict()  # who has work, in their order
        self._dirty: dict[Connection, None] = {}  # who has answers that no send has seen yet
        self._touched: Connection | None = None  # whose state is being changed
        self._depth = 0  # rounds on the stack
        self._quieted = False  # nested too deeply: what was seen ready is muted
        self._closed = False
        self._held = 0  # bytes that all connections hold together
        self.connections: dict[int, Connection] = {}
        self.counts: Counter[str] = Counter()

    @property
    def pending(self) -> bool:
        """Whether work was left, as far as it is known here."""
        return bool(self._row) or self._acceptor.more

    @property
    def running(self) -> bool:
        """Whether a round is on the stack."""
        return self._depth > 0

    def run(
        self,
        events: list[tuple[int, int]],
        ctx: Any,
        max_commands: int | None,
        max_seconds: float | None,
    ) -> int:
        """Serve what is ready, within the budgets of `Server.poll`; return the turns taken."""
        began = self._clock()
        least = self._limits.poll_seconds
        seconds = least if max_seconds is None else max_seconds
        if not seconds >= 0:  # NaN is not
            raise ValueError(f"max_seconds must be at least 0, not {seconds}")
        if max_commands is not None and max_commands < 0:
            raise ValueError(f"max_commands must be at least 0, not {max_commands}")
        # A read that completes no frame is no turn, and looking for the first is bounded too.
        patience = began + max(seconds, least)
        depth = self._depth
        touched_outside, self._touched = self._touched, None
        try:
            self._depth = depth + 1
            if self._depth > self._limits.max_nested_polls:
                self._quiet(events)
                return 0
            self._take_in(events)
            if max_commands == 0:
                self._only_read()
                return 0
            return self._take_turns(ctx, max_commands, began + seconds, patience)
        except BaseException as error:
            if self._let_go(error):
                raise
            return 0
        finally:
            self._depth = depth
            try:
                if not self._closed:
                    self._settle()
            except BaseException as error:
                if self._let_go(error):
                    raise
            finally:
                self._depth = depth
                self._touched = touched_outside

    def _let_go(self, error: BaseException) -> bool:
        """After an exception in the midst of the work: close what was being touched.

        A KeyboardInterrupt, or what a signal handler raises, can come between any two steps: bytes
        may have been sent and not counted, a call answered and its answer lost. So the one
        connection that was in hand is closed; all others are whole. Returns whether the exception
        is the host's; a MemoryError, say, is not, and ends in the log.
        """
        self._wakeup.signal()  # work may be left that nothing else tells of
        connection = self._touched
        if connection is not None and not connection.closed:
            if not (connection.hung_up or has_hung_up(connection.fd)):
                name = type(error).__name__
                self._log.warning("interrupted", f"{name}: a client was closed for it")
            self._drop(connection)
        self._held = sum(connection.accounted for connection in self.connections.values())
        if isinstance(error, Exception):
            self._log.exception("unforeseen", "poll met what it did not foresee", error)
            return False
        return True

    # -----------------------------------------------------------------------------------------
    # 1. Take in

    def _take_in(self, events: list[tuple[int, int]]) -> None:
        """Let everything that is ready join the row."""
        accept = self._sort(events) or self._acceptor.more
        if accept:
            for sock, room in self._acceptor.accept():
                if room:
                    self._welcome(sock)
                else:
                    self._turn_away(sock, "no descriptor left")
            # What the new ones have sent, and which of them have gone again meanwhile.
            self._sort(self._poller.poll())

    def _sort(self, events: list[tuple[int, int]]) -> bool:
        """Take in what the poller says; return whether there are new connections."""
        connections = self.connections
        accept = False
        for fd, mask in events:
            connection = connections.get(fd)
            if connection is not None:
                self._touched = connection
                self._notice(connection, mask)
                self._touched = None
            elif fd == self._acceptor.fd:
                accept = True
            elif fd == self._wake_fd:
                self._wakeup.seen()
            else:
                self._deadlines.run_due(self._clock())
        return accept

    def _notice(self, connection: Connection, mask: int) -> None:
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
        self._rest(connection)

    def _only_read(self) -> None:
        """Take in what came, and run nothing."""
        for connection in list(self._row):
            self._touched = connection
            del self._row[connection]
            if connection.readable and connection.can_read:
                self._receive(connection)
            self._rest(connection)
            self._touched = None

    # -----------------------------------------------------------------------------------------
    # 2. Turns

    def _take_turns(
        self, ctx: Any, max_commands: int | None, deadline: float, patience: float
    ) -> int:
        row = self._row
        turns = 0
        while row:
            connection = self._touched = next(iter(row))
            del row[connection]
            took = self._turn(connection, ctx)
            self._touched = None
            if took:
                turns += 1
                if max_commands is not None and turns >= max_commands:
                    break
            if self._clock() >= (deadline if turns else patience):
                break
        self.counts["turns"] += turns
        return turns

    def _turn(self, connection: Connection, ctx: Any) -> bool:
        """Give one connection its turn; return whether it had a frame."""
        if connection.readable and connection.can_read:
            self._receive(connection)
        took = connection.can_run
        if took:
            try:
                request = connection.protocol.next_request()
            except WireError as fault:
                self._answer_fault(connection, fault)
            else:
                connection.finished_a_frame = True
                if type(request) is Call:
                    self._serve(connection, request, ctx)
        if not connection.closed:
            self._rest(connection)
        return took

    def _receive(self, connection: Connection) -> None:
        connection.receive(self._clock())

    def _rest(self, connection: Connection) -> None:
        """After something was done for a connection: back into the row, or wait, or end."""
        held = connection.held
        if held != connection.accounted:
            self._held += held - connection.accounted
            connection.accounted = held
            if self._held > self._limits.max_buffered:
                self._make_room()
                if connection.closed:
                    return
        if connection.has_work:
            self._row[connection] = None  # at the end; one that is in keeps its place
        elif connection.is_over:
            self._drop(connection)
            return
        if connection.muted and not connection.busy and connection.can_read:
            connection.unmute()

    def _serve(self, connection: Connection, call: Call, ctx: Any) -> None:
        """Run one call and queue its reply."""
        refusal = self._why_not_run(connection, call)
        if refusal is not None:
            self._reply(connection, calls.fail(call, refusal, connection.protocol, self._log))
            return
        if self._row or self._dirty:
            self._wakeup.signal()  # for a main loop that this command may open
        before = set_caller(connection.credentials)
        try:
            connection.busy = True
            reply = calls.run(call, ctx, self._commands, connection.protocol, self._log)
        except BaseException as error:  # KeyboardInterrupt, SystemExit
            self._end_interrupted(connection, call, error)
            raise
        finally:
            connection.busy = False
            reset_caller(before)
        self._reply(connection, reply)
        if self._closed and not connection.closed:
            self._say_farewell(connection)

    def _why_not_run(self, connection: Connection, call: Call) -> CommandError | None:
        """Return why a call is not run, None if it is. A notification always is."""
        if call.call_id is None:
            return None
        if connection.hung_up:
            # Whoever gave up and tries again must not have it run twice.
            self.counts["dropped"] += 1
            return calls.ABANDONED
        waited = 0.0 if call.timeout is None else self._clock() - call.arrived
        return calls.cancelled_before_its_turn(call, waited)

    def _reply(self, connection: Connection, frame: bytes | None) -> None:
        """Queue a reply; it is sent at the end of the poll, or sooner when many wait."""
        if frame is None or connection.closed or connection.hung_up:
            return
        connection.queue(frame)
        if connection.answers_waiting >= self._limits.answers_joined:
            connection.flush()
        elif not self._closed:
            self._dirty[connection] = None

    def _answer_fault(self, connection: Connection, fault: WireError) -> None:
        """Answer a frame that is no request. The connection lives on where the framing is whole."""
        self.counts["faults"] += 1
        self._log.warning(f"fault {fault.code}", f"a client sent a bad frame: {fault.message}")
        if fault.answerable and connection.protocol.can_send:
            error = error_from_wire(fault.code, fault.message, None)
            self._reply(connection, connection.protocol.error(fault.call_id, error))
        if fault.fatal:
            connection.discard_input()
            connection.end()

    def _end_interrupted(self, connection: Connection, call: Call, error: BaseException) -> None:
        """Tell the caller of an interrupted command, and close its connection."""
        name = type(error).__name__
        self._log.warning("interrupted", f"{name} in the command {call.name}; its client is closed")
        if not connection.closed:
            if call.call_id in connection.protocol.calls:  # else its answer was being made
                sentence = InternalError(f"{call.name} was interrupted by {name}")
                self._reply(connection, calls.fail(call, sentence, connection.protocol, self._log))
                connection.flush()
            self._drop(connection)

    # -----------------------------------------------------------------------------------------
    # 3. Settle

    def _settle(self) -> None:
        """Send what was answered, and say whether work is left."""
        for connection in list(self._dirty):
            self._touched = connection
            connection.flush()
            del self._dirty[connection]
            self._rest(connection)
            self._touched = None
        if self._quieted and self._depth < self._limits.max_nested_polls:
            self._unquiet()
        if self.pending and not self._quieted:
            # What waits in our own memory wakes no loop.
            self._wakeup.signal()
        else:
            self._wakeup.silence()

    # -----------------------------------------------------------------------------------------
    # Connections come and go

    def _welcome(self, sock: socket.socket) -> None:
        """Watch a new connection, or turn it away."""
        self.counts["accepted"] += 1
        try:
            peer = credentials(sock)
            if peer.uid != os.geteuid():
                self._refuse_stranger(sock, peer.uid)
                return
            if len(self.connections) >= self._max_clients:
                # Who has sent something since it was accepted, a moment ago perhaps, is not silent.
                self._sort(self._poller.poll())
                if len(self.connections) >= self._max_clients and not self._evict_silent():
                    self._turn_away(sock, f"{self._max_clients} clients, which is its limit")
                    return
            protocol = ServerProtocol(self._limits, self._decoder)
            connection = Connection(sock, peer, protocol, self._poller, self._limits)
        except OSError as error:  # ENOSPC, ENOMEM: epoll_ctl(2) takes no more
            self._log.warning("register", f"a new connection can't be watched: {error}")
            sock.close()
            return
        self.connections[connection.fd] = connection

    def _refuse_stranger(self, sock: socket.socket, uid: int) -> None:
        """Close the connection of another user, and tell them nothing."""
        self.counts["untrusted"] += 1
        self._log.warning("untrusted", f"a connection of user {uid} was closed")
        sock.close()

    def _turn_away(self, sock: socket.socket, has: str) -> None:
        """Tell a new connection that there is no room, and close it."""
        self.counts["refused"] += 1
        self._log.warning("full", f"a client was turned away: the server has {has}")
        self._say_only(sock, Busy(f"the server has {has}; try again later"))

    def _say_only(self, sock: socket.socket, error: CommandError) -> None:
        """Say one thing to a connection that is not served, and close it."""
        with sock:
            try:
                words = ServerProtocol(self._limits, self._decoder).error(None, error)
                sock.send(words, SEND_FLAGS)
                sock.recv(self._limits.read_size)  # or the client sees a reset
            except OSError:
                pass  # it has gone, or sent nothing yet

    def _evict_silent(self) -> bool:
        """Make room: close the oldest connection that never finished a frame and waits for none."""
        for connection in self.connections.values():
            silent = not (connection.finished_a_frame or connection.busy)
            if silent and connection not in self._row:
                self._log.warning("evicted", "a client that never finished a frame made room")
                self._evict(connection, "needed the room of a client that finished no request")
                return True
        return False

    def _make_room(self) -> None:
        """Close the connections that hold most, until all together hold no more than they may."""
        while self._held > self._limits.max_buffered:
            idle = [each for each in self.connections.values() if not each.busy]
            largest = max(idle, key=lambda each: each.accounted, default=None)
            if largest is None or not largest.accounted:
                return
            self._log.warning(
                "buffered",
                f"all clients together hold {self._held} bytes, the limit is "
                f"{self._limits.max_buffered}; the one that held most ({largest.accounted} bytes) "
                "was closed",
            )
            why = "has no room for what this client holds; calls without an answer may have run"
            self._evict(largest, why)

    def _evict(self, connection: Connection, why: str) -> None:
        self.counts["evicted"] += 1
        self._say_last(connection, Busy(f"the server {why}"))

    def _drop(self, connection: Connection) -> None:
        """Unregister and close."""
        connection.close()
        self._held -= connection.accounted
        connection.accounted = 0
        self._row.pop(connection, None)
        self._dirty.pop(connection, None)
        if self.connections.get(connection.fd) is connection:
            del self.connections[connection.fd]
        if not self._closed:
            self._acceptor.end_pause()  # a descriptor is free again

    def _say_farewell(self, connection: Connection) -> None:
        self._say_last(connection, ShuttingDown(_FAREWELL))

    def _say_last(self, connection: Connection, error: CommandError) -> None:
        """End every call of a connection with one error, by one send, and close it."""
        if not connection.ended and not connection.hung_up:
            connection.receive(self._clock())  # unread input would reset the client's connection
        if not connection.hung_up:
            connection.queue(connection.protocol.error(None, error))
            connection.flush()
            if connection.unsent:
                self._log.warning("cut", "a client was closed that did not read its answers")
        self._drop(connection)

    def adopt(self, listener: Listener, old: Listener) -> None:
        """Take connections from another listener; those that wait in the old one come along."""
        self._acceptor.move_to(listener)
        for sock in _backlog(old, self._limits.backlog):
            self._welcome(sock)

    def turn_away_all(self, listener: Listener) -> None:
        """Tell those that wait to be taken in that nobody will."""
        for sock in _backlog(listener, self._limits.backlog):
            self._say_only(sock, ShuttingDown(_FAREWELL))

    def close(self) -> None:
        """End every connection; one whose command is on the stack is ended as it returns."""
        self._closed = True
        self._acceptor.close()
        self._row.clear()
        self._dirty.clear()
        self._acceptor.more = False
        for connection in list(self.connections.values()):
            if connection.busy:
                connection.unwatch()
            else:
                self._say_farewell(connection)

    def abandon(self) -> None:
        """Close the descriptors; touch nothing that a parent process shares."""
        self._closed = True
        self._acceptor.close()
        self._row.clear()
        self._dirty.clear()
        self._acceptor.more = False
        for connection in self.connections.values():
            connection.abandon()
        self.connections.clear()

    # -----------------------------------------------------------------------------------------
    # Nested too deeply

    def _quiet(self, events: list[tuple[int, int]]) -> None:
        """Mute all that is ready: too many rounds are on the stack to serve anyone."""
        self._quieted = True
        for fd, mask in events:
            connection = self.connections.get(fd)
            if connection is not None:
                if mask & HANGUP:
                    connection.hang_up()
                else:
                    connection.readable = connection.readable or bool(mask & READ)
                    connection.mute_all()
            elif fd == self._acceptor.fd:
                self._acceptor.mute()
            elif fd == self._wake_fd:
                self._wakeup.seen()
            else:
                self._deadlines.run_due(self._clock())

    def _unquiet(self) -> None:
        self._quieted = False
        self._acceptor.unmute()
        for connection in list(self.connections.values()):
            self._touched = connection
            connection.watch()
            self._rest(connection)
            self._touched = None


def _backlog(listener: Listener, most: int) -> Iterator[socket.socket]:
    """Give the connections that wait in a listener, as far as they can be taken."""
    for _ in range(most + 1):  # Linux lets in one more than listen(2) was told
        try:
            sock = listener.accept()
        except OSError:
            return
        if sock is None:
            return
        yield sock
