"""What the tests without sockets share: bytes, the ways to split them, and strategies for them.

Nothing here uses ipcpoll's own encoder, so it serves as a second opinion.
"""

import struct
from dataclasses import make_dataclass
from typing import NamedTuple

from hypothesis import strategies as st

from ipcpoll.errors import CommandError, WireError

UINT, NEGATIVE, BYTES, TEXT, ARRAY, MAP, TAG, OTHER = range(8)
FALSE, TRUE, NULL = b"\xf4", b"\xf5", b"\xf6"


# ---------------------------------------------------------------------------------------------
# CBOR, byte by byte


def head(major, argument, longer=0):
    """Return the head of an item: the shortest, or one that is `longer` steps longer."""
    forms = [bytes([major << 5 | argument])] if argument < 24 else []
    for info, width in (24, 1), (25, 2), (26, 4), (27, 8):
        if argument < 1 << 8 * width:
            forms.append(bytes([major << 5 | info]) + argument.to_bytes(width, "big"))
    return forms[min(longer, len(forms) - 1)]


def text(words):
    return head(TEXT, len(words.encode())) + words.encode()


def framed(payload, longer=0):
    """Return one frame."""
    return b"\xd8\x18" + head(BYTES, len(payload), longer) + payload


def arrays(depth, inside=b"\x00"):
    """Return `depth` arrays, one in the other, around an item."""
    return b"\x81" * depth + inside


# ---------------------------------------------------------------------------------------------
# Every way to split a stream


def ways(stream):
    """Give a stream whole, byte by byte, at every split, and with empty reads in between."""
    yield [stream]
    yield [stream[i : i + 1] for i in range(len(stream))]
    for i in range(1, len(stream)):
        yield [stream[:i], stream[i:]]


def tr(read, stream, expected):
    """Check that `read` makes `expected` of a stream, however it is split, whatever comes after it.

    `read` takes chunks and returns a list of what they gave. What comes after is the beginning
    of one more frame, which must change nothing.
    """
    for chunks in ways(stream):
        assert read(chunks) == expected, chunks
    next_frame = framed(b"\x81\x07")
    for size in range(1, len(next_frame)):
        assert read([stream + next_frame[:size]]) == expected
        assert read([stream, next_frame[:size]]) == expected


class Fault(NamedTuple):
    """A `WireError` that can be compared."""

    code: str
    message: str
    call_id: int | None = None
    fatal: bool = False
    answerable: bool = True


def fault(error):
    assert type(error) is WireError
    return Fault(error.code, error.message, error.call_id, error.fatal, error.answerable)


def parts(error):
    """Return what two equal `CommandError`s have in common."""
    assert isinstance(error, CommandError)
    return type(error), error.code, error.message, error.data


# ---------------------------------------------------------------------------------------------
# Strategies. An item is a pair: the value, and bytes that encode it.

IDS = st.integers(0, 2**64 - 1) | st.integers(0, 30)
LONGER = st.integers(0, 4)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.integers(-300, 300)
    | st.floats(allow_nan=False)
    | st.text(max_size=30)
    | st.binary(max_size=30)
)
PLAIN = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=15,
)


def _int_item(value, longer):
    if value < 0:
        return value, head(NEGATIVE, -1 - value, longer)
    return value, head(UINT, value, longer)


def _float_item(raw):
    return struct.unpack({2: ">e", 4: ">f", 8: ">d"}[len(raw)], raw)[0], (
        bytes([{2: 0xF9, 4: 0xFA, 8: 0xFB}[len(raw)]]) + raw
    )


def _text_item(words, longer):
    raw = words.encode()
    return words, head(TEXT, len(raw), longer) + raw


def _array_item(items, longer):
    raw = b"".join(raw for _, raw in items)
    return [value for value, _ in items], head(ARRAY, len(items), longer) + raw


def _map_item(pairs, longer):
    raw = b"".join(key + item for (_, key), (_, item) in pairs)
    return {key: value for (key, _), (value, _) in pairs}, head(MAP, len(pairs), longer) + raw


_TEXTS = st.builds(_text_item, st.text(max_size=30), LONGER)
_STRICT_LEAVES = (
    st.sampled_from([(None, NULL), (False, FALSE), (True, TRUE)])
    | st.builds(_int_item, st.integers(-(2**63), 2**64 - 1) | st.integers(-300, 300), LONGER)
    | st.sampled_from([2, 4, 8])
    .flatmap(lambda n: st.binary(min_size=n, max_size=n))
    .map(_float_item)
    | _TEXTS
    | st.builds(
        lambda raw, longer: (raw, head(BYTES, len(raw), longer) + raw),
        st.binary(max_size=30),
        LONGER,
    )
)


def _containers(inner):
    pair = st.tuples(st.builds(_text_item, st.text(max_size=3), LONGER), inner)
    return st.builds(_array_item, st.lists(inner, max_size=5), LONGER) | st.builds(
        _map_item, st.lists(pair, max_size=5, unique_by=lambda pair: pair[0][0]), LONGER
    )


STRICT = st.recursive(_STRICT_LEAVES, _containers, max_leaves=15)
"""Every form of every plain value, with the bytes of RFC 8949 that encode it."""

_LOOSE_LEAVES = _STRICT_LEAVES.map(lambda item: item[1]) | st.sampled_from(
    [
        b"\xf7",  # undefined
        b"\xe0",  # simple value 0
        b"\xf8\x14",  # a second form of false, which RFC 8949 forbids
        b"\xf8\xff",  # simple value 255
        b"\xff",  # break
        b"\x1c",  # reserved
        head(NEGATIVE, 2**63),
        head(NEGATIVE, 2**64 - 1),
        b"\x61\xff",  # no UTF-8
        b"\x63\xed\xa0\x80",  # a lone surrogate
        b"\xc2\x41\x01",  # a bignum
        b"\x5f\x41\x01\xff",
        b"\x7f\x61a\xff",
        b"\x9b" + b"\xff" * 8,
        b"\x5b\x7f" + b"\xff" * 7,
    ]
)


def _loose_containers(inner):
    items = st.lists(inner, max_size=4)
    return (
        st.builds(
            lambda items, more: head(ARRAY, len(items) + more) + b"".join(items),
            items,
            st.sampled_from([0, 0, 0, 1]),
        )
        | st.builds(lambda items: b"\x9f" + b"".join(items) + b"\xff", items)
        | st.builds(
            lambda pairs: head(MAP, len(pairs)) + b"".join(key + item for key, item in pairs),
            st.lists(
                st.tuples(st.sampled_from([text("a"), text("b"), b"\x78\x01a"]) | inner, inner),
                max_size=4,
            ),
        )
        | st.builds(lambda number, item: head(TAG, number) + item, st.integers(0, 2**64 - 1), inner)
    )


_LOOSE = st.recursive(_LOOSE_LEAVES, _loose_containers, max_leaves=10)


def _edited(payload, edits):
    for cut, place, new in edits:
        at = place % (len(payload) + 1)
        payload = payload[:at] + new + payload[at + cut :]
    return payload


NEARLY_STRICT = _LOOSE | st.builds(
    _edited,
    STRICT.map(lambda item: item[1]) | _LOOSE,
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 200), st.binary(max_size=2)), max_size=3),
)
"""Payloads that are CBOR, or nearly, and mostly break a rule or two."""


# ---------------------------------------------------------------------------------------------
# The tables of states

# A second opinion, written by hand. A dash is an illegal pair.
LINK_PICTURE = """
             TAKE         SEND         END          HANG_UP  LOSE     CLOSE
OPEN         OPEN         OPEN         HALF_CLOSED  HUNG_UP  LOST     CLOSED
HALF_CLOSED  HALF_CLOSED  HALF_CLOSED  -            HUNG_UP  LOST     CLOSED
HUNG_UP      HUNG_UP      -            HUNG_UP      -        HUNG_UP  CLOSED
LOST         -            LOST         LOST         HUNG_UP  -        CLOSED
CLOSED       -            -            -            -        -        CLOSED
"""
CALL_PICTURE = """
           CALL       PIECE      CANCEL     ANSWER
NONE       IN_FLIGHT  -          NONE       -
IN_FLIGHT  -          IN_FLIGHT  CANCELLED  NONE
CANCELLED  -          CANCELLED  CANCELLED  NONE
"""


def pairs(picture):
    """Give (state, event, next state or None) by name for each pair of a picture."""
    events, *rows = picture.strip().splitlines()
    for row in rows:
        state, *follows = row.split()
        for event, follow in zip(events.split(), follows, strict=True):
            yield state, event, None if follow == "-" else follow


# ---------------------------------------------------------------------------------------------
# Commands


def command(annotation, returns=None, **namespace):
    """Return a command class `Cmd` with one field `x` and this answer."""

    def process(self, ctx):
        raise NotImplementedError

    process.__annotations__ = {"return": returns}
    return make_dataclass("Cmd", [("x", annotation)], namespace={"process": process, **namespace})
