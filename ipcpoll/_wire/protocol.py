"""One connection's conversation: bytes to messages and back, for either end. No socket, no clock.

Feed what was received with `receive` (``b""`` is the end of file); take messages one by one with
`ServerProtocol.next_request` or `ClientProtocol.next_response`; the methods that make a message
return the bytes to send. What a message is stands in `messages`, what is legal in `states`.

What is promised:

* Any bytes give messages or `WireError`, nothing else, the same however they were split (but
  for `Call.cancelled`, which tells what has come by then).
* At most ``max_frames_waiting`` payloads are taken apart ahead of their turn; the rest stays in
  the frame buffer, which is bounded.
* `receive` never raises: the fault comes behind the messages before it.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from ..errors import MALFORMED, CommandError, FrameTooLarge, WireError
from ..limits import LEAST_ERROR, Limits
from . import codec
from .framing import (
    FrameBuffer,
    Payload,
    frame,
    frame_of,
    only_payload,
    size_of,
)
from .messages import (
    ANSWER,
    ANSWER_ITEM,
    ARRAY_HEADS,
    ERROR,
    ERROR_ITEM,
    ID_ENDS,
    LONG_CALL,
    NULL,
    NULL_HEAD,
    PIECE,
    PIECE_ITEM,
    SHORT_CALL,
    SHORT_HEAD,
    Answer,
    Call,
    Cancel,
    Failure,
    Piece,
    ReadCall,
    array_of,
    cancelled_id,
    is_id,
    parse_error,
    parse_notes,
    parse_options,
    peek_id,
    text,
)
from .states import CALL, LINK, CallEvent, CallState, IllegalTransition, Link, LinkEvent, step

_ABOUT_AN_ANSWER: Final = 11  # bytes around its item at the most: an array's head, an id, the 0
_SMALL_ANSWER: Final = 18  # bytes of an item behind which a frame still has the shortest head
_ABOUT_A_PIECE: Final = 32  # bytes around an item: an array's head, an id, the notes
_OPEN: Final = Link.OPEN
_TAKING: Final = frozenset(link for link, events in LINK.items() if LinkEvent.TAKE in events)
_SENDING: Final = frozenset(link for link, events in LINK.items() if LinkEvent.SEND in events)
_BEGUN: Final = CALL[CallState.NONE][CallEvent.CALL]
_new: Final = tuple.__new__  # a named tuple's own is written in Python and costs four times as much


class _Protocol:
    """What both ends share: the link's state and the payloads that wait for their turn."""

    def __init__(self, limits: Limits, decoder: codec.Decoder, max_payload: int) -> None:
        self.link = Link.OPEN
        self.calls: dict[int, CallState] = {}
        self._decoder = decoder
        self._buffer = FrameBuffer(max_payload)
        self._max_payload = max_payload
        self.waiting: deque[bytes | WireError] = deque()
        """The payloads that can be taken now, up to the limit, and the fault behind them."""
        self.bytes_waiting = 0
        """How many bytes are kept that were received and not taken."""
        self._most_waiting = limits.max_frames_waiting
        self._more = False  # the looking ahead stopped at its limit, not for want of bytes
        self._looks_at = self._most_waiting  # so few must wait for it to go on
        self._received_at = 0.0

    def receive(self, data: bytes, now: float = 0.0) -> None:
        """Take in what was received; ``b""`` is the end of file. Never raises.

        `now` is when, in seconds on any clock; a call's time limit is counted from it.
        """
        self._received_at = now
        if data:
            if self._buffer.broken or self.link not in _TAKING:
                return  # nothing behind the fault, or after the end, is ever taken
            self._buffer.feed(data)
            self.bytes_waiting += len(data)
            if len(self.waiting) < self._most_waiting:
                self._look_ahead()
        elif LinkEvent.END in LINK[self.link]:
            self.link = LINK[self.link][LinkEvent.END]

    def hang_up(self) -> None:
        """Note that the peer has wholly gone."""
        self.link = step(LINK, self.link, LinkEvent.HANG_UP)

    def close(self) -> None:
        """Note that this end closed the connection."""
        self.link = step(LINK, self.link, LinkEvent.CLOSE)
        self.waiting.clear()
        self.bytes_waiting = len(self._buffer)

    @property
    def can_send(self) -> bool:
        """Whether anything can be sent to the peer."""
        return self.link in _SENDING

    def forget(self, call_id: int) -> None:
        """Note that a call will neither be sent nor answered after all."""
        self.calls.pop(call_id, None)

    def _look_ahead(self) -> None:
        waiting = self.waiting
        payloads = self._buffer.take(self._most_waiting - len(waiting))
        waiting.extend(payloads)
        self.bytes_waiting -= self._buffer.dropped
        self._more = len(waiting) >= self._most_waiting
        if not self._more and (fault := self._buffer.fault) is not None:
            waiting.append(fault)
        self._saw(payloads)

    def _saw(self, payloads: list[bytes]) -> None:
        """Look at payloads that have just arrived, before their turns."""

    def _take(self) -> bytes | None:
        """Take the next payload; raise the fault behind the last."""
        if not self.waiting:
            return None
        payload = self.waiting.popleft()
        if type(payload) is not bytes:
            self.link = step(LINK, self.link, LinkEvent.LOSE)
            assert isinstance(payload, WireError)
            raise payload
        # Nothing waits where nothing may be taken: see `receive` and `close`.
        self.bytes_waiting -= len(payload)
        if self._more and len(self.waiting) <= self._looks_at:
            self._look_ahead()
        return payload

    def _send(self, payload: Payload, limit: int) -> bytes:
        size = size_of(payload)
        if size > limit:
            raise FrameTooLarge(f"the frame has {size} bytes, the limit is {limit}")
        if self.link is not _OPEN:  # sending leaves it open
            self.link = step(LINK, self.link, LinkEvent.SEND)
        return frame_of(payload)

    def _move(self, call_id: int, event: CallEvent) -> CallState:
        """Move a call along its table. Raises IllegalTransition."""
        state = step(CALL, self.calls.get(call_id, CallState.NONE), event)
        if state is CallState.NONE:
            self.calls.pop(call_id, None)
        else:
            self.calls[call_id] = state
        return state


class ServerProtocol(_Protocol):
    """The server's end of one connection."""

    def __init__(
        self, limits: Limits, decoder: codec.Decoder, read: ReadCall = lambda *_: None
    ) -> None:
        super().__init__(limits, decoder, limits.max_frame)
        self._read = read
        self._max_answer = limits.max_answer
        self._cancels: dict[int, int] = {}  # how many cancels of an id wait
        # When each waiting payload came that is no short array. Frames that were not taken apart
        # yet came with the last bytes: reading goes on only when no whole frame is left behind
        # the waiting ones. A list, for they are few: an empty deque has 760 bytes, in each idle
        # connection.
        self._arrivals: list[float] = []

    def next_request(self) -> Call | Cancel | None:
        """Take the next frame: one call or cancel; None when there is no whole frame.

        Raises WireError for what is not one of these. Unless it is fatal, the next frame can be
        taken as usual.
        """
        payload = self._take()
        if payload is None:
            return None
        arrived = 0.0
        if payload[:1] != SHORT_HEAD:
            arrived = self._arrivals.pop(0)
        elif (call := self._read_call(payload)) is not None:
            return call
        # By the same look that counted it, or a cancel that can't be read would count for ever.
        if self._cancels and (cancelled := cancelled_id(payload)) is not None:
            self._cancels[cancelled] -= 1
            if not self._cancels[cancelled]:
                del self._cancels[cancelled]
        try:
            return self._parse(self._decoder.decode(payload), arrived)
        except WireError as error:
            self._blame(error, payload)
            raise

    def only_call(self, data: bytes) -> Call | None:
        """Return the call that `data` is, where nothing waits and it is that and nothing else.

        A short way for the usual case; None: `receive` it.
        """
        if self.bytes_waiting or self.waiting or self.link is not _OPEN:
            return None
        payload = only_payload(data)
        if payload is None or payload[:1] != SHORT_HEAD or len(payload) > self._max_payload:
            return None
        return self._read_call(payload)

    def _read_call(self, payload: bytes) -> Call | None:
        """Return the call in a payload that `read` knows; None: it is to be decoded."""
        try:
            head = payload[1]
            at = ID_ENDS[head]
            call_id: int | None = head
            if head == NULL_HEAD:
                call_id = None
            elif at == 4:
                call_id = payload[2] << 8 | payload[3]
            elif at != 2:
                call_id = int.from_bytes(payload[2:at], "big")
            if call_id in self.calls or self._cancels:
                return None
            known = self._read(payload, at, call_id)
        except IndexError:
            return None
        if known is None:
            return None
        if call_id is not None:
            self.calls[call_id] = _BEGUN
        return _new(Call, known)

    def _blame(self, error: WireError, payload: bytes) -> None:
        """Find the call that a bad frame meant: only it fails, the others go on."""
        if payload[:1] not in (b"\x83", b"\x84"):
            return
        error.answerable = payload[1:2] != NULL
        call_id, _ = peek_id(payload)
        if call_id is not None and call_id not in self.calls:
            error.call_id = call_id
            self._move(call_id, CallEvent.CALL)  # so that it can be answered

    def _saw(self, payloads: list[bytes]) -> None:
        for payload in payloads:
            if payload[:1] != SHORT_HEAD:
                self._arrivals.append(self._received_at)
                if (call_id := cancelled_id(payload)) is not None:
                    self._cancels[call_id] = self._cancels.get(call_id, 0) + 1

    def _parse(self, message: Any, arrived: float) -> Call | Cancel:
        if type(message) is not list:
            raise WireError(MALFORMED, "a message is an array: [id, name, {fields}]")
        if len(message) == 1:
            return self._parse_cancel(message[0])
        if len(message) not in (SHORT_CALL, LONG_CALL):
            raise WireError(
                MALFORMED, f"a call is [id, name, {{fields}}], not {len(message)} items"
            )
        call_id, name, fields = message[:3]
        if call_id is not None and not is_id(call_id):
            raise WireError(MALFORMED, "a call's id is unsigned, or null - at `$[0]`")
        if type(name) is not str:
            raise WireError(MALFORMED, "a command's name is text - at `$[1]`")
        if type(fields) is not dict:
            raise WireError(MALFORMED, "a command's fields are a map - at `$[2]`")
        timeout = parse_options(message[3]) if len(message) == LONG_CALL else None
        if call_id is None:
            return Call(None, name, fields, timeout, False, arrived)
        if call_id in self.calls:
            raise WireError(MALFORMED, f"the id {call_id} is in flight already - at `$[0]`")
        self._move(call_id, CallEvent.CALL)
        return Call(call_id, name, fields, timeout, call_id in self._cancels, arrived)

    def _parse_cancel(self, call_id: Any) -> Cancel:
        if not is_id(call_id):
            raise WireError(MALFORMED, "a cancel is [id], and an id is unsigned - at `$[0]`")
        self._move(call_id, CallEvent.CANCEL)
        return Cancel(call_id)

    def answer(self, call_id: int, item: Payload) -> bytes:
        """Return the frame that ends a call with the encoded `item`.

        Raises FrameTooLarge, after which the call can still be ended with an error.
        """
        # As `_send` and `_move`, and shorter: every call comes by here. And most come with an id
        # of two bytes and ask for something small, so that their frame is made in one go.
        if (
            isinstance(item, tuple)
            or self._max_answer < len(item) + _ABOUT_AN_ANSWER
            or self.link is not _OPEN
        ):
            items = item if isinstance(item, tuple) else (item,)
            parts = (ARRAY_HEADS[3], codec.encode(call_id), ANSWER_ITEM, *items)
            sent = self._send(parts, self._max_answer)
            self._move(call_id, CallEvent.ANSWER)
            return sent
        if self.calls.pop(call_id, None) is None:
            step(CALL, CallState.NONE, CallEvent.ANSWER)  # which raises
        size = len(item)
        if 0xFF < call_id <= 0xFFFF and size <= _SMALL_ANSWER:
            # Tag 24, a byte string, an array of three, the id, 0, the answer.
            ids = call_id >> 8, call_id & 0xFF
            return b"\xd8\x18%c\x83\x19%c%c\x00%b" % (0x45 + size, *ids, item)
        return frame(b"\x83%b\x00%b" % (codec.encode(call_id), item))

    def piece(self, call_id: int, item: bytes) -> bytes:
        """Return the frame of one piece. Raises FrameTooLarge."""
        sent = self._send(array_of(codec.encode(call_id), PIECE_ITEM, item), self._max_answer)
        self._move(call_id, CallEvent.PIECE)
        return sent

    def pieces(self, call_id: int, frames: bytes, largest: int) -> bytes:
        """Return frames that `piece_frame` made, `largest` the bytes of the largest item.

        Raises FrameTooLarge.
        """
        if largest + _ABOUT_A_PIECE > self._max_answer:
            raise FrameTooLarge(f"a piece has {largest} bytes, the limit is {self._max_answer}")
        self.link = step(LINK, self.link, LinkEvent.SEND)
        self._move(call_id, CallEvent.PIECE)
        return frames

    def error(self, call_id: int | None, error: CommandError) -> bytes:
        """Return the frame that ends a call, or with None concerns them all, with an error.

        A lone surrogate in the message is escaped: operating systems name files with them.
        Raises TypeError when code or message is no text, TypeError or ValueError when the data
        can't be carried, and FrameTooLarge; then the call is still in flight.
        """
        message = text("message", error.message).encode(errors="backslashreplace").decode()
        body: dict[str, Any] = {"code": text("code", error.code), "message": message}
        if error.data is not None:
            body["data"] = error.data
        id_item = NULL if call_id is None else codec.encode(call_id)
        payload = array_of(id_item, ERROR_ITEM, codec.encode(body))
        sent = self._send(payload, max(self._max_answer, LEAST_ERROR))
        if call_id is not None:
            self._move(call_id, CallEvent.ANSWER)
        return sent


class ClientProtocol(_Protocol):
    """The client's end of one connection."""

    def __init__(self, limits: Limits, decoder: codec.Decoder) -> None:
        super().__init__(limits, decoder, limits.max_answer)
        self._looks_at = 0  # nothing depends on what stands behind an answer
        self._max_frame = limits.max_frame
        self._last_id = 0

    def new_id(self) -> int:
        """Return an id that no call of this connection had."""
        self._last_id += 1
        return self._last_id

    def call(self, call_id: int, payload: Payload) -> bytes:
        """Return the frame of a call. Raises FrameTooLarge."""
        # As `_send` and `_move`, and shorter: every call comes by here.
        if (
            isinstance(payload, tuple)
            or len(payload) > self._max_frame
            or self.link is not _OPEN
            or call_id in self.calls
        ):
            sent = self._send(payload, self._max_frame)
            self._move(call_id, CallEvent.CALL)
            return sent
        self.calls[call_id] = _BEGUN
        return frame(payload)

    def notify(self, payload: Payload) -> bytes:
        """Return the frame of a notification. Raises FrameTooLarge."""
        return self._send(payload, self._max_frame)

    def cancel(self, call_id: int) -> bytes:
        """Return the frame that gives a call up. Its answer will still come."""
        sent = self._send(array_of(codec.encode(call_id)), self._max_frame)
        self._move(call_id, CallEvent.CANCEL)
        return sent

    def next_response(self) -> Answer | Failure | Piece | None:
        """Take the next frame; None when there is no whole one.

        Raises WireError. A server that sends what can't be read is not to be talked to again.
        """
        payload = self._take()
        if payload is None:
            return None
        answer = self._read_answer(payload)
        return self._parse(self._decoder.decode(payload)) if answer is None else answer

    def only_answer(self, data: bytes) -> Answer | None:
        """Return the answer that `data` is, where nothing waits and it is that and nothing else.

        A short way for the usual case; None: `receive` it.
        """
        if self.bytes_waiting or self.waiting or self.link is not _OPEN:
            return None
        payload = only_payload(data)
        if payload is None or len(payload) > self._max_payload:
            return None
        return self._read_answer(payload)

    def _read_answer(self, payload: bytes) -> Answer | None:
        """Return the answer with a small scalar in a payload; None: it is to be decoded."""
        if payload[:1] != SHORT_HEAD or len(payload) < 4:
            return None
        call_id = payload[1]
        at = ID_ENDS[call_id]
        if at == 4:
            call_id = payload[2] << 8 | payload[3]
        elif at > 2:
            call_id = int.from_bytes(payload[2:at], "big")
        elif call_id == NULL_HEAD:
            return None
        if payload[at : at + 1] != ANSWER_ITEM or call_id not in self.calls:
            return None
        value, end = codec.scalar_item(payload, at + 1)
        if end != len(payload):
            return None
        del self.calls[call_id]
        return _new(Answer, (call_id, value))

    def _parse(self, message: Any) -> Answer | Failure | Piece:
        if type(message) is not list or len(message) not in (3, 4):
            raise WireError(MALFORMED, "an answer is [id, kind, item]")
        call_id, kind, item = message[:3]
        if type(kind) is not int or kind not in (ANSWER, ERROR, PIECE):
            shown = kind if type(kind) is int else type(kind).__name__
            raise WireError(MALFORMED, f"an answer's kind is 0, 1 or 2, not {shown} - at `$[1]`")
        if len(message) == 4 and kind != PIECE:
            raise WireError(MALFORMED, "an answer is [id, kind, item]")
        if kind == ERROR and call_id is None:
            return Failure(None, parse_error(item))
        if not is_id(call_id):
            raise WireError(MALFORMED, "an answer's id is unsigned - at `$[0]`")
        response: Answer | Failure | Piece
        if kind == ERROR:
            response = Failure(call_id, parse_error(item))
        elif kind == ANSWER:
            response = Answer(call_id, item)
        else:
            response = Piece(call_id, item, parse_notes(message[3]) if len(message) == 4 else 0)
        try:
            self._move(call_id, CallEvent.PIECE if kind == PIECE else CallEvent.ANSWER)
        except IllegalTransition:
            raise WireError(MALFORMED, f"an answer to {call_id}, which is not in flight") from None
        return response
