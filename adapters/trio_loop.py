"""For trio.

::

    async with trio.open_nursery() as nursery:
        with ipcpoll.Server("service", Submit | Status) as server:
            await nursery.start(trio_loop.serve, server, service)
            await service.run()

A command's `process` is an ordinary function in the task that serves. It may start tasks in a
nursery, set events and send to channels without waiting; it can't await.
"""

from __future__ import annotations

from typing import Any

import trio

from ipcpoll import Pollable, TaskAttachment


class TrioAttachment(TaskAttachment):
    """Watched by a task of trio, until it is detached or the task is cancelled."""

    _event = trio.Event

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
    serves it.
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

    Raises RuntimeError when the nursery is closed, UsageError when the pollable is, or another task
    serves it.
    """
    attachment = TrioAttachment(pollable, ctx, max_seconds, raises=False)
    try:
        nursery.start_soon(attachment.run, name=serve)
    except BaseException:
        attachment.detach()
        raise
    return attachment
