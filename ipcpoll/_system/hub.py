"""The one descriptor that a main loop watches: a poller with a wake-up and a timer in it.

A server and a client that is in a loop have one each. What is promised:

* The descriptor is constant, close-on-exec and level-triggered. It is readable if something that is
  registered is ready, if `Hub.wakeup` was set, or if a moment of `Hub.timer` has come.
* The timer's descriptor is made when a moment is first set.
* `Hub.close` closes the descriptors and unregisters nothing: an epoll set is shared with a forked
  child, and an unregistration there would make the parent deaf.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from .poller import READ, Poller, make_poller
from .timers import Deadlines, LazyTimer
from .wakeup import Wakeup

NO_DESCRIPTOR: Final = -2
"""In `Hub.poll_by_hand`, stands for the timer's descriptor, which could not be made."""


class Hub:
    """A poller, a wake-up, a timer and a clock. Raises OSError where the process has no descriptor.

    `clock` gives the seconds that deadlines count by; the timer goes by `time.monotonic`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        with ExitStack() as undo:
            # The poller first: loops that select() need a low descriptor.
            self.poller: Poller = make_poller()
            undo.callback(self.poller.close)
            self.wakeup = Wakeup()
            undo.callback(self.wakeup.close)
            self.poller.register(self.wakeup.fileno(), READ)
            undo.pop_all()
        self.poll = self.poller.poll
        """Returns what is ready, as descriptors with masks of the poller. Never waits."""
        self.wake_fd = self.wakeup.fileno()
        self.timer = LazyTimer(lambda fd: self.poller.register(fd, READ))
        self.deadlines = Deadlines(self.timer)
        self._fd = self.poller.fileno()

    def fileno(self) -> int:
        """Return the descriptor to watch for reading; -1 after `close`."""
        return self._fd

    def poll_by_hand(self) -> list[tuple[int, int]]:
        """Return what is ready, and `NO_DESCRIPTOR` when a deadline is due that has no timer."""
        events = self.poll()
        when = self.deadlines.next()
        if when is not None and when <= self.clock():
            events.append((NO_DESCRIPTOR, READ))
        return events

    def close(self) -> None:
        """Forget the deadlines and close the descriptors. Idempotent, also when interrupted."""
        self._fd = -1
        self.poller.close()
        self.wakeup.close()
        self.deadlines.clear()
        self.timer.close()
