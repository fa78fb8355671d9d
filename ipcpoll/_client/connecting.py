"""From a path to a connected socket: one attempt at a time, never waiting.

What is promised:

* An attempt never blocks. Whether the next one comes after a sleep or by a timer, and when the
  time is over, is for whoever attempts.
* Nothing is sent. Who is at the other end is known before anything can be.
"""

from __future__ import annotations

import errno
import math
import os
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import Any, Final

from .._address.directory import MOST_PATH_BYTES, reach, why_not_private
from .._attach.oneself import served_at
from .._system.peer import NOBODY, Credentials, credentials
from .._system.sockets import unix_socket
from ..errors import UntrustedPeer
from . import reasons

_FIRST_RETRY: Final = 0.001
_LONGEST_RETRY: Final = 0.050
_NOBODY: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED})
_REFUSALS: Final = 3  # a server that is just starting refuses for a moment, before it listens


def seconds_of(limit: Any, what: str = "a timeout") -> float:
    """Return a time limit that a program has given as a number. Raises TypeError, ValueError."""
    kind = type(limit)
    if kind is float or kind is int:
        seconds = limit
    elif isinstance(limit, timedelta):
        raise TypeError(f"{what} is a number of seconds: give {limit!r}.total_seconds()")
    elif isinstance(limit, bool) or not hasattr(limit, "__float__"):
        raise TypeError(f"{what} is a number of seconds or None, not {limit!r}")
    else:
        try:
            seconds = float(limit)  # of numpy, Decimal, Fraction
        except (TypeError, ValueError):  # an array of several
            raise TypeError(f"{what} is a number of seconds or None, not {limit!r}") from None
    if not seconds >= 0:  # NaN is not
        raise ValueError(f"{what} must be at least 0, not {limit}")
    try:
        return float(seconds)
    except OverflowError:  # an int of more than 308 digits
        return math.inf


class TimeLimit:
    """A time limit in seconds and when it is over, on `time.monotonic`. None: no limit."""

    __slots__ = ("deadline", "seconds")

    def __init__(self, seconds: float | None) -> None:
        if seconds is None:
            self.seconds = self.deadline = math.inf
            return
        if type(seconds) is not float or not seconds >= 0:
            seconds = seconds_of(seconds)
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds


class BackOff:
    """Pauses between attempts where nothing tells when the next one may succeed.

    From 1 ms to `longest`, each twice the last. With jitter, so that many clients do not come at
    once.
    """

    __slots__ = ("_longest", "_pause")

    def __init__(self, longest: float = _LONGEST_RETRY) -> None:
        self._longest = longest
        self._pause = _FIRST_RETRY

    def next(self) -> float:
        """Return how many seconds to wait before the next attempt."""
        pause = self._pause * (0.5 + os.urandom(1)[0] / 512)
        self._pause = min(2 * self._pause, self._longest)
        return pause

    def sleep(self, most: float) -> None:
        """Wait before the next attempt, at most so many seconds; 0 or less: do not wait."""
        time.sleep(min(self.next(), max(0.0, most)))


class Dialer:
    """Makes one connection to `path`. `private`: its directory must be this user's alone.

    `others` are asked where nobody serves there: other places of the same name.
    """

    __slots__ = ("_others", "_path", "_private", "_refusals", "_refused", "back_off")

    def __init__(self, path: str, *, private: bool, others: Sequence[str] = ()) -> None:
        self._path = path
        self._private = private
        self._others = others
        self._refusals = 0
        self._refused = False  # by the last attempt
        self.back_off = BackOff()

    def attempt(self) -> tuple[socket.socket, Credentials, str] | None:
        """Return a non-blocking socket, who is at the other end, and the path; None: try again.

        That is a process of this user, or it raises UntrustedPeer. Raises NotRunning, StaleSocket,
        OSError as connect(2).
        """
        path = self._path
        if self._private:
            _check_private(path)
        if len(os.fsencode(path)) <= MOST_PATH_BYTES:
            made = _connected(path, path)
        else:
            with ExitStack() as undo:
                made = _connected(path, _short_way(path, undo))
        if not isinstance(made, int):
            return (*made, path)
        if made in _NOBODY:
            for other in self._others:
                found = _connected_privately(other)
                if found is not None:
                    return (*found, other)
        self._judge(made)
        return None

    def _judge(self, result: int) -> None:
        """Raise unless another attempt may help against what connect(2) said."""
        path = self._path
        self._refused = result == errno.ECONNREFUSED
        if result in (errno.ENOENT, errno.ENOTDIR):
            raise reasons.nothing_there(path, self._others, is_name=self._private)
        if result in (errno.EACCES, errno.EPERM):
            raise reasons.not_allowed(path)
        if self._refused:
            self._refusals += 1
            if self._refusals >= _REFUSALS:
                raise reasons.nobody_listens(path, self._others, is_name=self._private)
        elif result not in (errno.EAGAIN, errno.EINTR):
            raise OSError(result, f"the program can't be reached: {os.strerror(result)}", path)

    def overdue(self, seconds: float) -> Exception:
        """Return why there is no connection after so many seconds of attempts."""
        if self._refused:
            return reasons.nobody_listens(self._path, self._others, is_name=self._private)
        return reasons.backlog_full(self._path, seconds)


def connect(
    path: str, wait: TimeLimit, *, private: bool, others: Sequence[str] = ()
) -> tuple[socket.socket, Credentials, str]:
    """Return what `Dialer.attempt` does, and wait for it. Raises NotPolled when time is over."""
    dialer = Dialer(path, private=private, others=others)
    while (made := dialer.attempt()) is None:
        now = time.monotonic()
        if now >= wait.deadline:
            raise dialer.overdue(wait.seconds)
        served = served_at(path)
        if served is not None:
            served.refuse(path, "its backlog is full, nothing was sent")
        dialer.back_off.sleep(wait.deadline - now)
    return made


def _connected(path: str, address: str) -> tuple[socket.socket, Credentials] | int:
    """Return a connection, or what connect(2) said."""
    sock = unix_socket()
    try:
        # Non-blocking: over AF_UNIX a connection is made at once, and a full backlog is EAGAIN.
        # A blocking connect(2) that a signal interrupts can seem to succeed.
        result = sock.connect_ex(address)
        if result == 0:
            who = credentials(sock)
            if who.uid == os.geteuid():
                return sock, who
            if who.uid != NOBODY:
                raise reasons.other_user(path, who)
            result = errno.EAGAIN  # it is not connected after all
    except BaseException:
        sock.close()
        raise
    sock.close()
    return result


def _connected_privately(path: str) -> tuple[socket.socket, Credentials] | None:
    """Return a connection to another place of a name, if that is as private as the first."""
    try:
        if why_not_private(os.lstat(os.path.dirname(path))) is not None:
            return None
        made = _connected(path, path)
    except (OSError, UntrustedPeer):
        return None
    return None if isinstance(made, int) else made


def _short_way(path: str, undo: ExitStack) -> str:
    """Return a path to the same socket that fits into a socket's address."""
    parent, name = os.path.split(path)
    try:
        directory = reach(parent)
    except (FileNotFoundError, NotADirectoryError):
        raise reasons.nothing_there(path) from None
    except PermissionError:
        raise reasons.not_allowed(path) from None
    undo.callback(directory.close)
    return directory.address_of(name)


def _check_private(path: str) -> None:
    """Raise UntrustedPeer where others could lead a name to another program of this user."""
    parent = os.path.dirname(path)
    try:
        fault = why_not_private(os.lstat(parent))
    except OSError:
        return  # connecting says what is wrong
    if fault is not None:
        raise reasons.unsafe_directory(path, parent, fault)
