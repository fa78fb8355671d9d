"""The listening socket: its birth, its clients' arrival, its death.

What is promised:

* One server for each address. Who holds the lock (see `lockfile`) may touch the socket, nobody
  else; a server without a lock that answers there is left alone too.
* Nothing that stands at the path is removed, unless it is a dead socket of this user: one that
  refuses connections.
* The socket has mode 0600 from its first moment (`fchmod` before `bind`; the umask is never
  changed, it belongs to the whole process).
* `close` removes what was made here, if it still stands there, and only in the process that made
  it.

Birth, in this order: open and check the directory; lock; make way; make the socket, give it its
mode, bind, look whether it is there, listen. What fails undoes what was made before it.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
import stat
from contextlib import ExitStack
from typing import Any, Final

from .._shown import shown_path
from .._system.peer import credentials
from .._system.sockets import above_stdio, socket_above_stdio, unix_socket
from ..errors import AlreadyRunning, UnsafeAddress
from . import lockfile
from .directory import (
    Directory,
    open_directory,
    open_private_directory,
    why_not_private,
)
from .lockfile import LockFile, already_running
from .names import is_name, socket_paths

_PRIVATE: Final = 0o600

_WENT_AWAY: Final = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EPERM})
"""accept(2) took a connection that is none any more; the next may be fine."""

_MOST_GONE: Final = 64
"""Such connections in one `accept`. Where a sandbox forbids accept(2) they would never end."""

_STDERR: Final = 2

_ONCE: Final = ((),)
"""The arguments of one call that has none."""

_SO_PASSRIGHTS: Final = 83
"""Linux 6.16: whether a socket takes descriptors that a peer passes (SCM_RIGHTS)."""


class SocketFile:
    """What a server made in a directory, and owns: its lock and its socket."""

    def __init__(self, directory: Directory, name: str, lock: LockFile) -> None:
        self.directory = directory
        self.name = name
        self.lock = lock
        self.made: os.stat_result | None = None
        """The socket's file, as soon as it is there."""
        self._pid = os.getpid()

    @property
    def path(self) -> str:
        """The absolute path of the socket."""
        return os.path.join(self.directory.path, self.name)

    def remove_socket(self) -> None:
        """Remove the socket, if it still is the one that was made here."""
        with contextlib.suppress(OSError):
            if self.made is not None and self.directory.holds(self.name, self.made):
                self.directory.remove(self.name)

    def vacate(self) -> None:
        """Remove the socket and then the lock, if they are still ours; go on holding the lock.

        In another process than the one that made them, do nothing.
        """
        if self._pid == os.getpid():
            self.remove_socket()
            self.lock.remove()

    def close(self) -> None:
        """Close the descriptors; the lock is free then. Removes nothing. Idempotent."""
        try:
            self.lock.close()
        finally:  # close(2) may say that the disk is full, or broken
            self.directory.close()


class Listener:
    """A listening Unix socket. Made by `listen`, which gives it a place, or by `adopt`."""

    def __init__(self, sock: socket.socket, path: str, place: SocketFile | None) -> None:
        self.path = path
        self._socket = sock
        self._place = place

    def fileno(self) -> int:
        """Return the descriptor; -1 after `close`."""
        return self._socket.fileno()

    @property
    def owns_its_path(self) -> bool:
        """Whether it was made here, and is removed at the end."""
        return self._place is not None

    def accept(self) -> socket.socket | None:
        """Return the next connection, non-blocking; None when none waits.

        Raises OSError when it can't be taken now: no descriptor left (EMFILE, ENFILE), no memory.
        """
        gone = 0
        while True:
            try:
                return _accepted(self._socket)
            except (BlockingIOError, InterruptedError):
                return None
            except OSError as error:
                gone += 1
                if error.errno in _WENT_AWAY and gone < _MOST_GONE:
                    continue
                raise

    def is_reachable(self) -> bool:
        """Return whether the path still leads to this socket. One stat(2)."""
        try:
            there = os.lstat(self.path)
        except OSError:
            return False
        if self._place is None or self._place.made is None:
            return stat.S_ISSOCK(there.st_mode)  # who made it knows which one it is
        return os.path.samestat(there, self._place.made)

    def renewed(self, backlog: int) -> Listener:
        """Return a new listener on the same path, under the same lock if that is still there.

        The old one still has the connections that wait in it; close it afterwards. Raises as
        `listen`, and leaves the old one as it was then.
        """
        place = self._place
        assert place is not None
        with ExitStack() as undo:
            directory = place.directory.reopened()
            undo.callback(directory.close)
            if not place.lock.is_in(directory):
                undo.pop_all()
                return _listen_in(directory, place.name, backlog)
            fresh = SocketFile(directory, place.name, place.lock)
            sock = _bound(fresh, backlog)
            fresh.lock = place.lock.moved_to(directory)
            undo.pop_all()
        return Listener(sock, fresh.path, fresh)

    def vacate(self) -> None:
        """Remove the socket and the lock file, if they are still ours. Goes on listening."""
        if self._place is not None:
            self._place.vacate()

    def close(self, *, unlink: bool = True) -> None:
        """Stop listening, and remove what was made, if it is still ours. Idempotent.

        It is removed before the descriptor is closed: file systems give the inode number of a
        removed file to the next one at once, but not while the bound socket is open. The lock
        goes last.
        """
        if unlink and self.fileno() >= 0:
            self.vacate()
        self._socket.close()
        if self._place is not None:
            self._place.close()


def listen(address: str | os.PathLike[str], backlog: int) -> Listener:
    """Return a listener at an address, which is a name or a path.

    Raises AlreadyRunning when a live server has it, FileExistsError when something else than a
    socket stands there, UnsafeAddress when the directory, the lock or the socket is another
    user's or open to others, and OSError as bind(2).
    """
    path, *others = socket_paths(address)
    parent, name = os.path.split(path)
    if not name:
        raise IsADirectoryError(errno.EISDIR, "this is a directory, not a socket", path)
    if not is_name(address):
        return _listen_in(open_directory(parent), name, backlog)
    for other in others:
        _refuse_living(other)
    return _listen_in(open_private_directory(parent), name, backlog)


def adopt(sock: socket.socket, backlog: int) -> Listener:
    """Return a listener on a socket that listens already, made by somebody else (systemd).

    It is never unlinked. Raises ValueError for what is no listening stream socket with a path.
    """
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        raise ValueError(f"a server needs a Unix stream socket, not {sock!r}")
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ValueError("the socket must be listening already")
    path = sock.getsockname()
    if not isinstance(path, str) or not path:
        raise ValueError(
            "the socket must have a path; an abstract one has no directory that keeps others out"
        )
    sock = socket_above_stdio(sock)
    sock.setblocking(False)
    sock.set_inheritable(False)
    _refuse_descriptors(sock)
    sock.listen(backlog)  # again: from now on clients see this process, not who made the socket
    return Listener(sock, os.path.abspath(path), None)


def _accepted(listener: Any) -> socket.socket:
    """Accept, and lose no descriptor, even if there is no memory for its socket object.

    In `socket.accept` an exception between its two steps leaves the descriptor open: its client
    would wait for ever.
    """
    if not hasattr(listener, "_accept"):  # eventlet has a socket of its own
        sock, _ = listener.accept()
        sock.setblocking(False)
        return socket_above_stdio(sock)
    accepted: list[tuple[int, Any]] = []
    sock = socket.socket.__new__(socket.socket)
    begun = False
    try:
        # In C from accept(2) to the list, so that an interruption comes before both or behind both.
        accepted.extend(itertools.starmap(listener._accept, _ONCE))
        fd = accepted[0][0]
        if fd <= _STDERR:
            accepted.clear()
            fd = above_stdio(fd)  # which closes what it can't move
            accepted.append((fd, None))
        begun = True
        sock.__init__(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd)  # type: ignore[misc]
        sock.setblocking(False)
    except BaseException:
        # Once and not twice: the number may be a stranger's by then.
        if begun and _has_descriptor(sock):
            sock.close()
        else:
            for fd, _ in accepted:
                os.close(fd)
        raise
    return sock


def _has_descriptor(sock: socket.socket) -> bool:
    try:
        return sock.fileno() >= 0
    except (AttributeError, RecursionError):  # gevent's, before it is made
        return False


def _listen_in(directory: Directory, name: str, backlog: int) -> Listener:
    with ExitStack() as undo:
        undo.callback(directory.close)
        lock = lockfile.take(directory, name)
        place = SocketFile(directory, name, lock)
        undo.callback(place.close)
        undo.callback(place.vacate)
        sock = _bound(place, backlog)
        undo.pop_all()
    return Listener(sock, place.path, place)


def _bound(place: SocketFile, backlog: int) -> socket.socket:
    """Return a new socket that listens at a place. What fails leaves nothing behind."""
    address = place.directory.address_of(place.name)
    _make_way(place)
    with ExitStack() as undo:
        sock = undo.enter_context(unix_socket())
        # Before bind: bind(2) makes the file with the mode of the descriptor, less the umask.
        with contextlib.suppress(OSError):  # macOS: EINVAL; `_bind` sees to it there
            os.fchmod(sock.fileno(), _PRIVATE)
        _refuse_descriptors(sock)
        undo.callback(place.remove_socket)
        _bind(sock, place, address)
        sock.listen(backlog)
        undo.pop_all()
    return sock


def _bind(sock: socket.socket, place: SocketFile, address: str) -> None:
    try:
        sock.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = f"another program took this address just now: {shown_path(place.path)}"
            raise AlreadyRunning(message) from None
        # bind(2) does not say where.
        words = f"no socket can be made here: {error.strerror}"
        raise OSError(error.errno, words, place.path) from None
    status = place.directory.status(place.name)
    if status is None or not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.geteuid():
        raise UnsafeAddress(f"the socket was replaced while it was made: {shown_path(place.path)}")
    place.made = status
    if stat.S_IMODE(status.st_mode) != _PRIVATE:
        # A umask with 0600 in it, or no `fchmod`. Nobody can connect before `listen`.
        os.chmod(place.name, _PRIVATE, dir_fd=place.directory.fd)


def _make_way(place: SocketFile) -> None:
    """Remove a dead socket of this user; refuse to touch anything else."""
    status = place.directory.status(place.name)
    if status is None:
        return
    if not stat.S_ISSOCK(status.st_mode):
        words = "this is not a socket; it was left as it is"
        raise FileExistsError(errno.EEXIST, words, place.path)
    if status.st_uid != os.geteuid():
        raise UnsafeAddress(f"the socket belongs to user {status.st_uid}: {shown_path(place.path)}")
    address = place.directory.held_address_of(place.name)
    result, pid = _probe(address)
    if result == errno.EACCES and not status.st_mode & stat.S_IWUSR:
        # Not even its owner may connect: made under a umask of 0777 by a server that died before
        # it gave it its mode. If it lives all the same, it gets its mode back.
        os.chmod(place.name, _PRIVATE, dir_fd=place.directory.fd)
        result, pid = _probe(address)
        if result not in (errno.ECONNREFUSED, errno.ENOENT):
            os.chmod(place.name, stat.S_IMODE(status.st_mode), dir_fd=place.directory.fd)
    if result == errno.ECONNREFUSED:
        place.directory.remove(place.name)
    elif result != errno.ENOENT:
        # EAGAIN is a full backlog: alive and busy. Whatever else it is, it is not dead.
        raise already_running(place.path, pid)


def _refuse_living(path: str) -> None:
    """Raise AlreadyRunning when a server of this user lives in another place of the same name.

    It was started before there was a session, which it does not see; clients find it.
    """
    try:
        if why_not_private(os.lstat(os.path.dirname(path))) is not None:
            return
        status = os.lstat(path)
    except OSError:
        return
    if stat.S_ISSOCK(status.st_mode) and status.st_uid == os.geteuid():
        result, pid = _probe(path)
        if result in (0, errno.EAGAIN):
            raise already_running(path, pid)


def _probe(address: str) -> tuple[int, int | None]:
    """Connect; return the errno, and the pid of the server that took the connection."""
    with unix_socket() as probe:
        result = probe.connect_ex(address)
        return result, credentials(probe).pid if result == 0 else None


def _refuse_descriptors(sock: socket.socket) -> None:
    """Let whoever passes descriptors get EPERM. Older kernels: recv(2) drops them."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
