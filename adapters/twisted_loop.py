"""For Twisted, whichever reactor is installed.

::

    server = ipcpoll.Server("chat", Who | Say | Kick)
    twisted_loop.attach(server, chat)
    reactor.run()
    server.close()

A command's `process` runs on the reactor's thread. It may return a Deferred, or be a coroutine
function or an asynchronous generator that awaits Deferreds; its client's cancel or going away
cancels what it waits for.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.selectreactor import SelectReactor
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadable import isInIOThread
from zope.interface import classImplements  # type: ignore[import-untyped]  # it has no types

from ipcpoll import Attachment, Pollable

_log = Logger()


class _Event(Deferred[None]):
    """What ``asyncio.Event`` is, for one waiter."""

    def set(self) -> None:
        if not self.called:
            self.callback(None)

    async def wait(self) -> None:
        await self


class TwistedAttachment(Attachment):
    """Watched by a reactor. The reactor's reader is the attachment itself.

    The reactor detaches it when it stops (``reactor.stop()``); the pollable stays open.
    """

    def __init__(
        self, pollable: Pollable, ctx: Any, reactor: Any, max_seconds: float | None
    ) -> None:
        self._reactor = reactor
        self._needs_low_descriptor = isinstance(reactor, SelectReactor)
        self._watched = -1
        super().__init__(pollable, ctx, max_seconds)
        self._run_coroutines(Deferred.fromCoroutine, _Event)

    # -----------------------------------------------------------------------------------------
    # For the reactor: IReadDescriptor

    def fileno(self) -> int:
        """Return the descriptor that the reactor watches; it knows nobody by another name."""
        return self._watched

    def doRead(self) -> None:
        """Poll once. Whatever is returned or raised here, the reactor takes for the end."""
        try:
            self._serve()
        except BaseException as error:  # Twisted too logs every exception, and goes on
            self._report(error)

    def connectionLost(self, reason: Failure) -> None:
        """Detach: the reactor has let go of it, because it stops."""
        self.detach()

    def logPrefix(self) -> str:
        """Return what Twisted's log puts before the lines that are written in a command."""
        return "ipcpoll"

    # -----------------------------------------------------------------------------------------

    def _loop_id(self) -> object:
        # Twisted's reactor on asyncio is asyncio's loop: that has one reader for a descriptor.
        return getattr(self._reactor, "_asyncioEventloop", self._reactor)

    def _is_inside_loop(self) -> bool:
        return self._reactor.running and isInIOThread()  # type: ignore[no-any-return, no-untyped-call]

    def _watch(self) -> None:
        self._watched = self._fd
        if self._needs_low_descriptor:
            self._watched = self._low_descriptor()
        self._reactor.addReader(self)

    def _unwatch(self) -> None:
        try:
            self._reactor.removeReader(self)
        except OSError:
            pass  # epoll(7) has forgotten the descriptor, which was closed first
        self._close_low_descriptor()

    def _report(self, error: BaseException) -> None:
        failure = Failure(error)  # type: ignore[no-untyped-call]  # Twisted's types end here
        _log.failure("Exception in poll of {what!r}", failure, what=self._pollable)


classImplements(TwistedAttachment, IReadDescriptor)  # not its decorator, which hides the type


def attach(
    pollable: Pollable, ctx: Any, reactor: Any = None, *, max_seconds: float | None = None
) -> TwistedAttachment:
    """Let a reactor watch `pollable`, and poll it whenever there is something to do.

    `reactor` is the installed one unless another is given; where none is installed yet, Twisted
    installs its default. `ctx` and `max_seconds` are as for ``Server.poll``. Call it on the
    reactor's thread. Does not block.

    An exception of ``poll`` goes to Twisted's log, and the watch goes on; a KeyboardInterrupt or
    SystemExit of a command does too, as from any callback of Twisted.

    Raises UsageError when the pollable is closed, or attached to this reactor already, OSError when
    the reactor takes no descriptor above 1,023 and there is none below.
    """
    if reactor is None:
        from twisted.internet import reactor  # noqa: PLC0415  # this import installs one
    return TwistedAttachment(pollable, ctx, reactor, max_seconds)
