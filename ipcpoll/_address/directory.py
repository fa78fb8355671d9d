"""The directory that a socket lies in: opened once, checked, and held by its descriptor.

Whoever may write to the directory can replace the socket, so this is where other users are kept
out. What is promised:

* The directory of a name is this user's and nobody else can enter it (mode 0700, no link).
* The directory of a path belongs to this user or root, and nobody else can replace files in it:
  it is not writable by others, or sticky like /tmp.
* After the check everything is reached through the descriptor: a `chdir`, or a path that leads
  elsewhere later, changes nothing.

Only the last directory of a name is ever made, never a parent. None is ever changed, except that
this user gets back the own rights to the directory of a name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Callable
from typing import Final

from .._shown import shown_path
from .._system.sockets import above_stdio
from ..errors import UnsafeAddress

MOST_PATH_BYTES: Final = 107 if sys.platform == "linux" else 103
"""sun_path of unix(7) has 108 bytes on Linux and 104 elsewhere, one for the closing NUL."""

_PRIVATE: Final = 0o700
_OTHERS: Final = 0o077
_OTHERS_WRITE: Final = 0o022
_PROC: Final = "/proc/self/fd"


class Directory:
    """An open directory. Made by `open_directory` and `open_private_directory`."""

    __slots__ = ("_private", "fd", "path")

    def __init__(self, path: str, fd: int, *, private: bool = False) -> None:
        self.path = path
        self.fd = fd
        self._private = private

    def status(self, name: str) -> os.stat_result | None:
        """Return what stands under a name, links not followed; None when nothing does."""
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def holds(self, name: str, status: os.stat_result) -> bool:
        """Return whether this very file still stands under the name."""
        there = self.status(name)
        return there is not None and os.path.samestat(there, status)

    def remove(self, name: str) -> None:
        """Remove a file, unless somebody did already."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.fd)

    def address_of(self, name: str) -> str:
        """Return the path for bind(2) and connect(2). Raises OSError (ENAMETOOLONG).

        The absolute one as far as it fits: that is what ss(8) shows, and by which cleaners of
        temporary directories know a live socket. A longer one leads through the descriptor.
        """
        path = os.path.join(self.path, name)
        return path if _fits(path) else self.held_address_of(name)

    def held_address_of(self, name: str) -> str:
        """Return the path through the descriptor, as far as there is one that fits.

        It leads into this directory, even if somebody has put another at its path meanwhile.
        """
        path = os.path.join(self.path, name)
        held = f"{_PROC}/{self.fd}/{name}"
        if _fits(held) and os.path.isdir(_PROC):
            return held
        if _fits(path):
            return path
        size = len(os.fsencode(path))
        words = f"a socket's path may have {MOST_PATH_BYTES} bytes, this has {size}"
        raise OSError(errno.ENAMETOOLONG, words, path)

    def reopened(self) -> Directory:
        """Return what stands at the path now, opened and checked as this one was."""
        return (open_private_directory if self._private else open_directory)(self.path)

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def open_directory(path: str) -> Directory:
    """Open the directory of a path, for a server. Raises UnsafeAddress, OSError as open(2)."""
    try:
        directory = Directory(path, _open(path, 0))
    except OSError as error:
        words = f"no socket can be made here: {error.strerror}"
        if error.errno == errno.ENOENT:
            words += "; make the directory first, it is never made for a path"
        raise OSError(error.errno, words, path) from None
    return _checked(directory, why_replaceable)


def open_private_directory(path: str) -> Directory:
    """Open the directory of a name, for a server; make it if it is missing.

    Raises UnsafeAddress when another user owns it or can enter it, and OSError.
    """
    try:
        os.mkdir(path, _PRIVATE)
    except FileExistsError:
        pass
    except OSError as error:
        words = f"the directory of this name can't be made: {error.strerror}"
        raise OSError(error.errno, words, path) from None
    status = os.lstat(path)
    if why_not_private(status) is None and status.st_mode & _PRIVATE != _PRIVATE:
        # A umask took our own rights, now or when a server died young. The parent is ours or
        # sticky: it is still ours.
        os.chmod(path, stat.S_IMODE(status.st_mode) | _PRIVATE)
    try:
        directory = Directory(path, _open(path, os.O_NOFOLLOW), private=True)
    except NotADirectoryError:  # a link too, with these flags
        raise UnsafeAddress(
            f"{shown_path(path)} must be a directory, not a link or a file"
        ) from None
    except PermissionError:
        raise UnsafeAddress(
            f"{shown_path(path)} belongs to another user, or keeps this one out"
        ) from None
    return _checked(directory, why_not_private)


def reach(path: str) -> Directory:
    """Open the directory of a path, for a client: nothing is checked. Raises OSError."""
    flags = getattr(os, "O_PATH", os.O_RDONLY)  # needs no right to read it
    return Directory(path, above_stdio(os.open(path, flags | os.O_DIRECTORY | os.O_CLOEXEC)))


def why_not_private(status: os.stat_result) -> str | None:
    """Return why others can get into a directory, None if only this user can."""
    if not stat.S_ISDIR(status.st_mode):
        return "is no directory"
    if status.st_uid != os.geteuid():
        return f"belongs to user {status.st_uid}"
    if status.st_mode & _OTHERS:
        return f"can be entered by others (its mode is {_mode(status)}, it should be 0700)"
    return None


def why_replaceable(status: os.stat_result) -> str | None:
    """Return why others can replace a file in a directory, None if they can't."""
    if status.st_uid not in (os.geteuid(), 0):
        return f"belongs to user {status.st_uid}, who could replace the socket"
    if status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX:
        return (
            f"can be written to by others, who could replace the socket (its mode is "
            f"{_mode(status)}; chmod go-w mends it)"
        )
    return None


def _open(path: str, flags: int) -> int:
    return above_stdio(os.open(path, flags | os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def _checked(directory: Directory, why_unsafe: Callable[[os.stat_result], str | None]) -> Directory:
    """Return an open directory if it is safe; else close it and raise."""
    try:
        fault = why_unsafe(os.fstat(directory.fd))
        if fault is not None:
            raise UnsafeAddress(f"no socket is made in {shown_path(directory.path)}: it {fault}")
    except BaseException:
        directory.close()
        raise
    return directory


def _fits(path: str) -> bool:
    return len(os.fsencode(path)) <= MOST_PATH_BYTES


def _mode(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode):04o}"
