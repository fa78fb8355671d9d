"""The other end of a Unix socket: whose process it is, and whether it has read what was sent.

The kernel says who is there, the peer can't lie: SO_PEERCRED of unix(7) on Linux, LOCAL_PEERCRED
on macOS and FreeBSD (written from their manuals, untested). For a server the credentials are those
of the moment of connect(2), for a client those of the server's listen(2).

The uid decides. A pid is for people to read: it may be used again by another process.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
import termios
from typing import Final, NamedTuple


class Credentials(NamedTuple):
    """Who is at the other end: the process, its user and its group."""

    pid: int
    """0: unknown, as for a process of another pid namespace. May be outdated."""
    uid: int
    gid: int


NOBODY: Final = 0xFFFFFFFF
"""The uid that Linux tells of a socket that is not connected."""

_LINUX: Final = struct.Struct("iII")  # struct ucred: pid, uid, gid
_SO_PEERCRED: Final = getattr(socket, "SO_PEERCRED", None)
_SOL_LOCAL: Final = 0
_LOCAL_PEERCRED: Final = getattr(socket, "LOCAL_PEERCRED", 1)
_LOCAL_PEERPID: Final = 2  # macOS
_XUCRED: Final = struct.Struct("@IIh16I")  # struct xucred: version, uid, number of groups, groups


def credentials(sock: socket.socket) -> Credentials:
    """Return who is at the other end of a connected socket. Raises OSError. Does not block."""
    if _SO_PEERCRED is not None:
        data = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERCRED, _LINUX.size)
        return Credentials(*_LINUX.unpack(data))
    return _bsd_credentials(sock)


def _bsd_credentials(sock: socket.socket) -> Credentials:
    data = sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, 256)
    _, uid, _, gid, *_ = _XUCRED.unpack_from(data)
    try:
        pid = sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID)
    except OSError:  # FreeBSD has no such option
        pid = 0
    return Credentials(pid, uid, gid)


# ---------------------------------------------------------------------------------------------
# Who asks


# ---------------------------------------------------------------------------------------------
# What it has done


def has_unread(sock: socket.socket) -> bool | None:
    """Return whether the peer has not read all that was sent; None where nobody can tell.

    SIOCOUTQ of unix(7) on Linux. A message that was read in part counts as unread to its last
    byte, so True means: not the whole of it.
    """
    if sys.platform != "linux":
        return None
    unread = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(unread, sys.byteorder) > 0


def named(pid: int | None) -> str:
    """Return how a sentence calls a process: ``pid 4711``, or ``the program (pid unknown)``."""
    return f"pid {pid}" if pid else "the program (pid unknown)"


def proc_is_ours() -> bool:
    """Return whether /proc is that of this process's pid namespace, and its numbers mean ours."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def is_stopped(pid: int) -> bool:
    """Return whether a process stands still: by a signal (Ctrl-Z) or in a debugger. proc(5)."""
    return status_of(pid)[:1] in ([b"T"], [b"t"])


def status_of(pid: int) -> list[bytes]:
    """Return the fields of a process's /proc/PID/stat from its state on; empty: not known."""
    # pid (name) state …; the name may hold anything, a closing parenthesis too.
    return read_proc(pid, "stat").rpartition(b") ")[2].split()


def read_proc(pid: int, name: str) -> bytes:
    """Return a file of /proc/PID, 4096 bytes at most; empty: not known. Never raises."""
    if not proc_is_ours():
        return b""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read(4096)
    except OSError:
        return b""
