"""How much memory this process has, and what a connection's share of it is made of."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from part import Figures

from ipcpoll import Server

_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's


def anonymous_bytes() -> int:
    """Return the bytes of this process that no file stands behind, and that are in use.

    What was freed is collected first, and given back to the kernel where the C library can.
    """
    gc.collect()
    if _TRIM is not None:
        _TRIM(0)
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("smaps_rollup(5) does not tell of anonymous memory")


def reachable(thing: object) -> dict[int, object]:
    """Return all that hangs on an object, by id."""
    found: dict[int, object] = {}
    waiting = [thing]
    while waiting:
        each = waiting.pop()
        if id(each) not in found:
            found[id(each)] = each
            waiting.extend(gc.get_referents(each))
    return found


def bill(server: Server[Any]) -> Figures:
    """Return what belongs to one idle connection alone, by type, in bytes of `sys.getsizeof`.

    That is what hangs on it and not on another one. What `getsizeof` does not tell (the values of
    instances that have no dict yet, the allocator's rounding, the server's own table) is the
    difference to the measured figure.
    """
    *_, other, one = server._clients.connections.values()
    shared = reachable(other)
    sizes: Counter[str] = Counter()
    for key, each in reachable(one).items():
        if key not in shared:
            sizes[type(each).__name__] += sys.getsizeof(each)
    parts = ", ".join(f"{name} {size}" for name, size in sizes.most_common())
    return {"memory per idle connection, bytes by sys.getsizeof": f"{sizes.total()}: {parts}"}
