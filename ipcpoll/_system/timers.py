"""Deadlines, and the timer descriptor that becomes readable at the next one.

`Timer` is the descriptor, `LazyTimer` makes it when it is first needed, `Deadlines` keeps many
moments on one of them.
"""

from __future__ import annotations

import heapq
import itertools
import os
import struct
from collections.abc import Callable

from .sockets import above_stdio

NANOSECONDS = 1_000_000_000


_FEWEST_SWEPT = 64


_LATEST = 2.0**31  # seconds, 68 years; a client may name any moment, and struct timespec ends


class Timer:
    """A descriptor that is readable from a moment on, on the clock of `time.monotonic`.

    timerfd_create(2): in `os` since Python 3.13, before that through ctypes, which is imported
    only then. Raises OSError or AttributeError where the platform has none.
    """

    def __init__(self) -> None:
        self._set_at = _timerfd_functions()
        self._fd = above_stdio(self._set_at.create())

    def fileno(self) -> int:
        """Return the descriptor to watch for reading; -1 after `close`."""
        return self._fd

    def arm(self, when: float | None) -> None:
        """Become readable at `when` (absolute, `time.monotonic` seconds); None: never.

        A moment that has passed counts as now. Arming also silences an expiry that was not read.
        """
        # 0 would disarm, and rounding up never wakes the host before the moment.
        nanoseconds = 0 if when is None else max(1, int(min(when, _LATEST) * NANOSECONDS) + 1)
        self._set_at.arm(self._fd, nanoseconds)

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class _OsTimerfd:  # pragma: no cover - which of the two runs depends on the Python version
    """timerfd of the os module, Python 3.13."""

    def create(self) -> int:
        import time  # noqa: PLC0415

        flags = os.TFD_NONBLOCK | os.TFD_CLOEXEC  # type: ignore[attr-defined,unused-ignore]
        fd: int = os.timerfd_create(time.CLOCK_MONOTONIC, flags=flags)  # type: ignore[attr-defined,unused-ignore]
        return fd

    def arm(self, fd: int, nanoseconds: int) -> None:
        flags = os.TFD_TIMER_ABSTIME  # type: ignore[attr-defined,unused-ignore]
        os.timerfd_settime_ns(fd, flags=flags, initial=nanoseconds)  # type: ignore[attr-defined,unused-ignore]


class _CtypesTimerfd:  # pragma: no cover - which of the two runs depends on the Python version
    """timerfd of the C library, for Python 3.11 and 3.12."""

    ABSTIME = 1

    def __init__(self) -> None:
        import ctypes  # noqa: PLC0415

        self._libc = ctypes.CDLL(None, use_errno=True)
        self._errno = ctypes.get_errno

    def create(self) -> int:
        import time  # noqa: PLC0415

        flags = os.O_NONBLOCK | os.O_CLOEXEC  # TFD_NONBLOCK and TFD_CLOEXEC are these
        return self._check(self._libc.timerfd_create(time.CLOCK_MONOTONIC, flags))

    def arm(self, fd: int, nanoseconds: int) -> None:
        # struct itimerspec: interval and value, each a struct timespec of two longs
        spec = struct.pack("@4l", 0, 0, *divmod(nanoseconds, NANOSECONDS))
        self._check(self._libc.timerfd_settime(fd, self.ABSTIME, spec, None))

    def _check(self, result: int) -> int:
        if result < 0:
            error = self._errno()
            raise OSError(error, os.strerror(error))
        return result


def _timerfd_functions() -> _OsTimerfd | _CtypesTimerfd:
    return _OsTimerfd() if hasattr(os, "timerfd_create") else _CtypesTimerfd()


class LazyTimer:
    """A `Timer` that is made when it is first armed: most programs never need its descriptor.

    `watch` is called with the descriptor then. Where there is none (the platform has no such timer,
    or the process no descriptor left, or `watch` raises OSError) each `arm` tries anew.
    """

    __slots__ = ("_timer", "_watch", "armed")

    def __init__(self, watch: Callable[[int], object]) -> None:
        self._watch = watch
        self._timer: Timer | None = None
        self.armed: float | None = None
        """The moment of the last `arm` that reached the descriptor; None: it is silent."""

    def arm(self, when: float | None) -> bool:
        """Become readable at `when`, as `Timer.arm`; return whether the descriptor tells of it."""
        timer = self._timer
        if timer is None:
            if when is None:
                return True
            timer = self._make()
            if timer is None:
                return False
        timer.arm(when)
        self.armed = when
        return True

    def _make(self) -> Timer | None:
        try:
            timer = Timer()
        except (OSError, AttributeError):
            return None
        try:
            self._watch(timer.fileno())
        except OSError:  # no memory, too many watches: as if there were no timer
            timer.close()
            return None
        self._timer = timer
        return timer

    def close(self) -> None:
        """Close the descriptor, if there is one. Idempotent."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.close()


class Deadline:
    """One moment and what is done then. Made by `Deadlines.add`."""

    __slots__ = ("action", "when")

    def __init__(self, when: float, action: Callable[[], None]) -> None:
        self.when = when
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Forget it. Idempotent."""
        self.action = None


class Deadlines:
    """Moments on one timer, and what is done at each. Times are absolute seconds on its clock.

    While there is no descriptor for the timer `by_hand` is True, and `next` tells when to poll.
    """

    def __init__(self, timer: LazyTimer) -> None:
        self._timer = timer
        self._heap: list[tuple[float, int, Deadline]] = []
        self._order = itertools.count()
        self._sweep_at = _FEWEST_SWEPT
        self.by_hand = False
        """Whether a deadline waits that no descriptor will tell of, at the last `settle`."""

    def add(self, when: float, action: Callable[[], None]) -> Deadline:
        """Do `action` at the first `run_due` from `when` on."""
        if len(self._heap) >= self._sweep_at:
            self._sweep()
        deadline = Deadline(when, action)
        heapq.heappush(self._heap, (when, next(self._order), deadline))
        self.settle()
        return deadline

    def _sweep(self) -> None:
        """Drop the cancelled ones, wherever they are in the heap."""
        heap = [entry for entry in self._heap if entry[2].action is not None]
        heapq.heapify(heap)
        self._heap = heap
        self._sweep_at = max(_FEWEST_SWEPT, 2 * len(heap))

    @property
    def are_set(self) -> bool:
        """Whether there is a moment, or was one at the last `settle`; cancelled ones count."""
        return bool(self._heap) or self._timer.armed is not None

    def next(self) -> float | None:
        """Return the next moment, None when there is none."""
        heap = self._heap
        while heap and heap[0][2].action is None:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def run_due(self, now: float) -> None:
        """Do what is due, in order."""
        while (when := self.next()) is not None and when <= now:
            deadline = heapq.heappop(self._heap)[2]
            action, deadline.action = deadline.action, None
            if action is not None:
                action()
        self.settle(again=True)

    def settle(self, *, again: bool = False) -> None:
        """Arm the timer for the next moment, or disarm it. `again`: it may have gone off."""
        when = self.next() if self._heap else None
        if again or self.by_hand or when != self._timer.armed:
            self.by_hand = not self._timer.arm(when)

    def clear(self) -> None:
        """Forget everything."""
        self._heap.clear()
        self.by_hand = False
