"""The two state machines of a connection, as tables. Both ends use them.

Everything that decides what is legal stands here, and nothing here knows sockets, frames or which
end it serves. A pair that a table lacks is illegal: `step` raises `IllegalTransition`, which the
protocol turns into the peer's error where the peer caused it. The tests walk every pair.

A connection::

    OPEN ──END──> HALF_CLOSED        the peer will send no more; it is still answered
      │              │
      ├──HANG_UP─────┴──> HUNG_UP    the peer has wholly gone; nothing can be sent
      ├──LOSE───────────> LOST       the framing is lost; an error may be sent, nothing is read
      └──CLOSE──────────> CLOSED

A call, by its id::

    NONE ──CALL──> IN_FLIGHT ──CANCEL──> CANCELLED
     ^                 │                    │
     └──────ANSWER─────┴──────ANSWER────────┘       (PIECE leaves the state as it is)
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, TypeVar


class Link(Enum):
    """The states of a connection."""

    # Members are single; Enum's own hash is written in Python and was 5 % of a call. So in each.
    __hash__ = object.__hash__

    OPEN = auto()
    HALF_CLOSED = auto()
    HUNG_UP = auto()
    LOST = auto()
    CLOSED = auto()


class LinkEvent(Enum):
    """What can happen to a connection."""

    __hash__ = object.__hash__

    TAKE = auto()  # one frame that was received is taken
    SEND = auto()  # one frame is sent
    END = auto()  # end of file
    HANG_UP = auto()  # the peer has wholly gone (EPOLLHUP)
    LOSE = auto()  # the framing is lost
    CLOSE = auto()


class CallState(Enum):
    """The states of a call."""

    __hash__ = object.__hash__

    NONE = auto()
    IN_FLIGHT = auto()
    CANCELLED = auto()


class CallEvent(Enum):
    """The messages that concern a call."""

    __hash__ = object.__hash__

    CALL = auto()
    PIECE = auto()
    CANCEL = auto()
    ANSWER = auto()  # an answer or an error


class IllegalTransition(Exception):
    """The table has no such pair."""


LINK: Final[dict[Link, dict[LinkEvent, Link]]] = {
    Link.OPEN: {
        LinkEvent.TAKE: Link.OPEN,
        LinkEvent.SEND: Link.OPEN,
        LinkEvent.END: Link.HALF_CLOSED,
        LinkEvent.HANG_UP: Link.HUNG_UP,
        LinkEvent.LOSE: Link.LOST,
        LinkEvent.CLOSE: Link.CLOSED,
    },
    Link.HALF_CLOSED: {
        LinkEvent.TAKE: Link.HALF_CLOSED,  # what was received before the end
        LinkEvent.SEND: Link.HALF_CLOSED,
        LinkEvent.HANG_UP: Link.HUNG_UP,
        LinkEvent.LOSE: Link.LOST,
        LinkEvent.CLOSE: Link.CLOSED,
    },
    Link.HUNG_UP: {
        LinkEvent.TAKE: Link.HUNG_UP,  # notifications still count
        LinkEvent.END: Link.HUNG_UP,
        LinkEvent.LOSE: Link.HUNG_UP,
        LinkEvent.CLOSE: Link.CLOSED,
    },
    Link.LOST: {
        LinkEvent.SEND: Link.LOST,
        LinkEvent.END: Link.LOST,
        LinkEvent.HANG_UP: Link.HUNG_UP,
        LinkEvent.CLOSE: Link.CLOSED,
    },
    Link.CLOSED: {
        LinkEvent.CLOSE: Link.CLOSED,
    },
}

CALL: Final[dict[CallState, dict[CallEvent, CallState]]] = {
    CallState.NONE: {
        CallEvent.CALL: CallState.IN_FLIGHT,
        CallEvent.CANCEL: CallState.NONE,  # it crossed the answer on its way
    },
    CallState.IN_FLIGHT: {
        CallEvent.PIECE: CallState.IN_FLIGHT,
        CallEvent.CANCEL: CallState.CANCELLED,
        CallEvent.ANSWER: CallState.NONE,
    },
    CallState.CANCELLED: {
        CallEvent.PIECE: CallState.CANCELLED,  # it crossed the cancel on its way
        CallEvent.CANCEL: CallState.CANCELLED,
        CallEvent.ANSWER: CallState.NONE,
    },
}

S = TypeVar("S", Link, CallState)
E = TypeVar("E", LinkEvent, CallEvent)


def step(table: dict[S, dict[E, S]], state: S, event: E) -> S:
    """Return the state that follows; raises IllegalTransition where the table has none."""
    try:
        return table[state][event]
    except KeyError:
        raise IllegalTransition(f"{event.name} in state {state.name}") from None
