"""One descriptor for many: what is ready, in one call that never waits.

`EpollPoller` (Linux) and `SelectorPoller` (anything else whose selector is a descriptor: kqueue)
have the same methods; `make_poller` gives the one that fits. Events are bit masks of READ, WRITE
and HANGUP.

Why not `selectors.EpollSelector` on Linux: it folds EPOLLHUP into readable, and only EPOLLHUP
tells a client that has wholly gone from one that has finished asking; it refuses a registration
for the hang-up alone; and its `select` costs half as much again when nothing is ready.

What is promised: `fileno` is constant, close-on-exec and level-triggered; a registration for
nothing (mask 0) still reports the hang-up where the platform can. All this also when gevent or
eventlet have patched the standard library, before ipcpoll was imported or after.
"""

from __future__ import annotations

import io
import os
import select
import selectors
import sys
import types
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

from .sockets import above_stdio

READ: Final = 0x1
WRITE: Final = 0x4
HANGUP: Final = 0x18  # EPOLLERR | EPOLLHUP

MOST_EVENTS: Final = 128
"""What one look takes in: to close so many connections that hung up together takes 2 ms."""


def _private_copy(name: str, given: Mapping[str, Any]) -> Any:
    """Return a new instance of a module of the standard library, as the interpreter ships it.

    `given` is what the module gets when it imports. Raises ImportError where there is none.
    """
    import builtins  # noqa: PLC0415 - these two are needed only where something was patched
    import importlib.util  # noqa: PLC0415

    def import_given(module: str, *rest: Any) -> Any:
        return given.get(module) or builtins.__import__(module, *rest)

    # Not importlib.util.find_spec: it asks the module in sys.modules, which may be a stand-in.
    for finder in sys.meta_path:
        spec = finder.find_spec(name, None)
        if spec is not None and spec.loader is not None:
            copy = importlib.util.module_from_spec(spec)
            copy.__dict__["__builtins__"] = {**vars(builtins), "__import__": import_given}
            spec.loader.exec_module(copy)
            return copy
    raise ImportError(f"no module named {name}", name=name)


def _select_is_patched() -> bool:
    return not isinstance(getattr(select, "poll", None), types.BuiltinFunctionType)


def _unpatched_select() -> Any:
    """Return the module select with all that the kernel offers, as far as it can be found.

    gevent and eventlet take epoll and kqueue out of it, and poll too or they give one that lets
    other greenlets run meanwhile; inside `Server.poll` nobody else may run.
    """
    if _select_is_patched():
        try:
            return _private_copy("select", {})
        except ImportError:
            pass
    return select


# Taken at import: what is patched later leaves these as they are.
_epoll: Any = getattr(_unpatched_select(), "epoll", None)
_poll: Any = getattr(_unpatched_select(), "poll", None)


class Poller(Protocol):
    """What a server needs to know what is ready."""

    poll: Callable[[], list[tuple[int, int]]]
    """Return (descriptor, mask) of all that is ready; empty when nothing is. Never waits."""

    def fileno(self) -> int: ...
    def register(self, fd: int, mask: int) -> None: ...
    def modify(self, fd: int, mask: int) -> None: ...
    def unregister(self, fd: int) -> None: ...
    def close(self) -> None: ...


def _moved(epoll: Any) -> int:
    """Return the same epoll set on a descriptor above standard error."""
    fd = above_stdio(os.dup(epoll.fileno()))
    epoll.close()
    return fd


class EpollPoller:
    """epoll(7). The masks are the kernel's own."""

    def __init__(self) -> None:
        assert _epoll is not None
        self._epoll = _epoll()
        if self._epoll.fileno() <= 2:
            self._epoll = _epoll.fromfd(_moved(self._epoll))
        # The kernel hands out in turn what is ready, so nobody starves who is not among the first.
        self.poll: Callable[[], list[tuple[int, int]]] = partial(self._epoll.poll, 0, MOST_EVENTS)
        self.fileno = self._epoll.fileno
        self.register = self._epoll.register
        self.modify = self._epoll.modify
        self.unregister = self._epoll.unregister
        self.close = self._epoll.close


class SelectorPoller:
    """Any selector of the standard library that has a descriptor.

    A selector knows neither a registration for nothing nor a hang-up, so a mask of 0 is kept
    here, and poll(2) is asked about each descriptor that is readable.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._masks: dict[int, int] = {}
        self.poll: Callable[[], list[tuple[int, int]]] = self._poll

    def fileno(self) -> int:
        fileno: int = self._selector.fileno()  # type: ignore[attr-defined]
        return fileno

    def register(self, fd: int, mask: int) -> None:
        self._masks[fd] = mask
        if mask:
            self._selector.register(fd, _selector_events(mask))

    def modify(self, fd: int, mask: int) -> None:
        if self._masks[fd]:
            self._selector.unregister(fd)
        self.register(fd, mask)

    def unregister(self, fd: int) -> None:
        if self._masks.pop(fd):
            self._selector.unregister(fd)

    def close(self) -> None:
        self._selector.close()

    def _poll(self) -> list[tuple[int, int]]:
        ready = []
        for key, events in self._selector.select(0):
            mask = READ if events & selectors.EVENT_READ else 0
            if events & selectors.EVENT_WRITE:
                mask |= WRITE
            ready.append((key.fd, mask | _hangup(key.fd)))
        return ready


def _selector_events(mask: int) -> int:
    events = selectors.EVENT_READ if mask & READ else 0
    return events | (selectors.EVENT_WRITE if mask & WRITE else 0)


def _hangup(fd: int) -> int:
    """Return HANGUP if the peer of `fd` has wholly gone, else 0."""
    return HANGUP if _look_at(fd, 0) & (select.POLLHUP | select.POLLERR) else 0


def _look_at(fd: int, mask: int) -> int:
    poll = _poll()
    poll.register(fd, mask)
    try:
        ready: list[tuple[int, int]] = poll.poll(0)
    except OSError:  # ENOMEM: nothing is known; the poller will tell of a hang-up as well
        return 0
    return ready[0][1] if ready else 0


def is_readable(fd: int) -> bool:
    """Return whether something can be read from a socket, its end included."""
    return bool(_look_at(fd, select.POLLIN))


def has_hung_up(fd: int) -> bool:
    """Return whether the peer of a socket has wholly gone, not only finished sending."""
    return bool(_hangup(fd))


def _kqueue_selector() -> selectors.BaseSelector | None:  # macOS and the BSDs
    kernel = _unpatched_select()
    if not hasattr(kernel, "kqueue"):
        return None
    # The selector looks kqueue up when it is made and used, so it needs a module to look into.
    module: Any = selectors
    if kernel is not select:
        module = _private_copy("selectors", {"select": kernel})
    selector: selectors.BaseSelector = module.KqueueSelector()
    return selector


def make_poller() -> Poller:
    """Return the poller that fits this platform; raises io.UnsupportedOperation where none does."""
    if _epoll is not None:
        return EpollPoller()
    selector = _kqueue_selector()
    if selector is not None:
        return SelectorPoller(selector)
    if _select_is_patched():
        raise io.UnsupportedOperation(
            "ipcpoll needs epoll or kqueue; gevent or eventlet have removed them from the module "
            "select, and the real one was not found: import ipcpoll before you patch"
        )
    raise io.UnsupportedOperation("ipcpoll needs epoll or kqueue, and this Python has neither")
