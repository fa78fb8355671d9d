"""What every adapter's `attach` returns: one pollable, watched by one main loop.

Here stands what the adapters have in common; each adds how its loop watches a descriptor and whom
it tells of an exception. What is promised, whatever the loop:

* `pause`, `resume` and `detach` may be called at any moment, in any order, twice, and inside a
  command. After `detach` the loop knows nothing of the pollable.
* The pollable keeps its attachments, so a program may forget them; its `close` detaches them
  before a descriptor is closed. (Most loops spin, go deaf or crash when it is the other way round.)
* One attachment for each loop: a second one to the same loop is refused. Most loops know their
  readers by number, so the second would take the first one's place, and detaching it, or the first,
  would leave nobody. Another loop may watch the same pollable: whichever runs polls.
* What an ended loop has left behind is taken out when the pollable is attached to the next one.
* The number of the descriptor is remembered: after `close` nobody could ask for it.
* `poll` is looked up each time it is called: what may not be polled any more has another one.
* After a fork the loop is the parent's too, so the child forgets the attachment and touches
  nothing.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import select
import sys
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Final, Self

from ..errors import UsageError
from .pollable import Event, Pollable

SELECT_LIMIT: Final = 1024
"""From here on select(2) takes no descriptor; and Tcl, when it is given one, ends the process."""


class Attachment(ABC):
    """A pollable that a main loop watches, from construction on.

    One thread uses it, the loop's. As a context manager it detaches at the end.

    An adapter derives from it and says `_watch`, `_unwatch` and, unless an exception is printed by
    `sys.excepthook`, `_report`. It sets fields of its own before it calls the constructor, which
    watches at once. The loop's callback calls `_serve`. The duties of an adapter are a list in
    docs/adapters.md.

    Raises UsageError when the pollable is closed, or attached to this loop already (a paused
    attachment counts), and what the loop raises.
    """

    _order: ClassVar = itertools.count()

    def __init__(self, pollable: Pollable, ctx: Any, max_seconds: float | None) -> None:
        self._pollable = pollable
        self._ctx = ctx
        self._max_seconds = max_seconds
        self._fd = pollable.fileno()
        self._attached = False
        self._watching = False
        self._copy = -1
        self._spawn: Callable[[Coroutine[Any, Any, Any]], Any] | None = None
        self._make_event: Callable[[], Event] | None = None
        self._rank = next(self._order)
        self._look = select.poll()
        if self._fd < 0:
            raise UsageError(f"{pollable!r} is closed, there is nothing to attach")
        self._home: Any = self._loop_id()
        for other in self._attachments():
            if other._loop_has_ended():
                other.detach()
            elif other._home == self._home:
                raise UsageError(
                    f"{pollable!r} is attached to this loop already; go on with that attachment, "
                    "or detach() it first"
                )
        self._look.register(self._fd, select.POLLIN)
        self._attached = True
        _add(pollable, self)
        try:
            self.resume()
        except BaseException:
            self._forget()
            raise

    # -----------------------------------------------------------------------------------------
    # For programs

    @property
    def attached(self) -> bool:
        """Whether it was not detached yet; also True while it is paused."""
        return self._attached

    @property
    def watching(self) -> bool:
        """Whether the loop watches: attached, and not paused."""
        return self._watching

    def pause(self) -> None:
        """Let the loop watch no more, until `resume`. Clients wait meanwhile. Idempotent."""
        if self._watching:
            self._watching = False
            self._unwatch()

    def resume(self) -> None:
        """Let the loop watch again. Idempotent. Does nothing once it is detached.

        Raises what the loop raises; it stays paused then.
        """
        if self._attached and not self._watching:
            self._watching = True
            try:
                self._watch()
            except BaseException:
                self._watching = False
                self._close_low_descriptor()
                raise

    def detach(self) -> None:
        """Take the pollable out of the loop for good. It stays open. Idempotent."""
        self.pause()
        self._forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    # -----------------------------------------------------------------------------------------
    # For pollables

    def stands_still(self) -> bool:
        """Return whether the loop is known to wait for the calling thread, and to do so alone."""
        return self._is_inside_loop()

    def is_of_this_loop(self) -> bool:
        """Return whether it is attached to the loop that runs in the calling thread."""
        return bool(self._home == self._loop_id())

    def abandon(self) -> None:
        """Forget it without touching the loop: in a forked child that is the parent's too."""
        self._watching = False
        self._close_low_descriptor()  # a copy that lives on keeps the epoll set alive
        self._forget()

    # -----------------------------------------------------------------------------------------
    # For adapters

    @abstractmethod
    def _watch(self) -> None:
        """Let the loop call back when `self._fd` is readable. Raises what the loop raises."""

    @abstractmethod
    def _unwatch(self) -> None:
        """Let the loop forget `self._fd`. Never raises, also when the loop has ended."""

    def _loop_id(self) -> object:
        """Return the loop, or what stands for it: equal ones are the same loop.

        Asked as it attaches. Unless an adapter says it, each thread has one loop of its kind.
        """
        return type(self), threading.get_ident()

    def _loop_has_ended(self) -> bool:
        """Return whether the loop will never run again, and has left this attachment behind.

        Not to be said by adapters whose loops detach as they end, or can always run again.
        """
        return False

    def _is_inside_loop(self) -> bool:
        """Return whether the calling thread is in a callback of the loop, or runs it alone.

        Then the loop stands still until the caller returns, and a call that blocks for this
        pollable's answer is refused at once. True only where that is certain.
        """
        return False

    def _report(self, error: Exception) -> None:
        """Tell the host of an exception that came out of `poll`."""
        self._tell_excepthook(error)

    @staticmethod
    def _tell_excepthook(error: BaseException) -> None:
        """Tell `sys.excepthook`; of what that raises itself the interpreter's own is told."""
        try:
            sys.excepthook(type(error), error, error.__traceback__)
        except Exception as second:  # it would end the watch, or in PyQt6 the process
            second.__context__ = error
            sys.__excepthook__(type(second), second, second.__traceback__)

    def _serve(self) -> bool:
        """Poll once; return whether there is work again, and the loop is to be given a breath.

        That is work that `poll` has left, or what came meanwhile: clients that ask again as soon as
        they are answered leave none, and yet there is always one that waits.

        Raises nothing but KeyboardInterrupt and SystemExit: an exception of `poll`, which means
        that the host misused it, goes to `_report`. Does nothing while it is not watched: a loop
        that found several descriptors ready at once still calls for one that was detached, or
        closed, by the command of another.
        """
        if not self._watching:
            return False
        try:
            try:
                self._pollable.poll(self._ctx, max_seconds=self._max_seconds)
            finally:
                if self._pollable.fileno() != self._fd:
                    self.detach()  # it was closed, and did not know of this attachment
            return bool(self._look.poll(0)) and self._watching
        except Exception as error:
            self._report(error)
            return False

    def _run_coroutines(
        self,
        spawn: Callable[[Coroutine[Any, Any, Any]], Any],
        make_event: Callable[[], Event],
    ) -> None:
        """Let asynchronous commands of a server run in this loop, until it is detached.

        `spawn` runs a coroutine and returns a future of any kind, or a Deferred; `make_event`
        returns an event as asyncio's and trio's are. For constructors, behind that of this class.
        """
        if hasattr(self._pollable, "spawn"):
            self._spawn, self._make_event = spawn, make_event
            self._give(spawn, make_event)

    def _give(self, spawn: Any, make_event: Any) -> None:
        server: Any = self._pollable
        server.spawn, server.make_event = spawn, make_event

    def _low_descriptor(self) -> int:
        """Return the descriptor when it is below 1,024, or a copy that is.

        For loops around select(2). `_unwatch` gives it back with `_close_low_descriptor`. Raises
        OSError when there is no such descriptor.
        """
        if self._fd < SELECT_LIMIT:
            return self._fd
        copy = fcntl.fcntl(self._fd, fcntl.F_DUPFD_CLOEXEC, 3)
        if copy >= SELECT_LIMIT:
            os.close(copy)
            raise OSError(
                errno.EMFILE,
                f"this loop takes no descriptor from {SELECT_LIMIT} on, and no lower one is free",
            )
        self._copy = copy
        return copy

    def _close_low_descriptor(self) -> None:
        copy, self._copy = self._copy, -1
        if copy >= 0:
            os.close(copy)

    def _attachments(self) -> list[Attachment]:
        """Return all attachments of this pollable."""
        attachments = getattr(self._pollable, "attachments", None)
        if attachments is not None:
            return list(attachments)
        unlisted = [reference() for reference in list(_unlisted.values())]
        return [each for each in unlisted if each and each._pollable is self._pollable]

    def _forget(self) -> None:
        if self._attached:
            self._attached = False
            _discard(self._pollable, self)
            # Unless another attachment has taken its place since. Else another loop that watches
            # it and can run coroutines, the one that came last, gets them back.
            if self._spawn is not None and getattr(self._pollable, "spawn", None) is self._spawn:
                heirs = [each for each in self._attachments() if each._spawn is not None]
                heir = max(heirs, key=lambda each: each._rank, default=None)
                if heir is None:
                    self._give(None, None)
                else:
                    self._give(heir._spawn, heir._make_event)


# ---------------------------------------------------------------------------------------------
# Who is attached

_unlisted: dict[int, weakref.ref[Attachment]] = {}
"""The attachments of pollables that keep none themselves. Weakly: their loops hold them."""


def _add(pollable: Pollable, attachment: Attachment) -> None:
    attachments = getattr(pollable, "attachments", None)
    if attachments is not None:
        attachments.add(attachment)
    else:
        key = id(attachment)
        _unlisted[key] = weakref.ref(attachment, lambda _: _unlisted.pop(key, None))


def _discard(pollable: Pollable, attachment: Attachment) -> None:
    attachments = getattr(pollable, "attachments", None)
    if attachments is not None:
        attachments.discard(attachment)
    _unlisted.pop(id(attachment), None)
