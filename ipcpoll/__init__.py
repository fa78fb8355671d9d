"""ipcpoll: a program's own main loop answers other processes. No thread."""

from .address import runtime_path
from .answers import Subscription, Turn
from .attachment import Attachment
from .awaited import AsyncStream, AwaitingClient
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
    UnsafeDependency,
    UntrustedPeer,
    UsageError,
)
from .limits import Limits
from .peer import Credentials, caller
from .pollable import Pollable
from .server import Server
from .single_instance import serve_or_send
from .stream import Stream
from .task_attachment import TaskAttachment
from .topic import Topic

__all__ = [
    "AlreadyRunning",
    "AsyncStream",
    "Attachment",
    "AwaitingClient",
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
    "Stream",
    "Subscription",
    "TaskAttachment",
    "Topic",
    "Turn",
    "UnknownCommand",
    "UnsafeAddress",
    "UnsafeDependency",
    "UntrustedPeer",
    "UsageError",
    "caller",
    "runtime_path",
    "send",
    "serve_or_send",
]
