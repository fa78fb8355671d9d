"""What an adapter attaches to a main loop: one descriptor and one call that never blocks."""

from __future__ import annotations

from typing import Any, Protocol


class Pollable(Protocol):
    """A server, or a client inside a loop."""

    def fileno(self) -> int:
        """Return the descriptor to watch for reading, level-triggered; constant until `close`."""
        ...

    @property
    def pending(self) -> bool:
        """Whether work was left; an edge-triggered host polls until it is False."""
        ...

    def poll(self, ctx: Any, *, max_seconds: float | None = None) -> int:
        """Do what there is to do now, within the budget; never blocks."""
        ...


class Event(Protocol):
    """As much of ``asyncio.Event`` and ``trio.Event`` as is needed."""

    def set(self) -> object: ...
    async def wait(self) -> object: ...
