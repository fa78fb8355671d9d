"""The log: `logging.getLogger("ipcpoll")`, rate-limited, never failing.

The first line of a kind is written at once. For the next ``log_seconds`` the others of this kind
are counted, and the next line that is written tells how many there were. Nothing that goes wrong
in a handler reaches the poll, except KeyboardInterrupt and SystemExit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Final, TypeAlias

ExcInfo: TypeAlias = "tuple[type[BaseException], BaseException, TracebackType | None]"

logger: Final = logging.getLogger("ipcpoll")

MOST_SHOWN: Final = 500
"""Characters of a message that are shown."""

_MOST_KINDS: Final = 256


class Log:
    """The log of one server or client."""

    def __init__(self, clock: Callable[[], float], seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._kinds: dict[str, tuple[float, int]] = {}  # when it was last written, and since then

    def warning(self, kind: str, message: str) -> None:
        """Write a line about a mishap of this kind."""
        self._write(logging.WARNING, kind, message, None)

    def exception(self, kind: str, message: str, error: BaseException) -> None:
        """Write a line with the traceback of `error`."""
        self._write(logging.ERROR, kind, message, (type(error), error, error.__traceback__))

    def _write(self, level: int, kind: str, message: str, exc_info: ExcInfo | None) -> None:
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
            logger.log(level, "%s", _printable(message[: MOST_SHOWN + 100]), exc_info=exc_info)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            pass  # there is no better place to say so


def _printable(message: str) -> str:
    """Return the message as one line: what a client sent must not look like a line of its own."""
    if message.isprintable():
        return message
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in message
    )


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
    shown = shown.encode(errors="backslashreplace").decode()  # lone surrogates can't be carried
    return f"{name}: {shown}" if shown else name
