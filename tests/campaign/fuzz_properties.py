"""What must hold for any bytes at all: they give messages or `WireError`, and nothing else.

An input is a way to split, and a stream. Each property reads the stream whole and split, and says
how many times the code under test has read one:

* `frames`: the frame parser alone,
* `server`: frames, CBOR, messages, conversion to commands, and their answers,
* `client`: frames, CBOR, answers, and conversion to what the annotations promise.

Held against are second opinions that share no code with what they judge: a reader of frames and two
of messages, here, and for CBOR ipcpoll's own `find_fault`, which is written without cbor2. So it is
not only that nothing else escapes: what is read must be right, the same however it was split, kept
in bounded memory, and take less CPU than `MOST_CPU` for each 64 KiB. AssertionError says otherwise.
"""

from __future__ import annotations

import enum
import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypedDict
from uuid import UUID

import msgspec
from wire import ARRAY, framed, head, text

from ipcpoll import CommandError, Limits
from ipcpoll._schema.commands import CommandSet, resolve
from ipcpoll._server.replies import run_call
from ipcpoll._server.running import Running
from ipcpoll._system.log import Log
from ipcpoll._wire import framing
from ipcpoll._wire.codec import Decoder, encode
from ipcpoll._wire.diagnosis import MOST_ITEMS, find_fault
from ipcpoll._wire.framing import MAX_OVERHEAD, FrameBuffer
from ipcpoll._wire.messages import Answer, Call, Cancel, Failure, Piece
from ipcpoll._wire.protocol import ClientProtocol, ServerProtocol
from ipcpoll.errors import InternalError, WireError

MOST_CPU: Final = 0.05
"""CPU seconds for each 64 KiB, or less than that."""

LIMIT: Final = 300
"""The largest payload for the parser alone: small, so that the limit is met."""


# ---------------------------------------------------------------------------------------------
# Commands, each of which answers itself


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Point(NamedTuple):
    a: int
    b: float = 0.0


class Notes(TypedDict, total=False):
    a: str
    b: list[int]


@dataclass
class Inner:
    a: int = 0
    b: list[Inner] = field(default_factory=list)


@dataclass
class Echo:
    value: int

    def process(self, ctx: None) -> int:
        return self.value


@dataclass
class Plain:
    a: int = 0
    b: float = 0.0
    c: str = ""
    d: bytes = b""
    e: bool = False
    f: None = None

    def process(self, ctx: None) -> Plain:
        return self


@dataclass
class Boxes:
    a: list[int] = field(default_factory=list)
    b: dict[str, list[float]] = field(default_factory=dict)
    c: tuple[int, str] | None = None
    d: set[int] = field(default_factory=set)
    e: Point | None = None
    f: Notes | None = None
    g: Inner = field(default_factory=Inner)
    h: dict[int, str] = field(default_factory=dict)

    def process(self, ctx: None) -> Boxes:
        return self


@dataclass
class Words:
    a: Colour = Colour.RED
    b: datetime | None = None
    c: date | None = None
    d: timedelta | None = None
    e: Decimal | None = None
    f: UUID | None = None
    g: Path = Path("/")
    h: Literal["a", 5] = "a"

    def process(self, ctx: None) -> Words:
        return self


COMMANDS: Final = (Echo, Plain, Boxes, Words)
FIELDS: Final[dict[str, dict[str, tuple[Any, ...]]]] = {
    "Echo": {"value": (0, 23, 24, -1, 2**64 - 1, -(2**63))},
    "Plain": {
        "a": (5, -300),
        "b": (0.5, 7, math.nan, -math.inf),
        "c": ("", "ä" * 30),
        "d": (b"", bytes(40)),
        "e": (True, False),
        "f": (None,),
    },
    "Boxes": {
        "a": ([], [1, 2, 2**63]),
        "b": ({}, {"a": [0.5, 1]}),
        "c": ([1, "a"], None),
        "d": ([1, 2, 1], []),
        "e": ([1, 0.5], [1], None),
        "f": ({"a": "b"}, {"b": [1]}, {}),
        "g": ({"b": [{"a": 1}, {"b": [{}]}]}, {}),
        "h": ({"5": "a", "-5": "b"}, {"05": "a"}),
    },
    "Words": {
        "a": ("red", "green"),
        "b": ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123456789+23:59", None),
        "c": ("2026-01-02", "0001-01-01"),
        "d": ("P1DT1.5S", "-PT0.000001S", "P999999999D"),
        "e": ("1.50", "NaN", "sNaN", "1e999999", 5, 0.1),
        "f": ("00000000-0000-0000-0000-000000000005", bytes(16)),
        "g": ("/a", "", "a/../b"),
        "h": ("a", 5),
    },
}
"""Of each command its fields, with values that fit, or nearly."""

ITEMS: Final = {
    name: {field: tuple(map(encode, values)) for field, values in fields.items()}
    for name, fields in FIELDS.items()
}
assert {cls.__name__: [*cls.__dataclass_fields__] for cls in COMMANDS} == {
    name: [*fields] for name, fields in FIELDS.items()
}

SET: Final = CommandSet(COMMANDS)
DECODER: Final = Decoder()
"""One for all inputs, on purpose: none may leave anything behind in it."""

IN_FLIGHT: Final = {
    number: COMMANDS[number % len(COMMANDS)] for number in (*range(30), 2**32, 2**64 - 1)
}
"""What a client has asked before a stream of answers comes."""

_ANY_SIZE: Final = Limits()


# ---------------------------------------------------------------------------------------------
# Inputs


_SIZES: Final = (1, 2, 3, 4, 5, 7, 8, 11, 16, 24, 61, 255, 256, 257, 4096, 65536)


def chunks(split: int, stream: bytes) -> list[bytes]:
    """Return the stream in pieces of two sizes in turn, which one byte says."""
    sizes = _SIZES[split >> 4], _SIZES[split & 15]
    pieces = []
    at = turn = 0
    while at < len(stream):
        pieces.append(stream[at : at + sizes[turn]])
        at += sizes[turn]
        turn ^= 1
    return pieces


Input: TypeAlias = bytes
"""One byte for `chunks`, and the stream."""


# ---------------------------------------------------------------------------------------------
# Frames


def frames_of(stream: bytes, limit: int) -> tuple[list[bytes], str | None]:
    """Return the payloads of a stream and the code of the fault behind them. A second opinion."""
    payloads: list[bytes] = []
    while stream:
        if not b"\xd8\x18".startswith(stream[:2]):
            return payloads, "malformed"
        if len(stream) < 3:
            break
        info = stream[2] - 0x40
        if not 0 <= info <= 27:
            return payloads, "malformed"
        width = 0 if info < 24 else 1 << (info - 24)
        if len(stream) < 3 + width:
            break
        size = int.from_bytes(stream[3 : 3 + width], "big") if width else info
        if size > limit:
            return payloads, "too-large"
        if len(stream) < 3 + width + size:
            break
        payloads.append(stream[3 + width : 3 + width + size])
        stream = stream[3 + width + size :]
    return payloads, None


def read_frames(pieces: list[bytes]) -> tuple[list[bytes], str | None]:
    """Return what the parser makes of pieces, each taken apart before the next comes."""
    buffer = FrameBuffer(LIMIT)
    payloads: list[bytes] = []
    for piece in pieces:
        buffer.feed(piece)
        fault = None
        try:
            while (payload := buffer.next()) is not None:
                payloads.append(payload)
        except WireError as error:
            fault = error
        if fault is not None:
            assert fault.fatal
            assert buffer.broken
            assert not len(buffer), "a broken stream is not kept"
            return payloads, fault.code
        assert len(buffer) < LIMIT + MAX_OVERHEAD, "more is kept than one frame"
    return payloads, None


def frames(data: Input) -> int:
    """The parser alone."""
    split, stream = (data[0], data[1:]) if data else (0, b"")
    expected = frames_of(stream, LIMIT)
    before = framing._MOST_SMALL
    if split % 2:
        framing._MOST_SMALL = 8  # so that frames of this size take the way of large ones
    try:
        assert read_frames([stream]) == expected, "whole"
        assert read_frames(chunks(split, stream)) == expected, "split"
    finally:
        framing._MOST_SMALL = before
    return 2


# ---------------------------------------------------------------------------------------------
# Payloads


def read_payload(payload: bytes) -> Any:
    """Return the value of a payload, checked from all sides, or the `WireError`."""
    fault = value = None
    try:
        value = DECODER.decode(payload)
    except WireError as error:
        fault = error
    if fault is not None:
        assert not fault.fatal
        assert fault.code == "malformed"
        assert find_fault(payload) is not None or len(payload) > MOST_ITEMS, fault.message
        return fault
    assert find_fault(payload) is None, find_fault(payload)
    again = DECODER.decode(encode(value))
    assert repr(again) == repr(value), "what was read is written and read as the same"
    return value


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**64


def request_of(value: Any, in_flight: set[int]) -> str:
    """Return what a value is as a request: call, notification, cancel or bad. A second opinion."""
    match value:
        case [one]:
            return "cancel" if _is_id(one) else "bad"
        case [one, str(), dict()] | [one, str(), dict(), {}] if value[3:] in ([], [{}]):
            pass
        case [one, str(), dict(), {"timeout": seconds, **rest}]:
            if rest or isinstance(seconds, bool):
                return "bad"
            if seconds is not None and not isinstance(seconds, int | float):
                return "bad"
            if seconds is not None and not 0 <= seconds < math.inf:
                return "bad"
        case _:
            return "bad"
    if one is None:
        return "notification"
    return "call" if _is_id(one) and one not in in_flight else "bad"


def response_of(value: Any, in_flight: set[int]) -> str:
    """Return what a value is as a response: answer, failure, piece or bad. A second opinion."""
    match value:
        case [call_id, 0, _] if type(value[1]) is int:
            kind = "answer"
        case [None, 1, {"code": str(), "message": str()}] if type(value[1]) is int:
            return "failure"
        case [call_id, 1, {"code": str(), "message": str()}] if type(value[1]) is int:
            kind = "failure"
        case [call_id, 2, _] if type(value[1]) is int:
            kind = "piece"
        case [call_id, 2, _, dict(notes)] if type(value[1]) is int:
            lost = notes.get("lost", 0)
            if type(lost) is not int or lost < 0:
                return "bad"
            kind = "piece"
        case _:
            return "bad"
    return kind if _is_id(call_id) and call_id in in_flight else "bad"


# ---------------------------------------------------------------------------------------------
# The server's end


def serve(pieces: list[bytes], limits: Limits) -> tuple[list[Any], list[bytes]]:
    """Return what a server makes of pieces, and what it sends.

    Calls with an odd id are left unanswered, so that their ids are in flight.
    """
    protocol = ServerProtocol(limits, DECODER)
    log = Log(time.monotonic, math.inf)
    got: list[Any] = []
    sent: list[bytes] = []
    for piece in pieces:
        protocol.receive(piece)
        while True:
            assert len(protocol.waiting) <= limits.max_frames_waiting, "too many wait"
            try:
                message = protocol.next_request()
            except WireError as error:
                got.append((error.code, error.call_id, error.answerable, error.fatal))
                if error.fatal:
                    assert protocol.next_request() is None, "nothing is read behind it"
                    return got, sent
                if error.call_id is not None:
                    refusal = CommandError(error.code, error.message)
                    sent.append(protocol.error(error.call_id, refusal))
                continue
            if message is None:
                break
            if isinstance(message, Call):
                assert not message.cancelled or message.call_id is not None
                got.append(message._replace(cancelled=False))  # what has come by then
                if message.call_id is None or message.call_id % 2 == 0:
                    reply = run_call(message, None, SET, protocol, log, Running())
                    assert reply is None or isinstance(reply, bytes)
                    assert (reply is None) == (message.call_id is None)
                    sent += [reply] if reply else []
            else:
                assert isinstance(message, Cancel)
                got.append(message)
        assert protocol.bytes_waiting < limits.max_frame + MAX_OVERHEAD, "too much is kept"
    return got, sent


def expected_of_server(stream: bytes, limits: Limits) -> list[Any]:
    """Return what a server must make of a stream, each by its kind. A second opinion."""
    payloads, fault = frames_of(stream, limits.max_frame)
    in_flight: set[int] = set()
    expected: list[Any] = []
    for payload in payloads:
        value = read_payload(payload)
        kind = "bad" if isinstance(value, WireError) else request_of(value, in_flight)
        if kind == "call" and value[0] % 2:
            in_flight.add(value[0])
        expected.append((kind, *blamed(payload, in_flight)) if kind == "bad" else kind)
    return expected if fault is None else [*expected, fault]


def blamed(payload: bytes, in_flight: set[int]) -> tuple[int | None, bool]:
    """Return the call that fails with a bad payload, and whether anybody is told."""
    if payload[:1] not in (b"\x83", b"\x84"):
        return None, True
    first = payload[1] if len(payload) > 1 else 0xFF
    width = {24: 1, 25: 2, 26: 4, 27: 8}.get(first, 0)
    call_id = int.from_bytes(payload[2 : 2 + width], "big") if width else first
    if first > 27 or len(payload) < 2 + width or call_id in in_flight:
        return None, first != 0xF6
    return call_id, True


def kind_of_request(one: Any) -> Any:
    if isinstance(one, Cancel):
        return "cancel"
    if isinstance(one, Call):
        return "notification" if one.call_id is None else "call"
    code, call_id, answerable, fatal = one
    assert fatal or code == "malformed"
    return code if fatal else ("bad", call_id, answerable)


_FEW: Final = tuple(Limits(max_frames_waiting=most, max_frame=4096) for most in (1, 2, 3, 16))


def server(data: Input) -> int:
    """Frames, CBOR, requests, commands, and answers that a client can read."""
    split, stream = (data[0], data[1:]) if data else (0, b"")
    return check_server(split, stream, _FEW[split & 3])


def check_server(split: int, stream: bytes, limits: Limits) -> int:
    """Check what a server with these limits makes of a stream."""
    got, sent = serve([stream], limits)
    assert [kind_of_request(one) for one in got] == expected_of_server(stream, limits)
    again, sent_again = serve(chunks(split, stream), limits)
    assert repr(again) == repr(got), "however it is split"
    assert sent_again == sent, "however it is split"
    read_answers([one for one in got if isinstance(one, Call)], sent)
    return 2


def read_answers(calls: list[Call], sent: list[bytes]) -> None:
    """Read what a server has sent; each call that was asked must be found in its answer."""
    by_id = {call.call_id: call for call in calls}
    for reply in sent:
        protocol = ClientProtocol(_ANY_SIZE, DECODER)
        [payload], fault = frames_of(reply, _ANY_SIZE.max_answer)
        assert fault is None
        call_id, kind, item = DECODER.decode(payload)  # type: ignore[misc]
        protocol.call(call_id, b"\x80")
        protocol.receive(reply)
        response = protocol.next_response()
        assert response is not None
        assert response.call_id == call_id
        if isinstance(response, Failure):
            assert kind == 1
            assert not isinstance(response.error, InternalError), response.error
            continue
        assert isinstance(response, Answer)
        call = by_id[call_id]
        if list(by_id).count(call_id) == 1 and len(by_id) == len(calls):  # ids are used again
            command = SET[call.name]
            asked = command.bind(call.fields)
            assert repr(command.decode_answer(item)) == repr(asked.process(None))
            assert_fits(call.name, call.fields, item)


def assert_fits(name: str, fields: Any, item: Any) -> None:
    """Check that nothing was ignored and nothing converted that must not be. A second opinion."""
    assert fields.keys() <= FIELDS[name].keys()
    if name == "Echo":
        assert type(fields["value"]) is int
        assert fields["value"] == item
    elif name == "Plain":
        for field, value in fields.items():
            expected = float(value) if field == "b" and type(value) is int else value
            assert repr(item[field]) == repr(expected), "it was converted"
    elif name == "Boxes":
        assert (fields.get("f") or {}).keys() <= {"a", "b"}
        nodes = [fields.get("g", {})]
        while nodes:
            node = nodes.pop()
            assert node.keys() <= {"a", "b"}
            nodes += node.get("b", [])


# ---------------------------------------------------------------------------------------------
# The client's end


def _asked() -> ClientProtocol:
    protocol = ClientProtocol(_ANY_SIZE, DECODER)
    for call_id in IN_FLIGHT:
        protocol.call(call_id, b"\x80")
    return protocol


_ASKED: Final = _asked().calls


def ask(pieces: list[bytes], limits: Limits) -> list[Any]:
    """Return what a client makes of pieces."""
    protocol = ClientProtocol(limits, DECODER)
    protocol.calls.update(_ASKED)
    got: list[Any] = []
    for piece in pieces:
        protocol.receive(piece)
        while True:
            assert len(protocol.waiting) <= limits.max_frames_waiting, "too many wait"
            try:
                response = protocol.next_response()
            except WireError as error:
                got.append(error.code if error.fatal else "bad")
                return got  # it is not talked to again
            if response is None:
                break
            got.append((response, meaning_of(response)))
        assert protocol.bytes_waiting < limits.max_answer + MAX_OVERHEAD, "too much is kept"
    return got


def meaning_of(response: Answer | Failure | Piece) -> Any:
    """Return what the caller is given for a response."""
    if isinstance(response, Failure):
        error = response.error
        assert isinstance(error, CommandError)
        assert type(error.code) is str
        assert type(error.message) is str
        return error.code, error.message, error.data
    command = resolve(IN_FLIGHT[response.call_id])
    plain = response.value if isinstance(response, Answer) else response.item
    decode = command.decode_answer if isinstance(response, Answer) else command.decode_piece
    try:
        value = decode(plain)
    except msgspec.ValidationError as error:
        return str(error)
    assert isinstance(value, int if command.cls is Echo else command.cls)
    return value


def expected_of_client(stream: bytes, limits: Limits) -> list[str]:
    """Return what a client must make of a stream, each by its kind. A second opinion."""
    payloads, fault = frames_of(stream, limits.max_answer)
    in_flight = set(IN_FLIGHT)
    expected: list[str] = []
    for payload in payloads:
        value = read_payload(payload)
        kind = "bad" if isinstance(value, WireError) else response_of(value, in_flight)
        expected.append(kind)
        if kind == "bad":
            return expected
        if kind != "piece":
            in_flight.discard(value[0])
    return expected if fault is None else [*expected, fault]


_FEW_ANSWERS: Final = tuple(Limits(max_frames_waiting=most, max_answer=4096) for most in (1, 2, 16))


def client(data: Input) -> int:
    """Frames, CBOR, responses, and what the annotations promise."""
    split, stream = (data[0], data[1:]) if data else (0, b"")
    return check_client(split, stream, _FEW_ANSWERS[split % 3])


def check_client(split: int, stream: bytes, limits: Limits) -> int:
    """Check what a client with these limits makes of a stream."""
    got = ask([stream], limits)
    kinds = [one if isinstance(one, str) else type(one[0]).__name__.lower() for one in got]
    assert kinds == expected_of_client(stream, limits)
    assert repr(ask(chunks(split, stream), limits)) == repr(got), "however it is split"
    return 2


# ---------------------------------------------------------------------------------------------
# Time


def cpu_of_64_kib(item: bytes) -> float:
    """Return the CPU seconds of a call with 64 KiB of an item, in the best of three tries."""
    begin = b"\x83\x00" + text("Boxes") + b"\xa1\x61a"
    count = ((64 << 10) - len(begin) - 5) // len(item)
    stream = framed(begin + head(ARRAY, count) + item * count)
    best = math.inf
    for _ in range(3):
        began = time.thread_time()
        got, _ = serve([stream], _ANY_SIZE)
        best = min(best, time.thread_time() - began)
        assert len(got) == 1
    return best


PROPERTIES: Final[dict[str, Callable[[Input], int]]] = {
    "frames": frames,
    "server": server,
    "client": client,
}


def timed(check: Callable[[Input], int], data: Input, slower: float = 1.0) -> int:
    """Check an input, and that it takes no more CPU than it may. Returns what `check` does.

    `slower` allows for what runs beside it, such as the instruments of a guided fuzzer.
    """
    began = time.thread_time()
    count = check(data)
    took = time.thread_time() - began
    # What is checked beside it runs the code some more times.
    most = MOST_CPU * slower * 3 * count * max(1.0, len(data) / 65536)
    if took > most:
        gc.collect()  # it may have been others' litter
        for _ in range(3):
            began = time.thread_time()
            check(data)
            took = min(took, time.thread_time() - began)
        assert took <= most, f"{took * 1000:.0f} ms of CPU for {len(data)} bytes"
    return count
