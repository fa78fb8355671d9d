"""One client of a server: its socket, what it still has to send, and when it is listened to.

What is promised:

* No method blocks: each does at most one `recv` or one `send`.
* No method raises for what the peer did; a connection that fails is marked `hung_up`.
* The poller watches for reading until the connection is seen ready while it may not be read
  (`mute`), and for writing only while something waits for room.

Which connection has its turn is not decided here but in `round`.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any, Final

from .._system.peer import Credentials
from .._system.poller import READ, WRITE, Poller, has_hung_up
from .._system.sockets import FIRST_READ, SEND_FLAGS, next_read_size
from .._wire.protocol import ServerProtocol
from ..limits import KIB, Limits

MOST_SENT: Final = 256 * KIB
"""Bytes given to one send(2): a large answer must not hold up the others."""


class ServerConnection:
    """One accepted connection. Its flags are read and set by the round."""

    __slots__ = (
        "_mask",
        "_max_unsent",
        "_most_waiting",
        "_out",
        "_poller",
        "_read_size",
        "_reads",
        "_socket",
        "accounted",
        "answers_waiting",
        "busy",
        "closed",
        "credentials",
        "ended",
        "failure",
        "fd",
        "finished_a_frame",
        "hung_up",
        "in_hand",
        "jobs",
        "muted",
        "protocol",
        "readable",
        "unsent",
    )

    def __init__(
        self,
        sock: socket.socket,
        credentials: Credentials,
        protocol: ServerProtocol,
        poller: Poller,
        limits: Limits,
    ) -> None:
        self._socket = sock
        self._poller = poller
        self._read_size = limits.read_size
        self._reads = min(FIRST_READ, limits.read_size)  # bytes that the next read takes
        self._max_unsent = limits.max_unsent
        self._most_waiting = limits.max_frames_waiting
        self._out: list[bytes | memoryview] = []
        self._mask: int | None = READ  # what the poller watches for; None: not registered
        self.fd = sock.fileno()
        self.credentials = credentials  # of whoever connected
        self.protocol = protocol
        self.accounted = 0  # what the round has counted of `held`
        self.unsent = 0  # bytes that wait to be sent
        self.answers_waiting = 0  # answers that no send has seen yet
        self.readable = False  # there may be something to read
        self.busy = 0  # its command is running, in a poll of this depth
        self.in_hand = False  # it is being changed: not whole, if an exception comes now
        self.jobs: dict[int, Any] | None = None  # its calls that are answered later, by id
        self.muted = False  # was seen ready while it might not be read
        self.finished_a_frame = False
        self.ended = False  # end of file, or the framing is lost: nothing more is read
        self.failure: OSError | None = None  # why it hung up, if that was not the peer's doing
        self.hung_up = False  # wholly gone: nothing can be sent
        self.closed = False
        poller.register(self.fd, READ)

    # What it may do

    @property
    def can_read(self) -> bool:
        """Whether one more read is allowed: few frames wait, and few answers."""
        return (
            not self.ended
            and len(self.protocol.waiting) < self._most_waiting
            and self.unsent < self._max_unsent
        )

    @property
    def has_room(self) -> bool:
        """Whether its unsent answers are below their limit."""
        return self.unsent < self._max_unsent

    @property
    def takes_pieces(self) -> bool:
        """Whether its late calls may go on: none of its commands runs, and there is room."""
        return not self.busy and self.unsent < self._max_unsent

    @property
    def can_run(self) -> bool:
        """Whether a frame waits and its answer may be made."""
        return self.unsent < self._max_unsent and bool(self.protocol.waiting)

    @property
    def has_work(self) -> bool:
        """Whether a turn would do something."""
        if self.busy or self.unsent >= self._max_unsent:
            return False
        return (self.readable and not self.ended) or len(self.protocol.waiting) > 0

    @property
    def held(self) -> int:
        """How many bytes it holds: requests that came, answers that wait."""
        return self.protocol.bytes_waiting + self.unsent

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to be done but to close it."""
        return (
            not self.busy
            and not self.jobs
            and (self.ended or (self.hung_up and not self.readable))
            and not self.protocol.waiting
            and (self.hung_up or not self.unsent)
        )

    # What the poller watches

    def watch(self) -> None:
        """Let the poller watch for what is wanted now."""
        mask = 0 if self.muted or self.ended else READ
        if self.unsent:
            mask |= WRITE
        if self._mask is not None and mask != self._mask:
            self._mask = mask
            self._poller.modify(self.fd, mask)

    def mute(self) -> None:
        """Do not watch for reading: it was seen ready and may not be read now."""
        self.muted = True
        self.watch()

    def mute_all(self) -> None:
        """Watch for nothing but the hang-up, until the next `watch`."""
        self.muted = True
        if self._mask:
            self._mask = 0
            self._poller.modify(self.fd, 0)

    def unmute(self) -> None:
        """Watch for reading again."""
        self.muted = False
        self.watch()

    def unwatch(self) -> None:
        """Take it out of the poller. Idempotent."""
        if self._mask is not None:
            # Not there any more, if an interruption came between these two steps before. Whatever
            # it is: the socket is closed next, which takes it out as well.
            with contextlib.suppress(OSError, KeyError, ValueError):  # ValueError: it is closed
                self._poller.unregister(self.fd)
            self._mask = None

    # What it does

    def hang_up(self) -> None:
        """Note that the peer has wholly gone: nothing more is sent, the rest is read.

        It is taken out of the poller, which would report the hang-up for ever.
        """
        if not self.hung_up:
            self.hung_up = True
            self.unwatch()
            self.protocol.hang_up()
            self._forget_output()
            self.readable = not self.ended

    def _fail(self, error: OSError) -> None:
        if not isinstance(error, ConnectionError):  # no memory
            self.failure = error
        self.hang_up()

    def receive(self, now: float) -> None:
        """Read once. What came, the end or a failure included, goes to the protocol."""
        self.take_in(self.read(), now)

    def read(self) -> bytes | None:
        """Read once and return what came; empty: the end, also by a failure; None: nothing."""
        size = self._reads
        try:
            data = self._socket.recv(size)
        except (BlockingIOError, InterruptedError):
            self.readable = False
            return None
        except OSError as error:  # ECONNRESET: the peer closed it and left answers unread
            self._fail(error)
            data = b""
        # A short read has emptied the socket. One whose peer has gone is read to its end.
        filled = len(data) >= size
        self.readable = filled or self.hung_up
        if filled or size > FIRST_READ:
            self._reads = next_read_size(size, len(data), self._read_size)
        return data

    def take_in(self, data: bytes | None, now: float) -> None:
        """Give the protocol what was read."""
        if data is not None:
            self.protocol.receive(data, now)
            if not data:
                self.end()
                if not self.hung_up and has_hung_up(self.fd):
                    self.hang_up()

    def discard_input(self) -> None:
        """Read twice and forget it: closing with unread input resets the client's connection."""
        try:
            if len(self._socket.recv(self._read_size)) == self._read_size:
                self._socket.recv(self._read_size)
        except OSError:
            pass  # nothing there, or nobody

    def end(self) -> None:
        """Read no more."""
        self.ended = True
        self.readable = False
        self.watch()

    def send_alone(self, frame: bytes) -> int:
        """Send a frame before which none waits; return how much of it was sent."""
        try:
            return self._socket.send(frame, SEND_FLAGS)
        except OSError:
            return 0  # `flush` finds out what the matter is

    def queue(self, frame: bytes) -> None:
        """Let a frame wait for the next `flush`."""
        self._out.append(frame)
        self.unsent += len(frame)
        self.answers_waiting += 1

    def flush(self) -> None:
        """Send once. What the socket does not take waits for room."""
        self.answers_waiting = 0
        out = self._out
        if not out:
            return
        joined = size = 0
        while joined < len(out) and size < MOST_SENT:
            size += len(out[joined])
            joined += 1
        if joined > 1:
            out[:joined] = [b"".join(out[:joined])]
        data = out[0]
        try:
            sent = self._socket.send(data[:MOST_SENT], SEND_FLAGS)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:  # EPIPE, ECONNRESET: nobody reads any more
            self._fail(error)
            return
        self.unsent -= sent
        if sent == len(data):
            del out[0]
        elif sent:
            out[0] = _rest_of(data, sent)
        self.watch()

    def close(self) -> None:
        """Unregister and close. Idempotent, also when it was interrupted."""
        self.unwatch()
        self._forget_output()
        self.protocol.close()
        self._socket.close()
        self.closed = True

    def abandon(self) -> None:
        """Close the descriptor and touch nothing that a parent process shares."""
        self.closed = True
        self._mask = None
        self._socket.close()

    def _forget_output(self) -> None:
        self._out.clear()
        self.unsent = self.answers_waiting = 0


def _rest_of(data: bytes | memoryview, sent: int) -> bytes | memoryview:
    """Return what is left, without keeping more than twice as much in memory for it."""
    rest = memoryview(data)[sent:]
    with memoryview(rest.obj) as whole:
        return bytes(rest) if 2 * len(rest) < len(whole) else rest
