"""How slow this machine is now, for bounds on CPU time that must hold under load, too."""

from __future__ import annotations

import time

import cbor2

_TEN_THOUSAND_ARRAYS = b"\x99\x27\x10" + 10_000 * b"\x80"


def slowness() -> float:
    """Return by how much this machine is slower now than one for which the bounds were set.

    By what cbor2 alone takes for 25 times 10,000 arrays: 19 ms there with CPython 3.11, 37 with
    3.12. Not for 250,000 at once, or their memory would be looked for in the server.
    """
    begin = time.thread_time()
    for _ in range(25):
        cbor2.loads(_TEN_THOUSAND_ARRAYS)
    return max(1.0, (time.thread_time() - begin) / 0.025)
