"""To become another user before anything is asked: what ``--user NAME`` does, for root.

So an administrator reaches the programs of others, and nothing changes in whom those trust: they
see a process of their own user.

What is promised: it is that user wholly and for good, with his groups, or nothing has changed; and
the environment leads where his own login would.
"""

from __future__ import annotations

import os
import pwd

from .exits import Ended, Exit, Usage

_LEAD_TO_ROOTS = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")


def become(name: str) -> None:
    """Become the user of this name, or number. Raises Usage, and Ended where that is not allowed.

    Does nothing where this process is that user's already.
    """
    user = _found(name)
    if os.getresuid() == (user.pw_uid,) * 3:
        return
    if os.geteuid() != 0:
        raise Ended(
            Exit.NOT_ALLOWED,
            f"only root can become user {user.pw_name}: sudo ipcpoll --user {user.pw_name} …",
        )
    os.initgroups(user.pw_name, user.pw_gid)
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    _lead_to(user)


def _found(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        raise Usage(f"there is no user {name!r} on this machine") from None


def _lead_to(user: pwd.struct_passwd) -> None:
    for variable in _LEAD_TO_ROOTS:
        os.environ.pop(variable, None)
    os.environ.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)
    runtime = f"/run/user/{user.pw_uid}"
    if os.path.isdir(runtime):
        os.environ["XDG_RUNTIME_DIR"] = runtime
    else:
        os.environ.pop("XDG_RUNTIME_DIR", None)
