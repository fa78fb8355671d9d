"""Where a socket lies: from what the user typed to an absolute path.

A `str` without a slash is a *name*: the socket lies in the user's private runtime directory, the
same for server, client and command line. A `str` with a slash, or any `PathLike`, is a *path*.

The runtime directory is the first of these that is a directory of this user which nobody else can
enter: ``$XDG_RUNTIME_DIR``, ``/run/user/UID`` (so that cron, sudo and ssh agree with the desktop),
each with ``/ipcpoll`` inside; else ``/tmp/ipcpoll-UID``. A variable that is set and can't be used
is said once in the log: `sudo -E` keeps that of another user. ``$TMPDIR`` is not asked: server and
client may have different ones.

Nothing is created here.
"""

from __future__ import annotations

import os
import re
from os import PathLike
from pathlib import Path
from typing import Final

from .directory import why_not_private
from .log import logger

_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")

_VARIABLE: Final = "XDG_RUNTIME_DIR"
_passed_over: set[str] = set()


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


def _runtime_directory() -> Path:
    uid = os.geteuid()
    wished = os.environ.get(_VARIABLE, "")
    if wished:
        fault = _fault(wished)
        if fault is None:
            return Path(wished) / "ipcpoll"
        _say_once(wished, fault)
    usual = f"/run/user/{uid}"
    if _fault(usual) is None:
        return Path(usual) / "ipcpoll"
    return Path(f"/tmp/ipcpoll-{uid}")


def _fault(directory: str) -> str | None:
    """Return why a directory can't be the runtime directory, None if it can."""
    if not directory.startswith("/"):
        return "is no absolute path"
    try:
        return why_not_private(os.lstat(directory))
    except OSError as error:
        return f"can't be looked at ({error.strerror})"


def _say_once(directory: str, fault: str) -> None:
    if directory not in _passed_over:
        _passed_over.add(directory)
        logger.warning("%s is passed over: %s %s", _VARIABLE, directory, fault)
