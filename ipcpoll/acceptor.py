"""New connections, a bounded number at a time, and what happens when there is no room for one.

When the process has no descriptor left (EMFILE, ENFILE) or the kernel no memory, the connection
stays in the backlog and the listener would be readable for ever. So it is muted for
``accept_pause_seconds``, or until a connection of this server closes.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

from .limits import Limits
from .listener import Listener
from .log import Log
from .poller import READ, Poller
from .wakeup import Deadline, Deadlines


class Acceptor:
    """Takes connections from a listener that the poller watches."""

    def __init__(
        self,
        listener: Listener,
        poller: Poller,
        deadlines: Deadlines,
        limits: Limits,
        log: Log,
        clock: Callable[[], float],
    ) -> None:
        self._listener = listener
        self._poller = poller
        self._deadlines = deadlines
        self._limits = limits
        self._log = log
        self._clock = clock
        self._pause: Deadline | None = None
        self.fd = listener.fileno()
        self.more = False
        """Whether the last `accept` left connections in the backlog, as far as it knows."""
        poller.register(self.fd, READ)

    def accept(self) -> Iterator[socket.socket]:
        """Give the connections that wait, at most ``max_accepts``. Never blocks, never raises."""
        self.more = False
        if self._pause is not None:
            return
        for _ in range(self._limits.max_accepts):
            try:
                sock = self._listener.accept()
            except OSError as error:
                self._begin_pause(error)
                return
            if sock is None:
                return
            yield sock
        self.more = True

    def mute(self) -> None:
        """Do not watch the listener."""
        self._poller.modify(self.fd, 0)

    def unmute(self) -> None:
        """Watch the listener again, unless there is a pause."""
        if self._pause is None:
            self._poller.modify(self.fd, READ)

    def end_pause(self) -> None:
        """Take in connections again: there may be room now. Does nothing without a pause."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
            self._deadlines.settle()
            self.unmute()

    def _begin_pause(self, error: OSError) -> None:
        seconds = self._limits.accept_pause_seconds
        self._log.warning("accept", f"no new connection for {seconds:g} s: {error}")
        self.mute()
        self._pause = self._deadlines.add(self._clock() + seconds, self.end_pause)
