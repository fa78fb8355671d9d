"""What is wrong with a payload, and where: one sentence for the person who sent it.

cbor2 says that a payload is bad; this module says which item, by place (``$[2].colour``) and byte.
It is a plain reading of RFC 8949 with ipcpoll's restrictions, written without cbor2, so it also
serves the tests as a second opinion. It runs only after a refusal, reads at most `MOST_ITEMS`
items, and never raises.
"""

from __future__ import annotations

from typing import Final

from ..limits import MAX_DEPTH

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**64 - 1

MOST_ITEMS: Final = 10_000
"""Items read before it gives up; about 10 ms."""

_UINT, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _OTHER = range(8)
_KINDS: Final = ("integer", "integer", "byte string", "text", "array", "map", "tag", "simple value")
_ARGUMENT_BYTES: Final = {24: 1, 25: 2, 26: 4, 27: 8}
_FIRST_RESERVED, _INDEFINITE = 28, 31
_FALSE, _NULL, _UNDEFINED = 20, 22, 23
_FLOATS: Final = (25, 26, 27)
_SHOWN: Final = 40  # characters of a key or a place that are shown


class _Level:
    """An array or a map that is being read."""

    __slots__ = ("index", "key", "keys", "left")

    def __init__(self, items: int, *, is_map: bool) -> None:
        self.left = 2 * items if is_map else items
        self.index = -1
        self.key: str | None = None
        self.keys: set[str] | None = set() if is_map else None

    @property
    def at_key(self) -> bool:
        return self.keys is not None and self.left % 2 == 0

    def __str__(self) -> str:
        if self.keys is None:
            return f"[{self.index}]"
        return "" if self.key is None else f".{self.key}"  # a fault in a key lies at its map


class _Fault(Exception):
    """The sentence, on its way out of the scanner."""


def find_fault(payload: bytes) -> str | None:
    """Return what is wrong with `payload` and where, or None if nothing was found.

    None means that it is one strict item, or that the fault lies behind `MOST_ITEMS` items.
    """
    if not payload:
        return "the frame is empty"
    try:
        return _Scanner(payload).scan()
    except _Fault as fault:
        return str(fault)


class _Scanner:
    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.at = 0
        self.levels: list[_Level] = []

    def scan(self) -> str | None:
        levels = self.levels
        for _ in range(MOST_ITEMS):
            self.item()
            while levels and not levels[-1].left:
                levels.pop()
            if not levels:
                left_over = len(self.payload) - self.at
                if left_over:
                    return f"{_bytes(left_over)} left over behind the item (byte {self.at})"
                return None
        return None

    def fail(self, begin: int, what: str) -> _Fault:
        place = shorten("$" + "".join(map(str, self.levels)))
        return _Fault(f"{what} - at `{place}` (byte {begin})")

    def item(self) -> None:
        """Read one item, or the head of one array or map."""
        begin = self.at
        level = self.levels[-1] if self.levels else None
        at_key = level is not None and level.at_key
        if level is not None:
            if at_key:
                level.key = None
            else:
                level.index += 1
            level.left -= 1
        head = self.take(1)[0]
        major, info = head >> 5, head & 0x1F
        argument = self.argument(begin, head)
        if at_key and major != _TEXT:
            raise self.fail(begin, f"a map's key must be text, not {_KINDS[major]}")
        if major == _NEGATIVE and -1 - argument < INT_MIN:
            raise self.fail(begin, "an integer below -2^63")
        if major == _BYTES:
            self.take(argument)
        elif major == _TEXT:
            text = self.text(begin, argument)
            if level is not None and at_key:
                self.key(begin, level, text)
        elif major in (_ARRAY, _MAP):
            if len(self.levels) == MAX_DEPTH:
                raise self.fail(begin, f"more than {MAX_DEPTH} levels")
            self.levels.append(_Level(argument, is_map=major == _MAP))
        elif major == _TAG:
            raise self.fail(begin, f"tag {argument}: tags are not carried")
        elif major == _OTHER and not (_FALSE <= info <= _NULL or info in _FLOATS):
            what = "undefined" if info == _UNDEFINED else f"simple value {argument}"
            raise self.fail(begin, f"{what}: only false, true and null are carried")

    def argument(self, begin: int, head: int) -> int:
        info = head & 0x1F
        if (width := _ARGUMENT_BYTES.get(info)) is not None:
            return int.from_bytes(self.take(width), "big")
        if info == _INDEFINITE:
            major = head >> 5
            if major == _OTHER:
                raise self.fail(begin, "a break (ff) without a beginning")
            if major in (_BYTES, _TEXT, _ARRAY, _MAP):
                raise self.fail(begin, f"{_KINDS[major]} of indefinite length")
        if info >= _FIRST_RESERVED:
            raise self.fail(begin, f"the head {head:02x} is reserved")
        return info

    def take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.payload):
            short = end - len(self.payload)
            raise self.fail(self.at, f"cut short: at least {_bytes(short)} missing")
        taken = self.payload[self.at : end]
        self.at = end
        return taken

    def text(self, begin: int, size: int) -> str:
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise self.fail(begin, "text that is not UTF-8") from None

    def key(self, begin: int, level: _Level, text: str) -> None:
        assert level.keys is not None
        shown = shorten(text)
        if text in level.keys:
            raise self.fail(begin, f"the key {shown!r} stands twice")
        level.keys.add(text)
        level.key = shown


def shorten(text: str) -> str:
    """Return as much of a key or a place as a sentence shows."""
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _bytes(count: int) -> str:
    return "1 byte" if count == 1 else f"{count} bytes"
