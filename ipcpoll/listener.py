"""The listening socket: its birth, its clients' arrival, its death.

What is promised:

* Nothing that stands at the path is touched, unless it is a dead socket of this user: a socket
  that refuses connections.
* The socket has mode 0600 from its first moment (`fchmod` before `bind`; the umask is never
  changed, it belongs to the whole process).
* `close` removes the socket only if it is still the one that was made here.

What is not promised yet: two servers that start at the same moment on a dead socket can race.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import Final

from .address import check_length
from .errors import AlreadyRunning, UnsafeAddress

_PRIVATE: Final = 0o600

_WENT_AWAY: Final = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EPERM})
"""accept(2) took a connection that is none any more; the next may be fine."""


class Listener:
    """A listening Unix socket that owns its path. Made by `listen`."""

    def __init__(self, sock: socket.socket, path: str) -> None:
        status = os.lstat(path)
        self.path = path
        self._socket = sock
        self._made = (status.st_dev, status.st_ino)

    def fileno(self) -> int:
        """Return the descriptor; -1 after `close`."""
        return self._socket.fileno()

    def accept(self) -> socket.socket | None:
        """Return the next connection, non-blocking; None when none waits.

        Raises OSError when it can't be taken now: no descriptor left (EMFILE, ENFILE), no memory.
        """
        while True:
            try:
                sock, _ = self._socket.accept()
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno in _WENT_AWAY:
                    continue
                raise
            sock.setblocking(False)
            return sock

    def close(self, *, unlink: bool = True) -> None:
        """Stop listening and remove the socket, if it is still ours. Idempotent.

        It is removed before the descriptor is closed: file systems give the inode number of a
        removed file to the next one at once, but not while the bound socket is open.
        """
        if unlink and self.fileno() >= 0:
            with contextlib.suppress(OSError):
                status = os.lstat(self.path)
                if (status.st_dev, status.st_ino) == self._made:
                    os.unlink(self.path)
        self._socket.close()


def listen(path: str, backlog: int) -> Listener:
    """Return a listener on `path`.

    Raises AlreadyRunning when a live server has it, FileExistsError when something else than a
    socket stands there, UnsafeAddress when the socket is another user's, and OSError as bind(2).
    """
    check_length(path)
    _make_way(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # Before bind: bind(2) makes the file with the mode of the descriptor, less the umask.
        os.fchmod(sock.fileno(), _PRIVATE)
        sock.bind(path)
        listener = Listener(sock, path)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise AlreadyRunning(f"another server took this address just now: {path}") from None
        # bind(2) does not say where.
        raise OSError(error.errno, f"no socket can be made here: {error.strerror}", path) from None
    except BaseException:
        sock.close()
        raise
    try:
        if stat.S_IMODE(os.lstat(path).st_mode) != _PRIVATE:
            os.chmod(path, _PRIVATE)  # a umask with 0600 in it; nobody can connect before `listen`
        sock.listen(backlog)
        sock.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _make_way(path: str) -> None:
    """Remove a dead socket of this user; refuse to touch anything else."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise FileExistsError(errno.EEXIST, "this is not a socket; it was left as it is", path)
    if status.st_uid != os.geteuid():
        raise UnsafeAddress(f"the socket belongs to another user: {path}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        result = probe.connect_ex(path)
    if result == errno.ECONNREFUSED:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    elif result != errno.ENOENT:
        # EAGAIN is a full backlog: alive and busy. Whatever else it is, it is not dead.
        raise AlreadyRunning(f"a server runs at this address already: {path}")
