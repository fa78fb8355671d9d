"""The way to the server: a connection that is made when it is needed, and anew when it was closed.

What is promised: a request is sent at most once. What waits for a connection is sent in its order
when there is one, and a connection that the server closed is made anew only for what it has not
seen a byte of.

Two kinds use a line: a method that blocks posts through `post`, which waits for a connection; a
call that nobody waits for (`Pending`) is started, and `attempt` goes on with the connecting when
`retry_at` has come.
"""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from .._attach.oneself import served_at
from .._wire import codec
from .._wire.messages import call_payload
from ..errors import FrameTooLarge, NotPolled
from ..limits import Limits
from . import reasons
from .connecting import BackOff, Dialer, TimeLimit, connect
from .connection import ClientConnection

if TYPE_CHECKING:
    import socket

    from .._system.peer import Credentials
    from .._wire.framing import Payload
    from .._wire.messages import Answer, Failure, Piece

T = TypeVar("T")

_PAUSE_BEHIND_A_FAILURE: Final = 0.01
_NOTHING_SENT: Final = "nothing was sent"


class Pending(ABC):
    """A call that was begun and that no method waits for: a future's, or a stream's.

    `body` is the payload of the call behind the id. `wait` says how long and until when its
    answer is waited for; a `deadline` may be moved.
    """

    def __init__(self, session: Session, name: str, body: Payload, wait: TimeLimit) -> None:
        self.session = session
        self.name = name
        self.seconds = wait.seconds
        self.deadline = wait.deadline
        self.connection: ClientConnection | None = None
        """Where it is in flight; None: it waits for a connection, or is over."""
        self.call_id = 0
        self.command_class: type | None = None
        """The class of the command, which declares errors; None: it was called by name."""
        self._body = body

    @property
    @abstractmethod
    def has_come(self) -> bool:
        """Whether there is something to hand over."""

    @abstractmethod
    def take(self, response: Answer | Failure | Piece) -> None:
        """See `channel.ReplySink`."""

    @abstractmethod
    def lose(self, end: Callable[[], Exception]) -> None:
        """See `channel.ReplySink`."""

    @abstractmethod
    def deliver(self) -> None:
        """Hand over what has come, one thing; this calls functions of the program."""

    def post(self, connection: ClientConnection) -> None:
        """Let it wait to be sent. Raises FrameTooLarge."""
        self.call_id = call_id = connection.new_id()
        connection.post(call_id, call_payload(codec.encode(call_id), self._body))

    def is_unsent(self, connection: ClientConnection) -> bool:
        """Return whether not a byte of it was sent."""
        return connection.is_unsent(self.call_id)

    def posted(self, connection: ClientConnection) -> None:
        """Note where it is in flight."""
        self.connection = connection
        connection.expect(self.call_id, self)

    def overdue(self) -> Exception:
        """Give it up because its time is over, and return what is known of it. Never waits."""
        connection = self.connection
        if connection is None:
            return self.session.overdue(self)
        return connection.overdue(self.call_id, self.name, self.seconds)

    def give_up(self) -> None:
        """Cancel it and forget it. Never waits."""
        if self.connection is None:
            self.session.withdraw(self)
        elif self.call_id:
            self.connection.give_up(self.call_id)


class Session:
    """A connection to the server at `path`, or the way to one."""

    def __init__(
        self, path: str, limits: Limits, *, private: bool, others: Sequence[str] = ()
    ) -> None:
        self.connection: ClientConnection | None = None
        """The connection that was made last."""
        self.retry_at = 0.0
        """When the next attempt to connect is due, while something waits for it."""
        self.waiting: list[Pending] = []
        """What waits for a connection."""
        self.is_over = False
        """Whether nobody needs it any more. Set by whoever has it alone; see `Pump.release`."""
        self.begun: list[Pending] = []
        """What waits on the connection to be sent together, by `send_begun`."""
        self._path = path
        self._limits = limits
        self._private = private
        self._others = others
        self._dialer: Dialer | None = None
        self._wait: TimeLimit | None = None  # of a method that blocks
        self._is_hurried = False

    # -----------------------------------------------------------------------------------------
    # For methods that block

    def idle_connection(self) -> ClientConnection | None:
        """Return the connection, if it is there and nothing goes on there."""
        connection = self.connection
        return None if connection is None or self.begun or not connection.is_idle else connection

    def post(
        self, post: Callable[[ClientConnection], T], wait: TimeLimit, *, answered: bool = True
    ) -> tuple[ClientConnection, T]:
        """Post something on a connection that works; return that and what `post` returned.

        If it is `answered`, which will be waited for, raises UsageError where the calling thread is
        the one that would have to answer.
        """
        if self.begun:
            self.send_begun()
        connection = self.connection
        if connection is not None and connection.usable:
            if answered:
                connection.refuse_oneself(wait.deadline, _NOTHING_SENT)
            posted = post(connection)
            try:
                connection.send()
            except BaseException:
                connection.end_interrupted()  # or what was posted would be sent with a later call
                raise
            if not connection.untouched:
                return connection, posted
        self.drop()
        self._wait = wait
        if answered:
            self.refuse_oneself(wait.deadline)
        if self._is_hurried:
            raise reasons.closed_here()
        try:
            made = connect(self._path, wait, private=self._private, others=self._others)
        except NotPolled:
            if self._is_hurried:
                raise reasons.closed_here() from None
            raise
        connection = self._connected(*made)
        if answered:
            connection.refuse_oneself(wait.deadline, _NOTHING_SENT)
        posted = post(connection)
        try:
            connection.send()
        except BaseException:
            connection.end_interrupted()
            raise
        return connection, posted

    def refuse_oneself(self, deadline: float) -> None:
        """Raise UsageError if who calls would wait, until then, for its own thread."""
        served = served_at(self._path)
        if served is not None and deadline > time.monotonic():
            served.refuse(self._path, _NOTHING_SENT)

    # -----------------------------------------------------------------------------------------
    # For calls that nobody waits for. Nothing here blocks.

    def start(self, pending: Pending) -> None:
        """Let it wait to be sent, by `send_begun`, or for a connection. Raises FrameTooLarge."""
        connection = self.connection
        if self.begun and connection is not None and not connection.usable:
            self.send_begun()
        if connection is not None and connection.usable and not self.waiting:
            try:
                self.begun.append(pending)  # first: an interruption must leave nobody without it
                pending.post(connection)
            except BaseException:
                if pending in self.begun:
                    self.begun.remove(pending)
                raise
        else:
            self._wait_for_connection([pending])

    def send_begun(self, *, fresh: bool = False) -> None:
        """Send what was started, as much as there is room for.

        On a `fresh` connection that takes nothing, another is not tried for at once: it may go on
        so for ever (no memory, or a server that closes whatever it accepts).
        """
        begun = self.begun[:]
        connection = self.connection
        if connection is not None and begun:
            connection.send()
            unsent = []
            for pending in begun:  # they stay in the list: an interruption must not lose them
                if not connection.usable and pending.is_unsent(connection):
                    unsent.append(pending)
                else:
                    pending.posted(connection)
            self.begun = self.begun[len(begun) :]
            if unsent and fresh:
                self.waiting = self.waiting + unsent
                self.retry_at = time.monotonic() + _PAUSE_BEHIND_A_FAILURE
                self.drop()
            elif unsent:
                self._wait_for_connection(unsent)

    def _wait_for_connection(self, pending: list[Pending]) -> None:
        connects = bool(self.waiting)
        self.waiting = self.waiting + pending
        if not connects:
            self.drop()
            self._dialer = None
            self.attempt()

    def retry_later(self, pending: Pending, pause: float) -> None:
        """Let it wait for a connection that is tried for after so many seconds."""
        self.drop()
        pending.connection = None
        if pending not in self.waiting:  # it may be told twice of the end of a connection
            self.waiting.append(pending)
        self._dialer = None
        self.retry_at = time.monotonic() + pause

    def attempt(self) -> None:
        """Try once to connect, and send what waits."""
        if self.connection is not None:  # what waits was posted there, in part, and interrupted
            self.connection.end_interrupted()
            self.send_begun()
            self.drop()
        if self._dialer is None:
            self._dialer = self._new_dialer()
        try:
            made = self._dialer.attempt()
        except Exception as error:
            reason = error.with_traceback(None)
            self._dialer = None
            # Each is told, and then forgotten: an interruption must not lose it.
            for pending in self.waiting[:]:
                pending.lose(lambda: copy.copy(reason))  # raised twice, it would mix tracebacks
                if pending.has_come and pending in self.waiting:
                    self.waiting.remove(pending)
            return
        if made is not None:
            self._connected(*made)
        else:
            self.retry_at = time.monotonic() + self._dialer.back_off.next()

    def overdue(self, pending: Pending) -> Exception:
        """Forget what waits for a connection, and return why there is none."""
        self.withdraw(pending)
        dialer = self._dialer or self._new_dialer()
        return dialer.overdue(pending.seconds)

    def withdraw(self, pending: Pending) -> None:
        """Forget what waits for a connection, or to be sent."""
        if pending in self.waiting:
            self.waiting.remove(pending)
        if pending in self.begun:
            self.begun.remove(pending)
            if self.connection is not None:
                pending.posted(self.connection)
                pending.give_up()

    # -----------------------------------------------------------------------------------------
    # For both

    def hurry(self) -> None:
        """Let whoever waits wait no more: it is to be closed. Legal in signal handlers."""
        self._is_hurried = True
        if self._wait is not None:
            self._wait.deadline = 0.0
        if self.connection is not None:
            self.connection.hurry()

    def drop(self) -> None:
        """Close the connection. Idempotent."""
        connection = self.connection
        if connection is not None:
            connection.close()
            if self.connection is connection:  # else one that was lost with it has made another
                self.connection = None

    def abandon(self) -> None:
        """Close the connection in a forked child, and tell nobody."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abandon()

    def end(self) -> None:
        """Close the connection, and end what waits for one. Idempotent."""
        self.drop()
        for pending in self.begun + self.waiting:
            pending.lose(reasons.closed_here)
        self.begun, self.waiting = [], []

    def _new_dialer(self) -> Dialer:
        return Dialer(self._path, private=self._private, others=self._others)

    def _connected(self, sock: socket.socket, server: Credentials, path: str) -> ClientConnection:
        self._dialer = None
        connection = self.connection = ClientConnection(path, self._limits, sock, server)
        if self._is_hurried:
            connection.hurry()
        if self.waiting:
            waiting, self.waiting = self.waiting, []
            done = 0
            try:
                for pending in waiting:
                    try:
                        pending.post(connection)
                    except FrameTooLarge as error:
                        pending.lose(_always(error.with_traceback(None)))
                    else:
                        self.begun.append(pending)
                    done += 1
            except BaseException:
                self.waiting = waiting[done:]  # the others are unsent, and wait soon again
                connection.end_interrupted()
                raise
            self.send_begun(fresh=True)
        return connection


def _always(error: Exception) -> Callable[[], Exception]:
    return lambda: error


_LONGEST_PAUSE = 1.0


def patient_back_off() -> BackOff:
    """Return the pauses for a server that may be away for hours."""
    return BackOff(_LONGEST_PAUSE)
