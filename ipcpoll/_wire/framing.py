"""Frames: where one ends and the next begins in a stream of bytes. No I/O, no CBOR library.

A frame is one CBOR byte string under tag 24 ("encoded CBOR data item", RFC 8949, 3.4.5.1): the
bytes D8 18, a byte-string head with the length, the payload. So a stream is a CBOR sequence
(RFC 8742), the first two bytes tell a stranger who typed text, and the length is known before a
byte of the payload is buffered. Any definite head is accepted, the shortest is written.

What is promised:

* `FrameBuffer` gives the same payloads however the bytes were split.
* It never holds more than one payload of the limit plus what one `feed` brought.
* A broken head loses the stream: the frames before it are given, then `WireError` (fatal) is
  raised by each `next`. Nothing is skipped, nothing is guessed.

This module does not look into a payload.
"""

from __future__ import annotations

import contextlib
from typing import Final, TypeAlias

from ..errors import MALFORMED, TOO_LARGE, WireError
from ..limits import KIB, MIB

MAGIC: Final = b"\xd8\x18"
"""The head of tag 24: the first two bytes of every frame."""

_BYTES_0: Final = 0x40  # byte string, length 0 in the head itself
_BYTES_23: Final = 0x57  # byte string, length 23 in the head itself
_LENGTH_BYTES: Final = {0x58: 1, 0x59: 2, 0x5A: 4, 0x5B: 8}  # byte string, length in n bytes
_HEADS: Final = {width: head for head, width in _LENGTH_BYTES.items()}
_INDEFINITE: Final = 0x5F
_MOST_SMALL: Final = 4096  # bytes of a part of a frame that is worth joining to the next

_SHORT_HEADS: Final = {MAGIC + bytes([_BYTES_0 + length]): length for length in range(24)}
"""The first three bytes of a frame, and the length of its payload; -1: the next byte tells it."""
_SHORT_HEADS[MAGIC + b"\x58"] = -1

_MIDDLE_HEAD: Final = MAGIC + b"\x59"
"""The first three bytes of a frame whose length stands in the next two."""

MOST_SHORT: Final = 0xFF
"""The largest payload of a frame with a short head."""

MAX_OVERHEAD: Final = len(MAGIC) + 1 + 8
"""The most bytes that a frame adds to its payload."""

_TEXT_STARTS: Final = frozenset(b"\t\n\r" + bytes(range(0x20, 0x7F)))


Payload: TypeAlias = "bytes | tuple[bytes, ...]"
"""What is to be sent in one frame: in one piece, or in parts, so that it is joined only once."""


def size_of(payload: Payload) -> int:
    """Return how many bytes it has."""
    return len(payload) if isinstance(payload, bytes) else sum(map(len, payload))


def frame(payload: bytes) -> bytes:
    """Return `payload` as one frame, with the shortest head."""
    size = len(payload)
    if size <= _BYTES_23 - _BYTES_0:
        return b"\xd8\x18%c%b" % (_BYTES_0 + size, payload)
    if size <= 0xFF:
        return b"\xd8\x18\x58%c%b" % (size, payload)
    if size <= 0xFFFF:
        return b"\xd8\x18\x59%c%c%b" % (size >> 8, size & 0xFF, payload)
    return _head(size) + payload


def frame_of(payload: Payload) -> bytes:
    """Return `payload` as one frame, with the shortest head. Copies each of its parts once."""
    if isinstance(payload, bytes):
        return frame(payload)
    size = size_of(payload)
    _expect_more_of(size)
    return b"".join((_head(size), *payload))


def _head(size: int) -> bytes:
    """Return the shortest head of a frame with so many bytes."""
    if size <= _BYTES_23 - _BYTES_0:
        return MAGIC + bytes([_BYTES_0 + size])
    width = next(width for width in _LENGTH_BYTES.values() if size < 1 << 8 * width)
    return b"%b%c%b" % (MAGIC, _HEADS[width], size.to_bytes(width, "big"))


_MOST_KEPT: Final = 16 * MIB - KIB  # twice that and a header is less than glibc's bound of 32 MiB
_kept: Final = [128 * KIB]
"""Bytes of the largest block that the C library keeps for the next one, as far as is known."""


def _expect_more_of(size: int) -> None:
    """Let the C library keep the memory of blocks of this size for the next ones.

    glibc gives a block of 128 KiB and more back to the system as soon as it is freed, until one of
    that size was freed before (mallopt(3), M_MMAP_THRESHOLD). Else each large frame meets fresh
    memory, page by page, which takes four times as long as everything else. It makes the process
    keep at most four times the size, and never more than 64 MiB.
    """
    size = min(size, _MOST_KEPT)
    if size > _kept[0]:
        with contextlib.suppress(MemoryError):  # then it is merely slower
            bytes(2 * size)  # is never written to, so it costs no page
        _kept[0] = size


def only_payload(data: bytes) -> bytes | None:
    """Return the payload of the one frame of at most 64 KiB that `data` is; None: it is none.

    That is what most reads bring, and then nothing need be buffered.
    """
    length = _SHORT_HEADS.get(data[:3])
    if length == len(data) - 3:
        return data[3:]
    if length == -1 and len(data) > 3 and data[3] == len(data) - 4:
        return data[4:]
    if data[:3] == _MIDDLE_HEAD and int.from_bytes(data[3:5], "big") == len(data) - 5:
        return data[5:]
    return None


class FrameBuffer:
    """Takes bytes as they come, gives whole payloads.

    `max_payload` is the largest payload in bytes; a head that announces more is refused before
    the payload is buffered.
    """

    __slots__ = (
        "_begin",
        "_buffer",
        "_error",
        "_missing",
        "_parts",
        "_payload",
        "_start",
        "dropped",
        "max_payload",
    )

    def __init__(self, max_payload: int) -> None:
        self.max_payload = max_payload
        self._buffer = b""
        self._start = 0  # where the next frame begins in the buffer
        # What came behind the buffer of a frame that is not whole, and how much of it is missing.
        # Joined when all is there: so a large frame is copied once, however many reads it takes.
        self._parts: list[bytes | bytearray] = []
        self._missing = 0
        self._begin = 0  # how long the head of that frame is; 0: not known yet
        self._payload: bytes | None = None  # what it was joined to
        self._error: WireError | None = None
        self.dropped = 0
        """How many bytes the last `take` left out: heads, and what is lost."""

    def __len__(self) -> int:
        """Return how many bytes wait."""
        waiting = len(self._buffer) - self._start + sum(map(len, self._parts))
        if self._payload is not None:
            waiting += self._begin + len(self._payload)
        return waiting

    @property
    def broken(self) -> bool:
        """Whether the stream is lost. Bytes that come after that are not kept."""
        return self._error is not None

    def feed(self, data: bytes) -> None:
        """Take in what was received. Never raises; what is wrong is said by `next`."""
        if self._error is not None:
            return
        if self._start == len(self._buffer):  # and then there are no parts
            self._buffer, self._start = data, 0  # most often whole frames: nothing is copied
            return
        parts = self._parts
        self._missing -= len(data)
        if len(data) >= _MOST_SMALL:
            parts.append(data)
        elif parts and len(parts[-1]) < _MOST_SMALL:
            # A bytearray, as all small ones: an object for each byte would cost more than all.
            parts[-1] += data
        else:
            parts.append(bytearray(data))
        if self._missing <= 0:
            if self._begin and self._payload is None:
                self._join_payload()
            else:
                self._buffer = b"".join([self._buffer[self._start :], *parts])
            self._start = self._missing = 0
            parts.clear()

    def _join_payload(self) -> None:
        """Join a frame that has become whole, without its head; the rest is the next buffer."""
        last = self._parts.pop()
        end = len(last) + self._missing
        _expect_more_of(sum(map(len, self._parts)) + end)
        with memoryview(self._buffer) as buffer, memoryview(last) as view:
            self._payload = b"".join([buffer[self._begin :], *self._parts, view[:end]])
        self._buffer = bytes(last[end:])

    @property
    def fault(self) -> WireError | None:
        """Why the stream is lost, None while it is not."""
        return self._error

    def next(self) -> bytes | None:
        """Return the next whole payload, or None when more bytes are needed.

        Raises WireError (fatal), each time, when the stream is lost.
        """
        payloads = self.take(1)
        if payloads:
            return payloads[0]
        if self._error is not None:
            raise self._error.with_traceback(None)  # or it grows with each time
        return None

    def take(self, most: int) -> list[bytes]:
        """Return the next whole payloads, at most so many. Never raises: see `fault`."""
        payloads: list[bytes] = []
        self.dropped = 0
        if self._missing > 0 or most < 1:
            return payloads
        if self._payload is not None:
            payloads.append(self._payload)
            self.dropped = self._begin + len(self._payload)
            self._payload, self._begin = None, 0
        buffer, start = self._buffer, self._start
        size = len(buffer)
        # A frame with a short head is told at its first three bytes, by one look into a table: the
        # work of `_whole_frame` costs three times as much, and there are thousands in a second.
        heads = _SHORT_HEADS if self.max_payload >= MOST_SHORT else {}
        while start < size and len(payloads) < most:
            length = heads.get(buffer[start : start + 3])
            begin = start + 3
            if length == -1:
                length = buffer[begin] if begin < size else size
                begin += 1
            if length is None or begin + length > size:
                try:
                    begin, length = self._whole_frame(start)
                except WireError as error:
                    self._error = error
                    start = size  # the rest is lost
                    break
                if begin + length > size:
                    self._missing = begin + length - size
                    self._begin = begin - start if length >= _MOST_SMALL else 0
                    break
            payloads.append(buffer[begin : begin + length])
            start = begin + length
        self.dropped += start - self._start - sum(map(len, payloads))
        if start == size:
            self._buffer, self._start = b"", 0
        elif self._missing:
            # Forget the frames that were given: the buffer must not grow with the stream.
            self._buffer, self._start = buffer[start:], 0
        else:
            self._start = start
        return payloads

    def _whole_frame(self, start: int) -> tuple[int, int]:
        """Return where the payload of a frame begins and how long it is, as far as is known.

        Where not even the head is whole, so much that one byte more is missing.
        """
        buffer = self._buffer
        got = len(buffer) - start
        if buffer[start : start + 2] != MAGIC:
            self._refuse_bad_magic(start, got)
        if got < len(MAGIC) + 1:
            return len(buffer), 1
        head = buffer[start + 2]
        begin = start + 3
        if _BYTES_0 <= head <= _BYTES_23:
            return begin, head - _BYTES_0
        width = _LENGTH_BYTES.get(head)
        if width is None:
            raise WireError(MALFORMED, _bad_head(head), fatal=True)
        if got < 3 + width:
            return len(buffer), 1
        size = int.from_bytes(buffer[begin : begin + width], "big")
        if size > self.max_payload:
            raise WireError(
                TOO_LARGE,
                f"the frame announces {size} bytes, the limit is {self.max_payload}",
                fatal=True,
            )
        return begin + width, size

    def _refuse_bad_magic(self, start: int, got: int) -> None:
        first = bytes(self._buffer[start : start + min(got, len(MAGIC))])
        if MAGIC.startswith(first):
            return
        if first[0] in _TEXT_STARTS:
            message = (
                "this socket speaks CBOR frames (d8 18 …), not text: "
                "use the ipcpoll client of the program"
            )
        else:
            message = f"a frame begins with the bytes d8 18, not {first.hex(' ')}"
        raise WireError(MALFORMED, message, fatal=True)


def _bad_head(head: int) -> str:
    if head == _INDEFINITE:
        return "the frame's byte string has an indefinite length"
    return f"tag 24 must hold a byte string of definite length, not an item with head {head:02x}"
