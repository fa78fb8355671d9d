"""Where a socket lies: from what the user typed to an absolute path.

A `str` without a slash is a *name*: the socket lies in the user's private runtime directory, the
same for server, client and command line. A `str` with a slash, or any `PathLike`, is a *path*.

A name leads to one place for everybody who can see it. The runtime directory is the first of these
that is a directory of this user which nobody else can enter: ``$XDG_RUNTIME_DIR``,
``/run/user/UID`` (so that cron, sudo and ssh agree with the desktop), each with ``/ipcpoll``
inside; else ``/tmp/ipcpoll-UID``. A variable that is set and can't be used is said once in the log:
`sudo -E` keeps that of another user. ``$TMPDIR`` is not asked: server and client may have different
ones.

A program that was started without a session, before ``/run/user/UID`` was there, has its socket in
``/tmp``. Whoever has a session looks there too, where nobody serves in the first place (`places`).
A ``$XDG_RUNTIME_DIR`` of one's own choice, other than the login's, is taken as a wish to be apart.

Nothing is created here.
"""

from __future__ import annotations

import os
import re
from os import PathLike
from pathlib import Path
from typing import Any, Final

from .._shown import shown_path, shown_value
from .._system.log import logger
from .directory import why_not_private

_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")

_VARIABLE: Final = "XDG_RUNTIME_DIR"
_LOGINS: Final = "/run/user"
_SHARED: Final = "/tmp"
_SUFFIX: Final = ".sock"
_passed_over: set[str] = set()


def runtime_path(name: str) -> Path:
    """Return where the socket of this name lies, whether or not it is there.

    A server is made there. A client that finds nobody there also looks where a program without a
    session would be, see the module's docstring.

    Reads the environment and looks at directories; does not block and creates nothing. Raises
    ValueError for what is no name: 1 to 64 letters, digits, ``.``, ``_`` and ``-``, no leading dot,
    and no ``.sock`` at the end, which it gets itself.
    """
    return Path(places(name)[0])


def places(name: str) -> list[str]:
    """Return where the socket of this name may lie, the first place first. Raises ValueError."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for a server: 1 to 64 letters, digits, '.', '_' or '-', "
            "and no leading dot; a path needs a slash"
        )
    if name.endswith(_SUFFIX):
        raise ValueError(
            f"{name!r} is no name for a server: a name has no {_SUFFIX} at the end (its file gets "
            f"one), write {name.removesuffix(_SUFFIX)!r}; a path needs a slash: './{name}'"
        )
    uid = os.geteuid()
    directories = [str(_runtime_directory())]
    if os.path.normpath(directories[0]) == f"{_of_login(uid)}/ipcpoll":
        directories.append(_without_session(uid))
    return [f"{directory}/{name}{_SUFFIX}" for directory in directories]


def socket_path(address: str | PathLike[str]) -> str:
    """Return the absolute path of an address, which is a name or a path.

    Raises ValueError for what is neither: a name with other letters, a path with a NUL, or one that
    begins with ``~``, for which shells stand in. TypeError for bytes.
    """
    return socket_paths(address)[0]


def socket_paths(address: str | PathLike[str]) -> list[str]:
    """Return `socket_path`, and behind it the other places of a name (`places`)."""
    if is_name(address):
        return places(str(address))
    try:
        path: Any = os.fspath(address)
    except TypeError:
        raise TypeError(f"an address is a str or a path, not {shown_value(address)}") from None
    if not isinstance(path, str):
        raise TypeError(f"an address is a str or a path of str, os.fsdecode() makes one: {path!r}")
    if not path:
        raise ValueError("the path of the socket is empty")
    if "\0" in path:
        raise ValueError(f"a path has no NUL: {path!r}")
    if path.startswith("~") and "/" in path:
        raise ValueError(
            f"{path!r}: a ~ is the shell's and not replaced here; write "
            f"os.path.expanduser({path!r}), or './{path}' for a directory of that name"
        )
    return [os.path.abspath(path)]


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
    usual = _of_login(uid)
    if _fault(usual) is None:
        return Path(usual) / "ipcpoll"
    return Path(_without_session(uid))


def _of_login(uid: int) -> str:
    return f"{_LOGINS}/{uid}"


def _without_session(uid: int) -> str:
    return f"{_SHARED}/ipcpoll-{uid}"


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
        logger.warning("%s is passed over: %s %s", _VARIABLE, shown_path(directory), fault)
