"""ipcpoll: a program's own main loop answers other processes. No thread."""

from ._address.names import runtime_path
from ._attach.attachment import Attachment
from ._attach.pollable import Pollable
from ._attach.task_attachment import TaskAttachment
from ._client.async_client import AsyncStream, AwaitingClient
from ._client.client import Client, send
from ._client.stream import Stream
from ._schema.answers import Subscription, Turn
from ._schema.commands import Command
from ._server.caller import caller
from ._server.server import Server
from ._server.topic import Topic
from ._system.peer import Credentials
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
from .single_instance import serve_or_send

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
