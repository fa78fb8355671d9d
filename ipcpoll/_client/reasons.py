"""Why there is no answer: the client's exceptions, each with one sentence for an operator.

A sentence says who (the pid), what happened within how many seconds, what became of the call, and
at the end where (the path). What is said is known: from the kernel, from the lock file beside the
socket, from proc(5). A pid that can't be known is called unknown.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence

from .._address import elsewhere, lockfile
from .._shown import shown_path
from .._system.peer import Credentials, is_stopped, named
from ..errors import (
    CommandError,
    NotAnswered,
    NotPolled,
    NotRunning,
    PeerGone,
    StaleSocket,
    UntrustedPeer,
    error_from_wire,
)


def nothing_there(path: str, others: Sequence[str] = (), *, is_name: bool = False) -> NotRunning:
    """Return the error for a path at which nothing stands.

    `others` are the places of the same name at which nobody serves either.
    """
    where = " nor at ".join([shown_path(path), *others])
    parent = os.path.dirname(path)
    if not is_name and not os.path.isdir(parent):
        where += f", and no directory {shown_path(parent)}: is the path right?"
    there = elsewhere.found([path, *others], is_name=is_name)
    return NotRunning(f"the program does not run: there is no socket at {where}{there}")


def nobody_listens(path: str, others: Sequence[str] = (), *, is_name: bool = False) -> NotRunning:
    """Return the error for a refused connection: a dead socket, or no socket at all."""
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return nothing_there(path, others, is_name=is_name)  # it was removed just now
    if not is_socket:
        return NotRunning(f"the program does not run: this is no socket: {shown_path(path)}")
    ended = named(lockfile.owner(path))
    where = " nor at ".join([shown_path(path), *others])
    there = elsewhere.found([path, *others], is_name=is_name)
    return StaleSocket(
        f"{ended} serves no more and has left its socket behind: nobody listens at {where}{there}"
    )


def other_user(path: str, who: Credentials) -> UntrustedPeer:
    """Return the error for a server that runs under another uid."""
    return UntrustedPeer(
        f"{named(who.pid)} belongs to user {who.uid}, this process to user {os.geteuid()}; "
        f"nothing was sent ({shown_path(path)})"
    )


def not_allowed(path: str) -> UntrustedPeer:
    """Return the error for a socket that this user may not connect to."""
    return UntrustedPeer(
        f"user {os.geteuid()} may not connect: the socket, or a directory above it, is closed to "
        f"this user; nothing was sent ({shown_path(path)})"
    )


def unsafe_directory(path: str, directory: str, fault: str) -> UntrustedPeer:
    """Return the error for the directory of a name that is not this user's alone."""
    return UntrustedPeer(f"{shown_path(directory)} {fault}; nothing was sent ({shown_path(path)})")


def backlog_full(path: str, seconds: float) -> NotPolled:
    """Return the error for a server that took in no connection."""
    who = _alive(lockfile.owner(path, alive=True))
    return NotPolled(
        f"{who} and has not taken in this connection within {_shown(seconds)} s, "
        f"its backlog is full; nothing was sent ({shown_path(path)})"
    )


def no_room(
    path: str, who: Credentials, name: str, seconds: float, sent: str, hint: str = ""
) -> NotPolled:
    """Return the error for a frame that the server made no room for, wholly or in part."""
    return NotPolled(
        f"{_alive(who.pid)} and has made no room for {name} within {_shown(seconds)} s; "
        f"{sent}{hint} ({path})"
    )


def not_read(path: str, who: Credentials, name: str, seconds: float, hint: str = "") -> NotPolled:
    """Return the error for a call that is known to be unread."""
    return NotPolled(
        f"{_alive(who.pid)} and has not read {name} within {_shown(seconds)} s; "
        f"it was cancelled and will most likely not run{hint} ({path})"
    )


def not_answered(
    path: str, who: Credentials, name: str, seconds: float, hint: str = ""
) -> NotAnswered:
    """Return the error for a call that was read, or may have been."""
    return NotAnswered(
        f"{_alive(who.pid)} and has not answered {name} within {_shown(seconds)} s; "
        f"it may still run it{hint} ({path})"
    )


def no_more_pieces(path: str, who: Credentials, name: str, seconds: float) -> NotAnswered:
    """Return the error for a stream that has sent some pieces, and no further one."""
    return NotAnswered(
        f"{_alive(who.pid)} and has sent no further piece of {name} for {_shown(seconds)} s; "
        f"it was cancelled ({path})"
    )


def gone(path: str, who: Credentials, *, unread: bool) -> PeerGone:
    """Return the error for a connection that ended before the answer. `unread`: that is known."""
    if unread:
        words = "without reading the call; it was not run"
    else:
        words = "before the answer; the call may have run"
    return PeerGone(f"{named(who.pid)} closed the connection or ended {words} ({path})", unread)


def closed_here() -> PeerGone:
    """Return the error for a connection that this end closed."""
    return PeerGone("this client closed the connection before the answer")


def interrupted_here() -> PeerGone:
    """Return the error for a connection that was ended because its work was interrupted."""
    return PeerGone(
        "this client was interrupted while it sent or received; the connection was given up, and "
        "the call may have run"
    )


def told_to_all(path: str, who: Credentials, error: CommandError) -> Callable[[], CommandError]:
    """Return a maker of what a server told all its calls at once: that it is full, or closes.

    A maker, because one exception raised twice would mix its tracebacks.
    """
    message = f"{error.message} ({named(who.pid)}, {path})"

    def make() -> CommandError:
        made = error_from_wire(error.code, message, error.data)
        made.told_to_all = True
        return made

    return make


def no_answer(path: str, who: Credentials, fault: str) -> PeerGone:
    """Return the error for a server that sent what can't be read."""
    return PeerGone(f"{named(who.pid)} sent what is no answer: {fault} ({path})")


def _alive(pid: int | None) -> str:
    if pid and is_stopped(pid):
        return f"{named(pid)} is stopped (by a signal or a debugger)"
    return f"{named(pid)} is alive"


def _shown(seconds: float) -> str:
    return f"{seconds:.3f}".rstrip("0").rstrip(".")
