"""The functions written for a command class, and all short ways: the same as the long ones.

A call or an answer that is read by hand is what the decoder and the conversion would have made of
the same bytes, and whatever is not read by hand is left to them.
"""

import abc
import linecache
import math
import struct
import traceback
from collections.abc import Generator
from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum
from typing import Annotated, ClassVar, NewType

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import IDS, LEAVES, framed, head

from ipcpoll._schema.commands import CommandSet, resolve
from ipcpoll._wire.codec import LARGE, Decoder, array_head, encode, map_head, scalar_item
from ipcpoll._wire.messages import Answer, call_payload
from ipcpoll._wire.protocol import ClientProtocol, ServerProtocol
from ipcpoll._wire.states import CallState, IllegalTransition
from ipcpoll.errors import FrameTooLarge, WireError
from ipcpoll.limits import DEFAULT_LIMITS, Limits

DECODER = Decoder()
CALL_BEGUN = CallState.IN_FLIGHT
Metres = NewType("Metres", int)


class Level(IntEnum):
    LOW = 1


@dataclass
class Nothing:
    def process(self, ctx: object) -> None: ...


@dataclass
class Scalars:
    a: int
    flag: bool
    share: float
    text: str
    raw: bytes
    none: None

    def process(self, ctx: object) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Frozen:
    a: int
    b: str = "b"

    def process(self, ctx: object) -> int:
        return 0


@dataclass
class Ranged:
    """More is needed than to set the fields."""

    level: Annotated[int, msgspec.Meta(ge=0, le=100)]
    metres: Metres = Metres(1)

    def process(self, ctx: object) -> int:
        return 0


@dataclass
class Checked:
    a: int
    made: ClassVar[list[int]] = []

    def __post_init__(self) -> None:
        self.made.append(self.a)

    def process(self, ctx: object) -> int:
        return 0


@dataclass
class Watched:
    """Notes what is set."""

    a: int
    noted: ClassVar[list[str]] = []

    def __setattr__(self, name: str, value: object) -> None:
        self.noted.append(name)
        object.__setattr__(self, name, value)

    def process(self, ctx: object) -> int:
        return 0


@dataclass
class Mixed:
    a: int
    names: list[str]
    of: Decimal | None = None

    def process(self, ctx: object) -> int:
        return 0


@dataclass
class Later:
    a: int

    def process(self, ctx: object) -> Generator[int, None, int]:
        yield 0
        return 0


@dataclass
class OwnInit:
    """msgspec makes it without its `__init__`, and so does what is written for it."""

    a: int
    seen: ClassVar[list[int]] = []

    def __init__(self, a: int) -> None:
        self.seen.append(a)
        self.a = a

    def process(self, ctx: object) -> int:
        return 0


@dataclass
class Percent:
    """Its encoded names hold a `%` (0x25), which must not become a form."""

    a_name_of_thirty_seven_characters_0000: int

    def process(self, ctx: object) -> int:
        return 0


COMMANDS = CommandSet(
    [Nothing, Scalars, Frozen, Ranged, Checked, Watched, Mixed, Later, OwnInit, Percent]
)
GOOD = [
    Nothing(),
    Scalars(2, True, 0.5, "text", b"raw", None),
    Scalars(-(2**63), False, -0.0, "", b"", None),
    Scalars(2**64 - 1, False, math.inf, "x" * 255, bytes(255), None),
    Scalars(-25, False, 5e-324, "é" * 11, b"\x00", None),
    Frozen(1, "two"),
    Frozen(65536, "aab"),  # the key of the next field stands in a value
    Ranged(7, Metres(70_000)),
    Checked(3),
    Watched(4),
    Mixed(5, [], None),
    Mixed(6, ["a", "b"], Decimal("1.5")),
    Later(7),
    OwnInit(8),
    Percent(9),
]


def payload_of(command, call_id=7):
    payload = resolve(type(command)).encode_call(encode(call_id), command)
    return payload if isinstance(payload, bytes) else b"".join(payload)


def by_hand(limits=DEFAULT_LIMITS):
    return ServerProtocol(limits, DECODER, COMMANDS.read)


def by_decoder(limits=DEFAULT_LIMITS):
    return ServerProtocol(limits, DECODER)


def outcome(take):
    """Return what a request is, its command made; NaN as text, which is equal to itself."""
    try:
        request = take()
        if request is None or len(request) == 1:
            return request
        command = request.command
        if command is None:
            command = COMMANDS[request.name].bind(request.fields)
    except WireError as error:
        return error.code, error.message, error.call_id
    return request[0], request.name, repr(command), type(command), request[3:6]


def both(data):
    """Read the same bytes both ways, and return what both gave."""
    protocols = by_hand(), by_decoder()
    for protocol in protocols:
        protocol.receive(data)
    first, second = (outcome(protocol.next_request) for protocol in protocols)
    assert first == second
    assert protocols[0].calls == protocols[1].calls
    assert protocols[0].bytes_waiting == protocols[1].bytes_waiting
    return first


@pytest.mark.parametrize("command", GOOD, ids=repr)
@pytest.mark.parametrize("call_id", [None, 0, 23, 24, 255, 256, 65535, 65536, 2**32, 2**64 - 1])
def test_what_is_read_is_what_was_written(command, call_id):
    payload = payload_of(command, call_id)
    assert cbor2.loads(payload)[:2] == [call_id, type(command).__name__]
    assert both(framed(payload))[2] == repr(command)


@pytest.mark.parametrize(
    ("command", "is_made"),
    [
        *((command, True) for command in GOOD[:2]),
        (Frozen(1, "two"), True),
        (Later(7), True),
        (OwnInit(8), True),
        (Ranged(7), False),  # msgspec looks at the range
        (Checked(3), False),  # its own code runs, and in its turn
        (Watched(4), False),
        (Mixed(5, [], None), None),
        (Scalars(1, True, 1.5, "x" * 70_000, b"", None), True),
        (Scalars(1, True, 1.5, "", b"x" * 70_000, None), True),
    ],
    ids=repr,
)
def test_command_is_made_at_once_where_that_is_all(command, is_made):
    """None: it is left to the decoder."""
    protocol = by_hand()
    protocol.receive(framed(payload_of(command)))
    call = protocol.next_request()
    if is_made is None:
        assert call.command_type is None
        assert call.fields
    else:
        assert call.command_type is COMMANDS[type(command).__name__]
        assert (call.command is not None) is is_made


@dataclass
class Texts:
    a: str
    b: bytes
    c: int

    def process(self, ctx: object) -> bytes:
        return self.b


@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("kind", ["a", "b", "both"])
def test_large_field_is_a_part_of_its_own_and_not_copied(kind, more):
    size = LARGE + more
    text = "x" * size if kind != "b" else ""
    raw = bytes(size) if kind != "a" else b""
    payload = resolve(Texts).encode_call(b"\x07", Texts(text, raw, 5))
    if more < 0:
        assert type(payload) is bytes
    else:
        assert type(payload) is tuple
        assert payload[0] == b"\x83", "so that the head of the array can be left out"
        assert kind == "a" or any(part is raw for part in payload)
        payload = b"".join(payload)
    assert cbor2.loads(payload) == [7, "Texts", {"a": text, "b": raw, "c": 5}]


@pytest.mark.parametrize("command", [Texts(5, b"", 1), Texts("", "x", 1), Texts("", b"", True)])
def test_value_of_another_kind_is_refused_before_it_is_written(command):
    with pytest.raises(TypeError, match=r"^Texts\.\w must be "):
        payload_of(command)


@dataclass
class Floats:
    a: float
    b: float | None = None

    def process(self, ctx: object) -> None: ...


@pytest.mark.parametrize(
    "number", [0, 1, -1, 2**53, -(2**53), 2**53 + 2, 2**63, 10**300, -(10**300)]
)
def test_int_is_written_for_the_float_that_equals_it(number):
    for command in (Floats(number), Floats(1.0, number)):
        if abs(number) > 2**63 and float(number) != number:
            with pytest.raises(ValueError, match=r"^Floats\.. must be a float, and none equals "):
                payload_of(command)
            continue
        fields = CommandSet(Floats)["Floats"].bind(cbor2.loads(payload_of(command))[2])
        assert fields == command
        assert type(fields.a) is float


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**64 - 1, 10**400])
def test_int_that_no_float_equals_is_refused(number):
    for command in (Floats(number), Floats(1.0, number)):
        with pytest.raises(ValueError, match=r"^Floats\.. must be a float, and none equals "):
            payload_of(command)


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_large_answer_is_one_frame(more):
    value = bytes(LARGE + more)
    item = resolve(Texts).encode_answer(value)
    assert (type(item) is tuple) is (more >= 0)
    assert more < 0 or item[1] is value
    protocol = by_hand()
    protocol.calls[7] = CALL_BEGUN
    assert protocol.answer(7, item) == framed(b"\x83\x07\x00" + cbor2.dumps(value))
    assert protocol.calls == {}
    limited = by_hand(Limits(max_answer=LARGE))
    limited.calls[7] = CALL_BEGUN
    with pytest.raises(FrameTooLarge):
        limited.answer(7, item)
    assert list(limited.calls) == [7]


def test_large_call_is_one_frame():
    raw = bytes(LARGE)
    payload = resolve(Texts).encode_call(b"\x07", Texts("", raw, 5))
    whole = framed(b"".join(payload))
    protocol = ClientProtocol(DEFAULT_LIMITS, DECODER)
    assert protocol.call(7, payload) == whole
    assert list(protocol.calls) == [7]
    assert protocol.notify(payload) == whole
    limited = ClientProtocol(Limits(max_frame=LARGE), DECODER)
    for send in (lambda: limited.call(7, payload), lambda: limited.notify(payload)):
        with pytest.raises(FrameTooLarge):
            send()
    assert limited.calls == {}
    for body in (b"\x61a", (b"\x61a", b"\x07")):
        called = call_payload(b"\x18\x64", body)
        whole = called if type(called) is bytes else b"".join(called)
        assert whole == b"\x83\x18\x64" + (body if type(body) is bytes else b"".join(body))


@dataclass
class Note:
    """Metadata that can't be hashed, as most dataclasses."""

    words: str


def test_annotation_need_not_be_hashable():
    @dataclass
    class Noted:
        a: Annotated[int, Note("first")]
        b: Annotated[str, {"help": ["text"]}]
        c: Annotated[bytes, []]

        def process(self, ctx: object) -> int:
            return 0

    command = Noted(1, "x" * LARGE, b"y")
    payload = resolve(Noted).encode_call(b"\x07", command)
    whole = payload if type(payload) is bytes else b"".join(payload)
    assert cbor2.loads(whole) == [7, "Noted", {"a": 1, "b": command.b, "c": b"y"}]
    assert CommandSet(Noted).read(whole, 2, 7) is not None


def test_class_with_abstract_methods_is_left_to_the_conversion():
    @dataclass
    class Abstract(abc.ABC):
        a: int

        def process(self, ctx: object) -> int:
            return 0

        @abc.abstractmethod
        def more(self) -> None: ...

    commands = CommandSet(Abstract)
    payload = b"\x83\x07" + resolve(Abstract).prefix + b"\x61a\x01"
    *_, command = commands.read(payload, 2, 7)
    assert command is None


def test_class_is_made_without_its_own_init():
    before = len(OwnInit.seen)
    both(framed(payload_of(OwnInit(8))))
    assert len(OwnInit.seen) == before + 1, "only here"


def test_own_code_of_a_class_runs_in_its_turn_and_not_as_it_is_read():
    before = len(Checked.made)
    protocol = by_hand()
    protocol.receive(framed(payload_of(Checked(3))))
    made = len(Checked.made)
    call = protocol.next_request()
    assert len(Checked.made) == made == before + 1
    call.command_type.bind(call.fields)
    assert len(Checked.made) == made + 1


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (b"\xa2\x61a\x01\x61b\x02", "Frozen.b must be a str, not 2"),
        (b"\xa2\x61a\xf5\x61b\x60", "Frozen.a must be an int, not True"),
        (b"\xa2\x61a\xf6\x61b\x60", "Frozen.a must be an int, not None"),
        (b"\xa2\x61b\x60\x61c\x01", "has no field `c`"),
        (b"\xa1\x61b\x60", "Frozen.a is missing"),
        (b"\xa2\x61a\x01\x61a\x01", "twice"),
        (b"\xa2\x61a\x01\x61b\x61\xff", "UTF-8"),
        (b"\xa2\x61a\x01\x61b\x61", ""),
        (b"\xa2\x61a\x01\x61b\x60\x00", "left over"),
    ],
)
def test_bad_call_is_refused_as_by_the_decoder(fields, sentence):
    refused = both(framed(b"\x83\x07\x66Frozen" + fields))
    assert refused[0] in ("invalid-arguments", "malformed")
    assert sentence in refused[1]


@pytest.mark.parametrize("fields", [b"\xa1\x61a\x01", b"\xa2\x61b\x60\x61a\x01"])
def test_default_and_another_order_are_decoded(fields):
    assert both(framed(b"\x83\x07\x66Frozen" + fields))[3] is Frozen


@pytest.mark.parametrize("command", GOOD[:8], ids=repr)
def test_every_change_of_a_byte_and_every_cut_gives_the_same_both_ways(command):
    payload = payload_of(command)[:60]
    for at in range(len(payload)):
        both(framed(payload[:at]))
        for changed in (0x00, 0x18, 0x20, 0x38, 0x61, 0x78, 0x83, 0xF5, 0xFB, 0xFF):
            both(framed(payload[:at] + bytes([changed]) + payload[at + 1 :]))


@given(IDS | st.none(), st.dictionaries(st.sampled_from("abc"), LEAVES, max_size=3), st.data())
def test_any_fields_give_the_same_both_ways(call_id, fields, data):
    payload = cbor2.dumps([call_id, "Frozen", fields])
    cut = data.draw(st.integers(0, len(payload)))
    both(framed(payload))
    both(framed(payload[:cut] + data.draw(st.binary(max_size=3)) + payload[cut:]))


@given(st.binary(max_size=12) | LEAVES.map(cbor2.dumps), st.binary(max_size=3))
def test_scalar_item_is_what_the_decoder_would_read(item, behind):
    value, end = scalar_item(b"\x83" + item + behind, 1)
    if end >= 0:
        decoded = DECODER.decode(item[: end - 1] if end - 1 <= len(item) else item + behind)
        assert (type(value), repr(value)) == (type(decoded), repr(decoded))


def scalars():
    """Give the scalars that are read by hand, each with an encoding: every head, its limits."""
    for value in (0, 1, 23, 24, 25, 254, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1):
        yield from ((value, head(0, value, longer)) for longer in range(5))
    for argument in (0, 1, 23, 24, 25, 255, 256, 65535, 65536, 2**32 - 1):
        forms = {head(1, argument, longer) for longer in range(4)}
        yield from ((-1 - argument, form) for form in forms if len(form) < 9)
    yield from ((False, b"\xf4"), (True, b"\xf5"), (None, b"\xf6"))
    for number in (0.0, -0.0, 1.5, -1e300, math.inf):
        yield number, b"\xfb" + struct.pack(">d", number)
    for size in (0, 1, 2, 22, 23, 24, 25, 254, 255, 256, 257, 65535, 65536, 70_000):
        heads = {head(2, size, longer) for longer in range(5)}
        for form in heads:
            if len(form) < 9:
                words = "".join(chr(0x61 + i % 26) for i in range(size))
                yield words.encode(), form + words.encode()
                yield words, bytes([form[0] + 0x20]) + form[1:] + words.encode()
    yield "é€", b"\x65\xc3\xa9\xe2\x82\xac"


@pytest.mark.parametrize(
    ("value", "item"),
    [pytest.param(*it, id=f"{len(it[1])} {it[1][:10].hex()}") for it in scalars()],
)
def test_every_scalar_is_read_by_hand(value, item):
    """Wherever it stands. Without that all would be right, and slow."""
    for before in (b"", b"\x83", bytes(9)):
        at = len(before)
        for behind in (b"", b"\x00", b"\xf5\x61", bytes(20)):
            got, end = scalar_item(before + item + behind, at)
            assert (type(got), repr(got)) == (type(value), repr(value))
            assert end == at + len(item)
        for cut in {*range(min(len(item), 12)), len(item) - 1}:
            assert scalar_item(before + item[:cut], at) == (None, -1)


@pytest.mark.parametrize(
    "item",
    [
        *(bytes([first]) + bytes(9) for first in (0x1C, 0x1F, 0x3B, 0x3C, 0x5C, 0x5F, 0x7C, 0x7F)),
        *(bytes([first]) + bytes(9) for first in (0x80, 0x9F, 0xA0, 0xBF, 0xC0, 0xDF)),
        *(bytes([first]) + bytes(9) for first in (0xE0, 0xF3, 0xF7, 0xF8, 0xF9, 0xFA, 0xFC, 0xFF)),
        b"\x5b" + bytes(8),
        b"\x7b" + bytes(8),
        b"\x61\xff",
        b"\x63\xed\xa0\x80",
    ],
    ids=bytes.hex,
)
def test_any_other_item_is_left_to_the_decoder(item):
    assert scalar_item(item, 0) == (None, -1)
    assert scalar_item(b"\x00" + item, 1) == (None, -1)


SMALL = [
    *(0, 1, 23, 24, 255, 256, 257, 65535, 65536, 2**32 - 1),
    *(True, False, None, 0.0, -0.0, 1.5, -1e300, 5e-324),
    *("x" * size for size in (0, 1, 23, 24, 255, 256, 65535, 65536)),
    *(b"x" * size for size in (0, 1, 23, 24, 255, 256, 65535, 65536)),
    "é" * 12,
]


@pytest.mark.parametrize("value", SMALL, ids=lambda value: repr(value)[:20])
def test_scalars_are_written_by_hand(value, monkeypatch):
    """Without cbor2, which takes four times as long."""
    expected = cbor2.dumps(value)
    monkeypatch.setattr("ipcpoll._wire.codec.cbor2", None)
    assert encode(value) == expected


def test_head_of_any_length():
    for length in (0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1):
        assert array_head(length) == head(4, length)
        assert map_head(length) == head(5, length)


@given(LEAVES | st.sampled_from([math.nan, math.inf, -math.inf, 255, 256, 65535, 65536, 2**32]))
def test_encoded_scalars_are_those_of_cbor2(value):
    assert encode(value) == cbor2.dumps(value)


def test_value_that_can_not_be_carried_is_named():
    with pytest.raises(TypeError, match=r"^Frozen\.a must be an int, .*; give its `\.value`$"):
        payload_of(Frozen(Level.LOW))
    with pytest.raises(TypeError, match=r"^Frozen\.b must be a str"):
        payload_of(Frozen(1, object()))
    with pytest.raises(ValueError, match=r"^Frozen\.a: an integer outside"):
        payload_of(Frozen(2**64))
    with pytest.raises(ValueError, match=r"^Frozen\.b: text with a lone surrogate"):
        payload_of(Frozen(1, "\ud800"))


# ---------------------------------------------------------------------------------------------
# One frame that is all there is


@pytest.mark.parametrize("command", GOOD, ids=repr)
def test_only_call_is_the_call_that_receive_gives(command):
    data = framed(payload_of(command))
    alone, usual = by_hand(), by_hand()
    usual.receive(data)
    expected = usual.next_request()
    call = alone.only_call(data)
    if call is None:  # too long for a short head, or not read by hand
        assert len(data) > 0xFFFF + 5 or expected.command_type is None
    else:
        assert repr(call) == repr(expected)
        assert alone.calls == usual.calls
    assert alone.bytes_waiting == 0


FIRST_IDS = (None, 0, 1, 23, 24, 255, 256, 257, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1)


@pytest.mark.parametrize("longer", range(5))
@pytest.mark.parametrize("call_id", FIRST_IDS)
def test_call_with_any_id_is_read_by_hand(call_id, longer):
    """Alone, and from what waits."""
    id_item = b"\xf6" if call_id is None else head(0, call_id, longer)
    payload = resolve(Frozen).encode_call(id_item, Frozen(1, "two"))
    alone, usual = by_hand(), by_hand()
    usual.receive(framed(payload))
    for protocol, call in (
        (alone, alone.only_call(framed(payload))),
        (usual, usual.next_request()),
    ):
        assert call is not None
        assert call.call_id == call_id
        assert call.command == Frozen(1, "two")
        assert list(protocol.calls) == ([] if call_id is None else [call_id])
        assert protocol.bytes_waiting == 0
        assert len(protocol.waiting) == 0


@pytest.mark.parametrize("size", [235, 239, 240, 241, 245, 1000, 65_513, 65_514, 65_515, 65_600])
def test_largest_call_that_is_taken_alone(size):
    """One whose length stands in two bytes."""
    payload = payload_of(Frozen(1, "x" * size))
    call = by_hand().only_call(framed(payload))
    assert (call is not None) is (len(payload) <= 0xFFFF)


@pytest.mark.parametrize("size", [1, 100, 300])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_limit_of_a_frame_holds_for_what_is_alone(more, size):
    payload = payload_of(Frozen(1, "x" * size))
    limits = Limits(max_frame=len(payload) + more)
    assert (by_hand(limits).only_call(framed(payload)) is not None) is (more >= 0)
    payload = b"\x83\x07\x00" + cbor2.dumps("x" * size)
    limited = ClientProtocol(Limits(max_answer=len(payload) + more), DECODER)
    limited.calls[7] = CALL_BEGUN
    assert (limited.only_answer(framed(payload)) is not None) is (more >= 0)


CALL = framed(payload_of(Frozen(1, "two")))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        CALL[:-1],
        CALL + b"\xd8",
        CALL + CALL,
        b"\xd9" + CALL[1:],
        framed(b""),
        framed(b"\x83"),
        framed(b"\x81\x07"),
        framed(payload_of(Frozen(1, "two")), longer=3),
        framed(b"\x84" + payload_of(Frozen(1, "two"))[1:] + b"\xa0"),
        framed(b"\x83\x07\x67Unknown\xa0"),
        framed(b"\x83\x40\x66Frozen\xa0"),
        *(
            framed(first + payload_of(Frozen(1, "two"))[1:])
            for first in (b"\x82", b"\x84", b"\x85")
        ),
    ],
)
def test_anything_else_is_to_be_received(data):
    protocol = by_hand()
    assert protocol.only_call(data) is None
    assert protocol.calls == {}


def test_nothing_is_alone_where_something_waits_or_the_connection_ends():
    for before in (CALL[:2], CALL, b"GET /"):
        protocol = by_hand()
        protocol.receive(before)
        assert protocol.only_call(CALL) is None
    for end in (ServerProtocol.hang_up, ServerProtocol.close):
        protocol = by_hand()
        end(protocol)
        assert protocol.only_call(CALL) is None
    protocol = by_hand()
    assert protocol.only_call(CALL) is not None
    assert protocol.only_call(CALL) is None, "the id is in flight"
    assert by_hand(Limits(max_frame=len(CALL) - 4)).only_call(CALL) is None


def test_cancel_that_waits_is_seen_by_a_call_that_is_read():
    protocol = by_hand()
    protocol.receive(CALL + framed(b"\x81\x07"))
    assert protocol.next_request().cancelled


def client(*in_flight):
    protocol = ClientProtocol(DEFAULT_LIMITS, DECODER)
    for call_id in in_flight:
        protocol.call(call_id, b"\x80")
    return protocol


@given(IDS, LEAVES, st.integers(0, 4))
def test_only_answer_is_the_answer_that_receive_gives(call_id, value, longer):
    payload = b"\x83" + head(0, call_id, longer) + b"\x00" + cbor2.dumps(value)
    alone, usual = client(call_id), client(call_id)
    usual.receive(framed(payload))
    expected = usual.next_response()
    answer = alone.only_answer(framed(payload))
    if answer is not None:
        assert repr(answer) == repr(expected)
        assert alone.calls == {}
    assert repr(expected) == repr(Answer(call_id, value))
    assert usual.calls == {}


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x83",
        b"\x83\x07\x00",
        b"\x83\x07\x02\x01",
        b"\x83\x07\x01\xa0",
        b"\x83\x08\x00\x01",
        b"\x83\xf6\x00\x01",
        b"\x83\x07\x00\x01\x01",
        b"\x83\x19\x01\x00\x01",
        b"\x83\x07\x00\x80",
        b"\x84\x07\x02\x01\xa0",
        *(first + b"\x07\x00\x01" for first in (b"\x82", b"\x84", b"\x03", b"\xa3")),
    ],
)
def test_any_other_response_is_to_be_received(payload):
    protocol = client(7)
    assert protocol.only_answer(framed(payload)) is None
    assert list(protocol.calls) == [7]


@pytest.mark.parametrize("first", range(256))
def test_only_an_id_is_taken_for_one(first):
    """Whatever the byte in its place is, and whichever calls are in flight: null is not 246."""
    payload = b"\x83%c\x00\x01" % first
    protocol = client(*range(256))
    answer = protocol.only_answer(framed(payload))
    assert answer == (Answer(first, 1) if first < 24 else None)
    assert len(protocol.calls) == (255 if first < 24 else 256)


def test_closed_connection_keeps_no_frames():
    for protocol in (client(7), by_hand()):
        protocol.receive(CALL + CALL + CALL[:5])
        assert protocol.bytes_waiting > 5
        protocol.close()
        assert len(protocol.waiting) == 0
        assert protocol.bytes_waiting == 5


@pytest.mark.parametrize("longer", range(5))
@pytest.mark.parametrize("call_id", FIRST_IDS[1:])
def test_answer_with_any_id_is_read_by_hand(call_id, longer):
    """Alone, and from what waits, without the decoder."""
    data = framed(b"\x83" + head(0, call_id, longer) + b"\x00\x18\x64")
    alone, usual = client(call_id, 5), client(call_id, 5)
    usual._decoder = None
    usual.receive(data)
    for protocol, answer in (
        (alone, alone.only_answer(data)),
        (usual, usual.next_response()),
    ):
        assert answer == Answer(call_id, 100)
        assert list(protocol.calls) == [5]
        assert protocol.bytes_waiting == 0


def test_answer_is_not_alone_where_something_waits_or_the_connection_ends():
    data = framed(b"\x83\x07\x00\x01")
    assert client(7).only_answer(data) == Answer(7, 1)
    for before in (data[:2], framed(b"\x83\x07\x02\x01"), b"GET /"):
        protocol = client(7)
        protocol.receive(before)
        assert protocol.only_answer(data) is None
    for end in (ClientProtocol.hang_up, ClientProtocol.close):
        protocol = client(7)
        end(protocol)
        assert protocol.only_answer(data) is None
    for other in (data[:-1], data + b"\x00", data + data, b"\xd9" + data[1:]):
        assert client(7).only_answer(other) is None


@pytest.mark.parametrize("size", [0, 1, *range(14, 27), 200, 300])
@pytest.mark.parametrize("call_id", FIRST_IDS[1:])
def test_answer_is_one_frame_with_the_shortest_heads(call_id, size):
    item = b"\x01" * size
    protocol = by_hand()
    protocol.calls[call_id] = CALL_BEGUN
    payload = b"\x83" + head(0, call_id) + b"\x00" + item
    assert protocol.answer(call_id, item) == framed(payload)
    assert protocol.calls == {}
    with pytest.raises(IllegalTransition):
        protocol.answer(call_id, item)


@pytest.mark.parametrize("call_id", FIRST_IDS[1:])
@pytest.mark.parametrize("more", range(-12, 3))
def test_answer_over_the_limit_is_refused_to_the_byte(call_id, more):
    protocol = by_hand(Limits(max_answer=300))
    protocol.calls[call_id] = CALL_BEGUN
    around = 1 + len(head(0, call_id)) + 1
    item = bytes(300 - around + more)
    if more <= 0:
        sent = framed(b"\x83" + head(0, call_id) + b"\x00" + item)
        assert protocol.answer(call_id, item) == sent
        assert protocol.calls == {}
    else:
        with pytest.raises(FrameTooLarge, match=f"has {300 + more} bytes, the limit is 300"):
            protocol.answer(call_id, item)
        assert list(protocol.calls) == [call_id]


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_call_over_the_limit_is_refused_to_the_byte(more):
    protocol = ClientProtocol(Limits(max_frame=300), DECODER)
    if more <= 0:
        assert protocol.call(7, bytes(300 + more)) == framed(bytes(300 + more))
        assert list(protocol.calls) == [7]
        with pytest.raises(IllegalTransition):
            protocol.call(7, b"\x80")
    else:
        with pytest.raises(FrameTooLarge, match="has 301 bytes, the limit is 300"):
            protocol.call(7, bytes(300 + more))
        assert protocol.calls == {}


def test_nothing_is_sent_on_a_connection_that_has_ended():
    for end in (ClientProtocol.hang_up, ClientProtocol.close):
        protocol = client(7)
        end(protocol)
        with pytest.raises(IllegalTransition):
            protocol.call(8, b"\x80")
    for end in (ServerProtocol.hang_up, ServerProtocol.close):
        protocol = by_hand()
        assert protocol.only_call(CALL) is not None
        end(protocol)
        with pytest.raises(IllegalTransition):
            protocol.answer(7, b"\x01")


def test_a_traceback_shows_the_lines_of_what_was_written():
    """Also after the cache of lines was checked against files that changed."""

    @dataclass
    class Odd:
        a: int

        def process(self, ctx: object) -> None: ...

    command_type = resolve(Odd)
    linecache.checkcache()
    with pytest.raises(AttributeError) as caught:
        command_type._write(b"\x01", object())
    shown = "".join(traceback.format_exception(caught.value))
    assert f'File "<ipcpoll {__name__}.{Odd.__qualname__}>", line ' in shown
    assert "    v0 = command.a\n" in shown
