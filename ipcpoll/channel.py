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
from contextlib import ExitStack
from typing import Final, TypeAlias

from . import reasons
from .codec import Decoder
from .descriptors import unix_socket
from .directory import MOST_PATH_BYTES, reach, why_not_private
from .errors import NotAnswered, NotPolled, PeerGone, WireError
from .limits import KIB, Limits
from .peer import NOBODY, Credentials, credentials, has_unread
from .protocol import Answer, ClientProtocol, Failure, Piece

Reply: TypeAlias = "Answer | Failure"

_FIRST_RETRY: Final = 0.001
_LONGEST_RETRY: Final = 0.050
_REFUSALS: Final = 3  # a server that is just starting refuses for a moment, before it listens
_LONGEST_WAIT: Final = 3600.0  # poll(2) takes an int of milliseconds
_MOST_JOINED: Final = 64  # frames in one send
_MOST_SENT: Final = 256 * KIB  # bytes in one send, about what a socket takes
_MOST_LATE: Final = 8  # reads behind the deadline: what a socket holds has come in time
_SEND_FLAGS: Final = getattr(socket, "MSG_NOSIGNAL", 0)


class TimedOut(Exception):
    """The deadline passed. Internal: the client says what it means."""


class WaitTime:
    """A time limit in seconds and when it is over, on `time.monotonic`. None: no limit."""

    __slots__ = ("deadline", "seconds")

    def __init__(self, seconds: float | None) -> None:
        if seconds is None:
            self.seconds = self.deadline = math.inf
            return
        if not seconds >= 0:  # NaN is not
            raise ValueError(f"a timeout must be at least 0, not {seconds}")
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds


class BackOff:
    """Pauses between attempts where nothing tells when the next one may succeed.

    From 1 to 50 ms, each twice the last. With jitter, so that many clients do not come at once.
    """

    __slots__ = ("_pause",)

    def __init__(self) -> None:
        self._pause = _FIRST_RETRY

    def sleep(self, most: float) -> None:
        """Wait before the next attempt, at most so many seconds; 0 or less: do not wait."""
        jitter = 0.5 + os.urandom(1)[0] / 512
        time.sleep(min(self._pause * jitter, max(0.0, most)))
        self._pause = min(2 * self._pause, _LONGEST_RETRY)


def connect(path: str, wait: WaitTime) -> tuple[socket.socket, Credentials]:
    """Return a non-blocking socket connected to `path`, and who is at the other end.

    That is a process of this user, or it raises UntrustedPeer. Raises NotRunning, StaleSocket,
    NotPolled (the backlog was full until the deadline), OSError as connect(2).
    """
    with ExitStack() as stack:
        address = path
        if len(os.fsencode(path)) > MOST_PATH_BYTES:
            parent, name = os.path.split(path)
            try:
                directory = reach(parent)
            except (FileNotFoundError, NotADirectoryError):
                raise reasons.nothing_there(path) from None
            except PermissionError:
                raise reasons.not_allowed(path) from None
            stack.callback(directory.close)
            address = directory.address_of(name)
        return _connect(path, address, wait)


def _connect(path: str, address: str, wait: WaitTime) -> tuple[socket.socket, Credentials]:
    back_off = BackOff()
    refusals = 0
    while True:
        with ExitStack() as undo:
            sock = undo.enter_context(unix_socket())
            # Non-blocking: over AF_UNIX a connection is made at once, and a full backlog is EAGAIN.
            # A blocking connect(2) that a signal interrupts can seem to succeed.
            result = sock.connect_ex(address)
            if result == 0:
                who = credentials(sock)
                if who.uid == os.geteuid():
                    undo.pop_all()
                    return sock, who
                if who.uid != NOBODY:
                    raise reasons.other_user(path, who)
                result = errno.EAGAIN  # it is not connected after all
        now = time.monotonic()
        if result in (errno.ENOENT, errno.ENOTDIR):
            raise reasons.nothing_there(path)
        if result in (errno.EACCES, errno.EPERM):
            raise reasons.not_allowed(path)
        if result == errno.ECONNREFUSED:
            refusals += 1
            if refusals >= _REFUSALS or now >= wait.deadline:
                raise reasons.nobody_listens(path)
        elif result not in (errno.EAGAIN, errno.EINTR):
            raise OSError(result, f"the program can't be reached: {os.strerror(result)}", path)
        elif now >= wait.deadline:
            raise reasons.backlog_full(path, wait.seconds)
        back_off.sleep(wait.deadline - now)


def _check_private(path: str) -> None:
    """Raise UntrustedPeer where others could lead a name to another program of this user."""
    parent = os.path.dirname(path)
    try:
        fault = why_not_private(os.lstat(parent))
    except OSError:
        return  # connecting says what is wrong
    if fault is not None:
        raise reasons.unsafe_directory(path, parent, fault)


class _SelectPoll:
    """As much of `select.poll` as is needed here, by `select.select`.

    eventlet takes the one away and gives the other, which lets other greenlets run meanwhile and
    takes a descriptor of any number.
    """

    def register(self, sock: socket.socket, mask: int) -> None:
        """Watch this socket, and no other."""
        self._sock = sock
        self._mask = mask

    modify = register

    def poll(self, milliseconds: int) -> list[tuple[int, int]]:
        """Return what is ready within the time."""
        room = [self._sock] if self._mask & select.POLLOUT else []
        readable, writable, _ = select.select([self._sock], room, [], milliseconds / 1000)
        mask = (select.POLLIN if readable else 0) | (select.POLLOUT if writable else 0)
        return [(self._sock.fileno(), mask)] if mask else []


class Outgoing:
    """One frame that waits to be sent. `call_id` None: a notification or a cancel."""

    __slots__ = ("begun", "call_id", "data")

    def __init__(self, call_id: int | None, data: bytes) -> None:
        self.call_id = call_id
        self.data: bytes | memoryview = data
        self.begun = False  # some of it was sent, so the rest must follow


class Channel:
    """One connection to a server, and the calls in flight on it."""

    def __init__(self, path: str, limits: Limits, wait: WaitTime, *, private: bool = False) -> None:
        self.path = path
        if private:
            _check_private(path)
        self.untouched = False
        """The other end had closed, and nothing of what waits has reached it: ask elsewhere."""
        self._socket, self.server = connect(path, wait)
        self._protocol = ClientProtocol(limits, Decoder())
        self._read_size = limits.read_size
        self._out: deque[Outgoing] = deque()
        self._replies: dict[int, Reply] = {}
        self._awaited: set[int] = set()
        self._last: int | None = None  # the call whose bytes were sent last; None: no call's
        self._unread = False  # the server has gone, and had not read the calls that waited
        self._left_unread: set[int] = set()  # given up, and known to be unread then
        self._end: Callable[[], Exception] | None = None  # makes what later calls raise
        self._poll = select.poll() if hasattr(select, "poll") else _SelectPoll()
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
            joined = size = 0
            while joined < min(len(out), _MOST_JOINED) and size < _MOST_SENT:
                size += len(out[joined].data)
                joined += 1
            data = b"".join([out[i].data for i in range(joined)])
        try:
            sent = self._socket.send(data, _SEND_FLAGS)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # EPIPE, ECONNRESET
            waiting = {frame.call_id for frame in out}
            self._unread = self._awaited <= waiting
            self.untouched = self._unread and not out[0].begun
            self._read_to_the_end()
            return
        while sent:
            first = out[0]
            self._last = first.call_id
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
        late = 0
        while True:
            reply = self._replies.pop(call_id, None)
            if reply is not None:
                self._awaited.discard(call_id)
                return reply
            if self._end is not None:
                self._awaited.discard(call_id)
                raise self._end()
            if time.monotonic() >= deadline:
                late += 1  # what has come already is taken in, but not for ever
                if late > _MOST_LATE:
                    raise TimedOut
            self._wait(deadline)

    def overdue(self, call_id: int, name: str, seconds: float) -> NotPolled | NotAnswered:
        """Give a call up whose time is over, and return what is known of it. Never waits."""
        unread = self._is_unread(call_id)
        was_sent = self.give_up(call_id)
        if unread:
            self._left_unread.add(call_id)
            return reasons.not_read(self.path, self.server, name, seconds)
        if was_sent:
            return reasons.not_answered(self.path, self.server, name, seconds)
        return reasons.no_room(self.path, self.server, name, seconds, "it was not sent")

    def _is_unread(self, call_id: int) -> bool:
        """Return whether it is known that the server has not read the whole of a call.

        What the kernel tells is about the last byte that was sent. And a server that has calls of
        this connection may leave the next ones unread for a while: it is polled all the same.
        """
        others = self._protocol.calls.keys() - {call_id} - self._left_unread
        if others or self._end is not None:
            return False
        if any(frame.call_id == call_id and frame.begun for frame in self._out):
            return True
        return self._last == call_id and has_unread(self._socket) is True

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
        if self._out and self._last == call_id and not self._out[0].begun:
            # It was sent whole, and there is no room for its cancel: nobody would send that later.
            # Going away cancels it as well.
            self.close()
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
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionResetError:  # it closed and left bytes of ours unread, the last at least
            data = b""
            self._unread = self._unread or self._protocol.calls.keys() == {self._last}
        except OSError:
            data = b""
        self._protocol.receive(data)
        try:
            while (response := self._protocol.next_response()) is not None:
                self._dispatch(response)
        except WireError as error:
            fault = error.message
            self._finish(lambda: reasons.no_answer(self.path, self.server, fault))
            return False
        if not data:
            self._finish(self._gone)
        return bool(data)

    def _read_to_the_end(self) -> None:
        """After a failed send: take in the answers that came before the end."""
        while self._end is None and self._receive():
            pass
        self._finish(self._gone)

    def _gone(self) -> PeerGone:
        return reasons.gone(self.path, self.server, unread=self._unread)

    def _dispatch(self, response: Answer | Failure | Piece) -> None:
        if isinstance(response, Piece):
            return  # a stream's; `call` wants only its end
        if response.call_id is not None:
            self._left_unread.discard(response.call_id)
        if response.call_id is None:
            self._finish(reasons.told_to_all(self.path, self.server, response.error))
        elif response.call_id in self._awaited:
            self._replies[response.call_id] = response

    def _finish(self, end: Callable[[], Exception]) -> None:
        """Let every call in flight, and all later ones, end with what `end` makes."""
        if self._end is None:
            self._end = end
