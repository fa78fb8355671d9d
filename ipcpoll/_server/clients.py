"""Who is connected: who is let in, who has to go when there is no room, and how it is told.

What is promised:

* Another user's connection is closed before a byte is read.
* Whoever has to go for want of room, or because the server closes, is told why, by one send that
  never blocks. The log has a line for each kind of end that the server decides.
* All connections together hold at most ``max_buffered`` bytes.
* Sets change in one step each, so that an interruption leaves none of them halved. A connection
  that is being changed is marked (`ServerConnection.in_hand`), and `drop_interrupted` finds it.

Who has the next turn is decided in `round`, which owns the row in which they wait.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

from .._address.listener import Listener
from .._system.hub import Hub
from .._system.log import Log
from .._system.peer import credentials
from .._system.poller import has_hung_up, is_readable
from .._system.sockets import SEND_FLAGS
from .._wire.codec import Decoder
from .._wire.messages import ReadCall
from .._wire.protocol import ServerProtocol
from ..errors import Busy, CommandError, ShuttingDown
from ..limits import Limits
from .acceptor import Acceptor
from .connection import ServerConnection
from .jobs import CLOSED, Job

COUNTED: Final = ("accepted", "refused", "untrusted", "evicted", "turns", "faults", "dropped")

_FAREWELL: Final = "the server closed before the call had its turn"
_EVICTED: Final = Busy.of_one_that_began(
    "the server needed the room that this client held; the call had begun, and may have run"
)


class Clients:
    """The connections of one server."""

    def __init__(
        self,
        hub: Hub,
        acceptor: Acceptor,
        limits: Limits,
        most: int,
        log: Log,
        read: ReadCall,
    ) -> None:
        self._hub = hub
        self._acceptor = acceptor
        self._limits = limits
        self._most = most
        self._log = log
        self._decoder = Decoder()
        self._read = read
        self.connections: dict[int, ServerConnection] = {}
        # Ordered sets, see above.
        self.row: OrderedDict[ServerConnection | Job, None] = OrderedDict()
        """Who has work, in the order of their turns: connections, and late calls that can go on."""
        self.dirty: dict[ServerConnection, None] = {}
        """Who has answers that no send has seen yet."""
        self.held = 0
        """Bytes that all connections hold together."""
        self.counts: Counter[str] = Counter()
        self.forsake: Callable[[ServerConnection], None] = lambda _: None
        """Ends the late calls of a connection that was closed."""
        self.closed = False

    # -----------------------------------------------------------------------------------------
    # Coming

    def admit(self, sock: socket.socket) -> None:
        """Watch a new connection, or turn it away."""
        self.counts["accepted"] += 1
        try:
            peer = credentials(sock)
            if peer.uid != os.geteuid():
                self._refuse_stranger(sock, peer.uid)
                return
            if len(self.connections) >= self._most and not self._evict_silent():
                self.turn_away(sock, f"{self._most} clients, which is its limit")
                return
            protocol = ServerProtocol(self._limits, self._decoder, self._read)
            connection = ServerConnection(sock, peer, protocol, self._hub.poller, self._limits)
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

    def turn_away(self, sock: socket.socket, has: str) -> None:
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

    def move_to(self, listener: Listener, old: Listener) -> None:
        """Take connections from another listener; those that wait in the old one come along."""
        self._acceptor.move_to(listener)
        for sock in _backlog(old, self._limits.backlog):
            self.admit(sock)

    # -----------------------------------------------------------------------------------------
    # Room

    def account(self, connection: ServerConnection) -> None:
        """Count what a connection holds now, and make room if all together hold too much."""
        self._count(connection)
        if self.held > self._limits.max_buffered:
            connection.flush()  # what it reads at once is no burden
            self._count(connection)
            self._make_room()

    def _count(self, connection: ServerConnection) -> None:
        held = connection.held
        self.held += held - connection.accounted
        connection.accounted = held

    def _make_room(self) -> None:
        """Close the connections that hold most, until all together hold no more than they may."""
        while self.held > self._limits.max_buffered:
            idle = [each for each in self.connections.values() if not each.busy]
            largest = max(idle, key=lambda each: each.accounted, default=None)
            if largest is None or not largest.accounted:
                return
            self._log.warning(
                "buffered",
                f"all clients together hold {self.held} bytes, the limit is "
                f"{self._limits.max_buffered}; the one that held most ({largest.accounted} bytes) "
                "was closed",
            )
            self._evict(largest, "has no room for what this client holds")

    def _evict_silent(self) -> bool:
        """Make room: close the oldest connection that never finished a frame and waits for none."""
        for connection in self.connections.values():
            if connection.finished_a_frame or connection.busy or connection in self.row:
                continue
            if is_readable(connection.fd):  # it came a moment ago perhaps, and with its call
                connection.readable = True
                self.row[connection] = None
            else:
                self._log.warning("evicted", "a client that never finished a frame made room")
                self._evict(connection, "needed the room of a client that finished no request")
                return True
        return False

    def _evict(self, connection: ServerConnection, why: str) -> None:
        self.counts["evicted"] += 1
        self._say_last(connection, Busy(f"the server {why}"), _EVICTED)

    # -----------------------------------------------------------------------------------------
    # Going

    def drop(self, connection: ServerConnection) -> None:
        """Unregister and close. Idempotent, also when it was interrupted."""
        connection.close()
        if connection.failure is not None:
            self._log.warning("failed", f"a client was closed: {connection.failure}")
            connection.failure = None
        if connection.jobs and not self.closed:
            self.forsake(connection)
        self.held -= connection.accounted
        connection.accounted = 0
        self.row.pop(connection, None)
        self.dirty.pop(connection, None)
        if self.connections.get(connection.fd) is connection:
            del self.connections[connection.fd]
        if not self.closed:
            self._acceptor.end_pause()  # a descriptor is free again

    def drop_interrupted(self, why: str, depth: int) -> None:
        """Close the connections that were being changed when an exception came.

        Bytes may have been sent and not counted, a call answered and its answer lost; all others
        are whole. Those whose commands are running in one of the `depth` polls that are still on
        the stack stay theirs.
        """
        for connection in list(self.connections.values()):
            if connection.in_hand and not 0 < connection.busy <= depth:
                if not (connection.closed or connection.hung_up or has_hung_up(connection.fd)):
                    self._log.warning("interrupted", f"{why}: a client was closed for it")
                self.drop(connection)
        self.held = sum(connection.accounted for connection in self.connections.values())

    def say_farewell(self, connection: ServerConnection) -> None:
        """Tell a client that the server closes, and close its connection."""
        self._say_last(connection, ShuttingDown(_FAREWELL), CLOSED)

    def _say_last(
        self, connection: ServerConnection, error: CommandError, begun: CommandError
    ) -> None:
        """End every call of a connection with an error, by one send, and close it.

        `error` is for the calls that had not begun, `begun` for each of the others.
        """
        connection.in_hand = True
        if not connection.ended and not connection.hung_up:
            # Unread input would reset the client's connection.
            connection.receive(self._hub.clock())
        if not connection.hung_up:
            self._tell_begun(connection, begun)
            connection.queue(connection.protocol.error(None, error))
            with contextlib.suppress(OSError):  # it need not be watched any more
                connection.flush()
            if connection.unsent:
                self._log.warning("cut", "a client was closed that did not read its answers")
        self.drop(connection)

    def _tell_begun(self, connection: ServerConnection, error: CommandError) -> None:
        """Tell each late call of a connection that it is ended; but not what is on the stack."""
        protocol = connection.protocol
        for call_id, job in (connection.jobs or {}).items():
            if not (job.lingers or job.on_the_stack) and call_id in protocol.calls:
                connection.queue(protocol.error(call_id, error))

    def turn_away_all(self, listener: Listener) -> None:
        """Tell those that wait to be taken in that nobody will."""
        for sock in _backlog(listener, self._limits.backlog):
            self._say_only(sock, ShuttingDown(_FAREWELL))

    def close(self) -> None:
        """End every connection; one with a command that goes on is ended as that returns."""
        self._forget()
        # Those whose commands are on the stack are in hand as well; the others were interrupted,
        # perhaps in the midst of this.
        self.drop_interrupted("an interruption", sys.maxsize)
        for connection in list(self.connections.values()):
            job = (connection.jobs or {}).values()
            if connection.busy or any(each.lingers for each in job):
                if connection.protocol.can_send:
                    self._tell_begun(connection, CLOSED)
                connection.unwatch()
            else:
                self.say_farewell(connection)

    def abandon(self) -> None:
        """Close the descriptors; touch nothing that a parent process shares."""
        self._forget()
        for connection in self.connections.values():
            connection.abandon()
        self.connections.clear()

    def _forget(self) -> None:
        self.closed = True
        self._acceptor.close()
        self.row.clear()
        self.dirty.clear()


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
