"""For anyio, on asyncio and on trio.

::

    async with anyio.create_task_group() as group:
        with ipcpoll.Server("service", Submit | Status) as server:
            await group.start(anyio_loop.serve, server, service)
            await service.run()

A command's `process` runs in the task that serves. It may be a coroutine function or an
asynchronous generator: it runs in a task of its own then, and its client's cancel or going away
cancels it. A program that knows its backend can take `asyncio_loop` or `trio_loop` instead.
"""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup, TaskStatus

from ipcpoll import Pollable, TaskAttachment


class AnyioAttachment(TaskAttachment):
    """Watched by a task of anyio, until it is detached or the task is cancelled."""

    _event = anyio.Event
    _scope = anyio.CancelScope
    _group = staticmethod(anyio.create_task_group)

    def _loop_id(self) -> object:
        # What asyncio_loop and trio_loop say as well: they must not serve it beside this one.
        token: Any = anyio.lowlevel.current_token()
        return getattr(token, "native_token", token)  # an object around it, since anyio 4.11

    def _loop_has_ended(self) -> bool:
        # A task of asyncio that is cancelled before its first step never sees its end.
        is_closed = getattr(self._home, "is_closed", None)
        return is_closed is not None and is_closed()

    def _is_inside_loop(self) -> bool:
        try:
            return self._loop_id() is self._home
        except RuntimeError:
            return False

    async def _readable(self) -> bool:
        try:
            await anyio.wait_readable(self._fd)
        except anyio.ClosedResourceError:
            return False
        return True

    def _wake(self) -> None:
        anyio.notify_closing(self._fd)
        # A signal handler that closes is called in the midst of asyncio's sleep, and has to end it.
        wake = getattr(self._home, "call_soon_threadsafe", None)
        if wake is not None:
            wake(lambda: None)


async def serve(
    pollable: Pollable,
    ctx: Any,
    *,
    max_seconds: float | None = None,
    task_status: TaskStatus[AnyioAttachment] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Poll `pollable` whenever there is something to do, until it is closed.

    `ctx` and `max_seconds` are as for ``Server.poll``. Between two polls other tasks run, however
    much there is to do, and there it is cancelled; the pollable stays open then, and can be served
    again. ``group.start`` returns the attachment: to `pause`, to `resume`, and to `detach`, after
    which `serve` returns as well.

    An exception of ``poll`` comes out, as from whatever is awaited; so does a KeyboardInterrupt or
    SystemExit of a command. Raises UsageError when the pollable is closed already, or another task
    of this loop serves it, or is to (a paused one).
    """
    attachment = AnyioAttachment(pollable, ctx, max_seconds, raises=True)
    with attachment:
        task_status.started(attachment)
        await attachment.run()


def attach(
    pollable: Pollable, ctx: Any, group: TaskGroup, *, max_seconds: float | None = None
) -> AnyioAttachment:
    """Let a task in `group` serve `pollable`, until it is closed or the group is cancelled.

    The same as `serve` for programs that can't await here, or are written for several loops. Nobody
    awaits the task, so an exception of ``poll`` goes to `sys.excepthook`, and the watch goes on.
    Does not block.

    Raises RuntimeError when the group is not active, UsageError when the pollable is closed, or as
    `serve`.
    """
    attachment = AnyioAttachment(pollable, ctx, max_seconds, raises=False)
    attachment.start(group.start_soon, serve)
    return attachment
