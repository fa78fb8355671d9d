"""For games and other programs that draw frame by frame: serve through the rest of a frame.

::

    while running:
        frame_ends = time.monotonic() + 1 / 60
        update_and_draw()
        frame_loop.spend(server, world, frame_ends)

In place of sleeping the rest of a frame away, `spend` waits for clients until the frame ends. So a
call is answered within a fraction of a millisecond and not at the next frame, and an idle program
sleeps as before. A program whose own clock sleeps (``pygame.time.Clock.tick``) calls it before that
clock, for most of the frame.
"""

from __future__ import annotations

import math
import select
import time
from typing import Any

from ipcpoll import Pollable

POLL_SECONDS = 0.002
"""The time budget of one poll, unless another is given."""

_MOST_FOR_SELECT = 1024  # select(2) takes no descriptor from here on, and poll(2) no microseconds


def spend(
    pollable: Pollable, ctx: Any, until: float, *, max_seconds: float | None = POLL_SECONDS
) -> int:
    """Poll and wait for clients until the moment `until`; return how many turns were taken.

    `until` is on the clock of `time.monotonic`, in seconds; `time.time` is the wrong clock, by
    which the frame would last for decades. A moment that has passed is one poll without waiting:
    nobody starves because frames are late. `max_seconds` bounds one poll, and what is left of the
    frame does too; a command in progress is not interrupted. None: as ``Server.poll``. Blocks no
    longer than until then, and a command's time. Returns at once when the pollable is closed in a
    command. Raises what ``poll`` raises, and ValueError, before the first poll, when `until` is no
    moment: infinite, or not a number.
    """
    if not until < math.inf:
        raise ValueError(f"a frame has no end at {until}; until is a moment of time.monotonic()")
    fd = pollable.fileno()
    turns = 0
    while True:
        left = until - time.monotonic()
        budget = left if max_seconds is None else min(left, max_seconds)
        turns += pollable.poll(ctx, max_seconds=max(0.0, budget))
        left = until - time.monotonic()
        if left <= 0 or pollable.fileno() != fd or not _wait(fd, left):
            return turns


def _wait(fd: int, seconds: float) -> bool:
    """Wait until the descriptor is readable; return whether that came in time."""
    if fd < _MOST_FOR_SELECT:
        return bool(select.select([fd], [], [], seconds)[0])
    waiter = select.poll()
    waiter.register(fd, select.POLLIN)
    return bool(waiter.poll(int(seconds * 1000)))  # rounded down: the frame must not be late
