"""Who asks: `caller()`, for commands."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol

from .._system.peer import Credentials
from ..errors import UsageError


class _Asks(Protocol):
    """A connection. It is asked each time, so that none is believed after an interruption."""

    busy: int
    credentials: Credentials


_caller: ContextVar[_Asks | None] = ContextVar("ipcpoll.caller", default=None)


set_caller = _caller.set


reset_caller = _caller.reset


def caller() -> Credentials:
    """Return who asks: the credentials of the client whose command is running.

    Legal inside ``process``. They are those of the moment when the client connected, and the uid
    is always the server's own. Does not block. Raises UsageError outside of a command.
    """
    who = _caller.get()
    if who is None or not who.busy:
        raise UsageError("caller() is only known inside a command's process()")
    return who.credentials
