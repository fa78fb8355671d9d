"""Pollables that are no servers: one on a real descriptor, and a server that counts its polls."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from .._attach.attachment import Attachment
from .._server.server import Server

PATIENCE: Final = 20.0
"""Seconds after which a loop that does not come to its end is stopped, and the case has failed."""


class FakePollable:
    """A `Pollable` on a real descriptor, which a test makes ready by hand.

    It remembers each `poll`: the context and the budget. `error`, when it is set, comes out of the
    next one.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self.polls: list[tuple[Any, float | None]] = []
        self.error: Exception | None = None
        self.attachments: set[Attachment] = set()
        self.work = 0
        """Polls for which there is work; while it is above 0 the descriptor is readable."""
        self.on_poll: Callable[[], None] = lambda: None

    def fileno(self) -> int:
        """Return the descriptor; -1 after `close`."""
        return self._read

    @property
    def pending(self) -> bool:
        """Whether work is left."""
        return self.work > 0

    def ready(self, polls: int = 1) -> None:
        """Make the descriptor readable until so many polls have come."""
        if not self.work:
            os.write(self._write, b"!")
        self.work += polls

    def poll(self, ctx: Any, *, max_seconds: float | None = None) -> int:
        """Do one piece of the work."""
        self.polls.append((ctx, max_seconds))
        if self.work:
            self.work -= 1
            if not self.work:
                os.read(self._read, 1)
        error, self.error = self.error, None
        if error is not None:
            raise error
        self.on_poll()
        return 1

    def close(self) -> None:
        """Detach, and close the descriptor. Idempotent."""
        for attachment in list(self.attachments):
            attachment.detach()
        self.forget()

    def forget(self) -> None:
        """Close the descriptor without detaching, as a careless pollable does. Idempotent."""
        for fd in {self._read, self._write} - {-1}:
            os.close(fd)
        self._read = self._write = -1


class Watched:
    """A server that counts how often it is polled; it can be attached like the server."""

    def __init__(self, server: Server[Any]) -> None:
        self.server = server
        self.polls = 0
        self.attachments = server.attachments

    def fileno(self) -> int:
        return self.server.fileno()

    @property
    def pending(self) -> bool:
        return self.server.pending

    def poll(self, ctx: Any, *, max_seconds: float | None = None) -> int:
        self.polls += 1
        return self.server.poll(ctx, max_seconds=max_seconds)


def polled(*fakes: FakePollable, times: int = 1) -> Callable[[], bool]:
    """Return what is true as soon as these were polled so often, together."""
    return lambda: sum(len(fake.polls) for fake in fakes) >= times


def any_detached(attachments: list[Attachment]) -> bool:
    """Return whether one of them is not attached any more."""
    return not all(attachment.attached for attachment in attachments)
