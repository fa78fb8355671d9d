"""The client's connection: send, wait for answers, all within a deadline.

What is promised:

* Nothing waits beyond its deadline (absolute, `time.monotonic` seconds; ``math.inf``: none),
  however often a signal interrupts it.
* While a frame waits for room to be sent, answers are taken in: two ends that fill each other's
  buffers never stand still.
* A call that is given up stays a call until its answer has come; that answer is dropped.

What comes is kept for a method that waits for it (`wait_for`), or given to the call's `ReplySink`.
It knows frames and ids, not commands; those are `client`'s.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol, TypeAlias, TypeVar

from .._attach.oneself import served_behind
from .._shown import shown_path
from .._system.peer import Credentials, has_unread
from .._system.sockets import FIRST_READ, SEND_FLAGS, next_read_size
from .._wire.codec import Decoder, encode
from .._wire.framing import Payload
from .._wire.messages import Answer, Failure, Piece
from .._wire.protocol import ClientProtocol
from .._wire.states import CallState
from ..errors import IpcError, NotAnswered, NotPolled, PeerGone, WireError
from ..limits import KIB, Limits
from . import reasons

Reply: TypeAlias = "Answer | Failure"
T = TypeVar("T")

_LONGEST_WAIT: Final = 3600.0  # poll(2) takes an int of milliseconds
_MOST_JOINED: Final = 64  # frames in one send
_MOST_SENT: Final = 256 * KIB  # bytes in one send, about what a socket takes
MOST_LATE: Final = 8
"""Reads behind a deadline: what a socket holds has come in time."""
SENT: Final = Answer(0, None)
"""What the taker of a notification gets when the kernel has it."""


class TimedOut(Exception):
    """The deadline passed. Internal: the client says what it means."""


def _milliseconds(deadline: float) -> int:
    """Return the time until then for poll(2). Rounded up: too early would be a busy loop."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        return 0
    return int(seconds * 1000) + 1 if seconds < _LONGEST_WAIT else int(_LONGEST_WAIT * 1000)


class ReplySink(Protocol):
    """Whoever gets what comes for one call, as it comes; see `ClientConnection.expect`."""

    def take(self, response: Answer | Failure | Piece) -> None:
        """Get a piece, or the reply, behind which nothing comes."""
        ...

    def lose(self, end: Callable[[], Exception]) -> None:
        """Learn that nothing will come. `end` makes the exception that says why."""
        ...


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

    __slots__ = ("begun", "call_id", "data", "taker")

    def __init__(self, call_id: int | None, data: bytes | memoryview) -> None:
        self.call_id = call_id
        self.data = data
        self.begun = False  # some of it was sent, so the rest must follow
        self.taker: ReplySink | None = None  # of a notification: is told when all of it was sent


class ClientConnection:
    """One connection to a server, and the calls in flight on it."""

    def __init__(self, path: str, limits: Limits, sock: socket.socket, server: Credentials) -> None:
        self.path = path
        self._shown = shown_path(path)
        self.server = server
        self.untouched = False
        """The other end had closed, and nothing of what waits has reached it: ask elsewhere."""
        self.more = False
        """There may be more to receive: the last read has filled its buffer."""
        self.on_close: Callable[[], None] | None = None
        """Is called before the socket is closed, by what watches it in a loop."""
        self._socket = sock
        self._is_hurried = False
        self._protocol = ClientProtocol(limits, Decoder())
        self.new_id = self._protocol.new_id
        self._read_size = limits.read_size
        self._reads = min(FIRST_READ, limits.read_size)  # bytes that the next read takes
        self._out: deque[Outgoing] = deque()
        self._replies: dict[int, Reply] = {}
        self._awaited: set[int] = set()
        self._takers: dict[int, ReplySink] = {}
        self._at_end = False  # nothing more will be received
        self._untaken = False  # frames were received and not taken
        self._last: int | None = None  # the call whose bytes were sent last; None: no call's
        self._unread = False  # the server has gone, and had not read the calls that waited
        self._left_unread: set[int] = set()  # given up, and known to be unread then
        self._end: Callable[[], Exception] | None = None  # makes what later calls raise
        self._tells = False  # those who wait, of the end
        self._served = served_behind(path) if server.pid == os.getpid() else None
        self._poll = select.poll() if hasattr(select, "poll") else _SelectPoll()
        self._poll.register(self._socket, select.POLLIN)
        self._wants_room = False  # the poll object waits for room to send too

    @property
    def usable(self) -> bool:
        """Whether a new call can be made on it."""
        return self._end is None

    @property
    def is_idle(self) -> bool:
        """Whether no call is in flight and nothing waits, either way, and no look is needed at who
        polls the server."""
        return not (
            self._protocol.calls
            or self._out
            or self._untaken
            or self._end
            or self._wants_room
            or self._served
        )

    @property
    def wants_room(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._out) and self._end is None

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._socket.fileno()

    # -----------------------------------------------------------------------------------------
    # Calls

    def post(self, call_id: int, payload: Payload) -> None:
        """Let a call wait to be sent. Raises FrameTooLarge."""
        try:
            self._out.append(Outgoing(call_id, self._protocol.call(call_id, payload)))
            self._awaited.add(call_id)
        except IpcError:
            raise
        except BaseException:
            self.end_interrupted()
            raise

    def expect(self, call_id: int, taker: ReplySink) -> None:
        """Give `taker` what comes for a call that was posted, and keep nothing for `wait_for`."""
        self._awaited.discard(call_id)
        if self._end is None:
            self._takers[call_id] = taker
        else:
            taker.lose(self._end)

    def send_single(self, payload_of: Callable[[bytes, T], Payload], command: T) -> int:
        """Send a call at once on an idle connection; return its id, 0 if it was not sent.

        `payload_of` makes its payload of the encoded id and the command. A fast path for `post` and
        `send`: without it a call takes 1.05 times as long (both processes on one core). Never
        waits. Raises FrameTooLarge and what `payload_of` does.
        """
        call_id = self.new_id()
        payload = payload_of(encode(call_id), command)
        try:
            frame = self._protocol.call(call_id, payload)
            self._awaited.add(call_id)
            try:
                sent = self._socket.send(frame, SEND_FLAGS)
            except OSError:
                self._awaited.discard(call_id)
                self._protocol.forget(call_id)
                return 0
            self._last = call_id
            if sent < len(frame):
                rest = Outgoing(call_id, memoryview(frame)[sent:])
                rest.begun = True
                self._out.append(rest)
        except IpcError:
            raise
        except BaseException:
            self.end_interrupted()
            raise
        return call_id

    def post_notification(self, payload: Payload) -> Outgoing:
        """Let a notification wait to be sent. Raises FrameTooLarge."""
        frame = Outgoing(None, self._protocol.notify(payload))
        try:
            self._out.append(frame)
        except BaseException:
            self.end_interrupted()
            raise
        return frame

    def expect_sent(self, frame: Outgoing, taker: ReplySink) -> None:
        """Give `taker` `SENT` when a notification was sent."""
        if frame not in self._out:
            taker.take(SENT)
        elif self._end is None:
            frame.taker = taker
        else:
            taker.lose(self._end)

    def send(self) -> None:
        """Send once, as much as the socket takes. Never waits, never raises."""
        if self._out and self._end is None:
            try:
                self._send()
            except BaseException:
                self.end_interrupted()
                raise

    def _send(self) -> None:
        out = self._out
        if len(out) == 1 or len(out[0].data) >= _MOST_SENT:
            data = out[0].data
        else:
            joined = size = 0
            while joined < min(len(out), _MOST_JOINED) and size < _MOST_SENT:
                size += len(out[joined].data)
                joined += 1
            data = b"".join([out[i].data for i in range(joined)])
        try:
            sent = self._socket.send(data, SEND_FLAGS)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # EPIPE, ECONNRESET
            waiting = {frame.call_id for frame in out}
            self._unread = waiting >= (self._awaited | self._takers.keys())
            self.untouched = not out[0].begun
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
            if first.taker is not None:
                first.taker.take(SENT)

    def flush(self, deadline: float) -> None:
        """Send all that waits, and meanwhile take in answers.

        Raises TimedOut, PeerGone, or the CommandError with which the server ended it all.
        """
        self.send()
        while self._out:
            if self._end is not None:
                raise self._end()
            if self._served is not None:
                self.refuse_oneself(deadline, "it found no room to be sent")
            self.wait(deadline)
            self._take_all()
            if self._out and time.monotonic() >= deadline:
                raise TimedOut  # poll(2) tells of room, and there is none

    def wait_for(self, call_id: int, deadline: float) -> Reply:
        """Return the reply to a call that was posted. Raises as `flush`."""
        late = 0
        if self._untaken:
            self._take_all()
        elif not (self._out or self._wants_room or self._replies):
            answer = self._wait_alone(call_id, deadline)
            if answer is not None:
                return answer
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
                if late > MOST_LATE:
                    raise TimedOut
            if self._served is not None and not self._comes():
                self.refuse_oneself(deadline, "the call was sent, and is cancelled")
            self.wait(deadline)
            self._take_all()

    def wait_for_others(self, deadline: float) -> None:
        """Wait as `wait`; raise UsageError if the calling thread would wait for itself."""
        if self._served is not None and not self._comes():
            self.refuse_oneself(deadline, "the call was sent, and is answered when it polls")
        self.wait(deadline)

    def refuse_oneself(self, deadline: float, became: str) -> None:
        """Raise UsageError if who calls would wait, until then, for its own thread."""
        if self._served is not None and deadline > time.monotonic():
            self._served.refuse(self.path, became)

    def _comes(self) -> bool:
        """Return whether something can be received or sent now."""
        return bool(self._poll.poll(0))

    def come(self, call_ids: Iterable[int]) -> list[Reply]:
        """Return the replies to these calls that have come, up to the first that has not."""
        replies: list[Reply] = []
        for call_id in call_ids:
            reply = self._replies.pop(call_id, None)
            if reply is None:
                break
            self._awaited.discard(call_id)
            replies.append(reply)
        return replies

    def _wait_alone(self, call_id: int, deadline: float) -> Answer | None:
        """Wait for what comes next; return it, if it is the answer to this call and nothing else.

        The same as `wait` and `_take_all`, and shorter. None: it was taken in, or nothing came.
        """
        protocol = self._protocol
        if len(protocol.calls) != 1 or not self._poll.poll(_milliseconds(deadline)):
            return None
        try:
            data = self._read()
            answer = protocol.only_answer(data) if data else None
            if answer is None:
                self._take_in(data)
            else:
                self._awaited.discard(call_id)
        except BaseException:
            self.end_interrupted()
            raise
        if answer is None:
            self._take_all()
        return answer

    def overdue(self, call_id: int, name: str, seconds: float) -> NotPolled | NotAnswered:
        """Give a call up whose time is over, and return what is known of it. Never waits."""
        unread = self._is_unread(call_id)
        hint = "" if self._served is None else self._served.hint
        was_sent = self.give_up(call_id)
        if unread:
            self._left_unread.add(call_id)
            return reasons.not_read(self._shown, self.server, name, seconds, hint)
        if was_sent:
            return reasons.not_answered(self._shown, self.server, name, seconds, hint)
        return reasons.no_room(self._shown, self.server, name, seconds, "it was not sent", hint)

    def overdue_notification(self, frame: Outgoing, name: str, seconds: float) -> NotPolled:
        """Take a notification back whose time is over, and say whether that was possible."""
        sent = "it was not sent" if self.take_back(frame) else "a part of it was sent"
        return reasons.no_room(self._shown, self.server, name, seconds, sent)

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
        """Cancel a call and forget it; return whether a byte of it was sent. Never waits.

        Idempotent. Does nothing with what was answered, or was never posted.
        """
        self._awaited.discard(call_id)
        self._takers.pop(call_id, None)
        if self._replies.pop(call_id, None) is not None or self._end is not None:
            return True
        if self._protocol.calls.get(call_id) is not CallState.IN_FLIGHT:
            return True
        for frame in self._out:
            if frame.call_id == call_id and self.take_back(frame):
                self._protocol.forget(call_id)
                return False
        cancel = Outgoing(None, b"")
        cancel.data = self._protocol.cancel(call_id)  # which notes that as its last step
        self._out.append(cancel)
        self.send()
        out = self._out
        if self.on_close is None and out and self._last == call_id and not out[0].begun:
            # It was sent whole, and there is neither room for its cancel nor a loop that would
            # send it later. Going away cancels it as well.
            self.close()
        return True

    def take_back(self, frame: Outgoing) -> bool:
        """Forget a frame that waits to be sent; return False if some or all of it was sent."""
        if not self.waits(frame):
            return False
        self._out.remove(frame)
        return True

    def waits(self, frame: Outgoing) -> bool:
        """Return whether not a byte of a frame was sent."""
        return not frame.begun and frame in self._out

    def is_unsent(self, call_id: int) -> bool:
        """Return whether not a byte of a call was sent."""
        return any(frame.call_id == call_id and not frame.begun for frame in self._out)

    def abandon(self) -> None:
        """Close the socket in a forked child, and tell nobody."""
        self._takers.clear()
        self.on_close = None
        self.close()

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._finish(reasons.closed_here)
        if self.on_close is not None:
            self.on_close()
            self.on_close = None  # then: an interruption must not leave it watched
        self._socket.close()

    # -----------------------------------------------------------------------------------------
    # Inside, and for whoever watches it in a loop

    def wait(self, deadline: float) -> None:
        """Wait until something can be received or sent, and do it, once. Raises TimedOut."""
        wants_room = bool(self._out)
        if wants_room is not self._wants_room:
            self._wants_room = wants_room
            self._poll.modify(self._socket, select.POLLIN | (select.POLLOUT if wants_room else 0))
        ready = self._poll.poll(_milliseconds(deadline))
        if not ready:
            if time.monotonic() >= deadline:
                raise TimedOut
            return
        mask = ready[0][1]
        if mask & ~select.POLLOUT:
            self.receive()
        if mask & select.POLLOUT:
            self.send()

    def receive(self) -> bool:
        """Read once; return whether there may be more. The frames wait to be taken."""
        try:
            data = self._read()
            self._take_in(data)
        except BaseException:
            self.end_interrupted()
            raise
        return bool(data)

    def _read(self) -> bytes | None:
        """Read once and return what came; empty: the end, also by a failure; None: nothing."""
        try:
            return self._socket.recv(self._reads)
        except (BlockingIOError, InterruptedError):
            return None
        except ConnectionResetError:  # it closed and left bytes of ours unread, the last at least
            self._unread = self._unread or self._protocol.calls.keys() == {self._last}
        except OSError:
            pass
        return b""

    def _take_in(self, data: bytes | None) -> None:
        """Give the protocol what was read."""
        self._untaken = True
        if data is None:
            self.more = False
        else:
            self._protocol.receive(data)
            self._at_end = not data
            self.more = len(data) >= self._reads
            self._reads = next_read_size(self._reads, len(data), self._read_size)

    @property
    def has_work(self) -> bool:
        """Whether there is a whole frame to take, or the end, or maybe more to receive."""
        return self.more or (self._untaken and (bool(self._protocol.waiting) or self._at_end))

    def take(self) -> bool:
        """Take one frame that was received, and the end behind the last; False: there is none."""
        if not self._untaken:
            return False
        try:
            response = self._protocol.next_response()
            if response is not None:
                self._dispatch(response)
                return True
        except WireError as error:
            self._untaken = False
            self._end_badly(error.message)
            return False
        except BaseException:
            self.end_interrupted()
            raise
        self._untaken = False
        if self._at_end:
            self._finish(self._gone)
        return False

    def _take_all(self) -> None:
        """Take all that was received. The same as `take` again and again, and faster."""
        next_response = self._protocol.next_response
        awaited, replies = self._awaited, self._replies
        try:
            while (response := next_response()) is not None:
                call_id = response.call_id
                if type(response) is Answer and call_id in awaited and not self._left_unread:
                    replies[call_id] = response
                else:
                    self._dispatch(response)
        except WireError as error:
            self._end_badly(error.message)
        except BaseException:
            self.end_interrupted()
            raise
        self._untaken = False
        if self._at_end:
            self._finish(self._gone)

    def end_interrupted(self) -> None:
        """After an interruption (Ctrl-C) in the midst of the work.

        Bytes may have been sent that would be sent again, or an answer taken that nobody got.
        """
        self._finish(reasons.interrupted_here)

    def _end_badly(self, fault: str) -> None:
        self._finish(lambda: reasons.no_answer(self._shown, self.server, fault))

    def _read_to_the_end(self) -> None:
        """After a failed send: take in the answers that came before the end."""
        more = True
        while self._end is None and more:
            more = self.receive()
            self._take_all()  # also what an earlier read has left
        self._finish(self._gone)

    def hurry(self) -> None:
        """Let whoever waits on it wait no more: it is to be closed. Legal in signal handlers."""
        self._is_hurried = True
        with contextlib.suppress(OSError):  # it is closed, or not connected any more
            self._socket.shutdown(socket.SHUT_RDWR)

    def _gone(self) -> PeerGone:
        if self._is_hurried:
            return reasons.closed_here()
        return reasons.gone(self._shown, self.server, unread=self._unread)

    def _gone_unread(self) -> PeerGone:
        return reasons.gone(self._shown, self.server, unread=True)

    def _dispatch(self, response: Answer | Failure | Piece) -> None:
        call_id = response.call_id
        if isinstance(response, Piece):
            if response.call_id in self._takers:  # else `call` made it, and wants only the end
                self._takers[response.call_id].take(response)
        elif call_id is None:
            assert isinstance(response, Failure)
            self._finish(reasons.told_to_all(self._shown, self.server, response.error))
        else:
            self._left_unread.discard(call_id)
            if call_id in self._awaited:
                self._replies[call_id] = response
            elif call_id in self._takers:
                self._takers[call_id].take(response)
                self._takers.pop(call_id, None)  # then: an interruption must not lose it

    def _finish(self, end: Callable[[], Exception]) -> None:
        """Let every call in flight, and all later ones, end with what `end` makes.

        What was interrupted in here is done by the next that comes.
        """
        if self._end is None:
            self._end = end
        if (self._takers or self._out) and not self._tells:
            self._tells = True
            try:
                self._tell_takers(self._end)
            finally:
                self._tells = False

    def _tell_takers(self, end: Callable[[], Exception]) -> None:
        """Tell each, and then forget it: an interruption must not lose it."""
        unread = {frame.call_id for frame in self._out if not frame.begun and end == self._gone}
        for call_id, taker in list(self._takers.items()):
            taker.lose(self._gone_unread if call_id in unread else end)
            self._takers.pop(call_id, None)
        for frame in self._out:
            if frame.taker is not None:
                frame.taker.lose(end)
                frame.taker = None
