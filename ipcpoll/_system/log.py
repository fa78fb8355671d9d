"""The log: `logging.getLogger("ipcpoll")`, rate-limited, never failing.

The first line of a kind is written at once. For the next ``log_seconds`` the others of this kind
are counted, and the next line that is written tells how many there were. Tracebacks of one command
that are not the same are kinds of their own: what has raised at another place, or come there by
another way, is written too. Nothing that goes wrong
in a handler reaches the poll, except KeyboardInterrupt and SystemExit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Final, TypeAlias

from .._shown import encodable, printable

ExcInfo: TypeAlias = "tuple[type[BaseException], BaseException, TracebackType | None]"

logger: Final = logging.getLogger("ipcpoll")

MOST_SHOWN: Final = 500
"""Characters of a message that are shown."""

_MOST_KINDS: Final = 256
MOST_TRACEBACKS: Final = 32
"""Tracebacks of one kind that are told apart at a time: what a client sends may decide which way a
command goes, and there can be any number of ways."""
_LONGEST_CHAIN: Final = 16  # exceptions that led to one another

_Kind: TypeAlias = "tuple[str, int | None]"


class Log:
    """The log of one server or client."""

    def __init__(self, clock: Callable[[], float], seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._kinds: dict[_Kind, tuple[float, int]] = {}  # when it was last written, and since then

    def warning(self, kind: str, message: str) -> None:
        """Write a line about a mishap of this kind."""
        self._write(logging.WARNING, (kind, None), message, None)

    def exception(self, kind: str, message: str, error: BaseException) -> None:
        """Write a line with the traceback of `error`."""
        each: _Kind = (kind, way_of(error))
        if each not in self._kinds and self._are_many(kind):
            each = (kind, None)
        self._write(logging.ERROR, each, message, (type(error), error, error.__traceback__))

    def _are_many(self, kind: str) -> bool:
        """Return whether so many tracebacks of a kind were written that others are one kind now."""
        since = self._clock() - self._seconds
        written = [when for (name, _), (when, _) in self._kinds.items() if name == kind]
        return len([when for when in written if when > since]) >= MOST_TRACEBACKS

    def _write(self, level: int, kind: _Kind, message: str, exc_info: ExcInfo | None) -> None:
        now = self._clock()
        written, held_back = self._kinds.get(kind, (float("-inf"), 0))
        if now - written < self._seconds:
            self._kinds[kind] = (written, held_back + 1)
            return
        if len(self._kinds) >= _MOST_KINDS and kind not in self._kinds:
            self._kinds.clear()
        self._kinds[kind] = (now, 0)
        if held_back:
            message = f"{message} ({held_back} more of this kind in the last {now - written:.0f} s)"
        try:
            logger.log(level, "%s", printable(message[: MOST_SHOWN + 100]), exc_info=exc_info)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            pass  # there is no better place to say so


def way_of(error: BaseException) -> int:
    """Return a number for the types and the places of an exception and of those that led to it.

    However deep a recursion was, its places are the same.
    """
    places: set[object] = set()
    cause: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if cause is None:
            break
        places.add(type(cause))
        step = cause.__traceback__
        while step is not None:
            code = step.tb_frame.f_code
            places.add((code.co_filename, code.co_name, step.tb_lineno))
            step = step.tb_next
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return hash(frozenset(places))


def describe(error: BaseException) -> str:
    """Return the type and the words of an exception, whatever its ``__str__`` does."""
    try:
        words = str(error)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        words = "(its text can't be shown)"
    name = type(error).__name__
    shown = words if len(words) <= MOST_SHOWN else words[:MOST_SHOWN] + "…"
    shown = encodable(shown)
    return f"{name}: {shown}" if shown else name
