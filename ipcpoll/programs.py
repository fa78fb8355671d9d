"""The programs of this user: which there are, and what state each is in. For tools.

`find` looks into the directories in which names lead to sockets, `look` at one address; both ask
all at once. `connect` makes a connection as a client does, for tools that pass bytes on.

What is promised:

* It waits no longer than `timeout`, however many programs there are and whatever they do.
* It takes no lock and makes no file. A program that is stopped is sent nothing, any other gets one
  call, ``ipcpoll.get {"names": []}``, the cheapest there is. One of an older ipcpoll answers that
  it has no such command, which is an answer too.
* What it says of a process is the kernel's word: SO_PEERCRED and proc(5).
* A socket that vanishes meanwhile is left out. Nothing that a program does raises.

Nothing here is imported by ``import ipcpoll``. It is long for a module, because which programs
there are and what each does is one thought.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from os import PathLike
from typing import Any, Final, NamedTuple

from ._address import lockfile
from ._address.directory import MOST_PATH_BYTES, reach, why_not_private
from ._address.names import is_name, places, socket_paths
from ._client.connecting import TimeLimit
from ._client.connecting import connect as connect_within
from ._system import processes
from ._system.peer import NOBODY, Credentials, credentials, has_unread, is_stopped
from ._system.sockets import SEND_FLAGS, unix_socket
from ._wire.codec import encode
from ._wire.framing import MAGIC, frame

__all__ = ["Connected", "Program", "State", "connect", "directories", "find", "look"]

_SUFFIX: Final = ".sock"
QUESTION: Final[tuple[str, dict[str, Any]]] = ("ipcpoll.get", {"names": []})
"""The cheapest call, by name and fields; that a program does not know it is an answer too."""
_QUESTION: Final = frame(encode([1, *QUESTION]))
_READ: Final = 4096
_REFUSALS: Final = 3  # a server that is just starting refuses for a moment, before it listens
_AGAIN: Final = 0.005  # seconds between two attempts to connect
_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class State(Enum):
    """What a program does, as far as can be seen from outside. The value is the word for people."""

    RUNNING = "running"
    """It answers."""
    STOPPED = "stopped"
    """By a signal (Ctrl-Z) or a debugger. It was asked nothing."""
    NOT_READING = "not reading"
    """It lives and has read nothing within the time, or takes in no connection."""
    NOT_ANSWERING = "not answering"
    """It has read the question and not answered within the time, or answers no question."""
    STALE = "stale"
    """The socket is there and nobody listens: its program ended without tidying up."""
    ANOTHER_USERS = "another user's"
    """Somebody else listens, or keeps this user out."""


@dataclass(frozen=True, slots=True)
class Program:
    """One socket, and who listens there."""

    name: str
    """By which clients reach it: its name; the path where no name leads there."""
    address: str
    """The absolute path of the socket."""
    state: State
    pid: int | None = None
    """Of the process that listens; None: nobody does, or it can't be known."""
    since: float | None = None
    """When that process began, in Unix time."""
    command: str = ""
    """How it was started: the interpreter and the script, no other argument."""
    seconds: float | None = None
    """How long the answer took; None: there was none."""


class Connected(NamedTuple):
    """A connection, and who is at its other end."""

    socket: socket.socket
    """Non-blocking."""
    peer: Credentials
    path: str


def directories() -> list[tuple[str, str | None]]:
    """Return the directories of names, the first first, each with why it can't be trusted.

    None: it is this user's alone, or is not there. Looks at directories, and makes none.
    """
    return [(directory, why_unsafe(directory)) for directory in map(os.path.dirname, places("any"))]


def why_unsafe(directory: str) -> str | None:
    """Return why a directory of names can't be trusted; None if it can, or is not there."""
    try:
        return why_not_private(os.lstat(directory))
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"can't be looked at ({error.strerror})"


def find(*, timeout: float = 1.0) -> list[Program]:
    """Return the programs of this user that have a name, in the order of their names.

    Blocks until each has answered, `timeout` seconds at most; 0: only what is known at once.
    Directories that others can enter are passed over: no client trusts them either.
    """
    return _asked(list(_sockets()), timeout)


def look(address: str | PathLike[str], *, timeout: float = 1.0) -> Program | None:
    """Return what is at an address, a name or a path; None: there is no socket.

    Blocks for `timeout` seconds at most. Raises ValueError and TypeError for what is no address.
    """
    paths = socket_paths(address)
    if is_name(address) and why_unsafe(os.path.dirname(paths[0])) is not None:
        return None
    found = _asked([(str(address), path) for path in paths if _is_socket(path)], timeout)
    alive = [program for program in found if program.state is not State.STALE]
    return next(iter(alive or found), None)


def connect(address: str | PathLike[str], *, timeout: float | None = 5.0) -> Connected:
    """Connect to the program at an address as a client does, and send nothing.

    Waits for `timeout` seconds at most; None: no limit. Raises as a call of a client before
    anything is sent: NotRunning, StaleSocket, UntrustedPeer, NotPolled, ValueError, TypeError.
    """
    path, *others = socket_paths(address)
    return Connected(
        *connect_within(path, TimeLimit(timeout), private=is_name(address), others=others)
    )


# ---------------------------------------------------------------------------------------------
# Which there are


def _sockets() -> Iterator[tuple[str, str]]:
    """Give the name and the path of each socket in the directories of names."""
    named: set[str] = set()
    for directory, fault in directories():
        if fault is not None:
            continue
        with contextlib.suppress(OSError):
            for file in sorted(os.listdir(directory)):
                path = f"{directory}/{file}"
                if file.endswith(_SUFFIX) and _is_socket(path):
                    name = file.removesuffix(_SUFFIX)
                    if name in named or not _leads(name, path):
                        name = path
                    named.add(name)
                    yield name, path


def _leads(name: str, path: str) -> bool:
    try:
        return path in places(name)
    except ValueError:
        return False


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


# ---------------------------------------------------------------------------------------------
# What each does


class _Asked:
    """One program while it is asked. `program` is None until its state is known."""

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path
        self.socket: socket.socket | None = None
        self.program: Program | None = None
        self.is_gone = False
        self._refusals = 0
        self._who = Credentials(0, 0, 0)
        self._asked_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether its state is still to be found."""
        return self.program is None and not self.is_gone

    def attempt(self) -> None:
        """Try once to connect, and ask. Raises OSError where this process has no descriptor."""
        sock = unix_socket()
        try:
            with _way(self.path) as address:
                result = sock.connect_ex(address)
            who = credentials(sock) if result == 0 else None
            if who is not None and who.uid != NOBODY:
                self._ask(sock, who)
                return
        finally:
            if self.socket is not sock:
                sock.close()
        self._judge(result)

    def _ask(self, sock: socket.socket, who: Credentials) -> None:
        self._who = who
        if who.uid != os.geteuid():
            self._be(State.ANOTHER_USERS)
        elif is_stopped(who.pid):
            self._be(State.STOPPED)
        else:
            self._asked_at = time.monotonic()
            try:
                sock.send(_QUESTION, SEND_FLAGS)
            except OSError:  # it has closed the connection already
                self._be(State.NOT_ANSWERING)
            else:
                self.socket = sock

    def _judge(self, result: int) -> None:
        """Take in what connect(2) said. EAGAIN: the backlog is full, so try again."""
        if result == errno.ECONNREFUSED:
            self._refusals += 1
            if self._refusals >= _REFUSALS:
                self._be(State.STALE)
        elif result in (errno.EACCES, errno.EPERM):
            self._be(State.ANOTHER_USERS)
        elif result in (errno.ENOENT, errno.ENOTDIR):
            self.is_gone = True
        elif result not in (0, errno.EAGAIN, errno.EINTR):
            self._be(State.NOT_ANSWERING)

    def receive(self) -> None:
        """Take in what has come; this ends the question."""
        sock = self.socket
        assert sock is not None
        try:
            data = sock.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        self._close()
        if data.startswith(MAGIC):
            self._be(State.RUNNING, time.monotonic() - self._asked_at)
        elif data or os.path.exists(self.path):
            self._be(State.NOT_ANSWERING)  # it is no program of ipcpoll, or closes each connection
        else:
            self.is_gone = True

    def give_up(self) -> None:
        """Say what is known when the time is over."""
        sock = self.socket
        pid = self._who.pid or None
        if sock is None:
            pid = lockfile.owner(self.path, alive=True)
            self._who = Credentials(pid or 0, 0, 0)
        unread = sock is None or has_unread(sock)
        self._close()
        if pid and is_stopped(pid):
            self._be(State.STOPPED)
        else:
            self._be(State.NOT_READING if unread else State.NOT_ANSWERING)

    def _be(self, state: State, seconds: float | None = None) -> None:
        pid = None if state is State.STALE else self._who.pid or None
        self.program = Program(
            self.name,
            self.path,
            state,
            pid,
            None if pid is None else processes.began(pid),
            "" if pid is None else processes.command(pid),
            seconds,
        )

    def _close(self) -> None:
        sock, self.socket = self.socket, None
        if sock is not None:
            sock.close()


def _asked(sockets: Sequence[tuple[str, str]], timeout: float) -> list[Program]:
    """Ask all at once, and return what they are, in the order of their names."""
    all_of_them = [_Asked(name, path) for name, path in sockets]
    deadline = time.monotonic() + timeout
    try:
        while waiting := [each for each in all_of_them if each.is_open]:
            _connect_all(waiting)
            left = deadline - time.monotonic()
            ready = _ready(waiting, left)
            for each in ready:
                each.receive()
            if left <= 0 and not ready:
                break
    finally:
        for each in all_of_them:
            if each.is_open:
                each.give_up()
    found = [each.program for each in all_of_them if each.program is not None]
    return sorted(found, key=lambda program: program.name)


@contextlib.contextmanager
def _way(path: str) -> Generator[str]:
    """Give a path to the same socket that fits into a socket's address."""
    if len(os.fsencode(path)) <= MOST_PATH_BYTES:
        yield path
        return
    parent, name = os.path.split(path)
    with contextlib.closing(reach(parent)) as directory:
        yield directory.address_of(name)


def _connect_all(waiting: Sequence[_Asked]) -> None:
    """Try to connect each that has no connection, as far as there are descriptors."""
    for each in waiting:
        if each.socket is None:
            try:
                each.attempt()
            except OSError as error:
                # The others go first, and free theirs.
                if error.errno not in _NO_DESCRIPTORS or not any(one.socket for one in waiting):
                    raise
                return


def _ready(waiting: Sequence[_Asked], left: float) -> list[_Asked]:
    """Wait for an answer, or until the next attempt to connect is due."""
    by_descriptor = {each.socket.fileno(): each for each in waiting if each.socket is not None}
    if any(each.is_open and each.socket is None for each in waiting):
        left = min(left, _AGAIN)
    elif not by_descriptor:
        return []
    poll = select.poll()
    for fd in by_descriptor:
        poll.register(fd, select.POLLIN)
    return [by_descriptor[fd] for fd, _ in poll.poll(max(0.0, left) * 1000)]
