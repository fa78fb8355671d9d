"""Descriptors that stay clear of standard input, output and error.

The kernel gives the lowest free number. In a program whose standard input is closed, a socket
would become descriptor 0, and the next `input`, `print` or child program would talk to a client.
So each long-lived descriptor of ipcpoll is moved above 2, as systemd and OpenSSH do.
"""

from __future__ import annotations

import fcntl
import os
import socket
from typing import Final

from ..limits import KIB

_LOWEST: Final = 3

# macOS has no MSG_NOSIGNAL; Python ignores SIGPIPE unless the host changed that.
SEND_FLAGS: Final = getattr(socket, "MSG_NOSIGNAL", 0)


def above_stdio(fd: int) -> int:
    """Return `fd`, or a copy of it above 2; the original is closed then. Close-on-exec."""
    if fd >= _LOWEST:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LOWEST)
    finally:
        os.close(fd)


def socket_above_stdio(sock: socket.socket) -> socket.socket:
    """Return `sock`, or the same socket on a descriptor above 2."""
    if sock.fileno() >= _LOWEST:
        return sock
    seconds = sock.gettimeout()
    moved = socket.socket(sock.family, sock.type, sock.proto, fileno=above_stdio(sock.detach()))
    moved.settimeout(seconds)  # it has got that of `socket.setdefaulttimeout`, and would block
    return moved


def unix_socket() -> socket.socket:
    """Return a new non-blocking stream socket, close-on-exec, above 2."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)  # macOS has no SOCK_NONBLOCK
    return socket_above_stdio(sock)


# ---------------------------------------------------------------------------------------------
# How much one read takes. Python makes room for all that a read may bring before it reads, and
# 64 KiB of room cost as much as the system call. So a read begins small, and grows while it is
# filled.

FIRST_READ: Final = 4 * KIB
"""Bytes of a usual read."""

_GROWTH: Final = 4


def next_read_size(size: int, got: int, largest: int) -> int:
    """Return how many bytes the next read takes, behind one of `size` that brought `got`."""
    return min(size * _GROWTH if got >= size else FIRST_READ, largest)
