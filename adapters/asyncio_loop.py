"""For asyncio, and for loops that behave like it: uvloop.

::

    async def main():
        with ipcpoll.Server("service", Submit | Status) as server:
            asyncio_loop.attach(server, service)
            await service.run()

A command's `process` runs on the loop's thread. It may be a coroutine function or an asynchronous
generator: it runs as a task then, and its client's cancel or going away cancels the task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ipcpoll import Attachment, AwaitingClient, Client, Pollable


class AsyncioAttachment(Attachment):
    """Watched by an asyncio loop, as a reader."""

    def __init__(
        self,
        pollable: Pollable,
        ctx: Any,
        loop: asyncio.AbstractEventLoop,
        max_seconds: float | None,
    ) -> None:
        self._loop = loop
        super().__init__(pollable, ctx, max_seconds)
        self._run_coroutines(loop.create_task, asyncio.Event)

    def _loop_id(self) -> object:
        return self._loop

    def _loop_has_ended(self) -> bool:
        return self._loop.is_closed()

    def _is_inside_loop(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def _watch(self) -> None:
        # Whoever closed a descriptor without remove_reader has left its number in the loop's
        # books. The next reader with that number would be taken for it, and never be called.
        self._loop.remove_reader(self._fd)
        self._loop.add_reader(self._fd, self._serve)

    def _unwatch(self) -> None:
        if not self._loop.is_closed():  # else it has forgotten all of its readers
            self._loop.remove_reader(self._fd)

    def _report(self, error: Exception) -> None:
        self._loop.call_exception_handler(
            {"message": f"Exception in poll of {self._pollable!r}", "exception": error}
        )


def attach(
    pollable: Pollable,
    ctx: Any,
    loop: asyncio.AbstractEventLoop | None = None,
    *,
    max_seconds: float | None = None,
) -> AsyncioAttachment:
    """Let a loop watch `pollable`, and poll it whenever there is something to do.

    `loop` is the running one unless another is given; that one need not run yet. It must be one
    with `add_reader`, whose selector takes the descriptor: select(2) takes none above 1,023.
    `ctx` and `max_seconds` are as for ``Server.poll``. Call it on the loop's thread. Does not
    block.

    An exception of ``poll`` goes to the loop's exception handler, and the watch goes on. A
    KeyboardInterrupt or SystemExit leaves the loop, as from any callback; it can be run again.

    Raises RuntimeError when no loop is given and none runs, or the loop is closed; UsageError when
    the pollable is closed, or attached to this loop already.
    """
    if loop is None:
        loop = asyncio.get_running_loop()
    return AsyncioAttachment(pollable, ctx, loop, max_seconds)


class AsyncClient(AwaitingClient):
    """A client whose calls are awaited in the running loop.

    ::

        async with asyncio_loop.AsyncClient("service") as client:
            answer = await client.call(Status())
            async for piece in client.stream(Watch()):
                ...

    One client serves several loops, one after the other. It raises UsageError in a second one while
    the first runs, in another thread.
    """

    def _attach(self, client: Client) -> None:
        attach(client, None)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def _until(self, start: Callable[[Callable[[], None]], None]) -> None:
        loop = asyncio.get_running_loop()
        called = loop.create_future()

        def call() -> None:
            # A loop that was closed meanwhile has forgotten the task, and must not be told.
            if not called.done() and not loop.is_closed():
                called.set_result(None)

        start(call)
        await called
