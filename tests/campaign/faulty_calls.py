"""System calls of the library that fail on demand, and counts of all that it makes.

`Faults` takes the place of each function that enters the kernel, as the library sees it: those of
`os`, `fcntl`, sockets, epoll, poll, eventfd and timerfd. A call is counted and may fail only while
`on` is true and only if a module of ipcpoll makes it: those of tests and of the standard library
work as ever.

What fails is not done, except `close`, which frees the descriptor whatever it returns (close(2)).
`idle` is called before the library waits (poll of a blocking client, sleep), so that a test can run
both ends in one thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import ipcpoll
from ipcpoll._system import poller, timers, wakeup

ERRNOS = (
    errno.EINTR,
    errno.EAGAIN,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOMEM,
    errno.ECONNRESET,
    errno.EPIPE,
    errno.ENOSPC,
    errno.EIO,
)

_PACKAGE = os.path.dirname(ipcpoll.__file__) + os.sep

OF_OS = (
    *("open", "close", "stat", "lstat", "fstat", "mkdir", "chmod", "fchmod", "unlink"),
    *("pread", "pwrite", "ftruncate", "eventfd", "dup"),
)
OF_FCNTL = ("flock", "fcntl", "ioctl")
OF_SOCKETS = (
    *("_accept", "recv", "send", "bind", "listen", "connect_ex"),
    *("getsockopt", "setsockopt", "getsockname"),  # not setblocking: FIONBIO has no failure
)
OF_EPOLL = ("poll", "register", "modify", "unregister")


class Faults:
    """Makes the `at`-th call of `kind` fail with `number`, once or from then on."""

    def __init__(self) -> None:
        self.on = False
        self.idle: Callable[[], object] = lambda: None
        self._undo: list[tuple[Any, str, Any]] = []
        self.plan(None, 0, 0, for_ever=False)

    def plan(self, kind: str | None, at: int, number: int, *, for_ever: bool) -> None:
        """Say what is to fail next, and count anew."""
        self.kind, self.at, self.number, self.for_ever = kind, at, number, for_ever
        self.counts: Counter[str] = Counter()
        self.met = 0

    def __str__(self) -> str:
        how = "for ever" if self.for_ever else "once"
        name = errno.errorcode.get(self.number, "nothing")
        return f"{self.kind} no. {self.at} fails with {name} {how} (met {self.met} times)"

    def strikes(self, kind: str, depth: int = 2) -> bool:
        """Count a call that the library makes; return whether it fails."""
        if not self.on or not sys._getframe(depth).f_code.co_filename.startswith(_PACKAGE):
            return False
        self.counts[kind] += 1
        if kind != self.kind:
            return False
        count = self.counts[kind]
        if count != self.at and not (self.for_ever and count > self.at):
            return False
        self.met += 1
        return True

    def error(self) -> OSError:
        """Return what is raised."""
        return OSError(self.number, os.strerror(self.number))

    # -----------------------------------------------------------------------------------------

    def __enter__(self) -> Faults:
        for module, names in ((os, OF_OS), (fcntl, OF_FCNTL)):
            for name in names:
                self._put(module, name, self._failing(getattr(module, name), name))
        for name in OF_SOCKETS:
            self._put(socket.socket, name, self._failing(getattr(socket.socket, name), name))
        self._put(socket.socket, "__init__", self._socket_init())
        for name in ("_read", "_write"):
            self._put(wakeup, name, self._failing(getattr(wakeup, name), f"eventfd{name}"))
        self._put(poller, "_epoll", self._make_epoll(select.epoll))
        self._put(poller, "_poll", self._make_poll(select.poll))
        self._put(select, "poll", self._make_poll(select.poll))
        self._put(timers, "_timerfd_functions", self._make_timerfd(timers._timerfd_functions()))
        sleep = time.sleep

        def sleep_or_work(seconds: float) -> None:
            self.idle()
            sleep(seconds)

        self._put(time, "sleep", sleep_or_work)
        return self

    def __exit__(self, *_: object) -> None:
        while self._undo:
            where, name, before = self._undo.pop()
            if before is None:
                delattr(where, name)  # it was its base's
            else:
                setattr(where, name, before)

    def _put(self, where: Any, name: str, thing: Any) -> None:
        self._undo.append((where, name, vars(where).get(name)))
        setattr(where, name, thing)

    def _failing(self, real: Callable[..., Any], name: str) -> Callable[..., Any]:
        if name == "connect_ex":

            def connect_ex(*arguments: Any) -> int:
                return self.number if self.strikes(name) else real(*arguments)

            return connect_ex
        if name == "close":

            def close(fd: int) -> None:
                fails = self.strikes(name)
                real(fd)
                if fails:
                    raise self.error()

            return close

        def call(*arguments: Any, **named: Any) -> Any:
            if self.strikes(name):
                raise self.error()
            return real(*arguments, **named)

        return call

    def _socket_init(self) -> Callable[..., None]:
        real = socket.socket.__init__

        def init(sock: socket.socket, *arguments: Any, **named: Any) -> None:
            # An object for a descriptor that is there already needs no call that could fail.
            if named.get("fileno") is None and self.strikes("socket"):
                raise self.error()
            real(sock, *arguments, **named)

        return init

    def _make_epoll(self, real: Any) -> Any:
        faults = self

        class Epoll:
            def __init__(self) -> None:
                if faults.strikes("epoll_create"):
                    raise faults.error()
                epoll = real()
                for name in OF_EPOLL:
                    setattr(self, name, faults._failing(getattr(epoll, name), f"epoll.{name}"))
                self.fileno, self.close = epoll.fileno, epoll.close

            fromfd = real.fromfd

        return Epoll

    def _make_poll(self, real: Any) -> Any:
        faults = self

        class Poll:
            def __init__(self) -> None:
                self._real = real()
                self.register, self.modify = self._real.register, self._real.modify
                self.unregister = self._real.unregister

            def poll(self, milliseconds: float | None = None) -> Any:
                if faults.strikes("poll"):
                    raise faults.error()
                if milliseconds and sys._getframe(1).f_code.co_filename.startswith(_PACKAGE):
                    faults.idle()
                return self._real.poll(milliseconds)

        return Poll

    def _make_timerfd(self, real: Any) -> Any:
        faults = self

        class Timerfd:
            @staticmethod
            def create() -> int:
                if faults.strikes("timerfd_create"):
                    raise faults.error()
                fd: int = real.create()
                return fd

            @staticmethod
            def arm(fd: int, nanoseconds: int) -> None:
                if faults.strikes("timerfd_settime"):
                    raise faults.error()
                real.arm(fd, nanoseconds)

        return Timerfd
