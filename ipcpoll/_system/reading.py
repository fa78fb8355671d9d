"""How much one read takes: few bytes as a rule, many while they come. No I/O.

Python makes room for all that a read may bring before it reads, and 64 KiB of room cost as much as
the system call itself. So a read begins small, and grows as long as it is filled.
"""

from __future__ import annotations

from typing import Final

from ..limits import KIB

FIRST_READ: Final = 4 * KIB
"""Bytes of a usual read."""

_GROWTH: Final = 4


def next_read(size: int, got: int, largest: int) -> int:
    """Return how many bytes the next read takes, behind one of `size` that brought `got`."""
    return min(size * _GROWTH if got >= size else FIRST_READ, largest)
