"""Calls to oneself: whether a thread would wait for a server that only it can poll.

Such a wait ends with the time limit, or never. What is promised:

* It is refused at once, before anything is sent where it can be known then, with a sentence that
  says what to do.
* Never a false alarm. A server of this process may well be polled by another thread, and its path
  may lead to another program by now. So it takes one of three proofs that nobody but the calling
  thread can poll, and that it would stand still: it is inside `Server.poll` (a command calls its
  own server); it is inside a callback of the loop that the server is attached to; or this process
  has no other thread. Where there is none, the time limit passes, and the error gives a hint. Only
  a signal handler that polls while the thread waits is not reckoned with.

A wait that lets other greenlets run (gevent, eventlet) stops no thread, and is not refused.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import types
import weakref
from collections.abc import Callable
from typing import Protocol

from .._shown import shown_path
from ..errors import UsageError
from .attachment import Attachment


class _Place(Protocol):
    """As much of a listener as is needed here."""

    @property
    def path(self) -> str: ...
    def is_reachable(self) -> bool: ...


class Served:
    """What is known of who polls a server of this process. The server keeps it."""

    __slots__ = ("__weakref__", "_attachments", "_is_running", "_path", "by", "place")

    def __init__(
        self, place: _Place, attachments: set[Attachment], is_running: Callable[[], bool]
    ) -> None:
        self._path = place.path
        self._attachments = attachments
        self._is_running = is_running
        self.place = place
        """Where it listens now."""
        self.by: int | None = None
        """The thread that is inside `Server.poll`; else that which served somebody last, or polled
        first; None: nobody has polled yet."""
        _served[self._path] = self

    def ends(self) -> None:
        """Let it be a server of this process no more. Idempotent."""
        if _served.get(self._path) is self:
            del _served[self._path]

    def refuse(self, path: str, became: str) -> None:
        """Raise UsageError if the calling thread would wait for itself; `became`: of the call."""
        proof = self._stands_still()
        if proof is not None:
            raise UsageError(
                f"this thread would wait for itself: only it can poll the server, because {proof}; "
                f"{became}. Use submit() or an AsyncClient, whose answers come by the "
                f"loop, or call from another thread (pid {os.getpid()}, {shown_path(path)})"
            )

    @property
    def hint(self) -> str:
        """What is to be said of the calling thread where its time limit has passed."""
        if self.by != threading.get_ident():
            return ""
        return "; this thread polled that server last, so it may have waited for itself"

    def _stands_still(self) -> str | None:
        """Return why nobody else can poll; None: somebody may, as far as is known."""
        if not _stops_the_thread():
            return None
        me = threading.get_ident()
        if self._is_running():
            return "it is inside poll() now, in a command" if self.by == me else None
        if self.by in (None, me):
            watched = [each for each in list(self._attachments) if each.watching]
            if watched and all(each.stands_still() for each in watched):
                return "it is inside a callback of the loop that polls it"
        if is_only_thread():
            return "this process has no other thread"
        return None


_served: weakref.WeakValueDictionary[str, Served] = weakref.WeakValueDictionary()


def served_at(path: str) -> Served | None:
    """Return the server of this process to which a path leads; None: there is none."""
    found = _served.get(path)  # its socket may be gone, and another program's be there
    return None if found is None or not found.place.is_reachable() else found


def served_behind(path: str) -> Served | None:
    """Return the server of this process to which a path leads, by whatever links."""
    found = served_at(path)
    if found is None and _served:
        try:
            wanted = os.stat(path)
        except OSError:
            return None
        for served in list(_served.values()):
            place = served.place
            try:
                if place.is_reachable() and os.path.samestat(os.stat(place.path), wanted):
                    return served
            except OSError:
                pass  # its socket was removed
    return found


def is_only_thread() -> bool:
    """Return whether this process has no other thread that Python knows of."""
    threads = sys._current_frames()  # pyright: ignore[reportPrivateUsage]  # it is documented
    return len(threads) == 1


def _stops_the_thread() -> bool:
    """Return whether a wait is the kernel's, and not one of a library that switches meanwhile."""
    return isinstance(getattr(select, "poll", select.select), types.BuiltinFunctionType)
