"""The functions written for a command class, and all short ways: the same as the long ones.

A call or an answer that is read by hand is what the decoder and the conversion would have made of
the same bytes, and whatever is not read by hand is left to them.
"""

import abc
import math
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

from ipcpoll.codec import Decoder, encode, scalar_item
from ipcpoll.errors import WireError
from ipcpoll.limits import DEFAULT_LIMITS, Limits
from ipcpoll.protocol import Answer, ClientProtocol, ServerProtocol
from ipcpoll.schema import CommandSet, resolve

DECODER = Decoder()
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
    return resolve(type(command)).encode_call(encode(call_id), command)


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
        (b"\xa2\x61a\x01\x61b\x02", "Expected `str`, got `int` - at `$.b`"),
        (b"\xa2\x61a\xf5\x61b\x60", "Expected `int`, got `bool` - at `$.a`"),
        (b"\xa2\x61a\xf6\x61b\x60", "Expected `int`, got `null` - at `$.a`"),
        (b"\xa2\x61b\x60\x61c\x01", "has no field `c`"),
        (b"\xa1\x61b\x60", "missing required field `a`"),
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


@given(LEAVES | st.sampled_from([math.nan, math.inf, -math.inf, 255, 256, 65535, 65536, 2**32]))
def test_encoded_scalars_are_those_of_cbor2(value):
    assert encode(value) == cbor2.dumps(value)


def test_value_that_is_no_scalar_is_converted_and_named():
    assert cbor2.loads(payload_of(Frozen(Level.LOW)))[2]["a"] == 1
    with pytest.raises(TypeError, match=r"^Frozen\.b: "):
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
        assert len(data) > 255 + 4 or expected.command_type is None
    else:
        assert repr(call) == repr(expected)
        assert alone.calls == usual.calls
    assert alone.bytes_waiting == 0


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
        framed(payload_of(Frozen(1, "two")), longer=2),
        framed(b"\x84" + payload_of(Frozen(1, "two"))[1:] + b"\xa0"),
        framed(b"\x83\x07\x67Unknown\xa0"),
        framed(b"\x83\x40\x66Frozen\xa0"),
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
    ],
)
def test_any_other_response_is_to_be_received(payload):
    protocol = client(7)
    assert protocol.only_answer(framed(payload)) is None
    assert list(protocol.calls) == [7]
