"""The descriptor of a client inside a loop: a poller with its connections, a wake-up and a timer.

What is promised: it is constant, close-on-exec and level-triggered, and nothing is watched that is
closed: a connection is taken out before its socket is closed, because a forked child may still hold
that.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextlib import ExitStack

from .._system.poller import READ, make_poller
from .._system.timers import Timer
from .._system.wakeup import Wakeup
from .connection import ClientConnection
from .session import Session


class ClientDescriptor:
    """What a main loop watches for a client."""

    def __init__(self) -> None:
        with ExitStack() as undo:
            self._poller = make_poller()
            undo.callback(self._poller.close)
            self.wakeup = Wakeup()
            undo.callback(self.wakeup.close)
            self._poller.register(self.wakeup.fileno(), READ)
            undo.pop_all()
        self._fd = self._poller.fileno()
        self._timer: Timer | None = None
        self._armed: float | None = None
        self._watched: dict[int, tuple[Session, int]] = {}

    def fileno(self) -> int:
        """Return the descriptor; -1 after `close`."""
        return self._fd

    def ready(self) -> Iterator[tuple[Session, int]]:
        """Give what is ready: lines, each with a mask of the poller. Never waits."""
        for fd, mask in self._poller.poll():
            if fd in self._watched:
                yield self._watched[fd][0], mask
            elif fd == self.wakeup.fileno():
                self.wakeup.seen()
            else:
                self._armed = -1.0  # the timer has gone off, and is armed anew or silenced

    def watch(self, session: Session, connection: ClientConnection, mask: int) -> None:
        """Watch a session's connection for this, and for nothing else; 0: not at all."""
        fd = connection.fileno()
        known = self._watched.get(fd)
        if known is None:
            if mask:
                try:
                    self._poller.register(fd, mask)
                except FileExistsError:  # it was, and then came an interruption
                    self._poller.modify(fd, mask)
                self._watched[fd] = session, mask
                connection.on_close = lambda: self._forget(fd)
        elif not mask:
            connection.on_close = None
            self._forget(fd)
        elif known[1] != mask:
            self._poller.modify(fd, mask)
            self._watched[fd] = session, mask

    def _forget(self, fd: int) -> None:
        if self._watched.pop(fd, None) is not None and self._fd >= 0:
            with contextlib.suppress(OSError):  # it is closed next, which takes it out as well
                self._poller.unregister(fd)

    def is_late(self, moment: float) -> bool:
        """Return whether the descriptor would tell of this moment too late."""
        return moment < math.inf and (self._armed is None or moment < self._armed)

    def arm(self, when: float | None) -> None:
        """Become readable at this moment; None: not by the time."""
        if when == self._armed:
            return
        if self._timer is None:
            if when is None:
                return
            try:
                timer = Timer()
            except (OSError, AttributeError):
                return  # `Client.next_deadline` tells when to poll
            try:
                self._poller.register(timer.fileno(), READ)
            except OSError:  # no memory, too many watches
                timer.close()
                return
            self._timer = timer
        self._timer.arm(when)
        self._armed = when

    def close(self) -> None:
        """Close the descriptor; touch nothing that a forked child shares. Idempotent."""
        self._fd = -1
        self._watched.clear()
        self._poller.close()
        self.wakeup.close()
        if self._timer is not None:
            self._timer.close()

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            self.close()
