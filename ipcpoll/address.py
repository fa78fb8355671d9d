"""Where a socket lies: from what the user typed to an absolute path.

A `str` without a slash is a *name*: the socket lies in the user's private runtime directory, the
same for server, client and command line. A `str` with a slash, or any `PathLike`, is a *path*.

The runtime directory is the first of these that is a directory of this user which nobody else can
enter: ``$XDG_RUNTIME_DIR``, ``/run/user/UID`` (so that cron, sudo and ssh agree with the desktop),
each with ``/ipcpoll`` inside; else ``/tmp/ipcpoll-UID``. Nothing is created here but by
`make_runtime_directory`, and that makes only the last part.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from os import PathLike
from pathlib import Path
from typing import Final

from .errors import UnsafeAddress

MOST_PATH_BYTES: Final = 107
"""sun_path of unix(7) has 108 bytes on Linux, one for the closing NUL."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_OTHERS: Final = 0o077


def runtime_path(name: str) -> Path:
    """Return where the socket of this name lies, whether or not it is there.

    Reads the environment and looks at directories; does not block and creates nothing. Raises
    ValueError for what is no name: 1 to 64 letters, digits, ``.``, ``_`` and ``-``, no leading dot.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for a server: 1 to 64 letters, digits, '.', '_' or '-', "
            "and no leading dot; a path needs a slash"
        )
    return _runtime_directory() / f"{name}.sock"


def socket_path(address: str | PathLike[str]) -> str:
    """Return the absolute path of an address, which is a name or a path."""
    if is_name(address):
        return str(runtime_path(str(address)))
    return os.path.abspath(os.fspath(address))


def is_name(address: str | PathLike[str]) -> bool:
    """Return whether an address is a name and not a path."""
    return isinstance(address, str) and "/" not in address


def check_length(path: str) -> None:
    """Raise OSError (ENAMETOOLONG) for a path that no socket can have."""
    size = len(os.fsencode(path))
    if size > MOST_PATH_BYTES:
        raise OSError(
            errno.ENAMETOOLONG,
            f"a socket's path may have {MOST_PATH_BYTES} bytes, this has {size}",
            path,
        )


def make_runtime_directory(path: str) -> None:
    """Make the directory that a name's `path` lies in, for this user alone, unless it is there.

    Raises UnsafeAddress when it is there and another user owns it or can enter it.
    """
    directory = os.path.dirname(path)
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        pass
    if not _is_private(directory):
        raise UnsafeAddress(
            f"{directory} must be a directory of this user that nobody else can enter (mode 0700)"
        )


def _runtime_directory() -> Path:
    uid = os.geteuid()
    for base in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{uid}"):
        if base.startswith("/") and _is_private(base):
            return Path(base) / "ipcpoll"
    return Path(f"/tmp/ipcpoll-{uid}")


def _is_private(directory: str) -> bool:
    try:
        status = os.lstat(directory)
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & _OTHERS
    )
