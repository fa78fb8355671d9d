"""Who serves a name elsewhere: what an error says where nobody serves it here.

The same name leads elsewhere for a program with another ``XDG_RUNTIME_DIR``, with a ``/tmp`` of
its own (``PrivateTmp=`` of systemd, a sandbox), or of another user. The kernel lists the sockets of
this network namespace with their paths, proc_net_unix(5). What is another user's is told to root
alone.

For messages only: nothing that is found here is connected to.
"""

from __future__ import annotations

import os
import pwd
import re
import stat
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from .._shown import shown_path
from .._system.peer import named
from . import lockfile

_SOCKETS: Final = "/proc/net/unix"
_LISTENS: Final = 0x10000  # __SO_ACCEPTCON
_MOST_READ: Final = 1 << 22
_OF_A_NAME: Final = re.compile(r"/ipcpoll(-(?P<uid>\d+))?/[^/]+$")


class _Listening(NamedTuple):
    """A socket that listens, as the kernel lists it."""

    path: str
    inode: int


def found(looked: Sequence[str], *, is_name: bool) -> str:
    """Return what to say of programs that serve elsewhere; "" where none is found.

    `looked` are the paths at which nobody serves. Of a path, which everybody spells out, it only
    says that somebody listens there who is not to be seen from here.
    """
    wanted = os.path.basename(looked[0])
    said: list[str] = []
    for listening in _all_that_listen():
        if listening.path in looked:
            said += _out_of_sight(listening)
        elif (
            is_name
            and os.path.basename(listening.path) == wanted
            and _OF_A_NAME.search(listening.path)
        ):
            said += _in_another_place(listening)
    return "".join(f"; but {words}" for words in dict.fromkeys(said))


def _all_that_listen() -> Iterator[_Listening]:
    try:
        with open(_SOCKETS, "rb") as file:
            lines = file.read(_MOST_READ).split(b"\n")
    except OSError:  # not Linux, or a sandbox
        return
    for line in lines:
        words = line.split(None, 7)
        # A path that leads through a descriptor says nothing to anybody else.
        if len(words) == 8 and words[7].startswith(b"/") and not words[7].startswith(b"/proc/"):
            try:
                if int(words[3], 16) & _LISTENS:
                    yield _Listening(os.fsdecode(words[7]), int(words[6]))
            except ValueError:
                pass  # the head, or a kernel with another format


def _in_another_place(listening: _Listening) -> list[str]:
    path = listening.path
    try:
        status = os.stat(path)
    except PermissionError:
        return []
    except OSError:
        return _out_of_sight(listening)
    if not stat.S_ISSOCK(status.st_mode):
        return []
    if status.st_uid == os.geteuid():
        return [
            f"{named(lockfile.owner(path))} serves this name at {shown_path(path)}, by another "
            f"XDG_RUNTIME_DIR than here; ask it by that path"
        ]
    if os.geteuid() == 0:
        user = _user(status.st_uid)
        return [
            f"user {user} runs it, at {shown_path(path)}, and lets in nobody else, root neither; "
            f"become that user (runuser -u {user} -- ...)"
        ]
    return []


def _out_of_sight(listening: _Listening) -> list[str]:
    """Say that this very path is listened at, if it is a program of this user."""
    pid = _holder(listening.inode)
    of_a_name = _OF_A_NAME.search(listening.path)
    if pid is None and not (of_a_name and of_a_name["uid"] == str(os.geteuid())):
        return []
    return [
        f"{named(pid)} listens at {shown_path(listening.path)} out of sight: it has a directory of "
        "its own there (a private /tmp), or the file was removed; use a path that both see, or "
        "Server.rebind()"
    ]


def _holder(inode: int) -> int | None:
    """Return a process of this user that has this socket open; None: there is none."""
    wanted = f"socket:[{inode}]"
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid != os.geteuid():
                    continue
                descriptors = f"/proc/{name}/fd"
                if any(
                    os.readlink(f"{descriptors}/{fd}") == wanted for fd in os.listdir(descriptors)
                ):
                    return int(name)
            except OSError:
                pass  # it has ended, or shows nobody its descriptors
    return None


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"
