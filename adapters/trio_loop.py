"""For trio.

::

    async with trio.open_nursery() as nursery:
        with ipcpoll.Server("service", Submit | Status) as server:
            await nursery.start(trio_loop.serve, server, service)
            await service.run()

A command's `process` runs in the task that serves. It may be a coroutine function or an
asynchronous generator: it runs in a task of its own then, and its client's cancel or going away
cancels it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from ipcpoll import AwaitingClient, Client, Pollable, TaskAttachment


class TrioAttachment(TaskAttachment):
    """Watched by a task of trio, until it is detached or the task is cancelled."""

    _event = trio.Event
    _scope = trio.CancelScope
    _group = staticmethod(trio.open_nursery)

    def _loop_id(self) -> object:
        return trio.lowlevel.current_trio_token()

    def _is_inside_loop(self) -> bool:
        try:
            return self._loop_id() is self._home
        except RuntimeError:
            return False

    async def _readable(self) -> bool:
        try:
            await trio.lowlevel.wait_readable(self._fd)
        except trio.ClosedResourceError:
            return False
        return True

    def _wake(self) -> None:
        # It takes the descriptor out of trio's epoll set as well. To cancel the wait would leave it
        # there, and whoever waits for the next one with the same number waits in vain.
        trio.lowlevel.notify_closing(self._fd)


async def serve(
    pollable: Pollable,
    ctx: Any,
    *,
    max_seconds: float | None = None,
    task_status: trio.TaskStatus[TrioAttachment] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Poll `pollable` whenever there is something to do, until it is closed.

    `ctx` and `max_seconds` are as for ``Server.poll``. Between two polls other tasks run, however
    much there is to do, and there it is cancelled; the pollable stays open then, and can be served
    again. ``nursery.start`` returns the attachment: to `pause`, to `resume`, and to `detach`, after
    which `serve` returns as well.

    An exception of ``poll`` comes out, as from whatever is awaited; so does a KeyboardInterrupt or
    SystemExit of a command. Raises UsageError when the pollable is closed already, or another task
    of this run serves it, or is to (a paused one).
    """
    attachment = TrioAttachment(pollable, ctx, max_seconds, raises=True)
    with attachment:
        task_status.started(attachment)
        await attachment.run()


def attach(
    pollable: Pollable, ctx: Any, nursery: trio.Nursery, *, max_seconds: float | None = None
) -> TrioAttachment:
    """Let a task in `nursery` serve `pollable`, until it is closed or the nursery is cancelled.

    The same as `serve` for programs that can't await here, or are written for several loops. Nobody
    awaits the task, so an exception of ``poll`` goes to `sys.excepthook`, and the watch goes on. A
    KeyboardInterrupt or SystemExit of a command goes to the nursery. Does not block.

    Raises RuntimeError when the nursery is closed, UsageError when the pollable is, or as `serve`.
    """
    attachment = TrioAttachment(pollable, ctx, max_seconds, raises=False)
    attachment.start(nursery.start_soon, serve)
    return attachment


class AsyncClient(AwaitingClient):
    """A client whose calls are awaited in trio.

    ::

        async with trio_loop.AsyncClient("service") as client:
            answer = await client.call(Status())
            async for piece in client.stream(Watch()):
                ...

    It needs no nursery: a system task watches for it, until it is closed.
    """

    def _attach(self, client: Client) -> None:
        attachment = TrioAttachment(client, None, None, raises=False)
        trio.lowlevel.spawn_system_task(attachment.run, name=type(self))

    async def _until(self, start: Callable[[Callable[[], None]], None]) -> None:
        called = trio.Event()
        start(called.set)
        await called.wait()
