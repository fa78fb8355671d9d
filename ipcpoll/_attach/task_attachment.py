"""What the adapters of trio and anyio return: a task in place of a callback.

What is promised beside what `Attachment` promises: the task gives way to others between two polls,
however much there is to do; cancelled, it leaves the pollable open and nothing in the library's
books; asynchronous commands run as tasks of the same library, and end with it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from typing import Any, Protocol

from .attachment import Attachment
from .pollable import Event, Pollable


class _Scope(AbstractContextManager[Any], Protocol):
    """As much of a cancel scope as is used."""

    @property
    def cancelled_caught(self) -> bool: ...

    def cancel(self) -> object: ...


class _Task(Future[Any]):
    """A coroutine that runs in a task, as a future that can cancel it."""

    def __init__(self, scope: _Scope) -> None:
        super().__init__()
        self._scope = scope

    def cancel(self) -> bool:
        self._scope.cancel()
        return True

    async def run(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        value: Any = None
        try:
            with self._scope:
                value = await coroutine
        except Exception as error:
            self.set_exception(error)
        except BaseException:  # the group is cancelled, or somebody wishes to end
            self.set_exception(CancelledError())
            raise
        else:
            if self._scope.cancelled_caught:
                self.set_exception(CancelledError())
            else:
                self.set_result(value)


class TaskAttachment(Attachment):
    """For libraries without callbacks: a task waits for the descriptor, and polls.

    The task is `run`, which somebody awaits, or starts in the background. An adapter says what the
    library's `_event`, `_scope` (of cancellation) and `_group` (of tasks) are, how the task waits
    (`_readable`), and how another wakes it (`_wake`).

    `raises`: an exception of ``poll`` comes out of `run`, for whoever awaits it. Else it goes to
    `_report`, and the watch goes on.
    """

    _event: Callable[[], Event]
    _scope: Callable[[], _Scope]
    _group: Callable[[], AbstractAsyncContextManager[Any]]

    def __init__(
        self, pollable: Pollable, ctx: Any, max_seconds: float | None, *, raises: bool
    ) -> None:
        self._raises = raises
        self._abandoned = False
        self._resumed = self._event()
        super().__init__(pollable, ctx, max_seconds)

    def start(self, start_soon: Callable[..., object], name: object) -> None:
        """Let `run` go on in a task of that name. Raises what `start_soon` raises, detached."""
        try:
            start_soon(self.run, name=name)
        except BaseException:
            self.detach()
            raise

    async def run(self) -> None:
        """Serve until it is detached, which the end of the task does too.

        Asynchronous commands run in tasks beside it, and are cancelled at the end; but one that has
        closed the pollable itself is waited for, so that it is answered.
        """
        problem: BaseException | None = None
        with self:
            async with AsyncExitStack() as stack:
                group = await stack.enter_async_context(self._group())
                self._start_soon = group.start_soon
                if self._attached:
                    self._run_coroutines(self._start, self._event)
                try:
                    while self._attached:
                        if not self._watching:
                            await self._resumed.wait()
                        elif await self._readable():
                            self._serve()
                except (Exception, KeyboardInterrupt, SystemExit) as error:
                    problem = error  # out of here it would come in an exception group
                if self._abandoned:
                    stack.pop_all()  # leaving the group takes a step of the loop, the parent's
                elif problem is not None or self._pollable.fileno() >= 0:
                    group.cancel_scope.cancel()
                # Else its `close` has cancelled them all, but for the one that called it.
        if problem is not None:
            raise problem

    def abandon(self) -> None:
        """Forget it without touching the loop: in a forked child that is the parent's too."""
        self._abandoned = True
        super().abandon()

    def _start(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        task = _Task(self._scope())
        self._start_soon(task.run, coroutine)
        return task

    def detach(self) -> None:
        """Take the pollable out of the loop for good, and let the task end. Idempotent."""
        super().detach()
        self._resumed.set()

    @abstractmethod
    async def _readable(self) -> bool:
        """Wait until `self._fd` is readable, and return True; False when `_wake` was called.

        It always gives way to other tasks, and is where the task is cancelled.
        """

    @abstractmethod
    def _wake(self) -> None:
        """Let `_readable` return, and the loop forget `self._fd`.

        Raises RuntimeError when no loop runs, nothing else.
        """

    def _watch(self) -> None:
        self._resumed.set()

    def _unwatch(self) -> None:
        self._resumed = self._event()
        try:
            self._wake()
        except RuntimeError:
            pass  # the loop has ended, and the task with it

    def _report(self, error: Exception) -> None:
        if self._raises:
            raise error
        super()._report(error)
