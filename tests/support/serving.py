"""A server in a thread of its own, for tests of blocking clients, and what it answers."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from harness import (
    PATIENCE,
    Host,
    readable,
)

from ipcpoll import (
    Server,
)


@dataclass
class Found:
    path: str
    size: int


@dataclass
class Missing:
    near: list[str]


@dataclass
class Find:
    """Answers with one of two dataclasses, or None."""

    name: str

    def process(self, ctx: Host) -> Found | Missing | None:
        if not self.name:
            return None
        return Found("/x", 3) if self.name == "x" else Missing(["x"])


class Serving:
    """A server that is polled by a thread of its own, so that the test can be the client."""

    def __init__(self, server: Server[Any]) -> None:
        self.server = server
        self.host = Host()
        self._stop = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop:
            if readable(self.server, 1):
                self.server.poll(self.host)

    def stop(self) -> None:
        """End the thread; the server stays open and is not polled any more."""
        self._stop = True
        self.server.wake()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
