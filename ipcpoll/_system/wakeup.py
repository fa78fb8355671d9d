"""The two descriptors that make a poller readable without a client: wake and timer.

`Wakeup` says "there is work left", or "another thread wants a poll". `Timer` becomes readable at a
moment; `Deadlines` keeps many moments on one timer.

What is promised: no descriptor of these blocks, is inherited by a child program, or wakes the
host while nothing is due. The timer's descriptor is made with the first deadline.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque

# Not os.read and os.write: eventlet replaces these by ones that let other greenlets run meanwhile,
# and inside `Server.poll` nobody else may run.
from posix import read as _read
from posix import write as _write

from .sockets import above_stdio


class Wakeup:
    """A descriptor that is readable from `wake` or `signal` until it was seen.

    eventfd(2) where there is one, else a pipe. `wake` may be called by any thread and from a
    signal handler; the rest by the owner only. The owner's `signal` says that work is left, and
    `silence` takes that back without losing a `wake` that came in between.

    There is no lock: a thread that is gone after a fork would hold it for ever, a signal handler
    could wait for the code that it interrupted, and greenlets would take turns at it. Yet a number
    that was closed must not be written to, it may be a stranger's file by then. So who writes is
    listed, and if somebody is while the descriptors are closed, the last of them closes them.
    """

    def __init__(self) -> None:
        self._signalled = False
        self._woken = False
        self._writing: set[object] = set()
        self._made_by = os.getpid()
        if hasattr(os, "eventfd"):
            eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._read = self._write = above_stdio(eventfd)
        else:  # macOS and the BSDs
            self._read, self._write = _pipe()
        self._open = [self._read] if self._read == self._write else [self._read, self._write]

    def fileno(self) -> int:
        """Return the descriptor to watch for reading; -1 after `close`."""
        return self._read

    def wake(self) -> None:
        """Make the descriptor readable, from any thread. Does nothing when it is closed."""
        self._woken = True  # before the descriptor: `silence` looks at it after the descriptor
        self._set()

    def signal(self) -> None:
        """Make the descriptor readable, because work is left."""
        if not self._signalled:
            self._set()  # first: interrupted in between, it is said once too often, not never
            self._signalled = True

    @property
    def is_only_signalled(self) -> bool:
        """Whether nobody but the owner has made it readable."""
        return self._signalled and not self._woken

    def silence(self) -> None:
        """Take `signal` back: no work is left."""
        if self._signalled:
            self._signalled = False
            self._clear()
            if self._woken:
                self._set()

    def seen(self) -> None:
        """Silence the descriptor that was reported as readable, before looking for work."""
        self._signalled = self._woken = False
        self._clear()

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        self._read = self._write = -1
        # In a forked child those who write are the parent's threads, and not here.
        if not self._writing or os.getpid() != self._made_by:
            self._close_descriptors()

    def _close_descriptors(self) -> None:
        # `pop` is one step for all threads: each is closed once. And all of it is one call of C's:
        # an interruption behind `pop` would leave one open.
        with contextlib.suppress(IndexError):
            deque(map(os.close, iter(self._open.pop, None)), maxlen=0)

    def _set(self) -> None:
        me = object()
        try:
            # First: `close` looks at the list after it has taken the descriptor away, and here it
            # is the other way round, so one of the two sees the other.
            self._writing.add(me)
            fd = self._write
            if fd >= 0:
                # EAGAIN: it is set as far as it goes.
                with contextlib.suppress(BlockingIOError):
                    _write(fd, _ONE)
        finally:
            self._writing.discard(me)
            if self._write < 0 and not self._writing:
                self._close_descriptors()

    def _clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            _read(self._read, 65536)


_ONE = (1).to_bytes(8, sys.byteorder)  # eventfd(2): eight bytes are added to its counter


def _pipe() -> tuple[int, int]:
    read, write = map(above_stdio, os.pipe())
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    return read, write
