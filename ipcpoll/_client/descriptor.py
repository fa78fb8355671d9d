"""The descriptor of a client inside a loop: a hub, and the connections that it watches.

What is promised: nothing is watched that is closed. A connection is taken out before its socket is
closed, because a forked child may still hold that.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

from .._system.hub import Hub
from .connection import ClientConnection
from .session import Session


class ClientDescriptor:
    """What a main loop watches for a client."""

    def __init__(self) -> None:
        self._hub = Hub()
        self._poller = self._hub.poller
        self.wakeup = self._hub.wakeup
        self._watched: dict[int, tuple[Session, int]] = {}

    def fileno(self) -> int:
        """Return the descriptor; -1 after `close`."""
        return self._hub.fileno()

    def ready(self) -> Iterator[tuple[Session, int]]:
        """Give the sessions that are ready, each with a mask of the poller. Never waits."""
        for fd, mask in self._hub.poll():
            if fd in self._watched:
                yield self._watched[fd][0], mask
            elif fd == self._hub.wake_fd:
                self.wakeup.seen()
            else:
                self._hub.timer.armed = -1.0  # it has expired, and is armed anew or silenced

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
        if self._watched.pop(fd, None) is not None and self.fileno() >= 0:
            with contextlib.suppress(OSError):  # closed next, which takes it out, too
                self._poller.unregister(fd)

    def is_late(self, moment: float) -> bool:
        """Return whether the descriptor would tell of this moment too late."""
        armed = self._hub.timer.armed
        return moment < math.inf and (armed is None or moment < armed)

    def arm(self, when: float | None) -> None:
        """Become readable at this moment; None: not by the time.

        Where no timer can be made, `Client.next_deadline` tells when to poll.
        """
        if when != self._hub.timer.armed:
            self._hub.timer.arm(when)

    def close(self) -> None:
        """Close the descriptor; touch nothing that a forked child shares. Idempotent."""
        self._watched.clear()
        self._hub.close()

    def __del__(self) -> None:
        if hasattr(self, "_watched"):
            self.close()
