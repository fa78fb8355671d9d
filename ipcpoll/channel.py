"""The client's connection: connect, send, wait for answers, all within a deadline.

What is promised:

* Nothing waits beyond its deadline (absolute, `time.monotonic` seconds; ``math.inf``: none),
  however often a signal interrupts it.
* While a frame waits for room to be sent, answers are taken in: two ends that fill each other's
  buffers never stand still.
* A call that is given up stays a call until its answer has come; that answer is dropped.

It knows frames and ids, not commands; those are `client`'s.
"""

from __future__ import annotations

import errno
import math
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

from .address import check_length
from .codec import Decoder
from .errors import (
    CommandError,
    NotPolled,
    NotRunning,
    PeerGone,
    StaleSocket,
    UntrustedPeer,
    WireError,
    error_from_wire,
)
from .limits import Limits
from .protocol import Answer, ClientProtocol, Failure, Piece

Reply: TypeAlias = "Answer | Failure"

_FIRST_RETRY: Final = 0.001
_LONGEST_RETRY: Final = 0.050
_LONGEST_WAIT: Final = 3600.0  # poll(2) takes an int of milliseconds
_MOST_JOINED: Final = 64  # frames in one send
_SEND_FLAGS: Final = getattr(socket, "MSG_NOSIGNAL", 0)


class TimedOut(Exception):
    """The deadline passed. Internal: the client says what it means."""


def connect(path: str, deadline: float) -> socket.socket:
    """Return a non-blocking socket connected to `path`.

    Raises NotRunning, StaleSocket, UntrustedPeer, NotPolled (the backlog was full until the
    deadline), OSError as connect(2).
    """
    check_length(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _connect(sock, path, deadline)
    except BaseException:
        sock.close()
        raise
    return sock


def _connect(sock: socket.socket, path: str, deadline: float) -> None:
    began = time.monotonic()
    pause = _FIRST_RETRY
    while True:
        # Non-blocking: over AF_UNIX a connection is made at once, and a full backlog is EAGAIN.
        result = sock.connect_ex(path)
        if result == 0:
            return
        if result in (errno.ENOENT, errno.ENOTDIR):
            raise NotRunning(f"the program does not run: there is no socket at {path}")
        if result == errno.ECONNREFUSED:
            raise StaleSocket(f"the program has ended and left its socket behind: {path}")
        if result in (errno.EACCES, errno.EPERM):
            raise UntrustedPeer(f"the socket belongs to another user: {path}")
        if result != errno.EAGAIN:
            raise OSError(result, "the program can't be reached", path)
        now = time.monotonic()
        if now >= deadline:
            raise NotPolled(
                f"the program is alive and has taken in no connection for {now - began:.1f} s: "
                f"its backlog is full ({path})"
            )
        # Nothing tells when there is room again. With jitter, many clients do not come at once.
        jitter = 0.5 + os.urandom(1)[0] / 512
        time.sleep(min(pause * jitter, deadline - now))
        pause = min(2 * pause, _LONGEST_RETRY)


class Outgoing:
    """One frame that waits to be sent. `call_id` None: a notification or a cancel."""

    __slots__ = ("begun", "call_id", "data")

    def __init__(self, call_id: int | None, data: bytes) -> None:
        self.call_id = call_id
        self.data: bytes | memoryview = data
        self.begun = False  # some of it was sent, so the rest must follow


class Channel:
    """One connection to a server, and the calls in flight on it."""

    def __init__(self, path: str, limits: Limits, deadline: float) -> None:
        self.path = path
        self.untouched = False
        """The other end had closed, and nothing of what waits has reached it: ask elsewhere."""
        self._socket = connect(path, deadline)
        self._protocol = ClientProtocol(limits, Decoder())
        self._read_size = limits.read_size
        self._out: deque[Outgoing] = deque()
        self._replies: dict[int, Reply] = {}
        self._awaited: set[int] = set()
        self._end: Callable[[], Exception] | None = None  # makes what later calls raise
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._wants_room = False  # the poll object waits for room to send too

    @property
    def usable(self) -> bool:
        """Whether a new call can be made on it."""
        return self._end is None

    def new_id(self) -> int:
        """Return an id for the next call."""
        return self._protocol.new_id()

    # -----------------------------------------------------------------------------------------
    # Calls

    def post(self, call_id: int, payload: bytes) -> None:
        """Let a call wait to be sent. Raises FrameTooLarge."""
        self._out.append(Outgoing(call_id, self._protocol.call(call_id, payload)))
        self._awaited.add(call_id)

    def post_notification(self, payload: bytes) -> Outgoing:
        """Let a notification wait to be sent. Raises FrameTooLarge."""
        frame = Outgoing(None, self._protocol.notify(payload))
        self._out.append(frame)
        return frame

    def send(self) -> None:
        """Send once, as much as the socket takes. Never waits, never raises."""
        out = self._out
        if not out or self._end is not None:
            return
        if len(out) == 1:
            data = out[0].data
        else:
            data = b"".join([out[i].data for i in range(min(len(out), _MOST_JOINED))])
        try:
            sent = self._socket.send(data, _SEND_FLAGS)
        except BlockingIOError:
            return
        except OSError:  # EPIPE, ECONNRESET
            waiting = {frame.call_id for frame in out}
            self.untouched = not out[0].begun and self._awaited <= waiting
            self._read_to_the_end()
            return
        while sent:
            first = out[0]
            if sent < len(first.data):
                first.data = memoryview(first.data)[sent:]
                first.begun = True
                return
            sent -= len(first.data)
            out.popleft()

    def flush(self, deadline: float) -> None:
        """Send all that waits, and meanwhile take in answers.

        Raises TimedOut, PeerGone, or the CommandError with which the server ended it all.
        """
        self.send()
        while self._out:
            if self._end is not None:
                raise self._end()
            self._wait(deadline)

    def wait_for(self, call_id: int, deadline: float) -> Reply:
        """Return the reply to a call that was posted. Raises as `flush`."""
        while True:
            reply = self._replies.pop(call_id, None)
            if reply is not None:
                self._awaited.discard(call_id)
                return reply
            if self._end is not None:
                self._awaited.discard(call_id)
                raise self._end()
            self._wait(deadline)

    def give_up(self, call_id: int) -> bool:
        """Cancel a call and forget it; return whether a byte of it was sent. Never waits."""
        self._awaited.discard(call_id)
        if self._replies.pop(call_id, None) is not None or self._end is not None:
            return True
        for frame in self._out:
            if frame.call_id == call_id and self.take_back(frame):
                self._protocol.forget(call_id)
                return False
        self._out.append(Outgoing(None, self._protocol.cancel(call_id)))
        self.send()
        return True

    def take_back(self, frame: Outgoing) -> bool:
        """Forget a frame that waits to be sent; return False if some or all of it was sent."""
        if frame.begun or frame not in self._out:
            return False
        self._out.remove(frame)
        return True

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._finish(lambda: PeerGone("this client closed the connection before the answer"))
        self._socket.close()

    # -----------------------------------------------------------------------------------------
    # Inside

    def _wait(self, deadline: float) -> None:
        """Wait until something can be received or sent, and do it. Raises TimedOut."""
        wants_room = bool(self._out)
        if wants_room is not self._wants_room:
            self._wants_room = wants_room
            self._poll.modify(self._socket, select.POLLIN | (select.POLLOUT if wants_room else 0))
        seconds = min(deadline - time.monotonic(), _LONGEST_WAIT)
        # Rounded up: waking before the deadline would turn into a busy loop.
        ready = self._poll.poll(max(0, math.ceil(seconds * 1000)))
        if not ready:
            if time.monotonic() >= deadline:
                raise TimedOut
            return
        mask = ready[0][1]
        if mask & ~select.POLLOUT:
            self._receive()
        if mask & select.POLLOUT:
            self.send()

    def _receive(self) -> bool:
        """Read once; return whether there may be more."""
        try:
            data = self._socket.recv(self._read_size)
        except BlockingIOError:
            return False
        except OSError:  # ECONNRESET: it closed and left our bytes unread
            data = b""
        self._protocol.receive(data)
        try:
            while (response := self._protocol.next_response()) is not None:
                self._dispatch(response)
        except WireError as error:
            message = f"the program sent what is no answer: {error.message} ({self.path})"
            self._finish(lambda: PeerGone(message))
            return False
        if not data:
            message = f"the program closed the connection before the answer ({self.path})"
            self._finish(lambda: PeerGone(message))
        return bool(data)

    def _read_to_the_end(self) -> None:
        """After a failed send: take in the answers that came before the end."""
        while self._end is None and self._receive():
            pass
        message = f"the program closed the connection before the answer ({self.path})"
        self._finish(lambda: PeerGone(message))

    def _dispatch(self, response: Answer | Failure | Piece) -> None:
        if isinstance(response, Piece):
            return  # a stream's; `call` wants only its end
        if response.call_id is None:
            self._finish(_again(response.error))
        elif response.call_id in self._awaited:
            self._replies[response.call_id] = response

    def _finish(self, end: Callable[[], Exception]) -> None:
        """Let every call in flight, and all later ones, end with what `end` makes."""
        if self._end is None:
            self._end = end


def _again(error: CommandError) -> Callable[[], Exception]:
    """Return a maker of equal errors: one exception raised twice would mix its tracebacks."""
    return lambda: error_from_wire(error.code, error.message, error.data)
