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
from collections.abc import Iterator, Mapping
from typing import Any, Final, Never, TypeAlias

import cbor2

from .diagnosis import INT_MAX, INT_MIN, find_fault
from .errors import MALFORMED, WireError
from .limits import MAX_DEPTH

Plain: TypeAlias = (
    "bool | int | float | str | bytes | list[Plain] | tuple[Plain, ...] | dict[str, Plain] | None"
)
"""What one item on the wire can be. A tuple is written as an array and read as a list."""


class _NoTags(Mapping[int, Never]):
    """Consulted by cbor2 before its own table of tags; so each tag is refused."""

    def __getitem__(self, tag: int) -> Never:
        raise ValueError(f"tag {tag}")

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0


class Decoder:
    """A strict decoder, made once and used for many payloads. Not for two threads at once.

    One cbor2 decoder over one reused stream costs a third of a new one for each payload. With
    every tag refused nothing is kept from item to item; after any error both are made anew.
    """

    __slots__ = ("_decode", "_stream")

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._stream = io.BytesIO()
        self._decode = cbor2.CBORDecoder(
            self._stream,
            semantic_decoders=_NoTags(),
            # cbor2 counts the containers around a container: 63 around the 64th.
            max_depth=MAX_DEPTH - 1,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        ).decode

    def decode(self, payload: bytes) -> object:
        """Return the one plain value that `payload` holds.

        Raises WireError (malformed, not fatal) that names what is wrong and where.
        """
        stream = self._stream
        try:
            stream.seek(0)
            stream.write(payload)
            stream.truncate()
            stream.seek(0)
            value: object = self._decode()
            if stream.tell() == len(payload):
                check_plain(value)
                return value
        except (KeyboardInterrupt, SystemExit):
            self._renew()
            raise
        except BaseException as error:
            # Not only Exception: a panic in cbor2 (Rust) derives from BaseException.
            self._renew()
            raise WireError(MALFORMED, find_fault(payload) or _clean(error)) from None
        self._renew()
        raise WireError(MALFORMED, find_fault(payload) or "bytes are left over behind the item")


def check_plain(value: Any) -> None:
    """Raise ValueError or TypeError, with the place, unless `value` is plain. Reads it once.

    cbor2 checks the containers' form; left to check are what it has types for and ipcpoll
    carries not, integers below -2^63, keys that are no text and, for values that are to be
    encoded, the depth.
    """
    stack: list[tuple[Any, int]] = []
    item: Any = value
    depth = 1
    while True:
        kind = item.__class__
        if kind is dict:
            if depth > MAX_DEPTH:
                _refuse(value)
            for key, inner in item.items():
                if key.__class__ is not str:
                    _refuse(value)
                if inner.__class__ not in _LEAVES:
                    stack.append((inner, depth + 1))
        elif kind is list or kind is tuple:
            if depth > MAX_DEPTH:
                _refuse(value)
            for inner in item:
                if inner.__class__ not in _LEAVES:
                    stack.append((inner, depth + 1))
        elif kind is int:
            if not INT_MIN <= item <= INT_MAX:
                _refuse(value)
        elif kind not in _LEAVES:
            _refuse(value)
        if not stack:
            return
        item, depth = stack.pop()


_LEAVES: Final = frozenset({str, float, bool, type(None), bytes})


def _refuse(value: object) -> Never:
    """Raise for the first thing in `value` that is not plain, with its place."""
    trail: list[tuple[object, str, int]] = [(value, "$", 1)]
    while trail:
        item, place, depth = trail.pop()
        kind = type(item)
        if isinstance(item, str) and kind is str:
            if not _is_unicode(item):
                raise ValueError(f"text with a lone surrogate - at `{place}`")
        elif kind in _LEAVES:
            continue
        elif isinstance(item, int) and kind is int:
            if not INT_MIN <= item <= INT_MAX:
                raise ValueError(f"an integer of {item.bit_length()} bits - at `{place}`")
        elif isinstance(item, dict | list | tuple) and kind in (dict, list, tuple):
            if depth > MAX_DEPTH:
                raise ValueError(f"more than {MAX_DEPTH} levels - at `{place[:80]}`")
            if isinstance(item, dict):
                for key in item:
                    if type(key) is not str:
                        raise TypeError(
                            f"a map's key must be text, not {_name(key)} - at `{place}`"
                        )
                    if not _is_unicode(key):
                        raise ValueError(f"a map's key has a lone surrogate - at `{place}`")
                inner = [(item[key], f"{place}.{key}", depth + 1) for key in item]
            else:
                inner = [(one, f"{place}[{i}]", depth + 1) for i, one in enumerate(item)]
            trail.extend(reversed(inner))
        else:
            raise TypeError(
                f"a value of type `{kind.__qualname__}` can't be carried - at `{place}`"
            )
    raise AssertionError("check_plain refused a plain value")  # pragma: no cover - a bug in it


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _name(value: object) -> str:
    return f"`{type(value).__qualname__}`"


def _clean(error: BaseException) -> str:
    """Return cbor2's own words for a fault that `find_fault` did not reach."""
    return f"not one strict CBOR item: {error}"


_SMALL_INTS: Final = tuple(
    bytes([i]) if i < 24 else bytes([0x18, i]) for i in range(256)
)  # RFC 8949, 3.1, major type 0
_NULL, _TRUE, _FALSE = b"\xf6", b"\xf5", b"\xf4"
_INLINE_TEXT: Final = 23  # bytes of text whose length stands in the head itself


def encode(value: Any) -> bytes:
    """Return `value`, which must be plain, as one CBOR item.

    Raises TypeError or ValueError that names the place. Small scalars are made here: cbor2 costs
    four times as much for them.
    """
    kind = value.__class__
    if kind is int:
        if 0 <= value < 256:
            small: bytes = _SMALL_INTS[value]
            return small
    elif kind is str and value.isascii() and len(value) <= _INLINE_TEXT:
        return b"%c%b" % (0x60 + len(value), value.encode())
    elif value is None:
        return _NULL
    elif kind is bool:
        return _TRUE if value else _FALSE
    check_plain(value)
    try:
        item: bytes = cbor2.dumps(value)
    except UnicodeEncodeError:
        _refuse(value)
    return item


def array_head(length: int) -> bytes:
    """Return the head of an array of `length` items."""
    return _head(0x80, length)


def map_head(length: int) -> bytes:
    """Return the head of a map of `length` pairs."""
    return _head(0xA0, length)


def _head(major: int, length: int) -> bytes:
    if length < 24:
        return bytes([major + length])
    if length < 0x100:
        return bytes([major + 24, length])
    return bytes([major + 25]) + length.to_bytes(2, "big")
