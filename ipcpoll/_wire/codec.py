"""Plain values to CBOR and back, strictly. No I/O, no frames, no command classes.

A plain value is null, a boolean, an integer from -2^63 to 2^64-1, a float, text, bytes, an array
(`list`) of plain values, or a map (`dict`) from text to plain values. Nothing else is carried:
no tags, no indefinite lengths, no `undefined`, no other simple values, no duplicate keys, no more
than 64 levels.

What is promised:

* `decode` gives a plain value or raises `WireError` that names the place, for any bytes at all.
* `encode` gives bytes that `decode` takes, or raises TypeError or ValueError that names the place.

cbor2 does the work in both directions. It is gated, because by default it takes more: it resolves
shared references, compiles regular expressions, and ignores bytes that are left over. Encoding is
gated by depth, because cbor2's encoder recurses on the C stack (100,000 levels end the process).
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final, Never, TypeAlias

import cbor2

from ..errors import MALFORMED, WireError
from ..limits import KIB, MAX_DEPTH
from .diagnosis import INT_MAX, INT_MIN, find_fault, shorten

Plain: TypeAlias = (
    "bool | int | float | str | bytes | list[Plain] | tuple[Plain, ...] | dict[str, Plain] | None"
)
"""What one item on the wire can be. A tuple is written as an array and read as a list."""

Item: TypeAlias = "bytes | tuple[bytes, ...]"
"""One encoded item, or several: in one piece, or in parts that are joined when they are sent."""


class _NoTags(dict[int, Never]):
    """Consulted by cbor2 before its own table of tags; so each tag is refused.

    It is a dict since cbor2 sees that at once. Whether another thing is a Mapping is asked in
    Python, where a signal's handler can run, and what that raises would be told as TypeError.
    """

    def __getitem__(self, tag: object, _: object = None) -> Never:
        raise ValueError(f"tag {tag}")

    # Whichever of them cbor2 uses.
    get = __contains__ = __getitem__


def gated(stream: io.BytesIO) -> Callable[[], object]:
    """Return what decodes one item of `stream` with cbor2, told to refuse what is not carried.

    That cbor2 obeys is proven by `strictness`: tags, indefinite lengths, duplicate keys and depth
    can't be seen any more in what it has decoded.
    """
    return cbor2.CBORDecoder(
        stream,
        semantic_decoders=_NoTags(),
        # It lets an empty container in one level below; `_is_plain` does not.
        max_depth=MAX_DEPTH,
        allow_indefinite=False,
        allow_duplicate_keys=False,
        strict_hashable_types=True,
    ).decode


class Decoder:
    """A strict decoder, made once and used for many payloads. Not for two threads at once.

    One cbor2 decoder over one reused stream costs half of a new one for each payload. With
    every tag refused nothing is kept from item to item; after any error both are made anew.
    """

    __slots__ = ("_decode", "_stream")

    def __init__(self) -> None:
        # Both are made when they are needed first.
        self._stream: io.BytesIO
        self._decode: Callable[[], object] | None = None

    def _renew(self) -> Callable[[], object]:
        self._stream = io.BytesIO()
        self._decode = decode = gated(self._stream)
        return decode

    def decode(self, payload: bytes) -> object:
        """Return the one plain value that `payload` holds.

        Raises WireError (malformed, not fatal) that names what is wrong and where.
        """
        decode = self._decode or self._renew()
        stream = self._stream
        try:
            stream.seek(0)
            stream.write(payload)
            stream.truncate()
            stream.seek(0)
            value = decode()
            strict = stream.tell() == len(payload) and _is_plain(value)
        except (KeyboardInterrupt, SystemExit):
            self._renew()
            raise
        except BaseException as error:
            # Not only Exception: a panic in cbor2 (Rust) derives from BaseException.
            self._renew()
            raise WireError(MALFORMED, find_fault(payload) or _clean(error)) from None
        if strict:
            return value
        self._renew()
        raise WireError(MALFORMED, find_fault(payload) or _NOT_STRICT)


def _is_plain(value: Any) -> bool:
    """Return whether `value` is plain. Lone surrogates are left to the encoder. Reads it once.

    Of what was decoded it refuses what cbor2 has types for and ipcpoll carries not, integers
    below -2^63, bytes as keys, and an empty container one level too deep.
    """
    kind = type(value)
    if kind is int:
        return bool(INT_MIN <= value <= INT_MAX)
    if kind not in _CONTAINERS:
        return kind in _LEAVES
    # Containers that wait, each behind its depth. No pairs: a quarter of a million tuples, which
    # 256 KiB can ask for, cost more in the garbage collector than all that is done here.
    stack: list[Any] = []
    item = value
    depth = 1
    while True:
        if depth > MAX_DEPTH:
            return False
        if type(item) is dict:
            for key, inner in item.items():
                if type(key) is not str:
                    return False
                kind = type(inner)
                if kind is int:  # here and not by way of the stack: 2 % of a call
                    if not INT_MIN <= inner <= INT_MAX:
                        return False
                elif kind not in _LEAVES:
                    if kind not in _CONTAINERS:
                        return False
                    if inner:
                        stack.append(depth + 1)
                        stack.append(inner)
                    elif depth == MAX_DEPTH:
                        return False
        else:
            for inner in item:
                kind = type(inner)
                if kind is int:
                    if not INT_MIN <= inner <= INT_MAX:
                        return False
                elif kind not in _LEAVES:
                    if kind not in _CONTAINERS:
                        return False
                    if inner:
                        stack.append(depth + 1)
                        stack.append(inner)
                    elif depth == MAX_DEPTH:
                        return False
        if not stack:
            return True
        item = stack.pop()
        depth = stack.pop()


_LEAVES: Final = frozenset({str, float, bool, type(None), bytes})
_CONTAINERS: Final = frozenset({dict, list, tuple})


def _refuse(value: object) -> Never:
    """Raise TypeError or ValueError for the first thing in `value` that is not plain."""
    levels: list[Iterator[tuple[str, object]]] = [iter([("$", value)])]
    while levels:
        for place, item in levels[-1]:
            kind = type(item)
            where = f"at `{shorten(place)}`"
            if isinstance(item, dict | list | tuple) and kind in (dict, list, tuple):
                if len(levels) > MAX_DEPTH:
                    raise ValueError(f"more than {MAX_DEPTH} levels - {where}")
                levels.append(_inner(item, place))
                break
            if isinstance(item, int) and kind is int:
                if not INT_MIN <= item <= INT_MAX:
                    raise ValueError(f"an integer outside -2^63 to 2^64-1 - {where}")
            elif isinstance(item, str) and kind is str:
                if not _is_unicode(item):
                    raise ValueError(f"text with a lone surrogate - {where}")
            elif kind not in _LEAVES:
                raise TypeError(f"a value of type {_name(item)} can't be carried - {where}")
        else:
            levels.pop()
    raise ValueError("it changed while it was read")  # pragma: no cover - by another thread


def _inner(
    item: dict[Any, Any] | list[Any] | tuple[Any, ...], place: str
) -> Iterator[tuple[str, Any]]:
    """Give what a container holds, with the places; refuse a key that is no good text."""
    if not isinstance(item, dict):
        for index, inner in enumerate(item):
            yield f"{place}[{index}]", inner
        return
    where = f"at `{shorten(place)}`"
    for key, inner in item.items():
        if type(key) is not str:
            raise TypeError(f"a map's key must be text, not {_name(key)} - {where}")
        if not _is_unicode(key):
            raise ValueError(f"a map's key has a lone surrogate - {where}")
        yield f"{place}.{shorten(key)}", inner


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _name(value: object) -> str:
    return f"`{type(value).__qualname__}`"


_NOT_STRICT: Final = "not one strict CBOR item"


def _clean(error: BaseException) -> str:
    """Return cbor2's own words for a fault that `find_fault` did not reach."""
    return f"{_NOT_STRICT}: {str(error)[:200]}"


# Scalars are made and read here, item by item (RFC 8949, 3.1): cbor2 takes four times as long to
# make a small one, to read one it needs a stream, and a mebibyte costs it ten copies.

_SMALL_INTS: Final = tuple(bytes([i]) if i < 24 else bytes([0x18, i]) for i in range(256))
_SIMPLE: Final = {0xF4: False, 0xF5: True, 0xF6: None}
_NULL, _TRUE, _FALSE = b"\xf6", b"\xf5", b"\xf4"
_WIDTHS: Final = {0x19: 2, 0x1A: 4, 0x1B: 8, 0x38: 1, 0x39: 2, 0x3A: 4}  # bytes behind the head
_LENGTHS: Final = {
    **{major + length: 0 for major in (0x40, 0x60) for length in range(24)},
    **{major + 24 + i: 1 << i for major in (0x40, 0x60) for i in range(3)},
}
"""The heads of byte strings and text: in how many bytes behind it the length stands."""
_DOUBLE: Final = struct.Struct(">d")
_HEAD_AND_4: Final = struct.Struct(">BI")
_NO_ITEM: Final = (None, -1)

LARGE: Final = 32 * KIB
"""Bytes of a byte string, or characters of a text, from which on a copy costs more than a part: a
block of fresh memory, which the kernel clears page by page."""


def scalar_item(data: bytes, at: int) -> tuple[Any, int]:
    """Return the scalar that begins at `at`, and where it ends.

    It ends at -1 where there is none: something else, a form that is seldom, or not whole. Then
    `Decoder` knows more.
    """
    try:
        head = data[at]
        if head < 0x18:
            return head, at + 1
        if head == 0x18:
            return data[at + 1], at + 2
        if head in _SIMPLE:
            return _SIMPLE[head], at + 1
        if head in _LENGTHS:
            begin = at + 1 + _LENGTHS[head]
            if begin == at + 1:
                end = begin + (head & 0x1F)
            else:
                end = begin + int.from_bytes(data[at + 1 : begin], "big")
            if end > len(data):
                return _NO_ITEM
            return data[begin:end] if head < 0x60 else data[begin:end].decode(), end
        if head in _WIDTHS:
            end = at + 1 + _WIDTHS[head]
            number = int.from_bytes(data[at + 1 : end], "big")
            return (number if head < 0x20 else -1 - number, end) if end <= len(data) else _NO_ITEM
        if 0x20 <= head < 0x38:
            return 0x1F - head, at + 1
        if head == 0xFB:
            return _DOUBLE.unpack_from(data, at + 1)[0], at + 9
    except (IndexError, UnicodeDecodeError, struct.error):
        pass
    return _NO_ITEM


def encode(value: Any) -> bytes:
    """Return `value`, which must be plain, as one CBOR item.

    Raises TypeError or ValueError that names the place.
    """
    kind = type(value)
    if kind is int:
        if 0 <= value < 256:
            small: bytes = _SMALL_INTS[value]
            return small
        if 0 <= value <= 0xFFFF:
            return b"\x19%c%c" % (value >> 8, value & 0xFF)
        if 0 <= value <= 0xFFFFFFFF:
            return _HEAD_AND_4.pack(0x1A, value)
    elif kind is str:
        try:
            text = value.encode()
        except UnicodeEncodeError:
            _refuse(value)
        size = len(text)
        item: bytes = b"%c%b" % (0x60 + size, text) if size < 24 else _head(0x60, size) + text
        return item
    elif kind is bytes:
        item = _head(0x40, len(value)) + value
        return item
    elif value is None:
        return _NULL
    elif kind is bool:
        return _TRUE if value else _FALSE
    elif kind is float and math.isfinite(value):
        return b"\xfb%b" % _DOUBLE.pack(value)
    if not _is_plain(value):
        _refuse(value)
    try:
        item = cbor2.dumps(value)
    except UnicodeEncodeError:
        _refuse(value)
    except (Exception, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as panic:
        # In cbor2 (Rust) a bug derives from BaseException, which would end the program.
        raise ValueError(f"cbor2 failed: {str(panic)[:200]}") from panic
    return item


def encode_parts(value: Any) -> tuple[bytes, ...]:
    """Return `value` as `encode` does, in parts: large text and byte strings are not copied."""
    kind = type(value)
    if kind is bytes and len(value) >= LARGE:
        return _head(0x40, len(value)), value
    if kind is str and len(value) >= LARGE:
        try:
            text = value.encode()
        except UnicodeEncodeError:
            _refuse(value)
        return _head(0x60, len(text)), text
    return (encode(value),)


def array_head(length: int) -> bytes:
    """Return the head of an array of `length` items."""
    return _head(0x80, length)


def map_head(length: int) -> bytes:
    """Return the head of a map of `length` pairs."""
    return _head(0xA0, length)


def _head(major: int, length: int) -> bytes:
    if length < 24:
        return b"%c" % (major + length)
    if length < 256:
        return b"%c%c" % (major + 24, length)
    for more, width in enumerate((2, 4, 8), start=1):
        if length < 1 << 8 * width:
            return bytes([major + 24 + more]) + length.to_bytes(width, "big")
    raise AssertionError("no item is as long")  # pragma: no cover
