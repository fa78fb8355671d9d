"""Every limit of ipcpoll, by name, with its default and the reason for it.

What a program may want to change is in `Limits`, and each says which file enforces it. Other
modules hold constants of their own where nobody would: bytes in one send, characters in a log line,
pauses between two attempts to connect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a server or a client. Sizes are bytes, times are seconds.

    ``Limits(max_clients=1000)`` changes one and keeps the others. A value that makes no sense
    raises ValueError.
    """

    poll_seconds: float = 0.005
    """The time budget of one `poll` that names none. A third of a frame at 60 per second.
    Enforced in `_server/scheduler.py` and `_client/pump.py`."""

    max_frame: int = 256 * KIB
    """The largest payload of a request. A byte limit is a time limit too: 256 KiB of one-byte
    items take up to 0.15 s to decode, 1 MiB takes 0.7 s. ssh-agent takes 256 KiB as well.
    Enforced in `_wire/protocol.py`."""

    max_answer: int = 16 * MIB
    """The largest payload of an answer. varlink's limit. Enforced in `_wire/protocol.py`."""

    max_clients: int = 256
    """Connections at once; one more is told `busy` and closed. dbus-daemon: 256 per user. Never
    more than a quarter of the descriptors that the process may have (RLIMIT_NOFILE). Enforced
    in `_server/server.py`."""

    max_frames_waiting: int = 16
    """Whole frames of one connection that wait for their turns before its reading stops.
    websockets: 16, QEMU: 8. Enforced in `_wire/protocol.py` and `_server/connection.py`."""

    max_in_flight: int = 128
    """Calls of one connection that are answered later or in pieces; one more is told `busy`. So
    many notifications of such commands as well, of all connections together. gRPC and HTTP/2
    servers: 100 to 128 streams of one connection. Enforced in `_server/turns.py`."""

    max_unsent: int = 256 * KIB
    """Unsent answers of one connection before its calls and its reading wait. Enforced in
    `_server/connection.py`."""

    max_buffered: int = 64 * MIB
    """What all connections of a server together hold: requests that came, answers that wait.
    Over it, the connection that holds most is evicted. dbus-broker: 512 MiB for each user.
    Enforced in `_server/clients.py`."""

    max_nested_polls: int = 8
    """Polls on the stack that serve, the outermost included (a command opens a modal dialog, in
    which a command opens another, and so on). One more mutes what it sees. Enforced in
    `_server/scheduler.py`."""

    max_accepts: int = 64
    """New connections taken in by one poll: about 1 ms. Twisted and asyncio: about 100.
    Enforced in `_server/scheduler.py`."""

    backlog: int = 1024
    """Connections that wait for a poll; the kernel caps it (net.core.somaxconn). Enforced in
    `_server/server.py`."""

    read_size: int = 64 * KIB
    """Bytes taken by one read. varlink: 64 KiB, Redis: 16 KiB. Enforced in
    `_server/connection.py` and `_client/connection.py`."""

    answers_joined: int = 16
    """Answers of one connection that are sent together, before the end of the poll. Sending
    only at the end makes pipelining clients run in lockstep, half as fast. Enforced in
    `_server/turns.py`."""

    accept_pause_seconds: float = 1.0
    """How long no connection is accepted when the process has no descriptor left. asyncio and
    tmux: 1 s. Enforced in `_server/acceptor.py`."""

    log_seconds: float = 60.0
    """One log line for each kind of mishap in this time, and each traceback is a kind; the
    others are counted. Enforced in `_server/server.py`."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            seconds = field.name.endswith("_seconds")
            least = 0 if seconds else 1
            if not (isinstance(value, int) or (seconds and isinstance(value, float))):
                what = "a number of seconds" if seconds else "a whole number"
                raise ValueError(f"Limits.{field.name} must be {what}, not {value!r}")
            if not least <= value < math.inf:  # NaN is not
                raise ValueError(f"Limits.{field.name} must be at least {least}, not {value!r}")


LEAST_ERROR: Final = 1000
"""An error's payload may have so many bytes whatever `Limits.max_answer` says: a server must
always be able to say what is wrong. The errors that ipcpoll words itself have fewer."""

MAX_DEPTH: Final = 64
"""Containers inside containers in one payload, the message's own array included. Part of the
protocol, so no setting. D-Bus: 32 + 32."""

DEFAULT_LIMITS: Final = Limits()
