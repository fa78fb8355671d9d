"""The messages on the wire, and their parts: what is in a frame. No I/O, no state.

Call ``[id, name, {fields}]`` with an optional map of options, cancel ``[id]``; answer
``[id, 0, value]``, error ``[id, 1, {…}]``, piece ``[id, 2, item]`` with an optional map of notes.
docs/protocol.md has it in full. Which message is legal when is decided in `protocol`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

from ..errors import MALFORMED, CommandError, WireError, error_from_wire
from . import codec
from .framing import Payload, frame

ANSWER, ERROR, PIECE = 0, 1, 2
"""The second item of what a server sends."""

ARRAY_HEADS: Final = tuple(codec.array_head(length) for length in range(5))
SHORT_HEAD: Final = b"\x83"  # an array of three: calls without options, answers, pieces
_CANCEL_HEAD: Final = b"\x81"  # an array of one: the only message that has it
ANSWER_ITEM, ERROR_ITEM, PIECE_ITEM = b"\x00", b"\x01", b"\x02"
NULL: Final = b"\xf6"
NULL_HEAD: Final = 0xF6
SHORT_CALL, LONG_CALL = 3, 4
_LOST: Final = "lost"
ID_ENDS: Final = [2] * 24 + [3, 4, 6, 10] + [0] * 228
"""Where the id of a message ends, by its head, which is the second byte; 0: it is no id."""
ID_ENDS[NULL_HEAD] = 2


class Call(NamedTuple):
    """A request. `call_id` None: a notification, which is never answered."""

    call_id: int | None
    name: str
    fields: dict[str, Any]
    timeout: float | None
    """Seconds the client waits, None where it did not say."""
    cancelled: bool
    """Its cancel has been received already, behind it."""
    arrived: float = 0.0
    """When its last byte was received, on the clock of whoever called `receive`; only where it has
    a `timeout`."""
    command_type: Any = None
    """What the name stands for, where whoever reads calls (`ReadCall`) knows."""
    command: Any = None
    """The command, where that could be made at once."""


class Cancel(NamedTuple):
    """The client gives the call up. The call is still answered."""

    call_id: int


class Answer(NamedTuple):
    """The answer of a call, as a plain value."""

    call_id: int
    value: Any


class Failure(NamedTuple):
    """An error. `call_id` None: it concerns every call in flight."""

    call_id: int | None
    error: CommandError


class Piece(NamedTuple):
    """One piece of an answer that comes in pieces, as a plain value."""

    call_id: int
    item: Any
    lost: int = 0
    """How many pieces were lost before this one: its reader was too slow for a subscription."""


ReadCall: TypeAlias = "Callable[[bytes, int, int | None], tuple[Any, ...] | None]"
"""Reads the name and the fields in a payload from `at` on, behind the id, without decoding it.

It is given the id, and returns what a `Call` consists of. Returns None for whatever it does not
know to the last byte, and may raise IndexError: then it is decoded.
"""


# ---------------------------------------------------------------------------------------------
# Made


def piece_frame(call_id: int, item: bytes, lost: int = 0) -> bytes:
    """Return the frame of one piece, before which so many were lost."""
    if lost:
        return frame(array_of(codec.encode(call_id), PIECE_ITEM, item, codec.encode({_LOST: lost})))
    return frame(array_of(codec.encode(call_id), PIECE_ITEM, item))


def call_payload(call_id: bytes, body: Payload) -> Payload:
    """Return a call's payload from its encoded id and what stands behind that."""
    if isinstance(body, tuple):
        return (SHORT_HEAD, call_id, *body)
    return SHORT_HEAD + call_id + body


def array_of(*items: bytes) -> bytes:
    return ARRAY_HEADS[len(items)] + b"".join(items)


def text(what: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"an error's {what} must be text, not `{type(value).__qualname__}`")
    return str.__str__(value)  # an application's codes may be an enum of text


def is_id(value: Any) -> bool:
    return type(value) is int and value >= 0


def parse_options(options: Any) -> float | None:
    if type(options) is not dict:
        raise WireError(MALFORMED, "a call's options are a map - at `$[3]`")
    unknown = options.keys() - {"timeout"}
    if unknown:
        option = str(next(iter(unknown)))[:80]
        raise WireError(MALFORMED, f"there is no option `{option}` - at `$[3]`")
    timeout = options.get("timeout")
    if timeout is None:
        return None
    if type(timeout) not in (int, float) or not (math.isfinite(timeout) and timeout >= 0):
        raise WireError(MALFORMED, "a timeout is a number of seconds - at `$[3].timeout`")
    return float(timeout)


def parse_notes(notes: Any) -> int:
    """Return how many pieces were lost. Other notes are ignored: a newer server may say more."""
    lost = notes.get(_LOST, 0) if type(notes) is dict else None
    if type(lost) is not int or lost < 0:
        raise WireError(MALFORMED, "the notes of a piece are a map, `lost` a number - at `$[3]`")
    return lost


def parse_error(item: Any) -> CommandError:
    if (
        type(item) is not dict
        or type(item.get("code")) is not str
        or type(item.get("message")) is not str
    ):
        raise WireError(MALFORMED, 'an error is {"code": text, "message": text} - at `$[2]`')
    return error_from_wire(item["code"], item["message"], item.get("data"))


def cancelled_id(payload: bytes) -> int | None:
    """Return the id that a cancel names, without decoding it; None if it is no cancel."""
    if payload[:1] != _CANCEL_HEAD:
        return None
    call_id, end = peek_id(payload)
    return call_id if end == len(payload) else None


def peek_id(payload: bytes) -> tuple[int | None, int]:
    """Return the id of a message without decoding it, and where it ends; None if it has none."""
    if len(payload) < 2:
        return None, 0
    head = payload[1]
    end = ID_ENDS[head]
    if not 0 < end <= len(payload) or head == NULL_HEAD:
        return None, 0
    return head if end == 2 else int.from_bytes(payload[2:end], "big"), end
