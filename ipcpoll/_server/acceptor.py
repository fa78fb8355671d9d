"""New connections, a bounded number at a time, and what happens when there is no room for one.

When the process has no descriptor left (EMFILE, ENFILE) a connection stays in the backlog, the
listener stays readable, and a level-triggered loop would spin. So one descriptor is kept in
reserve: it is given up, the connection is taken in with it and told that there is no room, and the
reserve is opened again. libuv and Twisted do the same.

Where that is not enough (another thread took the descriptor, or the kernel has no memory) the
listener is muted for ``accept_pause_seconds``, or until a connection of this server closes.
"""

from __future__ import annotations

import errno
import io
import os
import socket
from collections.abc import Iterator
from typing import Final

from .._address.listener import Listener
from .._system.hub import Hub
from .._system.log import Log
from .._system.poller import READ
from .._system.sockets import above_stdio
from .._system.timers import Deadline
from ..limits import Limits

_FEW: Final = 8
"""Connections that are taken in however little time a poll has."""

_NO_DESCRIPTOR: Final = frozenset({errno.EMFILE, errno.ENFILE})


class Acceptor:
    """Takes connections from a listener that the poller watches."""

    def __init__(
        self,
        listener: Listener,
        hub: Hub,
        limits: Limits,
        log: Log,
    ) -> None:
        self._listener = listener
        self._hub = hub
        self._limits = limits
        self._log = log
        self._pause: Deadline | None = None
        self.fd = listener.fileno()
        self.more = False
        """Whether the last `accept` left connections in the backlog, as far as it knows."""
        # Before the spares, which nobody would close if it fails.
        hub.poller.register(self.fd, READ)
        self._spare = _open_spare()
        self._for_timer = _open_spare()

    def accept(self, deadline: float, most: int) -> Iterator[tuple[socket.socket, bool]]:
        """Give the connections that wait, at most so many, and whether there is room for each.

        Few when it is later than `deadline`. One for which there is no room is to be told so and
        closed before the next is asked for. Never blocks, never raises.
        """
        self.more = False
        if self._pause is not None:
            self.mute()  # again, if it was interrupted
            return
        for count in range(most):
            if count >= _FEW and self._hub.clock() >= deadline:
                break
            if self._spare is None:
                self._spare = _open_spare()
            try:
                sock, room = self._next()
            except OSError as error:
                self._begin_pause(error)
                return
            if sock is None:
                return
            yield sock, room
        self.more = True

    def _next(self) -> tuple[socket.socket | None, bool]:
        try:
            return self._listener.accept(), True
        except OSError as error:
            if self._spare is None or error.errno not in _NO_DESCRIPTOR:
                raise
        # In one step, or an interruption could let it be closed twice.
        spare, self._spare = self._spare, None
        spare.close()
        # EMFILE is said even when nobody waits; now the truth comes out.
        return self._listener.accept(), False

    def move_to(self, listener: Listener) -> None:
        """Take connections from another listener from now on."""
        self._hub.poller.register(listener.fileno(), READ if self._pause is None else 0)
        self._hub.poller.unregister(self.fd)
        self._listener = listener
        self.fd = listener.fileno()

    def mute(self) -> None:
        """Do not watch the listener."""
        self._hub.poller.modify(self.fd, 0)

    def unmute(self) -> None:
        """Watch the listener again, unless there is a pause."""
        if self._pause is None:
            self._hub.poller.modify(self.fd, READ)

    def end_pause(self) -> None:
        """Take in connections again: there may be room now. Does nothing without a pause."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
            self._hub.deadlines.settle()
            self.unmute()

    def close(self) -> None:
        """Close the reserve. Idempotent."""
        for spare in (self._spare, self._for_timer):
            if spare is not None:
                spare.close()

    def _begin_pause(self, error: OSError) -> None:
        seconds = self._limits.accept_pause_seconds
        self._log.warning("accept", f"no new connection for {seconds:g} s: {error}")
        # The timer needs a descriptor as well, and there may be none: nothing would end the pause.
        if self._for_timer is not None:
            self._for_timer.close()
        # First its end, then the pause: whatever fails in between, nobody stays deaf.
        self._pause = self._hub.deadlines.add(self._hub.clock() + seconds, self.end_pause)
        self.mute()


def _open_spare() -> io.FileIO | None:
    """Return a descriptor to give up later, None if there is none left."""
    try:
        return io.FileIO(above_stdio(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)))
    except OSError:
        return None
