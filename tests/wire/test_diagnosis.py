"""What is wrong with a payload and where: whole sentences, found in bounded time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import ARRAY, NEARLY_STRICT, NULL, STRICT, TEXT, arrays, head, text

from ipcpoll._wire.diagnosis import MOST_ITEMS, find_fault
from ipcpoll.limits import LEAST_ERROR

LONG = "x" * 60

FAULTS = [
    ("", "the frame is empty"),
    # Bytes that are missing or left over
    ("18", "cut short: at least 1 byte missing - at `$` (byte 1)"),
    ("1a 0000", "cut short: at least 2 bytes missing - at `$` (byte 1)"),
    ("43 0000", "cut short: at least 1 byte missing - at `$` (byte 1)"),
    ("62 61", "cut short: at least 1 byte missing - at `$` (byte 1)"),
    ("f9 00", "cut short: at least 1 byte missing - at `$` (byte 1)"),
    ("82 00", "cut short: at least 1 byte missing - at `$[1]` (byte 2)"),
    ("a1", "cut short: at least 1 byte missing - at `$` (byte 1)"),
    ("a1 6161", "cut short: at least 1 byte missing - at `$.a` (byte 3)"),
    ("a2 6161 00", "cut short: at least 1 byte missing - at `$` (byte 4)"),
    ("81 a1 62", "cut short: at least 2 bytes missing - at `$[0]` (byte 3)"),
    (
        "9b 7fffffffffffffff",
        "cut short: at least 1 byte missing - at `$[0]` (byte 9)",
    ),
    (
        "5b 8000000000000000",
        "cut short: at least 9223372036854775808 bytes missing - at `$` (byte 9)",
    ),
    ("00 00", "1 byte left over behind the item (byte 1)"),
    ("80 616161", "3 bytes left over behind the item (byte 1)"),
    ("a1 6161 00 f7", "1 byte left over behind the item (byte 4)"),
    # Forms that are not carried
    ("9f ff", "array of indefinite length - at `$` (byte 0)"),
    ("bf ff", "map of indefinite length - at `$` (byte 0)"),
    ("5f 4100 ff", "byte string of indefinite length - at `$` (byte 0)"),
    ("7f 6161 ff", "text of indefinite length - at `$` (byte 0)"),
    ("81 ff", "a break (ff) without a beginning - at `$[0]` (byte 1)"),
    ("c0 00", "tag 0: tags are not carried - at `$` (byte 0)"),
    ("82 00 d818 4100", "tag 24: tags are not carried - at `$[1]` (byte 2)"),
    (
        "a1 6161 dbffffffffffffffff 00",
        "tag 18446744073709551615: tags are not carried - at `$.a` (byte 3)",
    ),
    ("1c", "the head 1c is reserved - at `$` (byte 0)"),
    ("81 3d", "the head 3d is reserved - at `$[0]` (byte 1)"),
    ("1f", "the head 1f is reserved - at `$` (byte 0)"),
    ("3f", "the head 3f is reserved - at `$` (byte 0)"),
    ("df 00", "the head df is reserved - at `$` (byte 0)"),
    ("fe", "the head fe is reserved - at `$` (byte 0)"),
    # Values that are not carried
    ("f7", "undefined: only false, true and null are carried - at `$` (byte 0)"),
    ("81 e0", "simple value 0: only false, true and null are carried - at `$[0]` (byte 1)"),
    ("f3", "simple value 19: only false, true and null are carried - at `$` (byte 0)"),
    ("f814", "simple value 20: only false, true and null are carried - at `$` (byte 0)"),
    ("f8ff", "simple value 255: only false, true and null are carried - at `$` (byte 0)"),
    ("3b 8000000000000000", "an integer below -2^63 - at `$` (byte 0)"),
    ("82 00 3b ffffffffffffffff", "an integer below -2^63 - at `$[1]` (byte 2)"),
    ("61 ff", "text that is not UTF-8 - at `$` (byte 0)"),
    ("a1 61ff 00", "text that is not UTF-8 - at `$` (byte 1)"),
    ("81 63 eda080", "text that is not UTF-8 - at `$[0]` (byte 1)"),
    ("81 62 c080", "text that is not UTF-8 - at `$[0]` (byte 1)"),
    # Keys
    ("a1 01 00", "a map's key must be text, not integer - at `$` (byte 1)"),
    ("a1 20 00", "a map's key must be text, not integer - at `$` (byte 1)"),
    ("a1 4161 00", "a map's key must be text, not byte string - at `$` (byte 1)"),
    ("a1 80 00", "a map's key must be text, not array - at `$` (byte 1)"),
    ("a1 a0 00", "a map's key must be text, not map - at `$` (byte 1)"),
    ("a1 c1 00 00", "a map's key must be text, not tag - at `$` (byte 1)"),
    ("a1 f6 00", "a map's key must be text, not simple value - at `$` (byte 1)"),
    (
        "a1 6161 a2 6162 00 00 00",
        "a map's key must be text, not integer - at `$.a` (byte 7)",
    ),
    ("a2 6161 00 6161 01", "the key 'a' stands twice - at `$` (byte 4)"),
    ("a2 6161 00 780161 01", "the key 'a' stands twice - at `$` (byte 4)"),
    ("a2 60 00 60 01", "the key '' stands twice - at `$` (byte 3)"),
]


@pytest.mark.parametrize(("payload", "sentence"), FAULTS)
def test_sentence(payload, sentence):
    assert find_fault(bytes.fromhex(payload)) == sentence


@pytest.mark.parametrize(
    "payload",
    [
        "00", "1800", "1b0000000000000000", "1bffffffffffffffff", "20", "3b7fffffffffffffff",
        "40", "5800", "60", "7b0000000000000000", "80", "9800", "a0", "bb0000000000000000",
        "f4", "f5", "f6", "f97e00", "f9fc00", "fa7f800000", "fb0000000000000000",
        "82 80 a1 6161 81 a0", "a2 6161 00 6162 00",
    ],
)  # fmt: skip
def test_nothing_is_wrong(payload):
    assert find_fault(bytes.fromhex(payload)) is None


@given(STRICT)
def test_nothing_is_wrong_with_strict_items(item):
    assert find_fault(item[1]) is None


@given(STRICT)
def test_every_beginning_of_an_item_is_cut_short(item):
    payload = item[1]
    for size in range(1, len(payload)):
        assert find_fault(payload[:size]).startswith("cut short: at least ")


def test_fault_lies_in_the_middle_of_a_message():
    call = b"\x83\x01" + text("Paint") + b"\xa1" + text("colours") + b"\x82\x00\xc1\x00"
    assert find_fault(call) == "tag 1: tags are not carried - at `$[2].colours[1]` (byte 19)"


@pytest.mark.parametrize("inside", [b"\x00", b"\x80", b"\xa0", NULL])
def test_sixty_four_levels_are_the_most(inside):
    container = inside in (b"\x80", b"\xa0")
    assert find_fault(arrays(64 - container, inside)) is None
    place = "$" + "[0]" * 13 + "…"
    assert find_fault(arrays(65 - container, inside)) == (
        f"more than 64 levels - at `{place}` (byte 64)"
    )


@pytest.mark.parametrize("depth", [65, 400, 100_000])
def test_depth_is_refused_where_it_begins(depth):
    assert find_fault(arrays(depth)).endswith("(byte 64)")
    assert find_fault(b"\xa1\x61a" * depth + b"\x00").endswith("(byte 192)")


def test_siblings_are_no_levels():
    assert find_fault(head(ARRAY, 200) + b"\x81\x00" * 200) is None


def test_long_keys_and_places_are_cut():
    key = text(LONG)
    assert find_fault(b"\xa2" + key + b"\x00" + key + b"\x00") == (
        f"the key '{LONG[:40]}…' stands twice - at `$` (byte 64)"
    )
    assert find_fault(b"\xa1" + key + b"\xf7") == (
        f"undefined: only false, true and null are carried - at `$.{LONG[:38]}…` (byte 63)"
    )


def test_reading_ends_behind_the_most_items():
    """A fault there is left to cbor2, which has read it already."""
    inside = head(ARRAY, MOST_ITEMS) + b"\x00" * (MOST_ITEMS - 1)
    assert find_fault(inside + b"\xf7") is None
    shorter = head(ARRAY, MOST_ITEMS - 1) + b"\x00" * (MOST_ITEMS - 2)
    assert find_fault(shorter + b"\xf7").startswith("undefined")
    assert find_fault(shorter + b"\x00") is None


def test_every_first_byte_alone():
    good = {*range(24), *range(0x20, 0x38), 0x40, 0x60, 0x80, 0xA0, 0xF4, 0xF5, 0xF6}
    assert {first for first in range(256) if find_fault(bytes([first])) is None} == good


@given(st.binary(max_size=60) | NEARLY_STRICT)
def test_it_never_raises_and_is_short(payload):
    sentence = find_fault(payload)
    assert sentence is None or len(sentence.encode()) < LEAST_ERROR - 100


@pytest.mark.parametrize("letter", ["\n", "\U000e0001", "\U0001f600"])
def test_it_is_short_whatever_the_letters_of_a_key(letter):
    key = text(letter * 1000)
    for payload in (b"\xa2" + key + b"\x00" + key + b"\x00", b"\xa1" + key + b"\xf7"):
        assert len(find_fault(payload).encode()) < LEAST_ERROR - 100


def test_text_of_several_bytes_to_a_letter_is_counted_in_bytes():
    assert find_fault(head(TEXT, 4) + "é€".encode()) == ("text that is not UTF-8 - at `$` (byte 0)")
    assert find_fault(text("é€")) is None
