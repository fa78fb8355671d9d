"""A main loop for programs that have none, and a seat in one that is made by hand.

::

    with ipcpoll.Server("calc", Add | Push) as server:
        select_loop.run(server, stack)

A program with a `selectors` loop of its own attaches the server to its selector, and calls what it
finds in ``key.data``. A loop around ``select``, ``poll`` or ``epoll`` needs no adapter at all:
docs/adapters.md shows each.
"""

from __future__ import annotations

import os
import selectors
from collections.abc import Callable
from typing import Any, BinaryIO

from ipcpoll import Attachment, Pollable, UsageError


class SelectorAttachment(Attachment):
    """Watched by a selector. It is the ``data`` of its key: call it when the key is ready."""

    def __init__(
        self,
        pollable: Pollable,
        ctx: Any,
        selector: selectors.BaseSelector,
        max_seconds: float | None,
    ) -> None:
        self._selector = selector
        super().__init__(pollable, ctx, max_seconds)

    def __call__(self, *_: object) -> None:
        """Poll once. Whatever a loop gives to its callbacks is ignored."""
        self._serve()

    def _loop_id(self) -> object:
        return self._selector

    def _loop_has_ended(self) -> bool:
        books: Any = self._selector.get_map()
        return books is None  # it was closed

    def _watch(self) -> None:
        fd = self._fd
        if isinstance(self._selector, selectors.SelectSelector):
            fd = self._low_descriptor()
        try:
            self._key = self._selector.register(fd, selectors.EVENT_READ, self)
        except KeyError:
            raise UsageError(
                f"the program has registered {self._pollable!r} with this selector itself; "
                "unregister it before attach()"
            ) from None

    def _unwatch(self) -> None:
        try:
            if self._selector.get_key(self._key.fd).data is self:
                self._selector.unregister(self._key.fd)
        except (KeyError, RuntimeError):
            pass  # the program has unregistered it, or the selector was closed first
        self._close_low_descriptor()

    def _report(self, error: Exception) -> None:
        raise error  # the loop is the program's own, and so is what it does about it


class _RunAttachment(SelectorAttachment):
    """Ends the wait of `run` when it is detached, by a write: behind a signal Python waits on."""

    def __init__(self, *args: Any, end: BinaryIO) -> None:
        self._end = end
        super().__init__(*args)

    def detach(self) -> None:
        """Take the pollable out of the loop for good. It stays open. Idempotent."""
        if self.attached:
            self._end.write(b"\0")
        super().detach()


def attach(
    pollable: Pollable,
    ctx: Any,
    selector: selectors.BaseSelector,
    *,
    max_seconds: float | None = None,
) -> SelectorAttachment:
    """Let a selector watch `pollable`; ``key.data()`` polls it when its key is ready.

    `ctx` and `max_seconds` are as for ``Server.poll``. An exception of ``poll`` comes out of the
    call. Does not block. Raises OSError when `selector` takes no descriptor above 1,023 and there
    is none below; UsageError when the pollable is closed, or `selector` watches it already.
    """
    return SelectorAttachment(pollable, ctx, selector, max_seconds)


def run(
    pollable: Pollable,
    ctx: Any,
    *,
    until: Callable[[], bool] | None = None,
    max_seconds: float | None = None,
) -> None:
    """Poll whenever there is something to do, until `until` says so or the pollable is closed.

    `until` is asked before the first wait and after each poll; None: never. ``Server.wake`` makes
    it be asked. A signal handler may close the pollable. Blocks. A KeyboardInterrupt comes out, and
    so does what ``poll`` raises.
    """
    reads, writes = os.pipe()
    with (
        open(reads, "rb", 0) as ended,
        open(writes, "wb", 0) as end,
        selectors.DefaultSelector() as selector,
        _RunAttachment(pollable, ctx, selector, max_seconds, end=end) as attachment,
    ):
        selector.register(ended, selectors.EVENT_READ, lambda: None)
        while attachment.attached and not (until is not None and until()):
            for key, _ in selector.select():
                key.data()
