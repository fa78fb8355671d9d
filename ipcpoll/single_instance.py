"""One program of a kind: become the server, or hand the command to the one that runs.

"Open this file in the window that is already there." Looking for a running program and then
starting is a race: two that start together both find nobody. Here the address decides, which only
one process can have (see `lockfile`); whoever does not get it sends.

What is promised: the command is handed over at most once. It is tried again only where it is known
that it was not run: nobody listened, the server closed before its turn, or ended without reading
it. A command that had begun (a coroutine, a generator, a future) is not tried again.
"""

from __future__ import annotations

import time
import types
from collections.abc import Iterable
from os import PathLike
from typing import Any, TypeAlias, TypeVar, overload

from ._client.client import send
from ._client.connecting import BackOff, TimeLimit
from ._client.futures import Later, Pieces
from ._schema.commands import Command
from ._server.server import Server
from .errors import AlreadyRunning, NotRunning, PeerGone, ShuttingDown
from .limits import DEFAULT_LIMITS, Limits

C = TypeVar("C")
R = TypeVar("R")
Commands: TypeAlias = "type[Command[C, Any]] | Iterable[type[Command[C, Any]]] | types.UnionType"
Either: TypeAlias = "tuple[Server[C], None] | tuple[None, R]"


@overload
def serve_or_send(  # type: ignore[overload-overlap]  # a generator is an iterator; the first wins
    address: str | PathLike[str],
    commands: Commands[C],
    command: Command[C, Later[R]],
    *,
    timeout: float | None = ...,
    limits: Limits = ...,
    name: str | None = ...,
    version: str | None = ...,
) -> Either[C, R]: ...
@overload
def serve_or_send(
    address: str | PathLike[str],
    commands: Commands[C],
    command: Command[C, Pieces[Any]],
    *,
    timeout: float | None = ...,
    limits: Limits = ...,
    name: str | None = ...,
    version: str | None = ...,
) -> Either[C, None]: ...
@overload
def serve_or_send(
    address: str | PathLike[str],
    commands: Commands[C],
    command: Command[C, R],
    *,
    timeout: float | None = ...,
    limits: Limits = ...,
    name: str | None = ...,
    version: str | None = ...,
) -> Either[C, R]: ...
def serve_or_send(
    address: str | PathLike[str],
    commands: Commands[Any],
    command: Command[Any, Any],
    *,
    timeout: float | None = 5.0,
    limits: Limits = DEFAULT_LIMITS,
    name: str | None = None,
    version: str | None = None,
) -> Either[Any, Any]:
    """Return ``(server, None)``, or ``(None, answer)`` of the server that runs already.

    With a server the program is the first: `command` was not run, and it does for itself what the
    command asks. With None another process has run it, and this one can end::

        server, answer = serve_or_send("viewer", Open | Quit, Open(path))
        if server is None:
            print(answer)
        else:
            with server:
                Open(path).process(window)
                ...

    `address`, `commands`, `limits`, `name` and `version` are as for `Server`. Blocks at most
    `timeout` seconds (None: no limit), and does not block when this process becomes the server.
    Raises what `Server` raises except AlreadyRunning, and what `send` raises: CommandError,
    NotPolled, NotAnswered, UntrustedPeer, PeerGone (the command may have run), ShuttingDown with
    `began` (the server closed while the command ran: it may have run). AlreadyRunning means here
    that somebody has had the lock for all that time and serves nobody.
    """
    wait = TimeLimit(timeout)
    back_off = BackOff()
    while True:
        try:
            return Server(address, commands, limits=limits, name=name, version=version), None
        except AlreadyRunning as error:
            taken = error
        left = None if timeout is None else max(0.0, wait.deadline - time.monotonic())
        try:
            return None, send(command, address, timeout=left)
        except NotRunning as error:  # it starts or ends just now
            reason: Exception = error
        except ShuttingDown as error:
            # It may have run: it had begun, or it passed on what another server said.
            if error.began or not error.told_to_all:
                raise
            reason = error
        except PeerGone as error:
            if not error.unread:
                raise
            reason = error
        now = time.monotonic()
        if now >= wait.deadline:
            raise taken from reason
        back_off.sleep(wait.deadline - now)
