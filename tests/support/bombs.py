"""CBOR items that a client can send and that are refused: what each is, and how it is refused.

Bombs of length, depth, tags, colliding keys; repeated keys; kinds that are not carried. Used by
tests/hazards/test_frames.py, which sends each to a real server, and by tests/campaign.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import cbor2
from wire import ARRAY, BYTES, MAP, NEGATIVE, TAG, TEXT, UINT, head, text

from ipcpoll import Limits
from ipcpoll._wire.framing import frame

LIMIT = Limits().max_frame


class Bomb(NamedTuple):
    """An item that is refused, and how."""

    item: bytes
    sentence: str
    place: str | None = ""
    """Where in the item; None where the message names the byte alone."""


ID = 7


def as_whole(item: bytes) -> bytes:
    return item


def as_field(item: bytes) -> bytes:
    return b"\x83" + head(UINT, ID) + text("Echo") + b"\xa1" + text("value") + item


def as_notification(item: bytes) -> bytes:
    return b"\x83\xf6" + text("Echo") + b"\xa1" + text("value") + item


POSITIONS = [as_whole, as_field, as_notification]
PLACES = {as_whole: "$", as_field: "$[2].value", as_notification: "$[2].value"}


def array_of(items: list[bytes]) -> bytes:
    return head(ARRAY, len(items)) + b"".join(items)


def tag(number: int, item: bytes) -> bytes:
    return head(TAG, number) + item


def reference(index: int) -> bytes:
    return tag(29, head(UINT, index))


def doubling() -> bytes:
    """399 bytes that encode 2^40 nodes: each list holds the one before it twice."""
    first = tag(28, b"\x80")
    return array_of([first, *(tag(28, b"\x82" + reference(i) * 2) for i in range(39))])


def chain() -> bytes:
    """2.3 MB: a list in a list in a list and so on, 240,000 deep, and flat on the wire."""
    links = [tag(28, b"\x81" + reference(i)) for i in range(240_000)]
    return array_of([tag(28, b"\x80"), *links])


def string_references() -> bytes:
    """1.2 MB that an echo would turn into 83 GiB."""
    return tag(256, array_of([text("x" * 600_000), *[tag(25, b"\x00")] * 150_000]))


def bignum(i: int) -> bytes:
    """A big number whose hash is 0."""
    return tag(2, b"\x4a" + (i * (2**61 - 1)).to_bytes(10, "big"))


def pairs(keys: list[bytes]) -> bytes:
    return head(MAP, len(keys)) + b"".join(key + b"\x00" for key in keys)


def float_item(number: float) -> bytes:
    return cbor2.dumps(number)


def tagged(number: int, item: bytes, place: str = "") -> Bomb:
    """A bomb whose fault is its tag, at `place`."""
    return Bomb(item, f"tag {number}: tags are not carried", place)


MULTIPART = 'Content-Type: multipart/mixed; boundary="x"\n\n'
NO_TEXT = "a map's key must be text, not "
LEVELS = "more than 64 levels"

CLAIMS = {
    f"{kind} of 2^{bits} or so": (major, size)
    for kind, major in (("array", ARRAY), ("map", MAP), ("text", TEXT), ("bytes", BYTES))
    for bits, size in ((32, 2**32 - 1), (33, 2**32), (63, 2**63), (64, 2**64 - 1))
}


def claim(name: str) -> Bomb:
    major, size = CLAIMS[name]
    in_it = {ARRAY: "[0]"}.get(major, "")
    missing = "1 byte" if major in (ARRAY, MAP) else f"{size} bytes"
    return Bomb(head(major, size), f"cut short: at least {missing} missing", in_it)


def claims_the_rest() -> Bomb:
    """20,000 arrays, each of which claims all the bytes that follow."""
    claims = [b"\x9a" + (5 * left).to_bytes(4, "big") for left in reversed(range(20_000))]
    return Bomb(b"".join(claims), LEVELS, "[0]" * 64)


def empties(count: int) -> bytes:
    return b"\x80" * count


# What is refused for its lengths.
LENGTHS: dict[str, Callable[[], Bomb]] = {
    **{name: lambda name=name: claim(name) for name in CLAIMS},
    "claims the rest, 20,000 times": claims_the_rest,
    "256 KiB of empty arrays": lambda: Bomb(
        empties(LIMIT - 64), f"{LIMIT - 65} bytes left over behind the item", None
    ),
    "256 KiB of integers": lambda: Bomb(
        b"\x00" * (LIMIT - 64), f"{LIMIT - 65} bytes left over behind the item", None
    ),
    "250,000 empty arrays and a claim": lambda: Bomb(
        head(ARRAY, 250_001) + empties(250_000), "not one strict CBOR item: premature end", None
    ),
    "250,000 empty arrays and an undefined": lambda: Bomb(
        head(ARRAY, 250_001) + empties(250_000) + b"\xf7", "not one strict CBOR item", None
    ),
    "250,000 undefined": lambda: Bomb(
        head(ARRAY, 250_000) + b"\xf7" * 250_000,
        "undefined: only false, true and null are carried",
        "[0]",
    ),
}


# Tags: their content is never read.
TAGS: dict[str, Callable[[], Bomb]] = {
    "2^40 nodes in 399 bytes": lambda: tagged(28, doubling(), "[0]"),
    "chain of references": lambda: tagged(28, chain(), "[0]"),
    "list that holds itself": lambda: tagged(28, tag(28, b"\x81" + reference(0))),
    "map that holds itself": lambda: tagged(28, tag(28, b"\xa1\x61a" + reference(0))),
    "two lists that hold each other": lambda: tagged(
        28, tag(28, b"\x81" + tag(28, b"\x82" + reference(0) + reference(1)))
    ),
    "reference to nothing": lambda: tagged(29, reference(0)),
    "string references": lambda: tagged(256, string_references()),
    "string references that fit": lambda: tagged(
        256, tag(256, array_of([text("x" * 100_000), *[tag(25, b"\x00")] * 50_000]))
    ),
    "string reference alone": lambda: tagged(25, tag(25, b"\x00")),
    "MIME": lambda: tagged(36, tag(36, text(MULTIPART + "--x\n\n" * 60_000))),
    "MIME that fits": lambda: tagged(36, tag(36, text(MULTIPART + "--x\n\n" * 50_000))),
    "regular expression": lambda: tagged(35, tag(35, text("[a-zß]" * 58_000))),
    "regular expression that fits": lambda: tagged(35, tag(35, text("[a-zß]" * 37_000))),
    "bignum": lambda: tagged(2, tag(2, head(BYTES, 200_000) + b"\xff" * 200_000)),
    "negative bignum": lambda: tagged(3, tag(3, head(BYTES, 200_000) + b"\xff" * 200_000)),
    "set of colliding bignums": lambda: tagged(
        258, tag(258, array_of([bignum(i) for i in range(1, 8001)]))
    ),
    "decimal": lambda: tagged(4, tag(4, b"\x82\x1a\x7f\xff\xff\xff\x01")),
    "bigfloat": lambda: tagged(5, tag(5, b"\x82\x1a\x7f\xff\xff\xff\x01")),
    "extended decimal": lambda: tagged(264, tag(264, b"\x82\x1b" + b"\x7f" * 8 + b"\x01")),
    "rational": lambda: tagged(30, tag(30, b"\x82\x01\x00")),
    "rational of bignums": lambda: tagged(
        30, tag(30, b"\x82" + tag(2, b"\x59\xff\xff" + b"\xff" * 65_535) * 2)
    ),
    "date as text": lambda: tagged(0, tag(0, text("2026-01-02T03:04:05." + "9" * 100_000 + "Z"))),
    "date as a number": lambda: tagged(1, tag(1, b"\xfb\x7f\xef" + b"\xff" * 6)),
    "date in days": lambda: tagged(100, tag(100, b"\x1b" + b"\xff" * 8)),
    "day as text": lambda: tagged(1004, tag(1004, text("2026-01-02"))),
    "UUID": lambda: tagged(37, tag(37, head(BYTES, 16) + bytes(16))),
    "address": lambda: tagged(52, tag(52, b"\x44\x7f\x00\x00\x01")),
    "network": lambda: tagged(261, tag(261, b"\xa1\x44\x7f\x00\x00\x01\x18\x20")),
    "CBOR in CBOR": lambda: tagged(24, frame(b"\x00")),
    "frame in a frame in a frame": lambda: tagged(24, frame(frame(frame(b"\x00")))),
    "tags in tags, 100,000 times": lambda: tagged(1, b"\xc1" * 100_000 + b"\x00"),
    "tag 55799": lambda: tagged(55799, tag(55799, b"\x00")),
    "largest tag": lambda: tagged(2**64 - 1, tag(2**64 - 1, b"\x80")),
}


# Keys whose hashes are all the same, or begin the same. Text is hashed with a secret.
COLLISIONS: dict[str, Callable[[], Bomb]] = {
    "bignums": lambda: Bomb(pairs([bignum(i) for i in range(1, 8001)]), NO_TEXT + "tag"),
    "negative bignums": lambda: Bomb(
        pairs([tag(3, bignum(i)[1:]) for i in range(1, 8001)]), NO_TEXT + "tag"
    ),
    "integers": lambda: Bomb(
        pairs([head(UINT, i << 48) for i in range(8000)]), NO_TEXT + "integer"
    ),
    "floats": lambda: Bomb(
        pairs([float_item(math.ldexp(1 + i / 8192, 1000)) for i in range(8000)]),
        NO_TEXT + "simple value",
    ),
    "arrays": lambda: Bomb(
        pairs([b"\x82" + head(UINT, i) + head(NEGATIVE, i) for i in range(8000)]), NO_TEXT + "array"
    ),
    "bytes": lambda: Bomb(
        pairs([head(BYTES, 8) + i.to_bytes(8, "big") for i in range(8000)]), NO_TEXT + "byte string"
    ),
}


DUPLICATES: dict[str, Callable[[], Bomb]] = {
    "twice": lambda: Bomb(pairs([text("a"), text("a")]), "the key 'a' stands twice"),
    "in two forms": lambda: Bomb(pairs([text("a"), b"\x78\x01a"]), "the key 'a' stands twice"),
    "empty": lambda: Bomb(pairs([text(""), text("")]), "the key '' stands twice"),
    "deep inside": lambda: Bomb(
        b"\x82\x00\xa1\x61b" + pairs([text("a"), text("c"), text("a")]),
        "the key 'a' stands twice",
        "[1].b",
    ),
    "first and last of 20,000": lambda: Bomb(
        pairs([*(text(f"k{i}") for i in range(20_000)), text("k0")]),
        "not one strict CBOR item",
        None,
    ),
}


TRAILING: dict[str, Callable[[], Bomb]] = {
    "break": lambda: Bomb(b"\x01\xff", "1 byte left over behind the item", None),
    "second item": lambda: Bomb(b"\x80\x01\x02", "2 bytes left over behind the item", None),
    "frame": lambda: Bomb(b"\xa0" + frame(b"\x01"), "4 bytes left over behind the item", None),
    "200 kB": lambda: Bomb(
        b"\x01" + bytes(200_000), "200000 bytes left over behind the item", None
    ),
}


ONLY = ": only false, true and null are carried"
KINDS: dict[str, Callable[[], Bomb]] = {
    "indefinite array": lambda: Bomb(b"\x9f\xff", "array of indefinite length"),
    "indefinite map": lambda: Bomb(b"\xbf\xff", "map of indefinite length"),
    "indefinite text": lambda: Bomb(b"\x7f\x61a\xff", "text of indefinite length"),
    "indefinite bytes": lambda: Bomb(b"\x5f\x41a\xff", "byte string of indefinite length"),
    "indefinite arrays, 200,000 of them": lambda: Bomb(
        b"\x9f" * 200_000, "array of indefinite length"
    ),
    "indefinite text of 100,000 pieces": lambda: Bomb(
        b"\x7f" + b"\x61a" * 100_000 + b"\xff", "text of indefinite length"
    ),
    "break alone": lambda: Bomb(b"\xff", "a break (ff) without a beginning"),
    "undefined": lambda: Bomb(b"\xf7", "undefined" + ONLY),
    "simple value": lambda: Bomb(b"\xe0", "simple value 0" + ONLY),
    "simple value of two bytes": lambda: Bomb(b"\xf8\xff", "simple value 255" + ONLY),
    "second form of false": lambda: Bomb(b"\xf8\x14", "simple value 20" + ONLY),
    "reserved head": lambda: Bomb(b"\x1c", "the head 1c is reserved"),
    "integer of more than 4,300 digits": lambda: tagged(
        2, tag(2, head(BYTES, 2000) + b"\xff" * 2000)
    ),
    "negative integer of more than 4,300 digits": lambda: tagged(
        3, tag(3, head(BYTES, 2000) + b"\xff" * 2000)
    ),
}


WORDS: dict[str, Callable[[], Bomb]] = {
    "integer below -2^63": lambda: Bomb(head(NEGATIVE, 2**63), "an integer below -2^63"),
    "least integer of CBOR": lambda: Bomb(head(NEGATIVE, 2**64 - 1), "an integer below -2^63"),
    "lone surrogate": lambda: Bomb(b"\x63\xed\xa0\x80", "text that is not UTF-8"),
    "lone surrogate in a key": lambda: Bomb(b"\xa1\x63\xed\xb0\x80\x00", "text that is not UTF-8"),
    "surrogate pair": lambda: Bomb(b"\x66\xed\xa0\xbd\xed\xb8\x80", "text that is not UTF-8"),
    "overlong NUL": lambda: Bomb(b"\x62\xc0\x80", "text that is not UTF-8"),
    "beyond Unicode": lambda: Bomb(b"\x64\xf4\x90\x80\x80", "text that is not UTF-8"),
}
