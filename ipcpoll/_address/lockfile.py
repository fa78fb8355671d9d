"""The lock beside a socket: one server for each address.

Looking whether a server answers and then binding is a race, whoever does it. So a server holds
flock(2) on ``<socket>.lock`` for its life, and only its holder may touch the socket. The kernel
lets go of the lock when the process dies, however it dies.

What is promised:

* A lock is only ever held on the file that stands at the path (it is looked at again after
  locking): one that its owner removes at that moment is never mistaken for a free one.
* A file that is no lock (other content, a link, another user's) is neither written nor removed.
* In a forked child the lock is only closed: unlocking it there would unlock the parent's.

Not `fcntl` locks: those are lost when any descriptor of the file is closed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import sys
import time
from typing import Final

from .._shown import shown_path
from .._system.peer import proc_is_ours
from .._system.sockets import above_stdio
from ..errors import AlreadyRunning, UnsafeAddress
from .directory import Directory

SUFFIX: Final = ".lock"

_MODE: Final = 0o600
_ATTEMPTS: Final = 64  # each means that a server ended between two of our steps
_CONTENT: Final = re.compile(rb"(?:(\d{1,10})\n?)?")
_MOST_READ: Final = 32
_CLOCK_SLACK: Final = 2.0  # seconds: the file system's clock ticks, and the clock may be set


class LockFile:
    """A lock that is held. Made by `take`."""

    def __init__(self, directory: Directory, name: str, fd: int) -> None:
        self._directory = directory
        self._name = name
        self._fd = fd

    def is_in(self, directory: Directory) -> bool:
        """Return whether this lock is the one that stands in a directory."""
        return self._fd >= 0 and directory.holds(self._name, os.fstat(self._fd))

    def moved_to(self, directory: Directory) -> LockFile:
        """Return the same lock, reached through another descriptor; this one holds nothing then."""
        moved = LockFile(directory, self._name, self._fd)
        self._fd = -1
        return moved

    def remove(self) -> None:
        """Remove the file, if it is still ours, and go on holding the lock."""
        with contextlib.suppress(OSError):
            if self.is_in(self._directory):
                self._directory.remove(self._name)

    def close(self) -> None:
        """Let go of the lock; the file stays. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def take(directory: Directory, socket_name: str) -> LockFile:
    """Lock the address of a socket, without waiting.

    Raises AlreadyRunning when another server holds it, UnsafeAddress and FileExistsError when what
    stands there is no lock of this user, and OSError where the file system has no locks.
    """
    name = socket_name + SUFFIX
    path = os.path.join(directory.path, name)
    for _ in range(_ATTEMPTS):
        fd = _open(directory, name, path)
        try:
            status = _check(fd, path)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = _pid(fd) if _holds(fd) else None
                raise already_running(os.path.join(directory.path, socket_name), pid) from None
            except OSError as error:  # ENOLCK, EOPNOTSUPP: some network file systems
                words = f"this file system has no locks: {error.strerror}"
                raise OSError(error.errno, words, path) from None
            if directory.holds(name, status):
                _check_content(fd, path)
                lock = LockFile(directory, name, fd)
                try:
                    _write_pid(fd)
                except BaseException:
                    lock.remove()
                    raise
                return lock
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # its owner removed it before we had it: what we hold means nothing
    raise OSError(errno.EAGAIN, "servers start and end here faster than the lock can be had", path)


def already_running(socket_path: str, pid: int | None) -> AlreadyRunning:
    """Return the error for an address that has a live server."""
    who = f"pid {pid}" if pid else "pid unknown"
    return AlreadyRunning(
        f"a server runs at this address already ({who}): {shown_path(socket_path)}", pid
    )


def owner(socket_path: str, *, alive: bool = False) -> int | None:
    """Return the pid in the lock of a socket. For messages only.

    None where there is none, or where that number is another process here: the server wrote it in
    its own pid namespace, or has ended since. `alive`: it is known to live.

    Does not try to lock it: that would disturb a server that is just starting.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(socket_path + SUFFIX, flags)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return None
        pid = _pid(fd)
        if pid is None or not (_holds(fd) if alive else _may_be(pid, status)):
            return None
        return pid
    finally:
        os.close(fd)


def _open(directory: Directory, name: str, path: str) -> int:
    # O_NONBLOCK: opening a FIFO must not wait for its other end.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        try:
            fd = os.open(name, flags, _MODE, dir_fd=directory.fd)
        except PermissionError:
            _mend_mode(directory, name)
            fd = os.open(name, flags, _MODE, dir_fd=directory.fd)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnsafeAddress(f"the lock must not be a link: {shown_path(path)}") from None
        if error.errno in (errno.EISDIR, errno.ENXIO):  # a directory, a socket
            raise _no_lock(path) from None
        if error.errno == errno.EACCES and directory.status(name) is not None:
            raise UnsafeAddress(f"the lock belongs to another user: {shown_path(path)}") from None
        raise OSError(error.errno, f"no lock can be had here: {error.strerror}", path) from None
    return above_stdio(fd)


def _mend_mode(directory: Directory, name: str) -> None:
    """Open an own lock to this user again: one that was made under a umask of 0777.

    Its server died before it gave it its mode and its content, so it is empty.
    """
    status = directory.status(name)
    if (
        status is not None
        and stat.S_ISREG(status.st_mode)
        and status.st_uid == os.geteuid()
        and (status.st_size, status.st_nlink) == (0, 1)
    ):
        os.chmod(name, _MODE, dir_fd=directory.fd)


def _check(fd: int, path: str) -> os.stat_result:
    """Return the status of a file that may be our lock; raise for any other."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise _no_lock(path)
    if status.st_uid != os.geteuid():
        raise UnsafeAddress(f"the lock belongs to user {status.st_uid}: {shown_path(path)}")
    if status.st_nlink > 1:  # it may be anything under its other name
        raise UnsafeAddress(f"the lock has a second name (hard link): {shown_path(path)}")
    return status


def _no_lock(path: str) -> FileExistsError:
    return FileExistsError(
        errno.EEXIST, "this should be the lock of a server and is something else; left alone", path
    )


def _check_content(fd: int, path: str) -> None:
    """Raise for a file that holds anything but a pid: somebody's own."""
    if not _CONTENT.fullmatch(os.pread(fd, _MOST_READ, 0)):
        raise _no_lock(path)


def _write_pid(fd: int) -> None:
    os.fchmod(fd, _MODE)
    with contextlib.suppress(OSError):  # a full disk: the lock holds without it
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)


def _pid(fd: int) -> int | None:
    match = _CONTENT.fullmatch(os.pread(fd, _MOST_READ, 0))
    return int(match[1]) if match and match[1] else None


# ---------------------------------------------------------------------------------------------
# Whose number it is


def _holds(fd: int) -> bool:
    """Return whether the pid in a lock is, here, that of the process that holds it. proc_locks(5).

    Where the kernel does not say, the file is believed: there are no pid namespaces there.
    """
    if sys.platform != "linux":
        return True
    pid, inode = _pid(fd), os.fstat(fd).st_ino
    if pid is None or not proc_is_ours():
        return False
    try:
        with open("/proc/locks", "rb") as file:
            held = (line.split() for line in file)
            # 1: FLOCK ADVISORY WRITE 4711 00:2c:1234 0 EOF
            return any(
                words[1:2] == [b"FLOCK"]
                and words[4] == b"%d" % pid
                and words[5].rpartition(b":")[2] == b"%d" % inode
                for words in held
            )
    except (OSError, IndexError):
        return False


def _may_be(pid: int, status: os.stat_result) -> bool:
    """Return whether a pid in a lock that nobody holds may be named, as far as can be known here.

    Not one of another process that lives: the first of the system, another user's, or one that is
    younger than the lock.
    """
    if sys.platform != "linux":
        return True
    if pid == 1 or not proc_is_ours():
        return False
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            words = file.read(1024).rpartition(b") ")[2].split()
        if words[0] in (b"Z", b"X"):
            return True  # it has ended
        if os.stat(f"/proc/{pid}").st_uid != os.geteuid():
            return False
        since_boot = int(words[19]) / os.sysconf("SC_CLK_TCK")
        began = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot
    except FileNotFoundError:
        return True  # it has ended
    except (OSError, ValueError, IndexError):
        return False
    return began <= status.st_mtime + _CLOCK_SLACK
