"""Plain values to CBOR and back, strictly: for any bytes a plain value or a `WireError`."""

import collections
import functools
import http
import time

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import (
    ARRAY,
    MAP,
    NEARLY_STRICT,
    PLAIN,
    STRICT,
    TAG,
    Fault,
    arrays,
    fault,
    head,
    text,
)

from ipcpoll._wire import codec
from ipcpoll._wire.codec import Decoder, encode
from ipcpoll._wire.diagnosis import MOST_ITEMS, find_fault
from ipcpoll.errors import WireError

DECODER = Decoder()
"""One for all tests, on purpose: no test may leave anything behind in it."""


def decode(payload):
    return DECODER.decode(payload)


def outcome(decoder, payload):
    """Return what can be compared: the value's `repr`, or the fault."""
    try:
        # `repr` tells 1 from 1.0 and True, and -0.0 from 0.0, and finds NaN equal.
        return repr(decoder.decode(payload))
    except WireError as error:
        return fault(error)


def refusal(payload):
    with pytest.raises(WireError) as caught:
        decode(payload)
    assert decode(b"\x07") == 7  # it is good after each error
    return fault(caught.value)


def malformed(message):
    return Fault("malformed", message)


# ---------------------------------------------------------------------------------------------
# Decoding what is good


@given(STRICT)
def test_every_form_of_a_plain_value_is_read(item):
    value, payload = item
    assert outcome(DECODER, payload) == repr(value)


@given(PLAIN)
def test_what_any_cbor_library_writes_is_read(value):
    assert repr(decode(cbor2.dumps(value))) == repr(value)
    assert repr(decode(cbor2.dumps(value, canonical=True))) == repr(
        cbor2.loads(cbor2.dumps(value, canonical=True))
    )


@pytest.mark.parametrize("size", [65534, 65535, 65536, 65537, 131071, 200_000])
def test_long_text_is_whole(size):
    """A reader in pieces of 64 KiB must not cut a letter in two."""
    for words in ("x" * size + "é", "é€" * (size // 4), "\U0001f600" * (size // 4) + "x"):
        assert decode(text(words)) == words


def test_long_array_is_whole():
    assert decode(head(ARRAY, 100_000) + b"\x00" * 100_000) == [0] * 100_000


def test_flat_bomb_of_64_kib_is_read_or_refused():
    """65,533 arrays: legal as the items of one array, left over without it."""
    empties = b"\x80" * 65_533
    assert decode(head(ARRAY, 65_533) + empties) == [[]] * 65_533
    assert refusal(empties) == malformed("65532 bytes left over behind the item (byte 1)")


@pytest.mark.parametrize("inside", [b"\x00", b"\x80", b"\xa0"])
def test_sixty_four_levels_are_carried(inside):
    container = inside != b"\x00"
    for depth in (62, 63, 64):
        payload = arrays(depth - container, inside)
        assert encode(decode(payload)) == payload
    maps = b"\xa1\x61a" * (64 - container) + inside
    assert encode(decode(maps)) == maps


# ---------------------------------------------------------------------------------------------
# Decoding what is not


def assert_agreement(payload):
    """Two readings of RFC 8949, written independently, come to the same."""
    sentence = find_fault(payload)
    expected = repr(cbor2.loads(payload)) if sentence is None else malformed(sentence)
    assert outcome(DECODER, payload) == expected


@given(NEARLY_STRICT | st.binary(max_size=40))
def test_decoder_and_diagnosis_agree(payload):
    assert_agreement(payload)


@pytest.mark.parametrize("first", [0x18, 0x38, 0x58, 0x78, 0x98, 0xB8, 0xD8, 0xF8, 0xA1, 0x81])
def test_decoder_and_diagnosis_agree_on_each_second_byte(first):
    for second in range(256):
        for rest in (b"", b"\x00", b"\x00\x00", b"\x61a\x00"):
            assert_agreement(bytes([first, second]) + rest)


def test_decoder_and_diagnosis_agree_on_each_head():
    for first in range(256):
        for rest in (b"", b"\x00", b"\x61", b"\x61a\x00", bytes(8), b"\xff" * 8):
            assert_agreement(bytes([first]) + rest)


TAGS = [
    *range(40),
    *(100, 256, 258, 260, 261, 1004, 43000, 55799, 55800, 65535),
    *(2**16, 2**31, 2**32 - 1, 2**32, 2**53, 2**63, 2**64 - 1),
]


@pytest.mark.parametrize("number", TAGS)
def test_hazard_39_every_tag_is_refused(number):
    expected = malformed(f"tag {number}: tags are not carried - at `$` (byte 0)")
    for content in (b"\x00", b"\x41\x01", b"\x80", b"\xa0", text("2020-01-01T00:00:00Z"), b"\xf6"):
        assert refusal(head(TAG, number) + content) == expected
        assert refusal(head(TAG, number, longer=4) + content) == expected
    inside = refusal(b"\x82\x00" + head(TAG, number) + b"\x80")
    assert inside == malformed(f"tag {number}: tags are not carried - at `$[1]` (byte 2)")


def test_table_of_tags_is_empty_and_refuses_to_be_asked():
    """In whichever way cbor2 asks. And it is a dict, of which cbor2 asks nothing in Python."""
    table = codec._NoTags()
    assert isinstance(table, dict)
    assert (len(table), list(table)) == (0, [])
    for ask in (table.__getitem__, table.get, table.__contains__):
        with pytest.raises(ValueError, match=r"^tag 28$"):
            ask(28)


@pytest.mark.parametrize("size", [0, 1, codec.LARGE - 1, codec.LARGE, codec.LARGE + 1, 70_000])
def test_large_text_is_given_in_parts_and_not_copied(size):
    for value in (bytes(size), "x" * size, "é" * size):
        parts = codec.encode_parts(value)
        assert b"".join(parts) == encode(value)
        assert len(parts) == (2 if size >= codec.LARGE else 1)
        if type(value) is bytes and size >= codec.LARGE:
            assert parts[1] is value


def test_anything_else_is_one_part():
    for value in (7, None, [bytes(70_000)], {"a": "x" * 70_000}):
        assert codec.encode_parts(value) == (encode(value),)
    with pytest.raises(ValueError, match="a lone surrogate"):
        codec.encode_parts("x" * codec.LARGE + "\ud800")
    with pytest.raises(TypeError):
        codec.encode_parts(object())


SHARED = head(TAG, 28) + b"\x82" + head(TAG, 29) + b"\x00" + head(TAG, 29) + b"\x00"
DOUBLING = b"\x82" + b"".join(
    head(TAG, 28) + b"\x82" + (head(TAG, 29) + head(0, i)) * 2 for i in range(40)
)
STRING_REFS = head(TAG, 256) + b"\x99\x10\x00" + text("x" * 300) + (head(TAG, 25) + b"\x00") * 4095
COLLIDING = head(MAP, 4000) + b"".join(
    head(TAG, 2) + b"\x4a" + (k * (2**61 - 1)).to_bytes(10, "big") + b"\x00" for k in range(1, 4001)
)
COLLIDING_ARRAYS = head(MAP, 4000) + b"".join(
    b"\x82" + head(0, k) + head(1, k) + b"\x00" for k in range(4000)
)


@pytest.mark.parametrize(
    ("bomb", "begins"),
    [
        pytest.param(SHARED, "tag 28: ", id="a list that holds itself"),
        pytest.param(DOUBLING, "tag 28: ", id="shared references, 2 to the 40"),
        pytest.param(STRING_REFS, "tag 256: ", id="string references"),
        pytest.param(COLLIDING, "a map's key must be text, not tag", id="colliding bignums"),
        pytest.param(COLLIDING_ARRAYS, "a map's key must be text, not array", id="arrays as keys"),
        pytest.param(head(TAG, 35) + text("(a+)+$" * 5000), "tag 35: ", id="regular expression"),
        pytest.param(head(TAG, 36) + text("MIME-Version: 1.0\n" * 5000), "tag 36: ", id="MIME"),
        pytest.param(head(TAG, 4) + b"\x82\x1a\x7f\xff\xff\xff\x01", "tag 4: ", id="decimal"),
        pytest.param(b"\xd8\x18" * 30_000 + b"\x40", "tag 24: ", id="tags in tags"),
        pytest.param(b"\x9f" * 65_536, "array of indefinite length", id="endless arrays"),
        pytest.param(b"\xbf" * 65_536, "map of indefinite length", id="endless maps"),
        pytest.param(b"\x80" * 65_536, "65535 bytes left over", id="64 KiB of empty arrays"),
        pytest.param(b"\x81" * 65_536, "more than 64 levels", id="64 KiB of arrays"),
        pytest.param(b"\xff" * 65_536, "a break (ff)", id="64 KiB of breaks"),
    ],
)
def test_bomb_is_refused(bomb, begins):
    assert refusal(bomb).message.startswith(begins)


@pytest.mark.parametrize("claim", [2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("major", [2, 3, 4, 5])
def test_claim_of_a_length_is_not_believed(major, claim):
    assert refusal(head(major, claim) + b"\x61").message.startswith("cut short: ")
    assert refusal(head(ARRAY, claim) * 60).message.startswith("cut short: ")


@pytest.mark.parametrize("key", [b"\x61a", b"\x78\x01a"])
def test_key_that_stands_twice_is_refused(key):
    payload = b"\xa2\x61a\x00" + key + b"\x00"
    assert refusal(payload) == malformed("the key 'a' stands twice - at `$` (byte 4)")
    assert refusal(b"\x81" + payload).message.startswith("the key 'a' stands twice - at `$[0]`")


@pytest.mark.parametrize("depth", [65, 400, 100_000])
def test_too_deep_is_refused(depth):
    assert refusal(arrays(depth)).message.startswith("more than 64 levels - at `$[0][0]")
    assert refusal(arrays(depth - 1, b"\x80")).message.startswith("more than 64 levels")
    assert refusal(b"\xa1\x61a" * depth + b"\x00").message.startswith("more than 64 levels")
    for empty in (b"\x80", b"\xa0"):
        payload = b"\xa1\x61a" * (depth - 1) + empty
        assert refusal(payload).message.startswith("more than 64 levels")


@pytest.mark.parametrize(
    "payload",
    [b"", b"add 2 3\n", b"GET / HTTP/1.1\r\n", b'["Add", {"a": 2}]', b"\x16\x03\x01", b"\x00\x00"],
)
def test_what_is_no_item_is_refused(payload):
    assert refusal(payload) == malformed(find_fault(payload))


def test_fault_behind_what_is_looked_at_is_told_in_the_words_of_cbor2():
    zeros = b"\x00" * MOST_ITEMS
    begin = head(ARRAY, MOST_ITEMS + 1) + zeros
    message = refusal(begin + head(TAG, 2) + b"\x41\x00").message
    assert message.startswith("not one strict CBOR item: ")
    assert len(message) < 300
    assert refusal(begin).message.startswith("not one strict CBOR item: premature end")


@pytest.mark.parametrize("last", [b"\xf7", head(1, 2**63), b"\xa1\x41a\x00"])
def test_fault_behind_what_is_looked_at_is_found_all_the_same(last):
    """What cbor2 itself takes."""
    begin = head(ARRAY, MOST_ITEMS + 1) + b"\x00" * MOST_ITEMS
    assert refusal(begin + last) == malformed("not one strict CBOR item")
    assert refusal(begin + b"\x00\x00") == malformed("not one strict CBOR item")


# ---------------------------------------------------------------------------------------------
# One decoder for many payloads


@given(st.lists(STRICT.map(lambda item: item[1]) | NEARLY_STRICT | st.binary(), max_size=6))
def test_hazard_39_nothing_leaks_from_one_payload_to_the_next(payloads):
    used = Decoder()
    for payload in payloads:
        assert outcome(used, payload) == outcome(Decoder(), payload)


def test_shorter_payload_is_not_read_into_the_longer_one_before_it():
    assert decode(head(ARRAY, 3) + b"\x01\x02\x03") == [1, 2, 3]
    assert refusal(head(ARRAY, 3) + b"\x09").message.startswith("cut short")


class Panic(BaseException):
    """Stands for a panic in cbor2: pyo3's derives from BaseException."""


@pytest.fixture
def break_cbor2(monkeypatch):
    """Let the first decoder that is made raise an error, once; later ones are cbor2's."""

    def make(error):
        real = cbor2.CBORDecoder
        made = []

        class Breaking:
            def __init__(self, *args, **kwargs):
                made.append(self)
                self.real = real(*args, **kwargs)

            def decode(self):
                if self is made[0]:
                    raise error
                return self.real.decode()

        monkeypatch.setattr(cbor2, "CBORDecoder", Breaking)
        return Decoder()

    return make


@pytest.mark.parametrize("error", [Panic("at byte 3"), MemoryError("at byte 3"), RecursionError()])
def test_panic_of_cbor2_is_a_refusal_and_the_decoder_is_made_anew(break_cbor2, error):
    decoder = break_cbor2(error)
    with pytest.raises(WireError) as caught:
        decoder.decode(b"\x01")
    assert fault(caught.value) == malformed(f"not one strict CBOR item: {error}")
    assert decoder.decode(b"\x01") == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupt_comes_through_and_the_decoder_is_made_anew(break_cbor2, error):
    decoder = break_cbor2(error())
    with pytest.raises(error):
        decoder.decode(b"\x01")
    assert decoder.decode(b"\x02") == 2


# ---------------------------------------------------------------------------------------------
# Encoding


@given(PLAIN)
def test_plain_value_comes_back(value):
    payload = encode(value)
    assert find_fault(payload) is None
    assert repr(decode(payload)) == repr(value)
    assert payload == cbor2.dumps(value)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (Panic("at byte 3"), "ValueError: cbor2 failed: at byte 3"),
        (MemoryError("m"), "MemoryError: m"),
        (KeyboardInterrupt("k"), "KeyboardInterrupt: k"),
        (SystemExit("s"), "SystemExit: s"),
    ],
)
def test_panic_of_cbor2_is_an_error_of_the_encoder_and_interrupts_come_through(
    monkeypatch, error, raised
):
    def dumps(value):
        raise error

    monkeypatch.setattr(cbor2, "dumps", dumps)
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - the four have nothing in common
        encode([1, 2])
    assert f"{type(caught.value).__name__}: {caught.value}" == raised


def test_tuple_is_written_as_an_array():
    assert encode((1, ("a", []))) == encode([1, ["a", []]])


@pytest.mark.parametrize(
    "value",
    [
        0, 23, 24, 255, 256, -1, -24, -25, -256, 2**63, 2**64 - 1, -(2**63), True, False, None,
        0.0, 1.5, -0.0, float("inf"), "", "x" * 23, "x" * 24, "é" * 11, "é" * 12, b"", b"x" * 24,
    ],
)  # fmt: skip
def test_small_values_are_written_as_cbor2_does(value):
    assert encode(value) == cbor2.dumps(value)


@pytest.mark.parametrize("length", [0, 4, 23, 24, 255, 256, 65535])
def test_heads_are_the_shortest(length):
    assert codec.array_head(length) == head(ARRAY, length)
    assert codec.map_head(length) == head(MAP, length)


class Words(str):
    __slots__ = ()


class Lying:
    """Claims to be a `dict`, as a mock does."""

    __class__ = dict

    def items(self):
        return {}


CYCLE = []
CYCLE.append([0, {"a": CYCLE}])
DEEP = None
for _ in range(100_000):
    DEEP = [DEEP]
LEVELS = "$" + "[0]" * 13 + "…"

UNPLAIN = [
    (2**64, ValueError, "an integer outside -2^63 to 2^64-1 - at `$`"),
    (-(2**63) - 1, ValueError, "an integer outside -2^63 to 2^64-1 - at `$`"),
    ([0, {"a": 2**70}], ValueError, "an integer outside -2^63 to 2^64-1 - at `$[1].a`"),
    ("\ud800", ValueError, "text with a lone surrogate - at `$`"),
    (["a", ("\udfff" * 30,)], ValueError, "text with a lone surrogate - at `$[1][0]`"),
    ({"a": {"\ud800": 1}}, ValueError, "a map's key has a lone surrogate - at `$.a`"),
    ({1: 2}, TypeError, "a map's key must be text, not `int` - at `$`"),
    ([{b"a": 2}], TypeError, "a map's key must be text, not `bytes` - at `$[0]`"),
    ({"a": {None: 2}}, TypeError, "a map's key must be text, not `NoneType` - at `$.a`"),
    ({Words("a"): 2}, TypeError, "a map's key must be text, not `Words` - at `$`"),
    (1j, TypeError, "a value of type `complex` can't be carried - at `$`"),
    ([object()], TypeError, "a value of type `object` can't be carried - at `$[0]`"),
    ({"a": {1}}, TypeError, "a value of type `set` can't be carried - at `$.a`"),
    (bytearray(b"a"), TypeError, "a value of type `bytearray` can't be carried - at `$`"),
    ([Words("a")], TypeError, "a value of type `Words` can't be carried - at `$[0]`"),
    (Lying(), TypeError, "a value of type `Lying` can't be carried - at `$`"),
    (
        [None, 1.5, Ellipsis, 2**70],
        TypeError,
        "a value of type `ellipsis` can't be carried - at `$[2]`",
    ),
    (
        [[1, [2]], {"x": [3]}, 1j],
        TypeError,
        "a value of type `complex` can't be carried - at `$[2]`",
    ),
    (CYCLE, ValueError, "more than 64 levels - at `" + ("$" + "[0][1].a" * 9)[:40] + "…`"),
    (DEEP, ValueError, f"more than 64 levels - at `{LEVELS}`"),
    (
        {"k" * 100: {"l" * 100: 1j}},
        TypeError,
        f"a value of type `complex` can't be carried - at `$.{'k' * 38}…`",
    ),
    # What derives from a plain type is none.
    *[
        (
            [value],
            TypeError,
            f"a value of type `{type(value).__name__}` can't be carried - at `$[0]`",
        )
        for value in (
            http.HTTPStatus.OK,
            http.HTTPMethod.GET,
            collections.OrderedDict(),
            time.gmtime(0),
        )
    ],
    # What stands before it is as large as may be.
    (
        [2**64 - 1, -(2**63), "", 1j],
        TypeError,
        "a value of type `complex` can't be carried - at `$[3]`",
    ),
    (
        functools.reduce(lambda inner, _: [inner], range(64), 1j),
        TypeError,
        f"a value of type `complex` can't be carried - at `${'[0]' * 13}…`",
    ),
]


@pytest.mark.parametrize(("value", "kind", "message"), UNPLAIN, ids=range(len(UNPLAIN)))
def test_what_is_not_plain_is_refused_with_its_place(value, kind, message):
    with pytest.raises(kind) as caught:
        encode(value)
    assert type(caught.value) is kind
    assert str(caught.value) == message


@pytest.mark.parametrize("inside", [0, [], {}, ()])
def test_sixty_four_levels_are_encoded_and_no_more(inside):
    value = inside
    for _ in range(64 - (inside != 0)):
        value = [value]
    assert repr(decode(encode(value))) == repr(value).replace("()", "[]")
    with pytest.raises(ValueError, match=r"^more than 64 levels"):
        encode([value])
    with pytest.raises(ValueError, match=r"^more than 64 levels"):
        encode({"a": value})


@pytest.mark.parametrize("empty", [[], {}, ()])
def test_sixty_four_maps_are_encoded_and_no_more(empty):
    value = empty
    for _ in range(63):
        value = {"a": value}
    assert repr(decode(encode(value))) == repr(value).replace("()", "[]")
    with pytest.raises(ValueError, match=r"^more than 64 levels"):
        encode({"a": value})
