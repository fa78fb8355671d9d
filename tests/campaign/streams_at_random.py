"""Streams of bytes that are nearly right: made, and changed, by what knows frames and CBOR.

`Maker.stream` makes one from nothing: calls, cancels, notifications, answers, pieces and errors,
in frames, with things in them that a careful sender would not send. `Maker.mutated` changes one: an
item is replaced, doubled or left out and the frame's length set right again, so that the change
reaches the code after the framing; or bytes are changed anywhere, so that it does not.

Everything comes from the `random.Random` that it is given. Nothing here uses ipcpoll.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, TypeAlias

from wire import ARRAY, BYTES, MAP, NEGATIVE, TAG, TEXT, UINT, framed, head, text

MAGIC: Final = b"\xd8\x18"
IDS: Final = (0, 1, 2, 3, 4, 5, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63, 2**64 - 1)
SIZES: Final = (0, 1, 2, 22, 23, 24, 25, 254, 255, 256, 257, 299, 300, 301, 65535, 65536)
NUMBERS: Final = (*IDS, 10, 16, 31, 32, 63, 64, 65, 127, 128, 2**31, 2**64 - 2)
KINDS: Final = (0, 0, 1, 1, 2, 2, 3)

_QUIRKS: Final = (
    b"\xf7",  # undefined
    b"\xe0",
    b"\xf8\x14",
    b"\xf8\xff",
    b"\xff",  # break
    b"\x1c",  # reserved
    b"\x61\xff",  # no UTF-8
    b"\x63\xed\xa0\x80",  # a lone surrogate
    b"\x9f\xff",
    b"\xbf\xff",
    b"\x7f\x61a\xff",
    b"\x5f\x41a\xff",
    b"\xc2\x41\x01",  # a bignum
    b"\xc2\x50" + b"\xff" * 16,
    b"\xd8\x1c\x80",  # a list that may be named,
    b"\xd8\x1d\x00",  # and its name
    b"\x82\xd8\x1c\x81\x01\xd8\x1d\x00",
    b"\xd9\x01\x00\x82\x63abc\xd8\x19\x00",  # the same with texts
    b"\xd9\x01\x02\x81\x01",  # a set
    b"\xd8\x23\x62[a",  # a regular expression
    b"\xc0\x6a2026-01-02",
    b"\xc1\x1a\x00\x01\x00\x00",
    b"\xd8\x18\x41\x00",  # CBOR in CBOR
    b"\xd9\xd9\xf7\x00",
    b"\x9b" + b"\xff" * 8,  # claims
    b"\xbb" + b"\xff" * 8,
    b"\x5b" + b"\xff" * 8,
    b"\x7b" + b"\xff" * 8,
    b"\x9a\x00\x01\x00\x00",
    b"\xa2\x61a\x00\x61a\x00",  # a key twice
    b"\xa2\x61a\x00\x78\x01a\x00",
    b"\xa1\x00\x00",  # keys that are no text
    b"\xa1\x41a\x00",
    b"\xa1\x80\x00",
    b"\x3b\x80" + bytes(7),  # below -2^63
    b"\x3b" + b"\xff" * 8,
)
_FINE: Final = (
    b"\xf4",
    b"\xf5",
    b"\xf6",
    b"\xf9\x7e\x00",  # NaN
    b"\xf9\x7c\x00",
    b"\xf9\x80\x00",
    b"\xfa\x3f\x80\x00\x00",
    b"\xfb\x3f\xf8" + bytes(6),
    b"\xfb\x7f\xef" + b"\xff" * 6,
    b"\x3b\x7f" + b"\xff" * 7,  # -2^63
    b"\x80",
    b"\xa0",
    b"\x60",
    b"\x40",
)
_WORDS: Final = (
    "",
    "a",
    "x" * 22,
    "x" * 23,
    "x" * 24,
    "ä",
    "\U0001f600",
    "\x00",
    "2026-01-02T03:04:05Z",
    "2026-01-02",
    "P1DT1.5S",
    "P999999999D",
    "1.50",
    "NaN",
    "sNaN",
    "1e999999",
    "Infinity",
    "00000000-0000-0000-0000-000000000005",
    "/a/../b",
    "red",
    "5",
    "-5",
    "true",
)

Span: TypeAlias = "tuple[int, int]"
Fields: TypeAlias = "dict[str, dict[str, tuple[bytes, ...]]]"
"""Of each command its fields, and of each field some items that fit."""


def spans(payload: bytes) -> list[Span]:
    """Return where the items of a payload begin and end, as far as it can be read."""
    found: list[Span] = []
    waiting: list[list[int]] = []  # of each array and map: its place in `found`, and items to come
    at = 0
    while at < len(payload) and len(found) < 500:
        begin = at
        major, info = payload[at] >> 5, payload[at] & 31
        width = {24: 1, 25: 2, 26: 4, 27: 8}.get(info, 0)
        argument = int.from_bytes(payload[at + 1 : at + 1 + width], "big") if width else info
        at += 1 + width
        if major in (BYTES, TEXT):
            at += argument
        if at > len(payload) or (info > 27 and major != 7):
            break
        found.append((begin, at))
        inner = {ARRAY: argument, MAP: 2 * argument, TAG: 1}.get(major, 0)
        if inner:
            waiting.append([len(found) - 1, inner])
            continue
        while waiting:
            waiting[-1][1] -= 1
            if waiting[-1][1]:
                break
            place, _ = waiting.pop()
            found[place] = found[place][0], at
        if not waiting:
            break
    return found


def frames(stream: bytes) -> list[Span]:
    """Return where the payloads of the whole frames of a stream begin and end."""
    found: list[Span] = []
    at = 0
    while stream[at : at + 2] == MAGIC and at + 2 < len(stream):
        info = stream[at + 2] - 0x40
        width = {24: 1, 25: 2, 26: 4, 27: 8}.get(info, 0)
        begin = at + 3 + width
        size = int.from_bytes(stream[at + 3 : begin], "big") if width else info
        if not 0 <= info <= 27 or begin + size > len(stream):
            break
        found.append((begin, begin + size))
        at = begin + size
    return found


class Maker:
    """Makes and changes streams, by chance."""

    def __init__(self, chance: random.Random, fields: Fields) -> None:
        self.chance = chance
        self.names = tuple(fields)
        self.fields = fields

    def below(self, count: int) -> int:
        return int(self.chance.random() * count)

    def one(self, things: tuple[bytes, ...] | list[bytes]) -> bytes:
        return things[self.below(len(things))]

    def often(self, chance: float) -> bool:
        return self.chance.random() < chance

    # -----------------------------------------------------------------------------------------
    # Items

    def longer(self) -> int:
        """Return by how many steps a head is longer than it need be; mostly 0."""
        return self.below(5) if self.often(0.1) else 0

    def number(self) -> int:
        return self.below(30) if self.often(0.5) else NUMBERS[self.below(len(NUMBERS))]

    def words(self) -> bytes:
        return text(_WORDS[self.below(len(_WORDS))])

    def item(self, depth: int = 3) -> bytes:
        """Return an item; one in sixty breaks a rule."""
        pick = self.below(20)
        if pick == 0:
            return self.one(_QUIRKS if self.often(0.33) else _FINE)
        if pick <= 5:
            return head(UINT, self.number(), self.longer())
        if pick == 6:
            return head(NEGATIVE, self.number() >> 1, self.longer())
        if pick <= 8:
            return self.one(_FINE)
        if pick <= 12:
            return self.words()
        if pick == 13:
            size = SIZES[self.below(9)]
            return head(BYTES, size, self.longer()) + bytes(size)
        if pick == 14 and self.often(0.2):
            levels = 58 + self.below(9)
            return self.one([b"\x81", b"\xa1\x61a"]) * levels + self.one([b"\x80", b"\x00"])
        if not depth:
            return b"\x01"
        count = self.below(4)
        wrong = self.below(3) - 1 if self.often(0.02) else 0
        if pick <= 16:
            items = [self.item(depth - 1) for _ in range(count)]
            return head(ARRAY, max(0, count + wrong), self.longer()) + b"".join(items)
        keys = [self.one([b"\x61a", b"\x61b", b"\x61c", b"\x65value"]) for _ in range(count)]
        if not self.often(0.1):
            keys = list(dict.fromkeys(keys))
        pairs = [key + self.item(depth - 1) for key in keys]
        return head(MAP, max(0, len(pairs) + wrong), self.longer()) + b"".join(pairs)

    # -----------------------------------------------------------------------------------------
    # Messages

    def number_of_a_call(self) -> int:
        return IDS[self.below(len(IDS) if self.often(0.3) else 6)]

    def call_id(self) -> bytes:
        pick = self.below(20)
        if pick <= 1:
            return b"\xf6"
        if pick == 2:
            return self.item(1)
        return head(UINT, self.number_of_a_call(), self.longer())

    def record(self, name: str) -> bytes:
        """Return a map of fields of a command; most fit."""
        known = self.fields[name]
        pairs = [
            text(field) + (self.one(items) if self.often(0.93) else self.item())
            for field, items in known.items()
            if self.often(0.7)
        ]
        if self.often(0.05):
            pairs.append(text("unknown") + self.item())
        return head(MAP, len(pairs), self.longer()) + b"".join(pairs)

    def request(self) -> bytes:
        """Return the payload of a call, a notification or a cancel."""
        if self.often(0.15):
            return b"\x81" + self.call_id() + (b"\x00" if self.often(0.05) else b"")
        name = self.names[self.below(len(self.names))]
        parts = [self.call_id(), text(name if not self.often(0.05) else "Ecko"), self.record(name)]
        if self.often(0.2):
            parts.append(self.one([b"\xa0", b"\xa1\x67timeout" + self.item(1), self.item()]))
        return head(ARRAY, len(parts), self.longer()) + b"".join(parts)

    def response(self) -> bytes:
        """Return the payload of an answer, an error or a piece.

        Whoever has asked has asked the commands in turn: the first under 0, the second under 1.
        """
        kind = KINDS[self.below(len(KINDS) - (not self.often(0.1)))]
        number = self.number_of_a_call()
        call_id = self.call_id() if self.often(0.1) else head(UINT, number, self.longer())
        name = self.names[number % len(self.names)]
        item = self.record(name) if self.often(0.6) else self.item()
        if kind == 1 and self.often(0.9):
            code = self.one([text("busy"), text("internal"), text("own"), text("malformed")])
            pairs = [text("code") + code, text("message") + self.words()]
            if self.often(0.3):
                pairs.append(text("data") + self.item())
            item = head(MAP, len(pairs)) + b"".join(pairs)
        parts = [call_id, head(UINT, kind, self.longer()), item]
        if self.often(0.15):
            parts.append(self.one([b"\xa0", b"\xa1\x64lost" + self.item(1), self.item()]))
        return head(ARRAY, len(parts), self.longer()) + b"".join(parts)

    # -----------------------------------------------------------------------------------------
    # Streams

    def frame(self, payload: bytes) -> bytes:
        """Return a frame; one in thirty is wrong in its head."""
        if not self.often(0.033):
            return framed(payload, self.longer())
        size = len(payload)
        wrong = [
            MAGIC + head(BYTES, size + 1) + payload,
            MAGIC + head(BYTES, max(0, size - 1)) + payload,
            MAGIC + head(BYTES, NUMBERS[self.below(len(NUMBERS))], self.longer()) + payload,
            MAGIC + head(TEXT, size) + payload,
            MAGIC + b"\x5f" + payload,
            b"\xd8\x19" + head(BYTES, size) + payload,
            b"\xd9\x00\x18" + head(BYTES, size) + payload,
            b"GET / HTTP/1.1\r\n",
            payload,
            b"\xd8",
        ]
        return self.one(wrong)

    def stream(self, message: Callable[[], bytes]) -> bytes:
        """Return some frames, each with a payload that `message` makes."""
        return b"".join(self.frame(message()) for _ in range(1 + self.below(4)))

    def bytes_at_random(self) -> bytes:
        """Return a payload that is not looked into, of a size that matters."""
        return bytes(SIZES[self.below(len(SIZES) - 2 if self.often(0.1) else 7)])

    def mutated(self, stream: bytes, message: Callable[[], bytes]) -> bytes:
        """Return the stream with one change, or a few."""
        while True:
            whole = frames(stream) if self.often(0.6) else []
            if whole:
                stream = self.with_other_payload(stream, whole, message)
            else:
                stream = self.with_other_bytes(stream, message)
            if self.often(0.6):
                return stream

    def with_other_payload(
        self, stream: bytes, whole: list[Span], message: Callable[[], bytes]
    ) -> bytes:
        begin, end = whole[self.below(len(whole))]
        before = stream[:begin].rpartition(MAGIC)[0]
        payload = stream[begin:end]
        pick = self.below(10)
        if pick == 0:
            payload = message()
        elif pick == 1:
            return before + framed(payload, self.longer()) * 2 + stream[end:]
        elif pick == 2:
            return before + stream[end:]
        else:
            payload = self.with_other_item(payload)
        return before + framed(payload, self.longer()) + stream[end:]

    def with_other_item(self, payload: bytes) -> bytes:
        items = spans(payload)
        if not items:
            return self.item()
        begin, end = items[self.below(len(items))]
        pick = self.below(8)
        if pick <= 2:
            return payload[:begin] + self.item(1) + payload[end:]
        if pick == 3:
            return payload[:end] + payload[begin:]  # twice
        if pick == 4:
            return payload[:begin] + payload[end:]
        if pick == 5:
            return payload[:begin] + head(TAG, self.number()) + payload[begin:]
        if pick == 6:
            other, last = items[self.below(len(items))]
            return payload[:begin] + payload[other:last] + payload[end:]
        near = (payload[begin] + self.below(3) - 1) & 0xFF  # an argument that is one off
        return payload[:begin] + bytes([near]) + payload[begin + 1 :]

    def with_other_bytes(self, stream: bytes, message: Callable[[], bytes]) -> bytes:
        at = self.below(len(stream) + 1)
        pick = self.below(8)
        if pick == 0:
            return stream[:at]
        if pick == 1:
            return stream[:at] + stream[at + 1 + self.below(4) :]
        if pick == 2:
            return stream[:at] + self.chance.randbytes(1 + self.below(3)) + stream[at:]
        if pick == 3:
            return stream + self.frame(message())
        if pick == 4:
            other = self.below(len(stream) + 1)
            return stream[:at] + stream[other:]
        if pick == 5:
            return stream[:at] + self.one([MAGIC, b"\xd8", b"\x5b", b"\x00", b"\xff"]) + stream[at:]
        if at < len(stream):
            flipped = stream[at] ^ (1 << self.below(8))
            return stream[:at] + bytes([flipped]) + stream[at + 1 :]
        return stream
