"""ipcpoll: a program's own main loop answers other processes. No thread."""

import typing as _typing
from importlib import import_module as _import_module

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
    DeclaredError,
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
    "AT_RESTART",
    "READ_ONLY",
    "SECRET",
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
    "DeclaredError",
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
    "Progress",
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
    "about",
    "caller",
    "runtime_path",
    "send",
    "serve_or_send",
    "step",
    "unit",
]

# What only programs use that say something of themselves is loaded when it is first used. To a type
# checker it is imported, and any other name is still a mistake.
if _typing.TYPE_CHECKING:
    from .describe.about import about
    from .describe.marks import AT_RESTART, READ_ONLY, SECRET, step, unit
    from .describe.progress import Progress
else:
    _LATER = {
        "AT_RESTART": "marks",
        "Progress": "progress",
        "READ_ONLY": "marks",
        "SECRET": "marks",
        "about": "about",
        "step": "marks",
        "unit": "marks",
    }

    def __getattr__(name):
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = _import_module(f"{__name__}.describe.{_LATER[name]}")
        thing = globals()[name] = getattr(module, name)
        return thing

    def __dir__():
        return sorted({*globals(), *__all__})
