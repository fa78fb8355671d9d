"""After a fork, what a parent made belongs to the parent.

A forked child shares the parent's epoll set, sockets and lock: an unregistration would make the
parent deaf, an answer would be sent twice. So everything that holds such descriptors is listed
here while it lives, and in the child each is told to let go of them (`after_fork`).
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

IN_CHILD = "this process was forked from the one that made it, and it belongs to the parent"


class _HoldsDescriptors(Protocol):
    def after_fork(self) -> None:
        """Close the descriptors in the child; neither unregister nor unlink anything."""
        ...


_living: weakref.WeakSet[_HoldsDescriptors] = weakref.WeakSet()


def watch(thing: _HoldsDescriptors) -> None:
    """Tell `thing` when this process turns out to be a forked child. Held weakly."""
    _living.add(thing)


def unwatch(thing: _HoldsDescriptors) -> None:
    """Forget it. Idempotent."""
    _living.discard(thing)


def _tell_all() -> None:
    for thing in list(_living):
        thing.after_fork()
    _living.clear()


os.register_at_fork(after_in_child=_tell_all)
