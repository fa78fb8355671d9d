"""The gate proves itself: cbor2 is asked once in a process whether it refuses what it must.

Most of what a payload may hold is checked by ipcpoll itself (`codec`). What can't be seen any more
in a decoded value rests on cbor2: that there was a tag, an indefinite length, a key that stands
twice, text that is not UTF-8, and a depth that would end the process before anything could be
checked. That nothing is left over rests on where cbor2 says that it has stopped; that a lone
surrogate is not sent, and that what is sent has no tags, rests on its encoder.

What is promised: no server and no client is made, in this process, with a cbor2 that lets one of
these through, or that does not read what it must. It takes about 0.2 ms, once.
"""

from __future__ import annotations

import io
from typing import Any, Final

import cbor2

from ..errors import UnsafeDependency
from ..limits import MAX_DEPTH
from .codec import gated

_REFUSED: Final = (
    # Tags whose contents would be plain values: nobody could tell afterwards.
    ("a tag (a bignum)", b"\xc2\x41\x07"),
    ("a tag (self-described CBOR)", b"\xd9\xd9\xf7\x01"),
    ("a shared reference", b"\x82\xd8\x1c\x80\xd8\x1d\x00"),
    ("a reference to a string", b"\xd9\x01\x00\x82\x63abc\xd8\x19\x00"),
    ("a key that stands twice", b"\xa2\x61a\x01\x61a\x02"),
    ("an array of indefinite length", b"\x9f\x01\xff"),
    ("a map of indefinite length", b"\xbf\x61a\x01\xff"),
    ("text of indefinite length", b"\x7f\x61a\xff"),
    ("a byte string of indefinite length", b"\x5f\x41a\xff"),
    (f"{MAX_DEPTH + 1} levels of arrays", b"\x81" * (MAX_DEPTH + 1) + b"\x00"),
    (f"{MAX_DEPTH + 1} levels of maps", b"\xa1\x61a" * (MAX_DEPTH + 1) + b"\x00"),
    ("text that is not UTF-8", b"\x61\xff"),
)
_FLAT: Final[dict[str, Any]] = {"a": [1, -1, True, None, 1.5, "é", b"\x07", []]}
_FLAT_ITEM: Final = (
    b"\xa1\x61a\x88\x01\x20\xf5\xf6\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00\x62\xc3\xa9\x41\x07\x80"
)
_GOOD: Final = b"\x82" + _FLAT_ITEM + b"\x81" * (MAX_DEPTH - 1) + b"\x00"


def _nested(levels: int) -> Any:
    return [_nested(levels - 1)] if levels else 0


_VALUE: Final = [_FLAT, _nested(MAX_DEPTH - 1)]
"""What `_GOOD` holds."""
_MORE: Final = b"\x00"

dumps: Final = cbor2.dumps

_proven: list[bool] = []


def prove() -> None:
    """Raise `UnsafeDependency` unless cbor2 refuses what it must, and reads what it must.

    Does nothing when that is known already. Any thread may call it.
    """
    if not _proven:
        _prove()
        _proven.append(True)


def _prove() -> None:
    for what, frame in _REFUSED:
        if _is_read(frame):
            raise UnsafeDependency(_sentence(f"reads {what}, which must be refused"))
    stream = io.BytesIO(_GOOD + _MORE)
    try:
        value: Any = gated(stream)()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise UnsafeDependency(_sentence("refuses what must be read")) from error
    # `repr` tells 1 from True and 1.0; of what is deep it would take long.
    if value != _VALUE or repr(value[0]) != repr(_FLAT):
        raise UnsafeDependency(_sentence("reads something else than what is there"))
    if stream.tell() != len(_GOOD):
        raise UnsafeDependency(_sentence("does not stop at the end of an item"))
    if dumps(_FLAT) != _FLAT_ITEM:
        raise UnsafeDependency(_sentence("writes something else than what is there"))
    if _is_written(["\ud800"]):
        raise UnsafeDependency(_sentence("writes text with a lone surrogate, which is no UTF-8"))


def _is_read(frame: bytes) -> bool:
    try:
        gated(io.BytesIO(frame))()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a panic in cbor2 (Rust) derives from it
        return False
    return True


def _is_written(value: object) -> bool:
    try:
        dumps(value)
    except UnicodeEncodeError:
        return False
    return True


def _sentence(fault: str) -> str:
    import importlib.metadata  # noqa: PLC0415 - only a refusal needs it, and it is slow

    try:
        version = importlib.metadata.version("cbor2")
    except importlib.metadata.PackageNotFoundError:
        version = "of an unknown version"
    return f"cbor2 {version} {fault}: ipcpoll can't work safely with it; install another release"
