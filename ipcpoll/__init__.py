"""ipcpoll: a program's own main loop answers other processes. No thread."""

from .address import runtime_path
from .attachment import Attachment, TaskAttachment
from .client import Client, send
from .command import Command
from .errors import (
    AlreadyRunning,
    Busy,
    Cancelled,
    CommandError,
    FrameTooLarge,
    InternalError,
    InvalidArguments,
    IpcError,
    NotAnswered,
    NotPolled,
    NotRunning,
    PeerGone,
    ShuttingDown,
    StaleSocket,
    UnknownCommand,
    UnsafeAddress,
    UntrustedPeer,
    UsageError,
)
from .limits import Limits
from .peer import Credentials, caller
from .pollable import Pollable
from .server import Server
from .single_instance import serve_or_send

__all__ = [
    "AlreadyRunning",
    "Attachment",
    "Busy",
    "Cancelled",
    "Client",
    "Command",
    "CommandError",
    "Credentials",
    "FrameTooLarge",
    "InternalError",
    "InvalidArguments",
    "IpcError",
    "Limits",
    "NotAnswered",
    "NotPolled",
    "NotRunning",
    "PeerGone",
    "Pollable",
    "Server",
    "ShuttingDown",
    "StaleSocket",
    "TaskAttachment",
    "UnknownCommand",
    "UnsafeAddress",
    "UntrustedPeer",
    "UsageError",
    "caller",
    "runtime_path",
    "send",
    "serve_or_send",
]
